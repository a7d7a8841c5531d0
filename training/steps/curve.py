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
from plume_embed.command import run_command
from plume_embed.evaluation.tradeoff import check_format, save_figure
from training.ablations.rows import TRUNK_ROW, recipe_behind
from training.steps.diagnose import RESULTS
from training.steps.tables import Entry, groups
from training.steps.variants import ABLATIONS, check_task
from training.steps.variants import RESULTS as VARIANTS

PICTURE_MODELS = ("plume-tiny", "plume-tiny-anytime")


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


def best_by_step_count(ablations: Sequence[dict[str, Any]], task: str) -> dict[int, dict[str, Any]]:
    """The row with the highest mean among all that were trained for one K and are read after it, by K. Rivals of the
    rollout, rows that are trained for any K and rows that write their rationale are none of them.

    Raises:
        ValueError: results of another task.
    """
    best: dict[int, dict[str, Any]] = {}
    for results in ablations:
        check_task(results, task)
        for name, row in results["rows"].items():
            recipe = recipe_behind(task, row["settings"])
            steps, last = recipe.curriculum.num_latent_steps, recipe.curriculum.stages[-1]
            writes = name == TRUNK_ROW or (steps > 0 and last < recipe.curriculum.num_segments)
            if writes or recipe.curriculum.anytime_steps or "rollout" in recipe.model.plume:
                continue
            if steps not in best or row["mean"] > best[steps]["mean"]:
                best[steps] = row
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
    """Draws the curves, and for each K the best model that was trained for it alone; the legend says over how many
    seeds each is a mean.

    Raises:
        ValueError: matplotlib is missing, it does not know the format, or the ablations are of another task.
    """
    check_format(file)
    from matplotlib.figure import Figure

    runs = groups(results)
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, read in ((left, "hit"), (right, "within_depth")):
        for model, hits in curves(results, task, read).items():
            shown = [(k, hit) for k, hit in enumerate(hits) if hit is not None]
            label = f"{model}, read after K steps, {_seeds([len(runs[f'{task}, {model}'])])}"
            axes.plot(*zip(*shown, strict=True), marker="o", ms=4, label=label)
        axes.set_xlabel("latent steps K at inference")
        axes.grid(alpha=0.3)
    best = best_by_step_count(ablations, task)
    label = f"best row that was trained for this K alone, {_seeds([len(row['runs']) for row in best.values()])}"
    left.plot(list(best), [100 * row["mean"] for row in best.values()], "k*", ms=10, label=label)
    left.set_ylabel("Hit@1, %")
    left.set_ylim(0, 103)
    left.set_title("all queries", fontsize=9)
    right.set_title("queries whose last press is one of the first K", fontsize=9)
    left.legend(fontsize=8)
    save_figure(figure, file)
    return file


def _seeds(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least} to {most} seeds" if least < most else f"{most} seed{'s' if most > 1 else ''}"


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
    run_command(main)
