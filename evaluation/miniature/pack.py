"""The training data alone: `python -m evaluation.miniature.pack --data DIR --out DIR`.

A built folder holds pictures of four styles and the evaluation's media. Training on another machine needs the pairs and
what they name, no more; the packed folder has the form of the built one, so training reads either.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from plume_embed.command import run_command
from plume_embed.evaluation.miniature.schema import write_media

GROUP = "training"


def training_media(data: Path) -> dict[str, list[bytes]]:
    """The frames of all media that the training pairs below `data` name, by id.

    Raises:
        FileNotFoundError: there are no training pairs.
        ValueError: a medium is missing.
    """
    files = sorted((data / "train").glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{data / 'train'} holds no *.parquet: run `make miniature`.")
    named = {
        row[side][kind]
        for file in files
        for row in pq.read_table(file, columns=["qry", "pos"]).to_pylist()
        for side in ("qry", "pos")
        for kind in ("image", "video")
    } - {""}
    media: dict[str, list[bytes]] = {}
    for file in sorted(data.glob("*.parquet")):
        columns = pq.read_table(file, columns=["image", "style", "hexcode"]).to_pydict()
        for image, style, hexcode in zip(columns["image"], columns["style"], columns["hexcode"], strict=True):
            if f"{style}/{hexcode}" in named:
                media[f"{style}/{hexcode}"] = [image["bytes"]]
    for file in sorted((data / "media").glob("*.parquet")):
        columns = pq.read_table(file, columns=["id", "frames"]).to_pydict()
        for name, frames in zip(columns["id"], columns["frames"], strict=True):
            if name in named:
                media[name] = [frame["bytes"] for frame in frames]
    missing = sorted(named - media.keys())
    if missing:
        raise ValueError(f"{len(missing)} media of the training pairs are missing, first {missing[0]!r}: build again.")
    return media


def training_bytes(data: Path) -> int:
    """The size of the training pairs and of the media they name; 0 where there are no pairs."""
    files = list((data / "train").glob("*.parquet"))
    if not files:
        return 0
    media = sum(len(frame) for frames in training_media(data).values() for frame in frames)
    return media + sum(file.stat().st_size for file in files)


def main(
    data: Annotated[Path, typer.Option(help="Folder that `python -m evaluation.miniature.build` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write; `train/` of an earlier call is replaced.")],
) -> None:
    """Pack the training data, e.g. `python -m evaluation.miniature.pack --data .data/miniature --out .data/train`."""
    media, packed = training_media(data), out / "train"
    names = {file.name for file in (data / "train").iterdir()}
    others = sorted(file.name for file in packed.iterdir() if file.name not in names) if packed.exists() else []
    if others:
        raise ValueError(f"{packed} holds {others[0]!r}, which would be lost; move it away, or give another --out.")
    shutil.rmtree(packed, ignore_errors=True)
    shutil.copytree(data / "train", packed)
    write_media(media, out, GROUP)
    total = sum(file.stat().st_size for file in out.rglob("*.parquet"))
    typer.echo(f"{len(media)} media, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
