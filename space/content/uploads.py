"""Uploads: what a visitor hands over -> items to embed, or one sentence that says why not.

A file is judged by its name, its first bytes and its headers before anything is decoded; decoding itself runs in a
process of its own with limits (plume_embed.reading.bounded). Nothing is fetched, and nothing is written.
"""

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import av
import pypdfium2
from PIL import Image

from plume_embed.model.images_plume import IMAGE_SUFFIXES, read_image
from plume_embed.model.videos_plume import VIDEO_SUFFIXES, film_seconds
from plume_embed.reading.bounded import LimitError, ProcessLimits, run_limited
from plume_embed.reading.decode import decode_pdf, read_film
from plume_embed.reading.items import FileItem, Kind, SourceFile
from plume_embed.reading.options import Options
from plume_embed.reading.read import TEXT_SUFFIXES, items_of, read_items
from space.settings import MEGABYTE, Limits

NAMES = {"image": "a picture", "video": "a film", "page": "a PDF", "text": "a text"}
FILM_PIXELS = 1920 * 1088  # of a frame; all frames that are looked at are in memory together
# Pillow has decoders for many more formats, and every decoder is one more way in.
_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# Demuxers that read this file and nothing else: playlists, which name other files and addresses, are not among them.
_DEMUXERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpeg", "mpegvideo")
_PAGE_CHARACTERS = 20_000
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_DRAWINGS = (".svg", ".svgz", ".eps", ".ps", ".ai", ".wmf", ".emf")


class Upload(NamedTuple):
    """A file that a visitor has uploaded: where it lies, and what the visitor calls it."""

    path: Path
    name: str


class RefusedError(ValueError):
    """A file is refused; the message is a sentence for the visitor, in plain text: escape it for HTML."""


def read_upload(path: Path, name: str, wanted: tuple[Kind, ...], limits: Limits, options: Options) -> list[FileItem]:
    """The items of an uploaded file, decoded.

    Args:
        path (`Path`): Where it lies.
        name (`str`): As the visitor calls it.
        wanted: What it may be: "image", "video", "page", "text".
        limits ([`Limits`])
        options ([`Options`]): Of the processor; the limits hold in place of its pixels, and nothing is shrunk.

    Returns:
        `list[FileItem]`: One picture, one film, the pages of a PDF (as PIL images with the words that go with them,
            their whole text as the snippet), or the passages of a text.

    Raises:
        RefusedError: what the visitor reads.
    """
    shown = shown_name(name, limits)
    try:
        kind = check_name(name, wanted)
        check_first_bytes(path, kind, limits)
        file = SourceFile(path.name, path, kind, path.stat().st_size, path.stat().st_mtime_ns)
        bounds = ProcessLimits(limits.decode_seconds, limits.decode_bytes)
        # The page shows what was read; what shrinks it is the model's processor, too much to hand to another process.
        return run_limited(decode, file, limits, replace(options, shrink=None), limits=bounds)
    except FileNotFoundError as error:
        raise RefusedError(f"“{shown}” is not there any more; upload it again.") from error
    except (ValueError, LimitError) as error:
        reason = _ERRNO.sub("", str(error).replace(str(path), "it"))
        raise RefusedError(f"“{shown}” was refused: {reason.rstrip('.')}.") from error


