"""Similarities of unit vectors in which equal candidates are equal: a tie must not be decided by rounding."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def similarities(queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dot products [Q, N].

    In a matrix product the last bits of a row depend on where it stands, so that two equal candidates need not come out
    equal. Each distinct candidate is multiplied once here.

    Args:
        queries: [Q, D].
        candidates: [N, D].
    """
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
