"""Models side by side on the miniature's stills: Hit@1 with confidence intervals, latency, pixel baseline.

Any model that sentence-transformers loads is a peer in the same table. A task that a model cannot take (pictures, for
a text model) has no score, and then neither has its mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from .bootstrap import RESAMPLES, Estimate, estimate
from .embedders import Embedder, InputError
from .miniature import baseline
from .miniature.score import first_correct_ranks
from .miniature.tasks import Item, RetrievalTask, all_tasks, inputs, load

PIXELS = "16x16 thumbnails"
_PART = 512


@dataclass(frozen=True)
class Contestant:
    """One column of the table.

    Attributes:
        name: What it is.
        hits: For each task 1 where the first candidate is correct, else 0, `[Q]`; None where it cannot take the task.
        ms_per_item: Mean time of embedding one item; None for the pixel baseline.
    """

    name: str
    hits: list[NDArray[np.int64] | None]
    ms_per_item: float | None = None
    num_latent_steps: int | None = None
    paradigm: str | None = None

    def task_estimate(self, task: int, resamples: int = RESAMPLES) -> Estimate | None:
        """Hit@1 of one task with its interval."""
        hits = self.hits[task]
        return None if hits is None else estimate([hits], resamples)

    def mean_estimate(self, resamples: int = RESAMPLES) -> Estimate | None:
        """The mean Hit@1 over the tasks; None unless there are all."""
        if any(hits is None for hits in self.hits):
            return None
        return estimate([hits for hits in self.hits if hits is not None], resamples)


def evaluate(
    data: Path,
    embedders: Sequence[Embedder],
    batch_size: int = 32,
    country_flags: bool = True,
    with_pixels: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[RetrievalTask], list[Contestant]]:
    """Scores the models on the three tasks, for known and for unseen concepts.

    Args:
        data: What `python -m evaluation.miniature.build` wrote.
        embedders: The models.
        batch_size: Items per pass of a model.
        country_flags: Whether the pool holds the country flags.
        with_pixels: Whether the pixel baseline is the last column.
        on_progress: Called with (items done, items in all) of the model at work.

    Raises:
        FileNotFoundError: no miniature at `data`.
    """
    pictures, rows = load(data)
    tasks = all_tasks(rows, country_flags)
    contestants = [_contest(embedder, tasks, pictures, batch_size, on_progress) for embedder in embedders]
    if with_pixels:
        thumbnails = baseline.thumbnails(pictures)
        similarities = [baseline.similarity(task, rows, thumbnails) for task in tasks]
        contestants.append(Contestant(PIXELS, [_hits(s, task) for s, task in zip(similarities, tasks, strict=True)]))
    return tasks, contestants


def _contest(
    embedder: Embedder,
    tasks: Sequence[RetrievalTask],
    pictures: Dataset,
    batch_size: int,
    on_progress: Callable[[int, int], None],
) -> Contestant:
    distinct = list(dict.fromkeys(item for task in tasks for item in (*task.queries, *task.candidates)))
    vectors: dict[Item, NDArray[np.float32]] = {}
    refused: set[str] = set()
    seconds = 0.0
    for kind in ("text", "image"):
        items = [item for item in distinct if isinstance(item, str) == (kind == "text")]
        for start in range(0, len(items), _PART):
            part = items[start : start + _PART]
            ready: list[dict[str, Any]] = [{kind: content} for content in inputs(part, pictures)]
            begun = time.perf_counter()
            try:
                embedded = embedder.embed(ready, batch_size)
            except InputError:
                refused.add(kind)
                break
            seconds += time.perf_counter() - begun
            vectors.update(zip(part, embedded, strict=True))
            on_progress(len(vectors), len(distinct))
    hits = [None if _kinds(task) & refused else _hits(_similarity(task, vectors), task) for task in tasks]
    name = embedder.name if embedder.num_latent_steps is None else f"{embedder.name} K={embedder.num_latent_steps}"
    speed = 1000 * seconds / len(vectors) if vectors else None
    return Contestant(name, hits, speed, embedder.num_latent_steps, embedder.paradigm)


def table(tasks: Sequence[RetrievalTask], contestants: Sequence[Contestant], resamples: int = RESAMPLES) -> Table:
    """Hit@1 in percent with 95 % intervals, a row a task."""
    shown = Table(title="Hit@1 with 95 % intervals (bootstrap over queries)", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("task", "concepts"):
        shown.add_column(column, no_wrap=True)
    for column in ("queries", "pool", *(contestant.name for contestant in contestants)):
        shown.add_column(column, justify="right")
    for number, task in enumerate(tasks):
        cells = (contestant.task_estimate(number, resamples) for contestant in contestants)
        counts = (f"{len(task.queries):,}", f"{len(task.candidates):,}")
        shown.add_row(task.name, task.split, *counts, *(_cell(value) for value in cells))
    shown.add_section()
    shown.add_row("mean", "", "", "", *(_cell(contestant.mean_estimate(resamples)) for contestant in contestants))
    speeds = (f"{c.ms_per_item:.1f}" if c.ms_per_item is not None else "-" for c in contestants)
    shown.add_row("ms per item", "", "", "", *speeds)
    return shown


def as_json(
    tasks: Sequence[RetrievalTask], contestants: Sequence[Contestant], resamples: int = RESAMPLES
) -> dict[str, Any]:
    """The same for a program; shares between 0 and 1."""
    models = []
    for contestant in contestants:
        scores = [
            {"task": task.name, "concepts": task.split, "hit@1": _numbers(contestant.task_estimate(number, resamples))}
            for number, task in enumerate(tasks)
        ]
        models.append(
            {
                "model": contestant.name,
                "paradigm": contestant.paradigm,
                "num_latent_steps": contestant.num_latent_steps,
                "ms_per_item": contestant.ms_per_item,
                "mean": _numbers(contestant.mean_estimate(resamples)),
                "tasks": scores,
            }
        )
    sizes = [{"task": t.name, "concepts": t.split, "queries": len(t.queries), "pool": len(t.candidates)} for t in tasks]
    return {"benchmark": "miniature stills", "tasks": sizes, "models": models}


def _similarity(task: RetrievalTask, vectors: dict[Item, NDArray[np.float32]]) -> NDArray[np.float32]:
    queries = np.stack([vectors[item] for item in task.queries])
    return queries @ np.stack([vectors[item] for item in task.candidates]).T


def _hits(similarity: NDArray[np.floating], task: RetrievalTask) -> NDArray[np.int64]:
    return (first_correct_ranks(similarity, task.positives) == 1).astype(np.int64)


def _kinds(task: RetrievalTask) -> set[str]:
    return {"text" if isinstance(item, str) else "image" for item in (task.queries[0], task.candidates[0])}


def _cell(value: Estimate | None) -> str:
    return "-" if value is None else str(value)


def _numbers(value: Estimate | None) -> list[float] | None:
    return None if value is None else [value.mean, value.low, value.high]
