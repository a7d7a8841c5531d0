"""How well a model finds the positives of pairs: each query among all positives and negatives of the rows.

An item of the pool that equals the query is no candidate of it, unless it is an answer: in a mirrored file or a chain
any model would put the query itself first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.metrics import by_query
from plume_embed.evaluation.similarity import ranked, similarities
from plume_embed.training.data.keys import item_key
from plume_embed.training.data.pair_rows import PairRow

HITS = (1, 5, 10)
NDCG = "ndcg_at_10"
SCORES = (*(f"hit_at_{k}" for k in HITS), NDCG)
_MOST = 10

# Items with the keys text, image, video and page, and where each stands -> vectors [N, D], of any norm.
Embed = Callable[[Sequence[dict[str, Any]], Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class PairPool:
    """Queries and what they are searched in, equal items once.

    Args:
        queries, pool (`dict[int, dict]`): Items by their key; a query has its instruction with it.
        answers (`dict[int, set[int]]`): Keys of the positives of each query.
        own (`dict[int, set[int]]`): Keys of the items that equal each query; its instruction is no part of it.
        where (`dict[int, str]`): File, line and side of each item, for messages.
    """

    queries: dict[int, dict[str, Any]] = field(default_factory=dict)
    pool: dict[int, dict[str, Any]] = field(default_factory=dict)
    answers: dict[int, set[int]] = field(default_factory=dict)
    own: dict[int, set[int]] = field(default_factory=dict)
    where: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[PairRow]) -> "PairPool":
        """All rows; a file that cannot be read raises ValueError, naming the row."""
        found = cls()
        for row in rows:
            sides = [
                ("query", row.question),
                ("positive", row.positive),
                *(("negative", item) for item in row.negatives),
            ]
            keys = [found._key(item, f"{row.where}: {name}") for name, item in sides]
            found.queries.setdefault(keys[0], row.question)
            found.own.setdefault(keys[0], set()).add(item_key(row.query))
            found.answers.setdefault(keys[0], set()).add(keys[1])
            for key, (_, item) in zip(keys[1:], sides[1:], strict=True):
                found.pool.setdefault(key, item)
        return found

    def _key(self, item: dict[str, Any], where: str) -> int:
        try:
            key = item_key(item)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        self.where.setdefault(key, where)
        return key

    def embedded(self, queries: Embed, documents: Embed) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors of the queries [Q, D] and of the pool [N, D], each by its own function."""
        sides = ((self.queries, queries), (self.pool, documents))
        asked, pool = (embed(list(side.values()), [self.where[key] for key in side]) for side, embed in sides)
        return asked, pool

    def scores(self, queries: NDArray[np.float32], pool: NDArray[np.float32]) -> dict[str, list[float]]:
        """Hits and NDCG in 0..1 of each query, by cosine; see [`ranked`].

        Raises:
            ValueError: a vector that is NaN, infinite or zero.
        """
        with np.errstate(invalid="ignore"):  # a zero vector becomes NaN, and is refused
            queries, pool = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, pool))
        alike = similarities(queries, pool)  # [Q, N]
        place = {key: number for number, key in enumerate(self.pool)}
        for row, key in enumerate(self.queries):
            for own in (self.own[key] - self.answers[key]) & self.pool.keys():
                alike[row, place[own]] = -np.inf  # behind all others, where it takes no place from them
        keys = np.array(list(self.pool))
        found = list(ranked(alike, (np.isin(keys, list(self.answers[key])) for key in self.queries)))
        rankings = [[str(number) for number in range(len(row))][:_MOST] for row in found]
        right = [[str(number) for number in np.flatnonzero(row)] for row in found]
        scores = {f"hit_at_{k}": by_query("hit_at_k", rankings, right, k=k) for k in HITS}
        grades = [[1] * len(labels) for labels in right]
        return scores | {NDCG: by_query("ndcg_at_k", rankings, right, grades=grades, k=_MOST, gain="linear")}


def mean_scores(scores: dict[str, list[float]]) -> dict[str, float]:
    """The means over queries."""
    return {name: float(np.mean(values)) for name, values in scores.items()}
