"""Accuracy against K: one model read after each number of steps, beside models that were trained for one K.

    python -m training.steps.curve training/steps/results/curve.svg --pictures evaluation/results/anytime.json

A model is read by `python -m training.steps.diagnose`; those of one K are rows of the ablations.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.atomic import write_json
from plume_embed.evaluation.tradeoff import check_format, save_figure
from training.ablations.rows import recipe_of, row_named
from training.steps.diagnose import RESULTS
from training.steps.tables import Entry, groups
from training.steps.variants import ABLATIONS
from training.steps.variants import RESULTS as VARIANTS

PICTURE_MODELS = ("plume-tiny", "plume-tiny-anytime")
OF_ONE_STEP_COUNT = ("single_pass_tuned", "k_2", "k_4", "k_6", "k_6_dealt", "full")


def curves(results: dict[str, Entry], task: str, read: str = "hit") -> dict[str, list[float | None]]:
    """Hit@1 in percent after 0 to K steps, the mean over seeds, by model.

    Args:
        read (`str`): "hit", of all queries, or "within_depth", of those whose answer stands within so many steps of the
            rationale; `None` where there is no such query.
    """
    found: dict[str, list[float | None]] = {}
    for title, entries in groups(results).items():
        name, _, model = title.partition(", ")
        if name == task:
            columns = zip(*(entry["after_step"][read] for entry in entries), strict=True)
            found[model] = [_mean([hit[0] if read == "hit" else hit for hit in column]) for column in columns]
    return found


def _mean(hits: list[float | None]) -> float | None:
    there = [hit for hit in hits if hit is not None]
    return 100 * sum(there) / len(there) if there else None


def of_one_step_count(ablations: dict[str, Any]) -> dict[int, float]:
    """Hit@1 in percent of the best row that was trained for a K, by K."""
    best: dict[int, float] = {}
    for name in OF_ONE_STEP_COUNT:
        if name in ablations["rows"]:
            steps = recipe_of(row_named(name), ablations["task"], 0, "runs", []).curriculum.num_latent_steps
            best[steps] = max(best.get(steps, 0.0), 100 * ablations["rows"][name]["mean"])
    return dict(sorted(best.items()))


def markdown(results: dict[str, Entry], task: str = "hops") -> str:
    """A line a model, a column a K; behind the slash the queries whose answer stands within K steps."""
    found, within = curves(results, task), curves(results, task, "within_depth")
    last = max(len(hits) for hits in found.values())
    lines = [f"| | {' | '.join(f'K = {k}' for k in range(last))} |", f"|---|{'---:|' * last}"]
    for model, hits in found.items():
        cells = [
            f"{hit:.1f}" if reachable is None else f"{hit:.1f} / {reachable:.1f}"
            for hit, reachable in zip(hits, within[model], strict=True)
        ]
        lines.append(f"| {model} | {' | '.join([*cells, *['-'] * (last - len(hits))])} |")
    return "\n".join(lines)


def of_pictures(results: dict[str, Entry], models: Sequence[str] = PICTURE_MODELS) -> dict[str, dict[str, list[float]]]:
    """Hit@1 in percent after 0 to K steps on the sets of pictures that all of these models were read on."""
    found: dict[str, dict[str, list[float]]] = {}
    for entry in results.values():
        hits = [100 * hit[0] for hit in entry["after_step"]["hit"]]
        found.setdefault(entry["set"], {})[entry["model"]] = [round(hit, 2) for hit in hits]
    return {name: {m: own[m] for m in models} for name, own in sorted(found.items()) if {*models} <= own.keys()}


def markdown_of_pictures(found: dict[str, dict[str, list[float]]]) -> str:
    """A line a set and model, a column a K."""
    rows = [(name, model, hits) for name, models in found.items() for model, hits in models.items()]
    lines = [f"| | | {' | '.join(f'K = {k}' for k in range(len(rows[0][2])))} |"]
    lines.append(f"|---|---|{'---:|' * len(rows[0][2])}")
    lines += [f"| {name} | {model} | {' | '.join(f'{hit:.1f}' for hit in hits)} |" for name, model, hits in rows]
    return "\n".join(lines)


def write_plot(results: dict[str, Entry], ablations: list[dict[str, Any]], file: Path, task: str = "hops") -> Path:
    """Draws the curves, and a point for each model of one K.

    Raises:
        ValueError: matplotlib is missing, or it does not know the format.
    """
    check_format(file)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, read in ((left, "hit"), (right, "within_depth")):
        for model, hits in curves(results, task, read).items():
            shown = [(k, hit) for k, hit in enumerate(hits) if hit is not None]
            axes.plot(*zip(*shown, strict=True), marker="o", ms=4, label=f"{model}, read after K steps")
        axes.set_xlabel("latent steps K at inference")
        axes.grid(alpha=0.3)
    single: dict[int, float] = {}
    for found in ablations:
        for steps, hit in of_one_step_count(found).items():
            single[steps] = max(single.get(steps, 0.0), hit)
    left.plot(list(single), list(single.values()), "k*", ms=10, label="best model that was trained for one K")
    left.set_ylabel("Hit@1, %")
    left.set_ylim(0, 103)
    left.set_title("all queries", fontsize=9)
    right.set_title("queries whose last press is one of the first K", fontsize=9)
    left.legend(fontsize=8)
    save_figure(figure, file)
    return file


def main(
    to: Annotated[Path, typer.Argument(help="Picture to write: .svg, .png or .pdf.")],
    file: Annotated[Path, typer.Option(help="Results of the diagnostics.")] = RESULTS,
    ablations: Annotated[list[Path] | None, typer.Option(help="Results of the ablations; repeatable.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Where to write the curves of plume-tiny's two forms.")] = None,
) -> None:
    """Print the curves and draw them."""
    results = json.loads(file.read_text())
    if pictures is not None:
        write_json(pictures, of_pictures(results))
    typer.echo(markdown(results))
    found = [json.loads(each.read_text()) for each in ablations or [VARIANTS, ABLATIONS]]
    typer.echo(f"written: {write_plot(results, found, to)}")


if __name__ == "__main__":
    typer.run(main)
