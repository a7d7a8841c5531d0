"""Scores of a ranking: Hit@1 and NDCG@5 of each query through `evaluate`, and what chance gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.metrics import by_query

_DISCOUNTS = 1 / np.log2(np.arange(5) + 2)  # NDCG@5


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


def query_scores(
    similarities: Iterable[NDArray[np.floating]], correct: Iterable[NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Hit@1 and NDCG@5 of each query, `[Q, 2]`. Ties count against it, as in `first_correct_ranks`.

    Args:
        similarities: For each query `[P]`, to each candidate of its pool.
        correct: For each query `[P]`, which of them are correct; at least one is.
    """
    rankings, positives = [], []
    for similarity, is_correct in zip(similarities, correct, strict=True):
        first = np.lexsort((is_correct, -similarity))  # by similarity; among equals the wrong ones first
        rankings.append([str(number) for number in first[: len(_DISCOUNTS)]])
        positives.append([str(number) for number in np.flatnonzero(is_correct)])
    hits = by_query("hit_at_k", rankings, positives, k=1)
    gains = by_query("ndcg_at_k", rankings, positives, k=len(_DISCOUNTS))
    return np.stack([hits, gains], axis=1)


def chance_scores(num_correct: int, num_candidates: int) -> tuple[float, float]:
    """What `query_scores` gives on average if the pool stands in random order."""
    share, length = num_correct / num_candidates, min(len(_DISCOUNTS), num_candidates)
    return share, float(share * _DISCOUNTS[:length].sum() / _DISCOUNTS[:num_correct].sum())
