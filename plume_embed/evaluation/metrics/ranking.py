"""What the metrics compute for one query, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

Id = TypeVar("Id", bound="str | int")

CUTOFFS = (1, 5, 10)
GAINS = ("linear", "exponential")


def hit(ranking: Sequence[Id], correct: Sequence[Id], k: int) -> float:
    """1 if a correct candidate is among the first k, else 0."""
    return float(any(candidate in correct for candidate in ranking[:k]))


def ndcg(ranking: Sequence[Id], grades: Mapping[Id, int], k: int, gain: str = "linear") -> float:
    """Discounted gain of the first k over that of the best order; 0 where nothing is relevant.

    Args:
        ranking: Ids, best first.
        grades: How relevant each correct candidate is.
        k: Where the ranking is cut.
        gain: "linear" counts a grade as it is, "exponential" as `2**grade - 1`.
    """
    reached = _discounted([grades.get(candidate, 0) for candidate in ranking[:k]], gain)
    ideal = _discounted(sorted(grades.values(), reverse=True)[:k], gain)
    return reached / ideal if ideal > 0 else 0.0


def _discounted(grades: Sequence[int], gain: str) -> float:
    total = 0.0
    for rank, grade in enumerate(grades):
        total += (grade if gain == "linear" else 2**grade - 1) / math.log2(rank + 2)
    return total
