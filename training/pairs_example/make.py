"""Writes a small example of pairs: a sketch of a picture, and the picture that it should find.

    python -m training.pairs_example.make .data/sketches
    plume-embed train pairs --set data.files=[.data/sketches/sketches.csv]

The sketches are the outlines of the demo's 160 pictures, turned and made smaller: plume-tiny was never shown outlines.
"""

import csv
import random
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageFilter, ImageOps

from plume_embed.command import run_command

PICTURES = Path("examples/pictures")


def sketch(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Dark outlines on white, a little turned and moved."""
    grey = ImageOps.grayscale(picture.convert("RGB")).resize((96, 96), Image.Resampling.LANCZOS)
    edges = grey.filter(ImageFilter.FIND_EDGES).crop((1, 1, 95, 95))
    lines = ImageOps.invert(ImageOps.autocontrast(edges, cutoff=2))
    return lines.rotate(rng.uniform(-12, 12), fillcolor=255, translate=(rng.randint(-4, 4), rng.randint(-4, 4)))


def main(
    out: Annotated[Path, typer.Argument(help="Folder for sketches.csv and the sketches.")],
    pictures: Annotated[Path, typer.Option(help="Folder of pictures.")] = PICTURES,
) -> None:
    """Write sketches.csv with the columns query_image and positive_image."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted(pictures.glob("*.png")):
        file = out / f"sketch_{path.stem}.png"
        with Image.open(path) as picture:
            sketch(picture, random.Random(path.stem)).save(file)
        rows.append({"query_image": file.name, "positive_image": str(path.resolve())})
    with (out / "sketches.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=("query_image", "positive_image"))
        writer.writeheader()
        writer.writerows(rows)
    typer.echo(f"{len(rows)} pairs in {out / 'sketches.csv'}")


if __name__ == "__main__":
    run_command(main)
