"""The pool of a task: every candidate once, and for each query which of them it is ranked against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.mmeb_v2.items import Candidate, Item, Key, Query
from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant


@dataclass(frozen=True)
class PooledQuery:
    """A query whose candidates are numbers in the pool.

    Attributes:
        item: The query itself.
        candidates: Numbers of the row's own candidates, duplicates kept, int32; None where the whole pool is ranked.
        labels, grades: As in `Query`.
    """

    item: Item
    candidates: NDArray[np.int32] | None
    labels: tuple[Key, ...]
    grades: tuple[int, ...] | None


@dataclass(frozen=True)
class Pool:
    """A task ready to be embedded and scored.

    Attributes:
        task, variant: What it is.
        queries: In the order of the rows.
        candidates: Each key once; where two rows disagree about a key, the first is kept.
    """

    task: Task
    variant: Variant
    queries: list[PooledQuery]
    candidates: list[Candidate]

    @property
    def keys(self) -> list[Key]:
        """The candidates' keys, in their order."""
        return [candidate.key for candidate in self.candidates]

    @property
    def items(self) -> list[Item]:
        """Everything to embed: the queries, then the candidates."""
        return [query.item for query in self.queries] + [candidate.item for candidate in self.candidates]


def make_pool(task: Task, variant: Variant, queries: Iterable[Query], corpus: Iterable[Candidate]) -> Pool:
    """Walks the queries in their order, then the corpus; the first occurrence of a key wins.

    Raises:
        ValueError: there are no queries, or a row has no candidates.
    """
    numbers: dict[Key, int] = {}
    candidates: list[Candidate] = []

    def number_of(candidate: Candidate) -> int:
        number = numbers.setdefault(candidate.key, len(candidates))
        if number == len(candidates):
            candidates.append(candidate)
        return number

    pooled = []
    for query in queries:
        own = np.fromiter(map(number_of, query.candidates), dtype=np.int32, count=len(query.candidates))
        if not task.is_global and len(own) == 0:
            raise ValueError(f"query {len(pooled)} has no candidates")
        pooled.append(PooledQuery(query.item, None if task.is_global else own, query.labels, query.grades))
    for candidate in corpus:
        number_of(candidate)
    if not pooled:
        raise ValueError("there are no queries")
    return Pool(task, variant, pooled, candidates)
