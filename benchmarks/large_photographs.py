"""Photographs of 12 megapixels for the benchmarks, made from the bundled ones: each number is another picture.

python -m benchmarks.large_photographs FOLDER --count 1000
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageEnhance, ImageOps

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 4000, 3000
_SOURCES = sorted((ROOT / "examples" / "photographs").glob("*.jpg"))
_QUALITY = 90  # of the JPEG files, as cameras write them
_LEAST_PART, _LEAST_LIGHT = 0.6, 0.8


def photograph(number: int) -> Image.Image:
    """A part of one of the bundled photographs in other light, enlarged; the same for the same number."""
    random = np.random.default_rng(number)
    with Image.open(_SOURCES[number % len(_SOURCES)]) as source:
        picture = ImageOps.exif_transpose(source).convert("RGB")
    scale = random.uniform(_LEAST_PART, 1.0) * min(picture.width / WIDTH, picture.height / HEIGHT)
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    left, top = (int(random.integers(0, room + 1)) for room in (picture.width - width, picture.height - height))
    part = picture.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        part = ImageOps.mirror(part)
    for change in (ImageEnhance.Brightness, ImageEnhance.Color):
        part = change(part).enhance(random.uniform(_LEAST_LIGHT, 1.0 / _LEAST_LIGHT))
    return part.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def write_photographs(folder: Path, count: int) -> list[Path]:
    """The first so many photographs as JPEG files; those that are there already are kept.

    Args:
        folder (`Path`): Made if it is not there.
        count (`int`)

    Returns:
        The files, in the order of their numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        if not file.exists():
            partial = file.with_suffix(".partial")  # a killed run must not leave half a picture under the name
            photograph(number).save(partial, "JPEG", quality=_QUALITY)
            partial.rename(file)
    return files


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")],
    count: Annotated[int, typer.Option(min=1, help="Photographs.")] = 1000,
) -> None:
    """Writes photographs of 12 megapixels."""
    write_photographs(folder, count)


if __name__ == "__main__":
    typer.run(main)
