"""Confidence intervals by bootstrap over queries, or over what several queries have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def interval(mean: float, means: NDArray[np.float64]) -> Estimate:
    """A mean with the 2.5th and 97.5th percentile of its bootstrap samples `[resamples]`."""
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(mean, float(low), float(high))


def resampled_means(values: NDArray[np.float64], resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Means over queries drawn with replacement, `[resamples, C]`.

    All columns share the draws: the difference of two columns is a paired bootstrap of their difference.

    Args:
        values: `[Q, C]`, a row a query, a column a model.
        resamples: How many samples.
        generator: Draws the queries.

    Raises:
        ValueError: there are no queries.
    """
    count = len(values)
    if count == 0:
        raise ValueError("there is nothing to estimate: a task has no queries.")
    rows, parts = max(1, _AT_ONCE // count), []
    for start in range(0, resamples, rows):
        drawn = generator.integers(count, size=(min(rows, resamples - start), count))
        times = np.stack([np.bincount(row, minlength=count) for row in drawn])  # [rows, Q], how often each was drawn
        parts.append(times @ values / count)
    return np.concatenate(parts)


def cluster_weights(count: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Random weights of clusters of queries, `[resamples, count]`, for a Bayesian bootstrap (Rubin 1981).

    They are exponentially distributed, so that no task ever lacks all of its queries, and whole numbers, in
    thousandths of their mean, so that sums of hits are exact: two equal models have a difference of 0.
    """
    return np.ceil(1000 * generator.exponential(size=(resamples, count)))


def weighted_means(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over weighted queries, `[resamples, C]`.

    Args:
        values: `[Q, C]`, a row a query, a column a model.
        weights: `[resamples, Q]`, above 0; alike for queries of one cluster, in all tasks whose means are compared or
            averaged.
    """
    return weights @ values / weights.sum(axis=1, keepdims=True)
