"""Which queries of the miniature ask about the same thing, in whatever task: they are right or wrong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.miniature.schema import Side, Task


def clusters(tasks: Sequence[Task]) -> tuple[list[NDArray[np.int64]], int]:
    """What each query asks about, as a number that all tasks share.

    That is the concept, scene, film or page of the medium that a query shows. A text alone asks about the medium of its
    answer: "text to clip" and "clip to text" ask about the same concepts, and a task and its hard form by the same
    queries.

    Returns:
        For each task `[Q]`, and how many things there are.
    """
    answers: dict[str, str] = {}  # of texts; the first task that has a text counts
    for task in tasks:
        for query in task.queries:
            if not _medium(query.side):
                answers.setdefault(query.side.text, _medium(task.candidates[query.positives[0]]))
    numbers: dict[str, int] = {}
    found = []
    for task in tasks:
        media = (_medium(query.side) or answers[query.side.text] or query.side.text for query in task.queries)
        # A medium is `STYLE/HEXCODE` or `GROUP/.../NAME`: a concept keeps its name in all styles and in motion.
        names = [medium.rpartition("/")[2] for medium in media]
        found.append(np.array([numbers.setdefault(name, len(numbers)) for name in names]))
    return found, len(numbers)


def _medium(side: Side) -> str:
    return side.image or side.video
