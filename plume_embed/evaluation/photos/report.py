"""The results on photographs as one plain dict, and as the table made of it.

`python -m plume_embed.evaluation.photos.report FILE.json ... --json ALL.json` joins the reports of several runs of
`plume-embed evaluate photos` and prints their tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from plume_embed.atomic import write_json
from plume_embed.command import run_command
from plume_embed.evaluation.bootstrap import RESAMPLES, interval, resampled_means
from plume_embed.evaluation.embedders import read_out_label
from plume_embed.evaluation.photos.benchmark import RankingTask
from plume_embed.evaluation.written import read_results

BENCHMARK = "photos"
CUTOFFS = (1, 5, 10)
MEDIAN = "median rank"
CHANCE = "chance"


@dataclass(frozen=True)
class Contestant:
    """A model's ranks.

    Attributes:
        name: For tables.
        num_latent_steps: K; None for a model that has none.
        ranks: By the name of the task, [Q].
        paradigm: See `Embedder`; None for a model that has no steps.
        fingerprint: See `Embedder`; None for stored vectors.
    """

    name: str
    num_latent_steps: int | None
    ranks: dict[str, NDArray[np.int64]]
    paradigm: str | None = None
    fingerprint: str | None = None


def as_dict(
    tasks: list[RankingTask], contestants: list[Contestant], conditions: dict[str, Any], resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Shares between 0 and 1 and median ranks, each with the ends of its 95 % bootstrap interval over queries."""
    models = [
        {
            "model": contestant.name,
            "num_latent_steps": contestant.num_latent_steps,
            "paradigm": contestant.paradigm,
            "fingerprint": contestant.fingerprint,
            "scores": {
                t.name: _scores(contestant.ranks[t.name], resamples) for t in tasks if t.name in contestant.ranks
            },
        }
        for contestant in contestants
    ]
    chance = {"model": CHANCE, "num_latent_steps": None, "scores": {task.name: _chance(task) for task in tasks}}
    return {
        "benchmark": BENCHMARK,
        "conditions": conditions,
        "tasks": {task.name: {"queries": len(task.queries), "candidates": len(task.candidates)} for task in tasks},
        "models": [*models, chance],
    }


def _scores(ranks: NDArray[np.int64], resamples: int) -> dict[str, list[float]]:
    hits = np.stack([ranks <= cutoff for cutoff in CUTOFFS], axis=1).astype(np.float64)  # [Q, cut-offs]
    means = resampled_means(hits, resamples, np.random.default_rng(0))  # [resamples, cut-offs]
    found = {f"R@{k}": _numbers(hits[:, n].mean(), means[:, n]) for n, k in enumerate(CUTOFFS)}
    drawn = np.random.default_rng(0).integers(len(ranks), size=(resamples, len(ranks)))
    return found | {MEDIAN: _numbers(float(np.median(ranks)), np.median(ranks[drawn], axis=1))}


def _numbers(value: float, draws: NDArray[np.float64]) -> list[float]:
    found = interval(float(value), draws)
    return [round(number, 4) for number in (found.mean, found.low, found.high)]


def _chance(task: RankingTask) -> dict[str, list[float]]:
    found = task.chance_ranks().mean(axis=0)  # [C]
    scores = {f"R@{k}": [round(float(found[min(k, len(found)) - 1]), 4)] * 3 for k in CUTOFFS}
    return scores | {MEDIAN: [float(1 + np.searchsorted(found, 0.5))] * 3}


def _cell(name: str, numbers: list[float] | None) -> str:
    if numbers is None:
        return "-"
    mean, low, high = numbers
    if name == MEDIAN:
        return f"{mean:g}"
    share = f"{100 * mean:.1f}"
    return share if low == high else f"{share} [{100 * low:.1f}, {100 * high:.1f}]"


def _name(model: dict[str, Any]) -> str:
    steps = model["num_latent_steps"]
    if steps is None:
        return model["model"]
    # Reports of version 0.1 have no paradigm: all of them were read at the embedding.
    return f"{model['model']} ({read_out_label(model.get('paradigm'), steps) or f'K = {steps}'})"


def tables(report: dict[str, Any]) -> list[Table]:
    """One table a task for the terminal, a row a model."""
    found = []
    for task, size in report["tasks"].items():
        title = f"{task}: {size['queries']} queries, {size['candidates']} candidates, percent"
        table = Table(title=title, box=box.SIMPLE)
        table.add_column("model")
        columns = [f"R@{k}" for k in CUTOFFS] + [MEDIAN]
        for column in columns:
            table.add_column(column, justify="right")
        for model in report["models"]:
            scores = model["scores"].get(task, {})
            table.add_row(_name(model), *(_cell(column, scores.get(column)) for column in columns))
        found.append(table)
    return found


def markdown(report: dict[str, Any]) -> str:
    """The same tables in Markdown."""
    columns, lines = [f"R@{k}" for k in CUTOFFS] + [MEDIAN], []
    for task, size in report["tasks"].items():
        lines += [f"**{task}** ({size['queries']} queries, {size['candidates']} candidates, percent)", ""]
        lines += [f"| model | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        for model in report["models"]:
            scores = model["scores"].get(task, {})
            lines.append(f"| {_name(model)} | {' | '.join(_cell(c, scores.get(c)) for c in columns)} |")
        lines.append("")
    return "\n".join(lines)


def joined(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One report of the models of several; of a model that is in more than one, the first counts.

    Raises:
        ValueError: they are of different benchmarks, or have different models of one name.
    """
    benchmarks = {report["conditions"]["benchmark"] for report in reports}
    if len(benchmarks) > 1:
        raise ValueError(f"These reports are of different benchmarks: {sorted(benchmarks)}; evaluate again.")
    models: dict[str, dict[str, Any]] = {}
    for report in reports:
        for model in report["models"]:
            first = models.setdefault(_name(model), model)
            if not _is_one_model(first, model):
                raise ValueError(
                    f"{_name(model)} has other weights or another precision in another of these reports, or was "
                    "embedded by another version of the package; give the models' folders names of their own where "
                    "they differ, and evaluate again."
                )
    peers = {_name(model) for model in reports[0]["models"] if model["num_latent_steps"] is None}
    ordered = sorted(models.items(), key=lambda item: item[0] in peers)  # stable: otherwise as they come
    return reports[0] | {"models": [model for _, model in ordered]}


def _is_one_model(first: dict[str, Any], other: dict[str, Any]) -> bool:
    """By their fingerprints; stored vectors have none and version 0.1 wrote none: then by their scores."""
    marks = first.get("fingerprint"), other.get("fingerprint")
    return first.get("scores") == other.get("scores") if None in marks else marks[0] == marks[1]


def main(
    files: Annotated[list[Path], typer.Argument(help="What `plume-embed evaluate photos --json` wrote.")],
    json_to: Annotated[Path | None, typer.Option("--json", help="Also write the joined report here.")] = None,
) -> None:
    """Print the tables in Markdown."""
    report = joined([read_results(file, BENCHMARK) for file in files])
    if json_to is not None:
        write_json(json_to, report)
    typer.echo(markdown(report))


if __name__ == "__main__":
    run_command(main)
