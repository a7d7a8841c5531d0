"""Confidence intervals by bootstrap over queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, in the unit of the values."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def estimate(groups: Sequence[ArrayLike], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean over groups of each group's mean, with the 2.5th and 97.5th percentile of its bootstrap.

    Args:
        groups: For each task the values of its queries, e.g. 0 or 1; one task is a list of one.
        resamples: How many bootstrap samples; each draws every task's queries anew, with replacement.
        seed: The same seed gives the same interval.

    Raises:
        ValueError: no groups, or an empty one.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    if not arrays or any(len(array) == 0 for array in arrays):
        raise ValueError("there is nothing to estimate: a task has no queries.")
    generator = np.random.default_rng(seed)
    means = np.mean([_resampled_means(array, resamples, generator) for array in arrays], axis=0)  # [resamples]
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(np.mean([array.mean() for array in arrays])), float(low), float(high))


def _resampled_means(
    values: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    rows = max(1, _AT_ONCE // len(values))
    parts = [
        values[generator.integers(len(values), size=(min(rows, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)
