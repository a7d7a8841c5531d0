"""Finished runs -> one results file.

python -m training.plume_tiny.collect runs/* --to training/hops/results/hops.json
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from plume_embed.command import run_command


def collect(runs: list[Path]) -> dict[str, dict]:
    """What each run ended with, by the name of its folder; the folder's own place is left out.

    Args:
        runs (`list[Path]`): Output folders of `plume-embed train`.

    Raises:
        ValueError: a run has not ended, or two have the same name.
    """
    collected: dict[str, dict] = {}
    for run in runs:
        if not (run / "results.json").is_file():
            raise ValueError(f"{run} has no results.json: the run has not ended; go on with --resume.")
        if run.name in collected:
            raise ValueError(f"Two runs are named {run.name}; rename one of the folders.")
        results = json.loads((run / "results.json").read_text())
        results["recipe"].pop("output_dir")
        collected[run.name] = results
    return collected


def markdown(collected: dict[str, dict]) -> str:
    """The table of the documents: one line a run."""
    lines = ["| run | stages | K | seed | Hit@1 % | by presses 1 .. 8 | CPU minutes |", "|---|---|---|---|---|---|---|"]
    for name, run in collected.items():
        curriculum = run["recipe"]["curriculum"]
        by_presses = " ".join(f"{100 * hit:.0f}" for hit in run["hit_at_1_by_presses"].values())
        stages = " ".join(map(str, curriculum["stages"]))
        cells = (name, stages, curriculum["num_latent_steps"], run["seed"], f"{100 * run['hit_at_1']:.1f}", by_presses)
        # None of a run that an older version began.
        minutes = f"{run['train_cpu_minutes']:.1f}" if "train_cpu_minutes" in run else "-"
        lines.append(f"| {' | '.join(map(str, cells))} | {minutes} |")
    return "\n".join(lines)


def main(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of finished runs.")],
    to: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Gather finished runs into one file and print them as a table."""
    collected = collect(runs)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(collected, indent=1) + "\n")
    typer.echo(markdown(collected))


if __name__ == "__main__":
    run_command(main)
