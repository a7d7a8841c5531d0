"""The miniature's results as one plain dict, for a file, and as tables made of it.

`python -m plume_embed.evaluation.miniature.report FILE.json` prints the table of the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from plume_embed.command import run_command
from plume_embed.evaluation.bootstrap import RESAMPLES, cluster_weights, interval, weighted_means
from plume_embed.evaluation.miniature.clusters import clusters
from plume_embed.evaluation.miniature.guess import guessed
from plume_embed.evaluation.miniature.run import Contestant
from plume_embed.evaluation.miniature.schema import META_TASKS, METRICS, Task, digest_of
from plume_embed.evaluation.miniature.score import chance_scores
from plume_embed.evaluation.written import read_results

BENCHMARK = "miniature"
MEAN = "mean"
_SCORES = ("hit@1", "ndcg@5")
_TITLES = {"hit@1": "Hit@1", "ndcg@5": "NDCG@5"}
# What a score is compared with, by its key in a task's facts: the best guess is chance or, where a picture or clip is
# answered in words, the best answer to the question alone (`guessed`) if that is right more often.
LEVELS = {"chance": "chance", "best_guess": "best guess"}
_SEED = 0
INTERVAL = "Bayesian bootstrap over what is asked about, drawn once for all tasks"

# Mean and the ends of its 95 % interval, 0..1; None where there is no score.
Numbers = list[float] | None


def as_dict(
    tasks: Sequence[Task],
    contestants: Sequence[Contestant],
    all_tasks: Sequence[Task] | None = None,
    conditions: dict[str, Any] | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Everything that was found: shares between 0 and 1, each with the ends of its 95 % interval.

    The bootstrap draws what is asked about (`clusters`), once for all tasks and models: a task and its hard form share
    their queries, and `difference` (to the first model) is paired. A meta-task is the mean of its tasks, `mean` that of
    the nine meta-tasks; both are null unless every task counts.

    Args:
        tasks: The tasks that were evaluated.
        contestants: Their scores.
        all_tasks: All tasks of the benchmark, where `tasks` is a choice of them.
        conditions: Under which it was measured, as they are to be written down.
        resamples: Bootstrap samples.
    """
    everything = list(tasks if all_tasks is None else all_tasks)
    headlines = [_SCORES.index(METRICS[task.meta]) for task in tasks]
    points = np.full((len(tasks), len(contestants), len(_SCORES)), np.nan)
    draws = np.full((len(tasks), len(contestants), len(_SCORES), resamples), np.nan)
    asked, count = clusters(tasks)
    weights = cluster_weights(count, resamples, np.random.default_rng(_SEED))
    for number, task in enumerate(tasks):
        able = [n for n, contestant in enumerate(contestants) if number in contestant.scores]
        if able:
            values = np.stack([contestants[n].scores[number] for n in able], axis=1)  # [Q, able, 2]
            points[number, able] = values.mean(axis=0)
            found = weighted_means(values.reshape(len(task.queries), -1), weights[:, asked[number]])
            draws[number, able] = found.T.reshape(len(able), len(_SCORES), resamples)
    # The metric that counts, [T, models] and [T, models, resamples].
    counting = np.arange(len(tasks)), slice(None), headlines
    groups = _Groups(tasks, everything, points[counting], draws[counting])
    models = []
    for number, contestant in enumerate(contestants):
        scores = [
            {
                name: _numbers(points[task, number, metric], draws[task, number, metric])
                for metric, name in enumerate(_SCORES)
            }
            for task in range(len(tasks))
        ]
        models.append(
            {
                "model": contestant.name,
                "weights": contestant.weights,
                "fingerprint": contestant.fingerprint,
                "paradigm": contestant.paradigm,
                "num_latent_steps": contestant.num_latent_steps,
                "num_items": contestant.num_items,
                "seconds": round(contestant.seconds, 3),
                "ms_per_item": {str(size): round(ms, 3) for size, ms in contestant.ms_per_item.items()},
                "rationales": None if contestant.written is None else asdict(contestant.written),
                "scores": scores,
                "means": groups.of(number),
                "difference": groups.of(number, to=0) if number else None,
                "failed": {_title(tasks[n]): reason for n, reason in contestant.failures.items()},
            }
        )
    return {
        "benchmark": BENCHMARK,
        "tasks_digest": digest_of(everything),
        "conditions": {"resamples": resamples, "interval": INTERVAL, **(conditions or {})},
        "tasks": [_facts(task) for task in tasks],
        "missing": groups.missing,
        "models": models,
    }


