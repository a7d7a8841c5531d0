"""Rendering: an SVG or a picture file becomes a square RGB picture on a white ground."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import resvg_py
from PIL import Image
from rich.progress import track

from plume_embed.pools import end_with_parent

WHITE = (255, 255, 255)


def render(source: str | Path, size: int) -> Image.Image:
    """Draw one picture, centred, its longer side filling the square.

    Args:
        source: SVG source text, or the path of a file that Pillow reads.
        size: Side of the square in pixels.

    Returns:
        An RGB picture of `size` x `size` pixels.
    """
    drawn = render_cutout(source, size)
    ground = Image.new("RGB", (size, size), WHITE)
    ground.paste(drawn, ((size - drawn.width) // 2, (size - drawn.height) // 2), drawn)
    return ground


def render_cutout(source: str | Path, size: int) -> Image.Image:
    """Draw one picture without a ground: RGBA, its longer side `size` pixels (see `render`)."""
    if isinstance(source, Path):
        with Image.open(source) as file:
            drawn = file.convert("RGBA")
            drawn.thumbnail((size, size), Image.Resampling.LANCZOS)
            return drawn
    width, height = _svg_size(source)
    longer = {"width": size} if width >= height else {"height": size}
    png = resvg_py.svg_to_bytes(svg_string=source, skip_system_fonts=True, **longer)
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _svg_size(svg: str) -> tuple[float, float]:
    view_box = svg.split('viewBox="', 1)[1].split('"', 1)[0].split()
    return float(view_box[2]), float(view_box[3])


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def encoded(picture: Image.Image, lossy: bool = False) -> bytes:
    """A picture as a file's bytes: lossless PNG or WebP, whichever is smaller, or WebP of quality 90.

    Args:
        lossy: For what was shaded or composed; a third to a fifth of the size, with no difference to the eye.
    """
    buffer = io.BytesIO()
    if lossy:
        picture.save(buffer, "WEBP", quality=90, method=4)
        return buffer.getvalue()
    picture.save(buffer, "WEBP", lossless=True, quality=80, method=4)
    return min(png_bytes(picture), buffer.getvalue(), key=len)


def picture_hash(picture: Image.Image) -> str:
    """A hash of the pixels: equal pictures have equal hashes, however they were compressed."""
    return hashlib.sha256(picture.tobytes()).hexdigest()[:16]


def _render_encoded(source: str | Path, size: int) -> tuple[bytes, str]:
    data = encoded(render(source, size), lossy=isinstance(source, Path))  # files are shaded drawings, SVG is flat
    with Image.open(io.BytesIO(data)) as stored:
        return data, picture_hash(stored.convert("RGB"))


def render_all(
    sources: Sequence[str | Path], size: int, description: str, processes: int = 2
) -> Iterator[tuple[bytes, str]]:
    """Render many pictures in parallel, with a progress bar.

    Args:
        sources: SVG source texts or paths.
        size: Side in pixels; a multiple of 28, so that no patch of the backbone straddles the border.
        description: What the progress bar says.
        processes: Number of worker processes.

    Yields:
        The bytes of a PNG or WebP file and the hash of the pixels in it, in the order of the sources.

    Raises:
        ValueError: If the size is not a positive multiple of 28.
    """
    if size <= 0 or size % 28:
        raise ValueError(f"size is {size}; choose a multiple of 28, such as 84 or 112.")
    with multiprocessing.Pool(processes, end_with_parent) as pool:
        rendered = pool.imap(partial(_render_encoded, size=size), sources, chunksize=32)
        yield from track(rendered, description=f"{description:<12}", total=len(sources))
