"""A run: parse, embed, rank, score and write, task by task; a task that fails is named and the others go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plume_embed.atomic import replacing, write_json
from plume_embed.evaluation.code import digest_of_code
from plume_embed.evaluation.distributed import Ranks, SharedFailureError
from plume_embed.evaluation.embedders import Embedder
from plume_embed.evaluation.mmeb_v2.candidates import Pool, make_pool
from plume_embed.evaluation.mmeb_v2.embeddings import EmbeddingCache, Embeddings, load_stored
from plume_embed.evaluation.mmeb_v2.media import Media
from plume_embed.evaluation.mmeb_v2.parsers import parse
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.score import Prediction, count_ties, predict, score
from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant, load_tasks
from plume_embed.stored import read_json

BENCHMARK = "MMEB-v2"
# What must agree for two scores to stand in one column.
STAMP = ("benchmark", "benchmark_version", "code", "model", "model_fingerprint", "paradigm", "num_latent_steps")
_HERE = Path(__file__).parent
# The code that makes scores of vectors; that of the vectors is part of an embedder's fingerprint.
_CODE = (
    *(_HERE.parent / "similarity.py", _HERE.parent / "metrics"),
    *(_HERE / f"{name}.py" for name in ("candidates", "parsers", "parsers_image", "parsers_video", "parsers_visdoc")),
    _HERE / "score.py",
)


@dataclass(frozen=True)
class Settings:
    """Where a run reads and writes.

    Attributes:
        variant: The benchmark version.
        media_dir: The folder with image-tasks, video-tasks and visdoc-tasks; stored embeddings of most tasks are scored
            without it.
        out: Where scores, predictions, the summary and the cache go.
        hub_dir: A local mirror of the data sets; None reads from the Hub.
        embeddings_dir: Stored embeddings to score instead of a model's.
        batch_size: Items per pass of the model.
        cache_dir: Where `datasets` keeps its files; its own place by default.
    """

    variant: Variant
    media_dir: Path | None
    out: Path
    hub_dir: Path | None = None
    embeddings_dir: Path | None = None
    batch_size: int = 8
    cache_dir: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one task: its score file's content, or why it failed."""

    task: Task
    scores: dict[str, Any] | None = None
    failure: str | None = None


