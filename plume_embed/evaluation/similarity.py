"""Similarities of unit vectors in which equal candidates are equal, and the order of candidates by them.

A tie must not be decided by rounding, and it counts against the query: a model that maps everything to one point would
find everything otherwise.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

_NORM_TOLERANCE = 1e-2  # bfloat16 holds a norm to three digits


def unfit(vectors: NDArray[np.floating]) -> dict[int, str]:
    """Why rows cannot be ranked, by place: NaN, infinite, or not of unit norm; {} where all can.

    Args:
        vectors: [N, D].
    """
    norms = np.linalg.norm(vectors, axis=1)
    return {
        int(place): f"has norm {norms[place]:.3f}; normalise embeddings to unit norm"
        if np.isfinite(norms[place])
        else "is NaN or infinite"
        for place in np.flatnonzero(~(np.abs(norms - 1) <= _NORM_TOLERANCE))  # NaN is at no distance
    }


def ranked(
    similarities: Iterable[NDArray[np.floating]], correct: Iterable[NDArray[np.bool_]]
) -> Iterator[NDArray[np.bool_]]:
    """For each query whether its candidates are right, best first, [P]. Of equals the wrong ones are first.

    Args:
        similarities: For each query [P], to each candidate of its pool.
        correct: For each query [P], which of them are right.

    Raises:
        ValueError: no candidate of a query is right, or a similarity is NaN.
    """
    for query, (similarity, is_correct) in enumerate(zip(similarities, correct, strict=True)):
        if not is_correct.any():
            raise ValueError(f"query {query} has no correct candidate.")
        if np.isnan(similarity).any():
            raise ValueError(f"query {query} has a similarity that is NaN: look for zero or overflowed embeddings.")
        yield is_correct[np.lexsort((is_correct, -similarity))]


def similarities(queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dot products [Q, N].

    In a matrix product the last bits of a row depend on where it stands, so that two equal candidates need not come out
    equal. Each distinct candidate is multiplied once here.

    Args:
        queries: [Q, D].
        candidates: [N, D].

    Raises:
        ValueError: a vector that is NaN or infinite.
    """
    for what, rows in (("query", queries), ("candidate", candidates)):
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(broken):
            raise ValueError(f"the embedding of {what} {broken[0]} is NaN or infinite ({len(broken)} such in all)")
    first: dict[bytes, int] = {}  # by what a vector holds, its place among the distinct ones
    places: list[int] = []  # of each distinct one among the candidates
    numbers = np.empty(len(candidates), dtype=np.int64)
    for place, row in enumerate(np.ascontiguousarray(candidates)):
        key = hashlib.blake2b(row.data, digest_size=16).digest()
        if key not in first:
            first[key] = len(places)
            places.append(place)
        numbers[place] = first[key]
    if len(places) == len(candidates):
        return queries @ candidates.T
    return (queries @ candidates[places].T)[:, numbers]
