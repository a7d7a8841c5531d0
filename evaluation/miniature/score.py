"""Scores of a ranking. Needs numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def first_correct_ranks(similarity: NDArray[np.floating], positives: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """The rank of each query's best correct candidate.

    Ties count against the query: a wrong candidate that is as similar as the best correct one ranks before it, so that
    a model that maps everything to one point scores nothing.

    Args:
        similarity: `[Q, N]`, higher is more similar.
        positives: For each query the numbers of all correct candidates.

    Returns:
        `[Q]`, 1 is best.

    Raises:
        ValueError: If the shapes disagree, a query has no correct candidate, or a similarity is NaN.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or len(similarity) != len(positives):
        raise ValueError(f"similarity has shape {similarity.shape}; expected [{len(positives)}, candidates].")
    if np.isnan(similarity).any():
        query = int(np.isnan(similarity).any(axis=1).argmax())
        raise ValueError(f"similarity holds NaN, first at query {query}: look for zero or overflowed embeddings.")
    ranks = np.empty(len(positives), dtype=np.int64)
    for query, correct in enumerate(positives):
        if len(correct) == 0:
            raise ValueError(f"query {query} has no correct candidate.")
        best = similarity[query, list(correct)].max()
        wrong = np.ones(similarity.shape[1], dtype=bool)
        wrong[list(correct)] = False
        ranks[query] = 1 + np.count_nonzero(similarity[query, wrong] >= best)
    return ranks


def hit_at_k(similarity: NDArray[np.floating], positives: Sequence[Sequence[int]], k: int = 1) -> float:
    """The share of queries with a correct candidate among the first k; see `first_correct_ranks`.

    Raises:
        ValueError: Also if k is below 1 or there are no queries.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more.")
    if len(positives) == 0:
        raise ValueError("there are no queries to score.")
    return float((first_correct_ranks(similarity, positives) <= k).mean())
