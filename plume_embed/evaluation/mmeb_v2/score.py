"""Ranks and scores: hit, NDCG, precision, recall, F1, MAP, MRR at 1, 5 and 10.

Hit and NDCG come from the package's metrics for Hugging Face's `evaluate`. The formulas are upstream's. One of its
habits is computed twice: with graded relevance it puts the labels through `list(set(...))` and keeps the grades in the
old order, so that grades change owners. The plain key holds the right value (equal to pytrec_eval's),
`..._upstream_order` what upstream would print.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.metrics import by_query
from plume_embed.evaluation.metrics.ranking import CUTOFFS, GAINS
from plume_embed.evaluation.mmeb_v2.candidates import Pool
from plume_embed.evaluation.mmeb_v2.items import Key
from plume_embed.evaluation.similarity import similarities, unfit

UPSTREAM_ORDER = "_upstream_order"


@dataclass(frozen=True)
class Prediction:
    """The first candidates of a query, best first, beside what is correct.

    Attributes:
        keys: Keys of the first ten candidates (fewer in a smaller pool), best first.
        labels: Keys of all correct candidates.
        grades: How relevant each label is; None where relevance is yes or no.
    """

    keys: list[Key]
    labels: tuple[Key, ...]
    grades: tuple[int, ...] | None


def predict(pool: Pool, queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> list[Prediction]:
    """Ranks the pool for each query by the dot product of unit vectors, best first.

    Equal similarities keep the order of the pool (upstream leaves theirs to the processor's sorting instructions).

    Args:
        pool: The task.
        queries: `[Q, D]`, in the pool's order.
        candidates: `[N, D]`, in the pool's order.

    Raises:
        ValueError: shapes that do not fit, NaN, or vectors that are not of unit norm, naming the first.
    """
    _check_vectors("query", queries, len(pool.queries))
    _check_vectors("candidate", candidates, len(pool.candidates))
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, candidates {candidates.shape[1]}")
    keys, most = pool.keys, max(CUTOFFS)
    return [
        Prediction([keys[own[place]] for place in np.argsort(-found, kind="stable")[:most]], query.labels, query.grades)
        for query, (own, found) in zip(pool.queries, _in_pools(pool, queries, candidates), strict=True)
    ]


def score(predictions: Sequence[Prediction]) -> dict[str, float | int]:
    """All scores of a task, 0..1, in upstream's order of keys; then the ones in upstream's label order, where graded.

    `..._upstream_order` is left out where it cannot be told: for graded labels that are strings, upstream's order
    changes from run to run with Python's hash seed.

    Raises:
        ValueError: no predictions, or one without labels.
    """
    if not predictions:
        raise ValueError("there are no queries to score")
    unlabelled = [number for number, prediction in enumerate(predictions) if not prediction.labels]
    if unlabelled:
        raise ValueError(f"query {unlabelled[0]} has no correct candidate")
    graded = any(prediction.grades is not None for prediction in predictions)
    rankings = [_ids(p.keys) for p in predictions]
    labels = [_ids(p.labels) for p in predictions]
    grades = [_grades(p) for p in predictions]
    scores: dict[str, float | int] = {}
    scores |= {f"hit@{k}": float(np.mean(by_query("hit_at_k", rankings, labels, k=k))) for k in CUTOFFS}
    scores |= _ndcg(rankings, labels, grades)
    scores |= _means("precision", _precision, predictions)
    scores |= _means("recall", _recall, predictions)
    scores |= _means("f1", _f1, predictions)
    scores |= _means("map", _average_precision, predictions)
    scores |= _means("mrr", _reciprocal_rank, predictions)
    scores |= {"num_pred": len(predictions), "num_data": len(predictions)}
    if graded and all(_order_is_known(p) for p in predictions):
        moved = [_ids(list(set(p.labels))) for p in predictions]
        scores |= {f"{name}{UPSTREAM_ORDER}": value for name, value in _ndcg(rankings, moved, grades).items()}
    return scores


def count_ties(pool: Pool, queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> int:
    """How many queries have a wrong candidate exactly as similar as the most similar correct one.

    A model that maps everything to one point has ties everywhere and, in pools that list the correct candidate first,
    a perfect score: a number above zero is a warning.
    """
    keys, ties = pool.keys, 0
    for query, (own, found) in zip(pool.queries, _in_pools(pool, queries, candidates), strict=True):
        correct = np.fromiter((keys[number] in query.labels for number in own), dtype=bool, count=len(own))
        ties += bool(correct.any() and (found[~correct] == found[correct].max()).any())
    return ties


def _in_pools(
    pool: Pool, queries: NDArray[np.float32], candidates: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """For each query the numbers of its candidates, [P], and its similarity to them, [P]."""
    if pool.task.is_global:
        everything = np.arange(len(candidates))
        yield from ((everything, found) for found in similarities(queries, candidates))
        return
    for query, vector in zip(pool.queries, queries, strict=True):
        own = np.asarray(query.candidates)
        yield own, similarities(vector[None], candidates[own])[0]


def _ids(keys: Sequence[Key]) -> list[str]:
    """Keys as the metrics take them; a number and a text that spells it stay two."""
    return [repr(key) for key in keys]


def _grades(prediction: Prediction) -> list[int]:
    return [1] * len(prediction.labels) if prediction.grades is None else list(prediction.grades)


def _order_is_known(prediction: Prediction) -> bool:
    grades = prediction.grades or ()
    return len(set(grades)) <= 1 or all(type(label) is int for label in prediction.labels)


def _ndcg(rankings: Sequence[list[str]], labels: Sequence[list[str]], grades: Sequence[list[int]]) -> dict[str, float]:
    return {
        f"ndcg_{gain}@{k}": float(np.mean(by_query("ndcg_at_k", rankings, labels, grades=grades, k=k, gain=gain)))
        for gain in GAINS
        for k in CUTOFFS
    }


def _means(name: str, metric, predictions: Sequence[Prediction]) -> dict[str, float]:
    return {f"{name}@{k}": float(np.mean([metric(p, k) for p in predictions])) for k in CUTOFFS}


def _num_correct(prediction: Prediction, k: int) -> int:
    return len(set(prediction.keys[:k]) & set(prediction.labels))


def _precision(prediction: Prediction, k: int) -> float:
    return _num_correct(prediction, k) / k


def _recall(prediction: Prediction, k: int) -> float:
    return _num_correct(prediction, k) / len(set(prediction.labels))


def _f1(prediction: Prediction, k: int) -> float:
    precision, recall = _precision(prediction, k), _recall(prediction, k)
    return 2 * (precision * recall) / (precision + recall) if precision + recall > 0 else 0.0


def _average_precision(prediction: Prediction, k: int) -> float:
    hits, total = 0, 0.0
    for rank, key in enumerate(prediction.keys[:k], start=1):
        if key in prediction.labels:
            hits += 1
            total += hits / rank
    return total / min(len(set(prediction.labels)), k)


def _reciprocal_rank(prediction: Prediction, k: int) -> float:
    for rank, key in enumerate(prediction.keys[:k], start=1):
        if key in prediction.labels:
            return 1.0 / rank
    return 0.0


def _check_vectors(kind: str, vectors: NDArray[np.float32], expected: int) -> None:
    if vectors.ndim != 2 or len(vectors) != expected:
        raise ValueError(f"the {kind} embeddings have shape {vectors.shape}, expected [{expected}, D]")
    for place, reason in unfit(vectors).items():
        raise ValueError(f"the embedding of {kind} {place} {reason}")
