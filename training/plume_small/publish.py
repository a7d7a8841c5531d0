"""The trained model as the checkpoint of the repository: fp16 on disk, computed in float32.

    python -m training.plume_small.publish --seed 0 --to checkpoints/plume-small

The code is links to the root files, so that there is one copy of it. `training.json` tells each stage and its curves.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from plume_embed.atomic import write_json
from plume_embed.command import run_command
from plume_embed.hub.folders import check_replaceable, new_folder
from plume_embed.training.log import read_log
from training.plume_small.card import model_card
from training.plume_small.train import CHAINS, SHIPPED, WORK, train

ROOT = Path(__file__).parent.parent.parent
CHECKPOINT = Path("checkpoints/plume-small")


def publish(seed: int, chain: str, to: Path, work: Path = WORK) -> Path:
    """Writes the folder, once the stages of the chain have ended (they are run where they have not); a model that is
    there is replaced when the new one is whole.

    Returns:
        `to`.

    Raises:
        ValueError: the folder holds anything but a model; or see [`train`].
    """
    check_replaceable(to)  # before hours of training
    model, processor = train(seed, chain, work)
    with new_folder(to, replaces_model=True) as saved:
        # Half of the bytes; config.json goes on to say float32, in which the vectors are computed.
        half = {
            name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
        }
        model.save_pretrained(saved, state_dict=half)
        processor.save_pretrained(saved)
        for file in saved.glob("*.py"):  # copies of the root files
            file.unlink()
        for file in sorted(ROOT.glob("*_plume.py")):
            (saved / file.name).symlink_to(os.path.relpath(file, to.resolve()))
        folder = work / f"seed-{seed}"
        stages = [asdict(stage) | {"curve": _curve(folder / stage.name)} for stage in CHAINS[chain]]
        write_json(saved / "training.json", {"seed": seed, "stages": stages})
        (saved / "README.md").write_text(model_card(model, processor))
    return to


def _curve(folder: Path) -> list[dict]:
    """A line in ten of the log, and all validations."""
    return [entry for entry in read_log(folder) if "validation" in entry or entry["step"] % 100 == 0]


def main(
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
    chain: Annotated[str, typer.Option(help=f"One of {', '.join(CHAINS)}.")] = SHIPPED,
    to: Annotated[Path, typer.Option(help="Folder of the checkpoint; a model in it is replaced.")] = CHECKPOINT,
    work: Annotated[Path, typer.Option(help="Where data and states are kept.")] = WORK,
) -> None:
    """Write the checkpoint of a run."""
    torch.set_num_threads(1)
    typer.echo(f"written: {publish(seed, chain, to, work)}")


if __name__ == "__main__":
    run_command(main)
