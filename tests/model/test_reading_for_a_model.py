"""A file read for a model, in the process that decodes, gives the batch that the processor makes of the file itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from families import NAMES, processor_of
from PIL import ExifTags, Image
from small_files import write_long_video, write_video

from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.reading.items import SourceFile
from plume_embed.reading.options import Options
from plume_embed.reading.read import kind_by_suffix, read_items

RNG = np.random.default_rng(0)


def pixels(width: int, height: int, channels: int = 3) -> np.ndarray:
    coarse = RNG.integers(0, 256, (height // 3 + 1, width // 3 + 1, channels), dtype=np.uint8)
    return coarse.repeat(3, axis=0).repeat(3, axis=1)[:height, :width]


def write(folder: Path, name: str) -> Path:
    """A picture of the kind that its name says."""
    rgb = Image.fromarray(pixels(611, 457))
    alpha = Image.fromarray(pixels(611, 457, 4))
    if name.startswith("turned"):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = int(name[6])
        rgb.save(folder / name, exif=exif, quality=95)
        return folder / name
    depth = Image.fromarray(pixels(611, 457, 1)[..., 0].astype(np.uint16) * 251)
    pictures = {
        "rgba.png": alpha,
        "palette.png": rgb.quantize(64),
        "transparent-palette.gif": alpha.quantize(64),
        "grey.jpg": rgb.convert("L"),
        "grey-alpha.png": alpha.convert("LA"),
        "cmyk.jpg": rgb.convert("CMYK"),
        "bits.png": rgb.convert("1"),
        "deep.png": depth,
        "odd.png": Image.fromarray(pixels(333, 1001)),
        "wide.png": Image.fromarray(pixels(2400, 25)),
        "tiny.png": Image.fromarray(pixels(3, 2)),
        "point.bmp": Image.fromarray(pixels(1, 1)),
        "large.jpg": Image.fromarray(pixels(4000, 3000)),
    }
    pictures[name].save(folder / name)
    return folder / name


def same_as_the_file(processor: PlumeProcessor, path: Path, key: str) -> bool:
    status = path.stat()
    file = SourceFile(path.name, path, kind_by_suffix(path.suffix), status.st_size, status.st_mtime_ns)
    (item,) = read_items(file, lambda text: True, Options.of(processor))
    read, whole = processor([item.content]), processor([{key: path}])
    return read.keys() == whole.keys() and all(torch.equal(read[name], whole[name]) for name in read)


@pytest.mark.parametrize(
    "file",
    [f"turned{orientation}.jpg" for orientation in range(1, 9)]
    + ["turned6.png", "rgba.png", "palette.png", "transparent-palette.gif", "grey.jpg", "grey-alpha.png", "cmyk.jpg"]
    + ["bits.png", "deep.png", "odd.png", "wide.png", "tiny.png", "point.bmp", "large.jpg"],
)
def test_a_picture_of_any_kind(tmp_path: Path, file: str):
    path = write(tmp_path, file)
    for name in NAMES if file in ("turned6.jpg", "odd.png", "rgba.png") else ("qwen2_vl", "fast_vlm"):
        assert same_as_the_file(processor_of(name, max_length=100_000), path, "image"), name


@pytest.mark.parametrize("name", ["qwen2_vl", "fast_vlm"])
@pytest.mark.parametrize("size", [16, 250])
def test_a_film(tmp_path: Path, name: str, size: int):
    path = write_video(tmp_path / "film.mp4", num_frames=12, size=size)
    assert same_as_the_file(processor_of(name, max_length=100_000), path, "video")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [32, 250])
def test_a_film_with_its_times(tmp_path: Path, name: str, size: int):
    path = write_long_video(tmp_path / "film.mp4", seconds=8, rate=4.0, size=size)
    for sampling in ({}, {"fps": 1.5}):
        assert same_as_the_file(processor_of(name, max_length=100_000, **sampling), path, "video"), sampling
