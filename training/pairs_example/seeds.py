"""plume-tiny fine-tuned on the sketches with several seeds: `python -m training.pairs_example.seeds`.

Each seed holds out other pairs. A finished run is kept, so that the command goes on after a kill.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from plume_embed.atomic import write_json
from plume_embed.training.recipe import load_recipe
from plume_embed.training.run import run
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
        lines.append(f"| {seed} | {one['queries']}, {one['pool']} | {' | '.join(cells)} | {one['cpu_minutes']:.1f} |")
    return "\n".join(lines)


def main(
    data: Annotated[Path, typer.Option(help="Folder for the sketches.")] = Path(".data/sketches"),
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path(".data/runs/sketches"),
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    steps: Annotated[int, typer.Option(help="Optimiser steps of each run.")] = 100,
    to: Annotated[Path, typer.Option("--json", help="Results file.")] = RESULTS,
) -> None:
    """Fine-tune with each seed, one thread, and write before and after."""
    torch.set_num_threads(1)
    make(data)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    found = {}
    for seed in seeds.split(","):
        folder = out / f"seed-{seed}"
        file = folder / "results.json"
        settings = [f"data.files=[{data / 'sketches.csv'}]", f"seed={seed}", f"output_dir={folder}"]
        if not file.is_file():
            run(load_recipe("pairs", [*settings, f"curriculum.max_steps={steps}"]), resume=True, console=console)
        one = json.loads(file.read_text())
        found[seed] = {
            "before": {name: one["before"][name] for name in _SCORES},
            "after": {name: one[name] for name in _SCORES},
            **{name: one[name] for name in ("queries", "pool", "torch", "device")},
            "steps": steps,
            "cpu_minutes": one["train_cpu_minutes"],
        }
        to.parent.mkdir(parents=True, exist_ok=True)
        write_json(to, {"model": "checkpoints/plume-tiny", "seeds": found})
    console.print(table(json.loads(to.read_text())))


if __name__ == "__main__":
    typer.run(main)