def notes(report: dict[str, Any]) -> list[str]:
    """What a reader must know before quoting a number, one line each."""
    lines = []
    for model in report["models"]:
        reasons: dict[str, list[str]] = {}
        for task, reason in model["failed"].items():
            reasons.setdefault(reason, []).append(task)
        for reason, names in reasons.items():
            said = names[0] if len(names) == 1 else f"{len(names)} tasks, {names[0]} first"
            lines.append(f"FAILED {model['model']}: {said}: {reason}")
        written = model["rationales"]
        if written is not None and written["num_rows"]:
            said = f"{model['model']} wrote {written['num_tokens'] / written['num_rows']:.1f} tokens an item"
            cut = f"; {written['num_cut']:,} of {written['num_rows']:,} were cut at the limit and read there"
            lines.append(f"{said}{cut if written['num_cut'] else ''}.")
    if "interval" not in report["conditions"]:
        lines.append(
            "The intervals are of an earlier kind, with queries drawn for each task apart: those of meta-tasks and "
            "means are up to a third too narrow, as their tasks share queries."
        )
    if report["missing"]:
        said = [f"{name} ({have} of {of} tasks evaluated)" for name, (have, of) in report["missing"].items() if of]
        absent = [name for name, (_, of) in report["missing"].items() if not of]
        said += [f"{', '.join(absent)} (no such tasks in the data)"] if absent else []
        lines.append(f"Incomplete, no mean: {', '.join(said)}.")
    return lines


def table(report: dict[str, Any]) -> Table:
    """In percent with 95 % intervals, a row a task, then the means. Of LEVELS a terminal has room for the higher."""
    models = report["models"]
    shown = Table(
        title="Percent, with 95 % intervals (bootstrap over what is asked about)", box=box.SIMPLE_HEAD, pad_edge=False
    )
    shown.add_column("task", no_wrap=True)
    shown.add_column("concepts", no_wrap=True)
    for column in ("metric", "queries", "pool", LEVELS["best_guess"]):
        shown.add_column(column, justify="right")
    for model in models:
        shown.add_column(model["model"], justify="right")
    for number, task in enumerate(report["tasks"]):
        cells = (_cell(model["scores"][number][task["metric"]]) for model in models)
        counts = (f"{task['queries']:,}", _pool(task["pool"]), f"{100 * task['best_guess']:.1f}")
        shown.add_row(task["task"], task["concepts"], _TITLES[task["metric"]], *counts, *cells)
    shown.add_section()
    blank = ("",) * 5
    for name in _mean_rows(models):
        shown.add_row(name, *blank, *(_cell(model["means"][name]) for model in models))
        if len(models) > 1 and any(model["difference"][name] for model in models[1:]):
            differences = ("" if m["difference"] is None else _cell(m["difference"][name], "+") for m in models)
            shown.add_row("  less the first model", *blank, *differences, style="dim")
    shown.add_section()
    for size in _batch_sizes(models):
        times = (f"{model['ms_per_item'][size]:.1f}" if size in model["ms_per_item"] else "-" for model in models)
        shown.add_row(f"ms per item, batch {size}", *blank, *times)
    return shown


def markdown(report: dict[str, Any]) -> str:
    """The table of the documents: the nine meta-tasks and their mean, with intervals, and the latency."""
    models = report["models"]
    heads = ["", *LEVELS.values(), *(model["model"] for model in models)]
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name in _mean_rows(models):
        label = f"{name} ({_TITLES[METRICS[name]]})" if name in METRICS else f"**{name}**"
        levels = (mean_level(report, name, level) for level in LEVELS)
        cells = ["" if level is None else f"{100 * level:.1f}" for level in levels]
        cells += [_cell(m["means"][name], gap=" ") for m in models]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for size in _batch_sizes(models):
        times = [f"{m['ms_per_item'][size]:.1f}" if size in m["ms_per_item"] else "-" for m in models]
        lines.append(f"| ms per item, batch {size} |{' |' * len(LEVELS)} {' | '.join(times)} |")
    return "\n".join(lines)


