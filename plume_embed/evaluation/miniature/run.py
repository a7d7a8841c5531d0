"""Models side by side on the miniature's nine meta-tasks: each thing embedded once, each query ranked in its own pool.

Any model that sentence-transformers loads is a peer. A task that a model cannot take (pictures, for a text model) has
no score; one that cannot be computed (a damaged picture) is named with its reason, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plume_embed.encode.rationale import Written
from plume_embed.evaluation.embedders import Embedder, check_names, column_name
from plume_embed.evaluation.latency import NUM_ITEMS, ROUNDS, ms_per_item
from plume_embed.evaluation.miniature import thumbnails
from plume_embed.evaluation.miniature.media import MediaError, MediaStore, kinds
from plume_embed.evaluation.miniature.schema import META_TASKS, Side, Task, read_tasks
from plume_embed.evaluation.miniature.score import query_scores
from plume_embed.evaluation.similarity import similarities, unfit

if TYPE_CHECKING:
    from plume_embed.evaluation.miniature.store import ScoreStore

# What is decoded at once: at most so many items and pixels.
_PART_ITEMS, _PART_PIXELS = 512, 1 << 25


@dataclass(frozen=True)
class Contestant:
    """A model's scores, by the place of the task in the list of tasks.

    Attributes:
        name: For the head of its column.
        scores: `[Q, 2]`, Hit@1 and NDCG@5 of each query; missing for a task that it cannot take or that failed.
        failures: Why a task that it takes has no scores.
        weights: The name of the model without its paradigm, which several columns may share.
        fingerprint: Of the weights and everything else that decides the vectors; None for the pixels.
        paradigm, num_latent_steps: See `Embedder`; None for the pixels.
        num_items: How many things were embedded.
        seconds: How long that took by the clock, media decoded beforehand.
        ms_per_item: Milliseconds of one item by the batch size, measured in turn with the other models.
        written: Its rationales; None for a model that writes none.
    """

    name: str
    scores: Mapping[int, NDArray[np.float64]]
    failures: Mapping[int, str] = field(default_factory=dict)
    weights: str | None = None
    fingerprint: str | None = None
    paradigm: str | None = None
    num_latent_steps: int | None = None
    num_items: int = 0
    seconds: float = 0.0
    ms_per_item: Mapping[int, float] = field(default_factory=dict)
    written: Written | None = None


def select(tasks: Sequence[Task], names: Sequence[str] | None = None, meta: Sequence[str] | None = None) -> list[Task]:
    """The tasks of these names or meta-tasks; all if neither is given.

    Raises:
        ValueError: a name that no task has, with the names that there are.
    """
    for given, known, what in (
        (names, {task.name for task in tasks}, "task"),
        (meta, set(META_TASKS), "meta-task"),
    ):
        unknown = sorted(set(given or ()) - known)
        if unknown:
            raise ValueError(f"No {what} named {', '.join(unknown)}; there are: {', '.join(sorted(known))}.")
    chosen = [t for t in tasks if (names is None or t.name in names) and (meta is None or t.meta in meta)]
    if not chosen:
        raise ValueError("No task has both that name and that meta-task.")
    return chosen


def evaluate(
    data: Path,
    embedders: Sequence[Embedder],
    tasks: Sequence[Task] | None = None,
    batch_size: int = 32,
    with_pixels: bool = True,
    latency_rounds: int = ROUNDS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    kept: ScoreStore | None = None,
) -> tuple[list[Task], list[Contestant]]:
    """Scores the models on the tasks.

    Args:
        data: What `python -m evaluation.miniature.build` wrote.
        embedders: The models.
        tasks: What to evaluate; all tasks below `data` if left out.
        batch_size: Items per pass of a model.
        with_pixels: Whether the pixel baseline is the last column.
        latency_rounds: How often the latency is measured; 0 leaves it out.
        on_progress: Called with (items done, items in all) of the model at work.
        kept: Scores of earlier calls with these tasks: a model that is there is not embedded again, others are added.

    Raises:
        FileNotFoundError: no miniature at `data`.
        ValueError: two columns would have one name.
    """
    check_names(embedders)
    tasks = list(read_tasks(data) if tasks is None else tasks)
    store = MediaStore(data)
    contestants = []
    for embedder in embedders:
        found = None if kept is None else kept.read(embedder)
        if found is None:
            found = _contest(embedder, tasks, store, batch_size, on_progress)
            if kept is not None:
                kept.write(embedder, found)
        contestants.append(found)
    if latency_rounds:
        contestants = _with_latency(contestants, embedders, tasks, store, batch_size, latency_rounds)
    if with_pixels:
        contestants.append(_pixels(tasks, store))
    return tasks, contestants


def _contest(
    embedder: Embedder,
    tasks: Sequence[Task],
    store: MediaStore,
    batch_size: int,
    on_progress: Callable[[int, int], None],
) -> Contestant:
    able = [n for n, task in enumerate(tasks) if all(embedder.supports(kind) for kind in _kinds_of(task))]
    queries = {query.side for number in able for query in tasks[number].queries}
    candidates = {side for number in able for side in tasks[number].candidates}
    is_one_way = embedder.documents is embedder
    total = len(queries | candidates) if is_one_way else len(queries) + len(candidates)
    asked = _embedded(embedder, queries | candidates if is_one_way else queries, store, batch_size, on_progress, total)
    answers = asked
    if not is_one_way and asked.refusal is None:
        answers = _embedded(embedder.documents, candidates, store, batch_size, on_progress, total, len(queries))
    scores, failed = {}, {}
    for number in able:
        try:
            for side in (asked, answers):
                if side.refusal is not None:
                    raise ValueError(side.refusal)
            scores[number] = _score(tasks[number], _similarities(tasks[number], asked, answers))
        except ValueError as error:
            failed[number] = str(error)
    sides = [asked] if is_one_way else [asked, answers]
    num_items, seconds = sum(len(side.vectors) for side in sides), sum(side.seconds for side in sides)
    facts = (embedder.name, embedder.fingerprint, embedder.paradigm, embedder.num_latent_steps, num_items, seconds)
    written = None if embedder.written is None else replace(embedder.written)  # the embedder goes on counting
    return Contestant(column_name(embedder), scores, failed, *facts, written=written)


@dataclass
class _Embedded:
    """Vectors by side, why others have none, and why the model refused all of them."""

    vectors: dict[Side, NDArray[np.float32]] = field(default_factory=dict)
    failures: dict[Side, str] = field(default_factory=dict)
    refusal: str | None = None
    seconds: float = 0.0


def _embedded(
    embedder: Embedder,
    sides: set[Side],
    store: MediaStore,
    batch_size: int,
    on_progress: Callable[[int, int], None],
    total: int,
    done: int = 0,
) -> _Embedded:
    found = _Embedded()
    # Sorted, so that neighbours in a file are read together; the encoder itself makes batches of like size.
    distinct = sorted(sides, key=lambda s: (s.video, s.image, s.text))
    for part in _parts(distinct, store, found.failures):
        begun = time.perf_counter()
        try:
            embedded, errors = embedder.embed_readable([item for _, item in part], batch_size)
        except ValueError as error:  # not one item's fault
            found.refusal = str(error)
            break
        found.seconds += time.perf_counter() - begun
        faults = unfit(embedded)
        for place, ((side, _), vector) in enumerate(zip(part, embedded, strict=True)):
            if place in errors:
                found.failures[side] = errors[place]
            elif place in faults:
                found.failures[side] = f"its embedding {faults[place]}"
            else:
                found.vectors[side] = vector
        on_progress(done + len(found.vectors) + len(found.failures), total)
    return found


def _pixels(tasks: Sequence[Task], store: MediaStore) -> Contestant:
    baseline, scores, failed = thumbnails.Thumbnails(store), {}, {}
    for number, task in enumerate(tasks):
        try:
            similarity = baseline.similarity(task)
            if similarity is not None:
                rows = zip(similarity, task.queries, strict=True)
                scores[number] = _score(task, (row[list(query.pool)] if query.pool else row for row, query in rows))
        except MediaError as error:
            failed[number] = str(error)
    return Contestant(thumbnails.NAME, scores, failed)


def _with_latency(
    contestants: Sequence[Contestant],
    embedders: Sequence[Embedder],
    tasks: Sequence[Task],
    store: MediaStore,
    batch_size: int,
    rounds: int,
) -> list[Contestant]:
    """The same with `ms_per_item`: of a sample of the queries that all models with a score have taken."""
    timed = [n for n, contestant in enumerate(contestants) if contestant.scores]
    common = [n for n in range(len(tasks)) if all(n in contestants[m].scores for m in timed)]
    sides = list(dict.fromkeys(query.side for number in common for query in tasks[number].queries))
    if not timed or not sides:
        return list(contestants)
    count = min(max(NUM_ITEMS, batch_size), len(sides))
    chosen = np.random.default_rng(0).choice(len(sides), size=count, replace=False)
    items = [store.model_input(sides[number]) for number in chosen]
    found = ms_per_item([embedders[n] for n in timed], items, sorted({1, min(batch_size, count)}), rounds)
    times = dict(zip(timed, found, strict=True))
    return [replace(contestant, ms_per_item=times.get(n, {})) for n, contestant in enumerate(contestants)]


def _parts(
    sides: Iterable[Side], store: MediaStore, failures: dict[Side, str]
) -> Iterator[list[tuple[Side, dict[str, Any]]]]:
    """The sides with their decoded media, some at a time; what cannot be decoded goes to `failures`."""
    part, num_pixels = [], 0
    for side in sides:
        try:
            item = store.model_input(side)
        except MediaError as error:
            failures[side] = str(error)
            continue
        part.append((side, item))
        frames = [*([item["image"]] if "image" in item else []), *item.get("video", [])]
        num_pixels += sum(frame.width * frame.height for frame in frames)
        if len(part) == _PART_ITEMS or num_pixels >= _PART_PIXELS:
            yield part
            part, num_pixels = [], 0
    if part:
        yield part


def _similarities(task: Task, asked: _Embedded, answers: _Embedded) -> Iterator[NDArray[np.float32]]:
    """For each query its similarity to the candidates of its pool, `[P]`.

    Raises:
        ValueError: a query or a candidate has no vector, with the reason.
    """
    queries = [query.side for query in task.queries]
    for what, sides, embedded in (("query", queries, asked), ("candidate", task.candidates, answers)):
        for number, side in enumerate(sides):
            if side in embedded.failures:
                raise ValueError(f"{what} {number}: {embedded.failures[side]}")
    candidates = np.stack([answers.vectors[side] for side in task.candidates])  # [N, D]
    found = similarities(np.stack([asked.vectors[side] for side in queries]), candidates)  # [Q, N]
    for query, row in zip(task.queries, found, strict=True):
        yield row[list(query.pool)] if query.pool else row


def _score(task: Task, similarities: Iterable[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Hit@1 and NDCG@5 of each query, `[Q, 2]`."""
    pools = (np.array(query.pool) if query.pool else np.arange(len(task.candidates)) for query in task.queries)
    correct = (np.isin(pool, query.positives) for pool, query in zip(pools, task.queries, strict=True))
    return query_scores(similarities, correct)


def _sides(task: Task) -> Iterator[Side]:
    yield from (query.side for query in task.queries)
    yield from task.candidates


def _kinds_of(task: Task) -> set[tuple[str, ...]]:
    return {kinds(side) for side in _sides(task)}
