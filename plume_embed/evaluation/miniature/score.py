"""Scores of a ranking: Hit@1 and NDCG@5 of each query through `evaluate`, and what chance gives."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.metrics import by_query
from plume_embed.evaluation.similarity import ranked

_DISCOUNTS = 1 / np.log2(np.arange(5) + 2)  # NDCG@5


def query_scores(
    similarities: Iterable[NDArray[np.floating]], correct: Iterable[NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Hit@1 and NDCG@5 of each query, `[Q, 2]`; see [`ranked`].

    Args:
        similarities: For each query `[P]`, to each candidate of its pool.
        correct: For each query `[P]`, which of them are correct.

    Raises:
        ValueError: no candidate of a query is correct, or a similarity is NaN.
    """
    found = list(ranked(similarities, correct))
    rankings = [[str(place) for place in range(len(right))][: len(_DISCOUNTS)] for right in found]
    positives = [[str(place) for place in np.flatnonzero(right)] for right in found]
    hits = by_query("hit_at_k", rankings, positives, k=1)
    gains = by_query("ndcg_at_k", rankings, positives, k=len(_DISCOUNTS))
    return np.stack([hits, gains], axis=1)


def chance_scores(num_correct: int, num_candidates: int) -> tuple[float, float]:
    """What `query_scores` gives on average if the pool stands in random order."""
    share, length = num_correct / num_candidates, min(len(_DISCOUNTS), num_candidates)
    return share, float(share * _DISCOUNTS[:length].sum() / _DISCOUNTS[:num_correct].sum())
