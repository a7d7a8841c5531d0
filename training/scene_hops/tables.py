"""Hit@1 on `scene_hops` by number of hops and by the family of the last one, beside what guessing comes to.

python -m training.scene_hops.tables RESULTS.json --plot PICTURE.svg
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.command import run_command
from plume_embed.evaluation.tradeoff import check_format, save_figure
from training.scene_hops import scenes
from training.scene_hops.scenes import FAMILIES, MAX_HOPS

# Rows that are drawn; the table has all.
DRAWN = ("explicit_cot_stage_0", "full_distilled", "distilled", "full_longer", "full", "parallel", "single_pass")
GUESSES = {
    "constant": "guess: the most frequent answer",
    "start": "guess: the picture at the start",
    "bag_of_pictures": "guess: one of the scene's pictures",
}


def by_hops(results: Mapping[str, Any]) -> str:
    """A line for each row of the ablations: means over its seeds, in percent.

    Args:
        results: What `training.ablations.grid --task scene_hops` writes.
    """
    numbers = [str(number) for number in range(MAX_HOPS + 1)]
    lines = [
        f"| Hit@1 % by hops | seeds | all | {' | '.join(numbers)} | "
        f"{' | '.join(f'last hop: {family}' for family in FAMILIES)} |",
        f"|---|---:|{'---:|' * (1 + len(numbers) + len(FAMILIES))}",
    ]
    for row in results["rows"].values():
        hits = [row["hit_at_1_by_hops"][n] for n in numbers] + [row["hit_at_1_by_last_hop"][f] for f in FAMILIES]
        lines.append(_line(row["label"], str(len(row["runs"])), [row["mean"], *hits]))
    chance, of_all = _chance(results), scenes.chance(scenes.held_out_queries())
    for guess, label in GUESSES.items():
        hits = [of_all[guess], *(chance[n][guess] for n in numbers)]
        lines.append(_line(label, "", hits, len(FAMILIES)))
    return "\n".join(lines)


def write_plot(results: Mapping[str, Any], file: Path) -> Path:
    """Draws Hit@1 over the number of hops: a line for each of the rows `DRAWN` through the means of its seeds, from the
    worst to the best seed in a paler tone, and what a guess among the scene's pictures comes to.

    Raises:
        ValueError: matplotlib is missing, or it does not know the format.
    """
    check_format(file)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.6), layout="constrained")
    axes, numbers = figure.subplots(), list(range(MAX_HOPS + 1))
    drawn = (row for name, row in results["rows"].items() if name in DRAWN)
    for row in sorted(drawn, key=lambda row: -row["mean"]):
        by_seed = [[100 * run["hit_at_1_by_hops"][str(n)] for n in numbers] for run in row["runs"].values()]
        means = [100 * row["hit_at_1_by_hops"][str(n)] for n in numbers]
        (line,) = axes.plot(numbers, means, marker="o", ms=4, label=row["label"])
        worst, best = ([pick(hits) for hits in zip(*by_seed, strict=True)] for pick in (min, max))
        axes.fill_between(numbers, worst, best, color=line.get_color(), alpha=0.15, lw=0)
    guesses = [100 * _chance(results)[str(n)]["bag_of_pictures"] for n in numbers]
    axes.plot(numbers, guesses, "k:", label=GUESSES["bag_of_pictures"])
    axes.set_xlabel("hops of the instruction")
    axes.set_ylabel("Hit@1, %")
    axes.set_ylim(0, 103)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=8)
    save_figure(figure, file)
    return file


def main(
    results: Annotated[Path, typer.Argument(help="What the grid of scene_hops wrote.")],
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .svg, .png or .pdf.")] = None,
) -> None:
    """Print the table and draw it."""
    found = json.loads(results.read_text())
    typer.echo(by_hops(found))
    if plot is not None:
        typer.echo(f"written: {write_plot(found, plot)}")


def _chance(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of guessing, by number of hops; the test queries are the same for every run."""
    return next(iter(next(iter(results["rows"].values()))["runs"].values()))["chance_by_hops"]


def _line(label: str, seeds: str, hits: list[float], empty: int = 0) -> str:
    return f"| {' | '.join([label, seeds, *(f'{100 * hit:.0f}' for hit in hits), *[''] * empty])} |"


if __name__ == "__main__":
    run_command(main)
