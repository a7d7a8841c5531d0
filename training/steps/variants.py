"""Variants of the rollout on hops: the table of accuracy beside cost, and its plot.

    python -m training.steps.variants training/steps/results/variants.svg

The runs are rows of the ablations (`python -m training.ablations.grid --rows full,anytime,...`), paired by seed. What
they are measured by beside `full` comes from the ablations of the paper.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.command import run_command
from plume_embed.evaluation.tradeoff import check_format, save_figure
from plume_embed.training.recipe import Recipe
from training.ablations.rows import ROWS, recipe_behind
from training.ablations.tables import interval, shown_parts

RESULTS = Path(__file__).parent / "results" / "hops_variants.json"
ABLATIONS = Path(__file__).parent.parent / "ablations" / "results" / "hops.json"
# Beside our own rows: what they are measured by.
COMPARED = ("full", "k_2", "k_4", "k_6", "stages_6", "single_pass", "single_pass_tuned")


def passes(recipe: Recipe) -> tuple[int, int]:
    """Passes over the layers that a query and a target take, where the last one shares its pass with the suffix.

    Learned tokens are known beforehand, so that they and the suffix ride in the pass of the prefix.

    Raises:
        ValueError: a model that writes, whose passes depend on what it writes.
    """
    curriculum, plume = recipe.curriculum, recipe.model.plume
    if curriculum.num_latent_steps == 0:
        return 1, 1
    if curriculum.stages[-1] != curriculum.num_segments:
        raise ValueError("This recipe ends before its last stage: the model writes, one pass a token.")
    steps = {"parallel": 0, "jacobi": plume.get("sweeps", 1)}.get(plume.get("rollout"), curriculum.num_latent_steps)
    return 1 + steps, 1 + steps if recipe.target_rollout else 1


def shown_rows(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of the table that have been run, those that are compared with first."""
    names = [*COMPARED, *(row.name for row in ROWS if row.table == "steps")]
    return {name: results["rows"][name] for name in names if name in results["rows"]}


def not_run(results: dict[str, Any]) -> list[str]:
    """Labels of our own rows without a run."""
    return [row.label for row in ROWS if row.table == "steps" and row.name not in results["rows"]]


def markdown(results: dict[str, Any]) -> str:
    """A line a row: passes of a query and a target, parameters, Hit@1 and its paired difference to the full model."""
    part, part_name = shown_parts(results)
    lines = [
        f"| | passes: query, target | parameters | seeds | Hit@1 % | difference to full (95 %) | by {part_name} |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for name, row in shown_rows(results).items():
        both = passes(recipe_behind(results["task"], row["settings"]))
        difference = row["difference_to_full"]
        shown = "" if name == "full" or difference is None else _difference(difference)
        by_count = " ".join(f"{100 * hit:.0f}" for hit in row[part].values())
        cells = [row["label"], f"{both[0]}, {both[1]}", f"{row['parameters'][0]:,}", str(len(row["runs"]))]
        cells += [f"{100 * row['mean']:.1f}", shown, by_count]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(found: dict[str, Any]) -> str:
    if found["low"] is None:
        return f"{100 * found['mean']:+.1f}"
    return f"{100 * found['mean']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def with_compared(results: dict[str, Any], ablations: dict[str, Any]) -> dict[str, Any]:
    """The results with those rows of the ablations that they are compared with and lack.

    Raises:
        ValueError: the ablations are of another task.
    """
    check_task(ablations, results["task"])
    compared = {name: ablations["rows"][name] for name in COMPARED if name in ablations["rows"]}
    return results | {"rows": compared | results["rows"]}


def check_task(ablations: dict[str, Any], task: str) -> None:
    """Refuses results of the ablations that are not of this task.

    Raises:
        ValueError: they are of another one.
    """
    if ablations["task"] != task:
        raise ValueError(
            f"These are results on {task}, and what they are compared with is on {ablations['task']}: give --ablations "
            f"results on {task}, such as training/ablations/results/{task}.json."
        )


def write_plot(results: dict[str, Any], file: Path) -> Path:
    """Draws Hit@1 with Student's interval over the passes of a query; what no other row beats in both is joined.

    Raises:
        ValueError: matplotlib is missing, or it does not know the format.
    """
    check_format(file)
    from matplotlib.figure import Figure

    points = []
    for name, row in shown_rows(results).items():
        mean, low, high = interval([100 * run["hit_at_1"] for run in row["runs"].values()])
        cost = passes(recipe_behind(results["task"], row["settings"]))[0]
        points.append((cost, mean, mean if low is None else low, mean if high is None else high, name))
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for cost, mean, low, high, _ in points:
        axes.errorbar(cost, mean, yerr=[[mean - low], [high - mean]], fmt="o", capsize=3, color="tab:blue")
    dearest = max(cost for cost, *_ in points)
    for cost, hits, names in labels([(cost, mean, name) for cost, mean, _, _, name in points]):
        style = {"textcoords": "offset points", "fontsize": 7, "ha": "left"}
        if cost == dearest:  # nothing is to the right of it: a name a line
            axes.annotate("\n".join(names), (cost, sum(hits) / len(hits)), xytext=(7, 0), va="center", **style)
        else:  # slanting upwards, so that it ends above the next point
            slant = {"rotation": 40, "rotation_mode": "anchor", "va": "bottom"}
            axes.annotate(", ".join(names), (cost, max(hits)), xytext=(4, 4), **slant, **style)
    best = pareto([(cost, mean) for cost, mean, *_ in points])
    axes.plot(*zip(*best, strict=True), color="tab:grey", lw=1, drawstyle="steps-post")
    axes.set_xlabel("passes over the layers, a query")
    axes.set_xscale("log", base=2)  # most rows have few passes
    axes.set_xticks(sorted({cost for cost, *_ in points}), minor=False)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_ylabel("Hit@1, %")
    axes.set_ylim(0, 110)
    axes.set_title("bars: Student's 95 % interval over seeds", fontsize=9, loc="right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    save_figure(figure, file)
    return file


def labels(points: list[tuple[float, float, str]], apart: float = 14.0) -> list[tuple[float, list[float], list[str]]]:
    """All points of a cost that are less than so many percent from the best of them have one label: cost, accuracies
    and names."""
    found: list[tuple[float, list[tuple[float, str]]]] = []
    for cost, accuracy, name in sorted(points, key=lambda point: (point[0], -point[1])):
        if found and found[-1][0] == cost and found[-1][1][0][0] - accuracy < apart:
            found[-1][1].append((accuracy, name))
        else:
            found.append((cost, [(accuracy, name)]))
    return [(cost, [accuracy for accuracy, _ in own], [name for _, name in own]) for cost, own in found]


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, accuracy) than which no other is both as cheap and better, by cost."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


def main(
    to: Annotated[Path, typer.Argument(help="Picture to write: .svg, .png or .pdf.")],
    file: Annotated[Path, typer.Option(help="Results of the variants.")] = RESULTS,
    ablations: Annotated[Path, typer.Option(help="Results of the ablations that they are compared with.")] = ABLATIONS,
) -> None:
    """Print the table of the variants and draw it."""
    results = json.loads(file.read_text())
    typer.echo(markdown(results))
    for label in not_run(results):
        typer.echo(f"not run: {label}")
    both = with_compared(results, json.loads(ablations.read_text()))
    typer.echo(f"written: {write_plot(both, to)}")


if __name__ == "__main__":
    run_command(main)