def shown_name(name: str, limits: Limits) -> str:
    """The last part of a file's name, printable and not too long. It is not escaped."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(c if c.isprintable() else "�" for c in last).strip() or "unnamed"
    return printable if len(printable) <= limits.name_characters else printable[: limits.name_characters - 1] + "…"


def check_name(name: str, wanted: tuple[Kind, ...]) -> Kind:
    """What a file says it is.

    Raises:
        ValueError: not one of what is wanted.
    """
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        kind: Kind = "image"
    elif suffix in VIDEO_SUFFIXES:
        kind = "video"
    elif suffix == ".pdf":
        kind = "page"
    elif suffix in TEXT_SUFFIXES:
        kind = "text"
    elif suffix in _DRAWINGS:
        raise ValueError("vector drawings can hold programs and addresses and are not taken; save it as PNG")
    else:
        raise ValueError(f"files {f'of type {suffix}' if suffix else 'without a type'} are not taken here")
    if kind not in wanted:
        raise ValueError(f"{' or '.join(NAMES[one] for one in wanted)} is expected here, and this is {NAMES[kind]}")
    return kind


def check_first_bytes(path: Path, kind: Kind, limits: Limits) -> None:
    """Refuses what is empty, too large, or something else than its name says.

    Raises:
        ValueError: the reason.
    """
    size = path.stat().st_size
    if size == 0:
        raise ValueError("it is empty")
    if size > limits.file_bytes:
        raise ValueError(
            f"it has {size / MEGABYTE:.0f} MB, and the limit is {limits.file_bytes // MEGABYTE} MB; make it smaller"
        )
    with path.open("rb") as opened:
        start = opened.read(16)
        opened.seek(max(0, size - 2048))
        end = opened.read()
    found = kind_of_bytes(start)
    if kind == "text" and found is None:
        return  # whether it is text is seen when it is read
    if found is None:
        raise ValueError(f"it is named like {NAMES[kind]}, but its content is something else")
    if found != kind:
        raise ValueError(f"it is named like {NAMES[kind]}, but its content is {NAMES[found]}")
    if kind == "page" and b"%%EOF" not in end:
        raise ValueError("it is truncated: its end is missing")


def kind_of_bytes(start: bytes) -> Kind | None:
    """What the first 16 bytes of a file say; `None` for whatever is not taken here."""
    is_riff = start[:4] == b"RIFF"
    if start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")):
        return "image"
    if is_riff and start[8:12] == b"WEBP":
        return "image"
    if start.startswith(b"%PDF-"):
        return "page"
    is_film = start[4:8] == b"ftyp" or (is_riff and start[8:12] == b"AVI ")
    return "video" if is_film or start.startswith((b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3")) else None


def decode(file: SourceFile, limits: Limits, options: Options) -> list[FileItem]:
    """Checks the headers and reads the items as `options` say; runs in the process with limits.

    Raises:
        ValueError: over a limit, damaged or truncated.
    """
    if file.kind == "image":
        _check_picture(file.absolute, limits)
        return [FileItem(0, 1, "", "image", "", {"image": read_image(file.absolute, limits.pixels)})]
    if file.kind == "video":
        _check_film(file.absolute, limits)
        seconds, options = film_seconds(file.absolute, FILM_PIXELS), replace(options, max_pixels=FILM_PIXELS)
        return [FileItem(0, 1, "", "video", "", read_film(file.absolute, seconds, options))]
    if file.kind == "text":
        items = list(read_items(file, lambda text: True, options))
    else:
        _check_pdf(file.absolute, limits)
        items = list(items_of(decode_pdf(file.absolute, options, frozenset())))
    unreadable = [item for item in items if item.content is None]
    if unreadable:
        raise ValueError(f"{unreadable[0].locator}: {unreadable[0].reason}")
    if len(items) > limits.items:
        raise ValueError(f"it has {len(items)} passages, and the limit is {limits.items}; cut it into parts")
    texts = _page_texts(file.absolute) if file.kind == "page" else []
    return [replace(item, snippet=text) for item, text in zip(items, texts, strict=True)] if texts else items


def _page_texts(path: Path) -> list[str]:
    """The text of every page, as far as a page may be asked for a passage."""
    texts = []
    with closing(pypdfium2.PdfDocument(path)) as document:
        for page in document:
            with closing(page), closing(page.get_textpage()) as text_page:
                text = text_page.get_text_bounded()[:_PAGE_CHARACTERS]
                texts.append(text.encode("utf-8", "replace").decode())  # it may hold half characters
    return texts


def _check_picture(path: Path, limits: Limits) -> None:
    try:
        with Image.open(path, formats=_PILLOW_FORMATS) as opened:
            width, height = opened.size
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has more than {limits.pixels / 1e6:.0f} megapixels; make it smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError("it is damaged or truncated") from error
    if width * height > limits.pixels:
        raise ValueError(
            f"it has {width} x {height} pixels, and the limit is {limits.pixels / 1e6:.0f} megapixels; make it smaller"
        )


def _check_pdf(path: Path, limits: Limits) -> None:
    try:
        with closing(pypdfium2.PdfDocument(path)) as document:
            num_pages = len(document)
    except pypdfium2.PdfiumError:
        return  # its decoder names what is wrong
    if num_pages > limits.pages:
        raise ValueError(f"it has {num_pages} pages, and the limit is {limits.pages}; cut it into parts")


def _check_film(path: Path, limits: Limits) -> None:
    try:
        _check_frames(path, limits)
    except av.FFmpegError as error:
        raise ValueError("it is damaged or truncated") from error


def _check_frames(path: Path, limits: Limits) -> None:
    with av.open(str(path)) as container:
        if container.format.name not in _DEMUXERS or not container.streams.video:
            raise ValueError("it holds no film")
        stream = container.streams.video[0]
        if stream.width * stream.height > FILM_PIXELS:
            raise ValueError(
                f"its frames have {stream.width} x {stream.height} pixels, and the limit is 1920 x 1088; "
                "make it smaller"
            )
        promised, found = stream.frames, 0
        for packet in container.demux(stream):  # finds the frames without decoding them
            found += packet.size > 0
            if found > limits.film_frames:
                raise ValueError(f"it has more than {limits.film_frames:,} frames; cut it")
    if found < promised:
        raise ValueError(f"it is truncated: {found} of {promised} frames are there")
