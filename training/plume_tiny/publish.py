"""Publish the model of a chain of runs as the checkpoint of the repository.

    python -m training.plume_tiny.publish .data/runs/tiny/full-0 .data/runs/tiny_more --to checkpoints/plume-tiny

Weights, tokenizer and json are the last run's; the code is links to the root files, so that there is one copy of it.
`training.json` records each run: its cost, its recipe and its losses.
"""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from plume_embed.atomic import write_json
from plume_embed.command import run_command
from plume_embed.hub.folders import new_folder
from plume_embed.training.log import read_log
from training.plume_tiny.collect import collect

ROOT = Path(__file__).parent.parent.parent
_LOSSES = ("step", "stage", "learning_rate", "loss", "ce", "nce_gen", "nce_anchor", "balance", "router_entropy")


def publish(runs: list[Path], to: Path) -> None:
    """Writes the folder; a model that is there is replaced when the new one is whole.

    Args:
        runs (`list[Path]`): Output folders of runs that have ended, each of which went on from the one before.
        to (`Path`): The folder of the checkpoint, below the repository's root.

    Raises:
        ValueError: a run has not ended, or the folder holds anything but a model, and what to do.
    """
    named = zip(runs, collect(runs).items(), strict=True)
    records = [{"name": name} | results | {"losses": _losses(run)} for run, (name, results) in named]
    with new_folder(to, replaces_model=True) as folder:
        for file in sorted((runs[-1] / "model").iterdir()):
            if file.suffix != ".py":
                shutil.copyfile(file, folder / file.name)
        for file in sorted(ROOT.glob("*_plume.py")):
            (folder / file.name).symlink_to(os.path.relpath(file, to.resolve()))
        write_json(folder / "training.json", {"runs": records})


def _losses(run: Path) -> list[dict]:
    return [{name: round(e[name], 6) for name in _LOSSES if name in e} for e in read_log(run, having="loss")]


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, each of which went on from the one before.")],
    to: Annotated[Path, typer.Option(help="Folder of the checkpoint; a model in it is replaced.")] = Path(
        "checkpoints/plume-tiny"
    ),
) -> None:
    """Publish the model of the last run."""
    publish(runs, to)
    typer.echo(f"{to}: the model of {runs[-1]}")


if __name__ == "__main__":
    run_command(main)