class _Groups:
    """Means over groups of tasks, of the points and of every bootstrap draw alike.

    Args:
        tasks: The T tasks that were evaluated.
        everything: All tasks of the benchmark.
        points: `[T, models]`; NaN where there is none.
        draws: `[T, models, resamples]`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        everything: Sequence[Task],
        points: NDArray[np.float64],
        draws: NDArray[np.float64],
    ) -> None:
        self._points, self._draws = points, draws
        total = {meta: sum(task.meta == meta for task in everything) for meta in META_TASKS}
        have = {meta: sum(task.meta == meta for task in tasks) for meta in META_TASKS}
        # Meta-tasks of which a part or nothing was evaluated: evaluated, in all.
        self.missing = {meta: (have[meta], total[meta]) for meta in META_TASKS if have[meta] < max(1, total[meta])}
        self._weights: dict[str, NDArray[np.float64] | None] = {}  # [T], summing to 1
        for meta in META_TASKS:
            self._weights[meta] = None if meta in self.missing else _even([task.meta == meta for task in tasks])
        whole = [weights for weights in self._weights.values() if weights is not None]
        is_whole = len(whole) == len(META_TASKS)
        self._weights[MEAN] = np.mean(whole, axis=0) if is_whole else None
        for concepts in ("known", "unseen"):
            parts = [[task.meta == meta and task.concepts == concepts for task in tasks] for meta in META_TASKS]
            parts = [_even(part) for part in parts if any(part)]
            name = f"{MEAN}, {concepts} concepts ({len(parts)} meta-tasks)"
            if is_whole and parts:
                self._weights[name] = np.mean(parts, axis=0)

    def of(self, model: int, to: int | None = None) -> dict[str, Numbers]:
        """A model's means by group, or their differences to those of another model."""
        points, draws = self._points[:, model], self._draws[:, model]
        if to is not None:
            points, draws = points - self._points[:, to], draws - self._draws[:, to]
        found: dict[str, Numbers] = {}
        for name, weights in self._weights.items():
            if weights is None:
                found[name] = None
                continue
            used = weights > 0  # a task without a score must not turn groups into NaN that it is no part of
            found[name] = _numbers(float(weights[used] @ points[used]), weights[used] @ draws[used])
        return found


def _even(members: Sequence[bool]) -> NDArray[np.float64]:
    return np.array(members) / sum(members)


def _numbers(point: float, draws: NDArray[np.float64]) -> Numbers:
    if np.isnan(point):
        return None
    found = interval(float(point), draws)
    return [found.mean, found.low, found.high]


def _facts(task: Task) -> dict[str, Any]:
    pools = [len(query.pool) or len(task.candidates) for query in task.queries]
    metric = METRICS[task.meta]
    levels = [chance_scores(len(q.positives), pool) for q, pool in zip(task.queries, pools, strict=True)]
    chance = float(np.mean([level[_SCORES.index(metric)] for level in levels]))
    return {
        "task": task.name,
        "concepts": task.concepts,
        "meta": task.meta,
        "metric": metric,
        "queries": len(task.queries),
        "candidates": len(task.candidates),
        "pool": [min(pools), max(pools)],
        "chance": chance,
        "best_guess": max(chance, guessed(task) or 0.0),
    }


def mean_level(report: dict[str, Any], name: str, level: str) -> float | None:
    """Chance or the best guess of a meta-task, the mean over its tasks; of `mean` over all meta-tasks.

    Args:
        report: What `as_dict` gives.
        name: A meta-task or `mean`; None is the answer for another name, or where a task is missing.
        level: One of LEVELS.
    """
    of_meta = {
        meta: [task[level] for task in report["tasks"] if task["meta"] == meta]
        for meta in (META_TASKS if name == MEAN else (name,))
    }
    return float(np.mean([np.mean(levels) for levels in of_meta.values()])) if all(of_meta.values()) else None


def _title(task: Task) -> str:
    return f"{task.name} ({task.concepts})"


def _pool(sizes: Sequence[int]) -> str:
    smallest, largest = sizes
    return f"{smallest:,}" if smallest == largest else f"{smallest:,}-{largest:,}"


def _mean_rows(models: Sequence[dict[str, Any]]) -> list[str]:
    """The groups of which at least one model has a mean, and the mean itself."""
    return [name for name in models[0]["means"] if name == MEAN or any(m["means"][name] for m in models)]


def _batch_sizes(models: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({size for model in models for size in model["ms_per_item"]}, key=int)


def _cell(value: Numbers, sign: str = "", gap: str = "\n") -> str:
    if value is None:
        return "-"
    mean, low, high = (f"{100 * number:{sign}.1f}" for number in value)
    return f"{mean}{gap}[{low}, {high}]"


def main(
    file: Annotated[Path, typer.Argument(help="What `plume-embed evaluate miniature --json FILE` wrote.")],
) -> None:
    """Print results as documents show them, e.g. `python -m plume_embed.evaluation.miniature.report results.json`."""
    report = read_results(file, BENCHMARK)
    if any(level not in task for task in report["tasks"] for level in LEVELS):
        raise ValueError(f"{file} is of an earlier version, without the best guess of its tasks: evaluate again.")
    typer.echo(markdown(report))
    for line in notes(report):
        typer.echo(f"- {line}")


if __name__ == "__main__":
    run_command(main)
