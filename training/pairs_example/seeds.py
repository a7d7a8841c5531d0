"""plume-tiny fine-tuned on the sketches with several seeds: `python -m training.pairs_example.seeds`.

Each seed holds out other pairs. A finished run is kept, so that the command goes on after a kill, and so is what the
results file has of other seeds.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from plume_embed.atomic import write_json
from plume_embed.command import run_command
from plume_embed.training.recipe import load_recipe
from plume_embed.training.run import run
from training.ablations.archive import check_is_of
from training.pairs_example.make import main as make

RESULTS = Path(__file__).parent / "results" / "sketches.json"
_SCORES = ("hit_at_1", "hit_at_5", "hit_at_10", "ndcg_at_10")


def table(results: dict[str, Any]) -> str:
    """Before and after by seed, in percent, as Markdown."""
    lines = ["| seed | queries, pool | Hit@1 | Hit@5 | NDCG@10 | CPU minutes |", "|---|---|---|---|---|---|"]
    for seed, one in results["seeds"].items():
        cells = [
            f"{100 * one['before'][name]:.1f} to {100 * one['after'][name]:.1f}"
            for name in ("hit_at_1", "hit_at_5", "ndcg_at_10")
        ]
        minutes = "-" if one["cpu_minutes"] is None else f"{one['cpu_minutes']:.1f}"
        lines.append(f"| {seed} | {one['queries']}, {one['pool']} | {' | '.join(cells)} | {minutes} |")
    return "\n".join(lines)


def kept(file: Path, seeds: list[str], steps: int) -> dict[str, Any]:
    """What a results file has of other seeds.

    Raises:
        ValueError: of another number of steps, which do not belong into one table.
    """
    held = json.loads(file.read_text())["seeds"] if file.is_file() else {}
    others = {seed: one for seed, one in held.items() if seed not in seeds}
    for seed, one in others.items():
        if one["steps"] != steps:
            raise ValueError(
                f"{file} holds seed {seed} with {one['steps']} steps; ask with --steps {one['steps']}, or give another "
                "--json."
            )
    return others


def main(
    data: Annotated[Path, typer.Option(help="Folder for the sketches.")] = Path(".data/sketches"),
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path(".data/runs/sketches"),
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    steps: Annotated[int, typer.Option(help="Optimiser steps of each run.")] = 100,
    to: Annotated[Path, typer.Option("--json", help="Results file.")] = RESULTS,
) -> None:
    """Fine-tune with each seed, one thread, and write before and after."""
    torch.set_num_threads(1)
    asked = seeds.split(",")
    found = kept(to, asked, steps)
    make(data)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for seed in asked:
        folder = out / f"seed-{seed}"
        settings = [f"data.files=[{data / 'sketches.csv'}]", f"seed={seed}", f"output_dir={folder}"]
        recipe = load_recipe("pairs", [*settings, f"curriculum.max_steps={steps}"])
        if not (folder / "results.json").is_file():
            run(recipe, resume=True, console=console)
        one = check_is_of(folder, recipe)
        found[seed] = {
            "before": {name: one["before"][name] for name in _SCORES},
            "after": {name: one[name] for name in _SCORES},
            **{name: one[name] for name in ("queries", "pool", "torch", "device")},
            "steps": recipe.curriculum.max_steps,
            "cpu_minutes": one.get("train_cpu_minutes"),  # none of a run that an older version began
        }
        to.parent.mkdir(parents=True, exist_ok=True)
        ordered = dict(sorted(found.items(), key=lambda item: int(item[0])))
        write_json(to, {"model": "checkpoints/plume-tiny", "seeds": ordered})
    console.print(table(json.loads(to.read_text())))


if __name__ == "__main__":
    run_command(main)