def evaluate(
    tasks: Sequence[Task],
    settings: Settings,
    embedder: Embedder | None,
    ranks: Ranks,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Evaluates the tasks in turn. Every process calls this; the main one scores and writes.

    Args:
        tasks: What to evaluate.
        settings: Where to read and write.
        embedder: The model; None to score `settings.embeddings_dir`.
        ranks: The processes of this run.
        on_outcome: Called after each task.
        on_progress: Called with (items done, items of the task).

    Returns:
        One outcome a task, in order; in other processes than the main one without scores.

    Raises:
        ValueError: neither a model nor stored embeddings, or both; `settings.out` holds scores of another run, such as
            one by other code.
    """
    if (embedder is None) == (settings.embeddings_dir is None):
        raise ValueError("Give either a model or --embeddings-dir with stored embeddings.")
    stamp = stamp_of(settings, embedder)
    ranks.together(lambda: check_stamps(settings.out, stamp))
    outcomes = []
    for task in tasks:
        try:
            outcome = _evaluate_task(task, settings, embedder, ranks, stamp, on_progress)
        except SharedFailureError as error:
            outcome = Outcome(task, failure=str(error))
            if ranks.is_main:  # what an earlier run wrote must not pass for this one's
                for file in (score_file(settings.out, task), predictions_file(settings.out, task)):
                    file.unlink(missing_ok=True)
        outcomes.append(outcome)
        on_outcome(outcome)
    return outcomes


def _evaluate_task(
    task: Task,
    settings: Settings,
    embedder: Embedder | None,
    ranks: Ranks,
    stamp: dict[str, Any],
    on_progress: Callable[[int, int], None],
) -> Outcome:
    pool = ranks.together(lambda: _parse(task, settings))
    if embedder is None:
        vectors = ranks.together(lambda: load_stored(settings.embeddings_dir, pool))
    else:
        folder = settings.out / "embeddings" / cache_name(settings.variant, embedder)
        assert settings.media_dir is not None  # or parsing would have failed
        cache = EmbeddingCache(folder, settings.media_dir, embedder, ranks)
        vectors = cache.get(pool, settings.batch_size, on_progress)
    scores = ranks.together(lambda: _score(pool, vectors, settings.out, stamp) if ranks.is_main else None)
    return Outcome(task, scores)


def _parse(task: Task, settings: Settings) -> Pool:
    rows = Rows(task, settings.variant, settings.hub_dir, settings.media_dir, settings.cache_dir)
    # Stored embeddings need the keys of the candidates only.
    media = Media(settings.media_dir, task, None if settings.embeddings_dir is None else [])
    return make_pool(task, settings.variant, *parse(task, settings.variant, rows, media))


def _score(pool: Pool, vectors: Embeddings, out: Path, stamp: dict[str, Any]) -> dict[str, Any]:
    predictions = predict(pool, vectors.queries, vectors.candidates)
    scores = {
        **score(predictions),
        **stamp,
        "task": pool.task.name,
        "headline": pool.task.score_key,
        "num_candidates": len(pool.candidates),
        "num_data_of_benchmark": pool.task.num_queries,
        "num_ties": count_ties(pool, vectors.queries, vectors.candidates),
        "ms_per_item": vectors.ms_per_item,
        "batch_size": vectors.batch_size,
        "num_cut_rationales": vectors.num_cut,
    }
    file = score_file(out, pool.task)
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_predictions(predictions_file(out, pool.task), predictions)
    write_json(file, scores)
    return scores


def _write_predictions(file: Path, predictions: Iterable[Prediction]) -> None:
    with replacing(file) as partial, partial.open("w") as opened:
        for prediction in predictions:
            grades = None if prediction.grades is None else list(prediction.grades)
            row = {"prediction": prediction.keys, "label": list(prediction.labels), "rel_scores": grades}
            opened.write(json.dumps(row, ensure_ascii=False) + "\n")


def score_file(out: Path, task: Task) -> Path:
    """Where the public report scripts look for a task's scores."""
    return out / task.modality / f"{task.name}_gen_gen_score.json"


def predictions_file(out: Path, task: Task) -> Path:
    """A task's rankings, beside its scores."""
    return out / task.modality / f"{task.name}_gen_gen_pred.jsonl"


def with_earlier(out: Path, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """These outcomes, and those that earlier runs of other tasks have left in their folder, in the benchmark's order.

    Args:
        out: Where [`evaluate`] wrote; it has refused scores of another benchmark version or model there.
        outcomes: Of this run.
    """
    own = {outcome.task.name: outcome for outcome in outcomes}
    found = []
    for task in load_tasks():
        file = score_file(out, task)
        if task.name in own:
            found.append(own[task.name])
        elif file.is_file():
            found.append(Outcome(task, read_json(file, "Remove it: the task is then scored again.")))
    return found


def cache_name(variant: str, embedder: Embedder) -> str:
    """The cache folder of a model in a benchmark version, readable and unmistakable; other code has another one."""
    model = "".join(character if character.isalnum() else "-" for character in embedder.name)
    return f"{variant}-{model}-{embedder.fingerprint[:16]}"


def stamp_of(settings: Settings, embedder: Embedder | None) -> dict[str, Any]:
    """What every score file says about its origin."""
    if embedder is None:
        assert settings.embeddings_dir is not None
        folder = settings.embeddings_dir.resolve()  # as a fingerprint: two folders may have one name
        facts = (f"stored embeddings {folder.name}", str(folder), None, None)
    else:
        facts = (embedder.name, embedder.fingerprint, embedder.paradigm, embedder.num_latent_steps)
    return dict(zip(STAMP, (BENCHMARK, settings.variant, digest_of_code(*_CODE)[:16], *facts), strict=True))


def check_stamps(out: Path, stamp: dict[str, Any]) -> None:
    """Refuses a folder with scores of another benchmark version, another model or other code.

    Raises:
        ValueError: there are some, naming the first file and what differs.
    """
    for file in sorted(out.glob("*/*_gen_gen_score.json")):
        found = read_json(file, "Remove it: the task is then scored again.")
        if not isinstance(found, dict):
            raise ValueError(f"{file} holds no scores; remove it: the task is then scored again.")
        other = {name: found.get(name) for name in STAMP if found.get(name) != stamp[name]}
        if other:
            differs = ", ".join(f"{name} {value!r}" for name, value in other.items())
            raise ValueError(
                f"{file} is of another run ({differs}); give this run another --out. An update of the package makes "
                "another run too, where vectors or scores may change."
            )
