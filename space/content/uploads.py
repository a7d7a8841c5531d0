"""Uploads: what a visitor hands over -> items to embed, or one sentence that says why not.

A file is judged by its name, its first bytes and its headers before anything is decoded; decoding itself runs in a
process of its own with limits (plume_embed.reading.bounded). Nothing is fetched, and nothing is written.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pypdfium2
from PIL import Image

from plume_embed.model.images_plume import HEIF_SUFFIXES, IMAGE_SUFFIXES, RAW_SUFFIXES, opened, read_image
from plume_embed.model.videos_plume import film_seconds, is_animated, open_container
from plume_embed.reading.bounded import LimitError, ProcessLimits, iterate_limited, run_limited
from plume_embed.reading.decode import decode as decode_file
from plume_embed.reading.decode import read_film
from plume_embed.reading.items import FileItem, Kind, SourceFile
from plume_embed.reading.options import Options
from plume_embed.reading.passages import PASSAGE_CHARACTERS
from plume_embed.reading.query import PDF_BYTES, is_pdf
from plume_embed.reading.read import items_of, kind_by_suffix, read_items
from space.content.films import playable_copy, telling_what_is_wrong
from space.settings import MEGABYTE, Limits

NAMES = {"image": "a picture", "video": "a film", "page": "a PDF", "text": "a text"}
# Pillow has decoders for many more formats, and every decoder is one more way in.
_PILLOW_FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]
# Those that the package reads where Pillow has them, or a library that gives them to it.
_PILLOW_FORMATS += ["AVIF"] if ".avif" in IMAGE_SUFFIXES else []
_PILLOW_FORMATS += ["JPEG2000"] if ".jp2" in IMAGE_SUFFIXES else []
_PILLOW_FORMATS += ["HEIF"] if HEIF_SUFFIXES <= IMAGE_SUFFIXES else []
# The first box of an ISO media file has the brand of what is in it: pictures and films lie in boxes alike.
_PICTURE_BRANDS = frozenset(
    {b"avif", b"avis", b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
)
_FILM_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})  # old films have no brand
# Matroska and WebM; MPEG's program stream, and its bare video.
_FILM_STARTS = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"\0\0\x01\xb0")
_PICTURE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # small ones and large ones
_JPEG_2000_STARTS = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")  # in a box and bare
_TRANSPORT_PACKET = 188  # bytes; each packet of MPEG's transport stream begins with a G
_PAGE_CHARACTERS = 20_000
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_DRAWINGS = (".svg", ".svgz", ".eps", ".ps", ".ai", ".wmf", ".emf")


class Upload(NamedTuple):
    """A file that a visitor has uploaded: where it lies, and what the visitor calls it."""

    path: Path
    name: str


class RefusedError(ValueError):
    """A file is refused; the message is a sentence for the visitor, in plain text: escape it for HTML."""


def read_upload(
    path: Path, name: str, wanted: tuple[Kind, ...], limits: Limits, options: Options, fits: Callable[[str], bool]
) -> Iterator[FileItem]:
    """The items of an uploaded file, each decoded when its turn comes. Close it where not all of them are taken.

    Args:
        path (`Path`): Where it lies.
        name (`str`): As the visitor calls it.
        wanted: What it may be: "image", "video", "page", "text".
        limits ([`Limits`])
        options ([`Options`]): Of the processor; the limits hold in place of its pixels, and nothing is shrunk.
        fits: Whether a text is short enough for one item, as the encoder says.

    Yields:
        [`FileItem`]: What `index` makes of the file, but a film, or an animated picture, is one item: one picture, one
            film, the pages of a PDF (as PIL images with the words that go with them, their whole text as the snippet)
            or of a TIFF, or the passages of a text. Where nothing but a picture is wanted: the first one, as the
            processor reads it.

    Raises:
        RefusedError: what the visitor reads.
    """
    with _refusing(path, name, limits):
        file = _checked(path, name, wanted, limits)
        # The page shows what was read; what shrinks it is the model's processor, too much to hand to another process.
        options = replace(options, shrink=None)
        if file.kind == "text":
            items = read_items(file, fits, options)
        else:
            items = iterate_limited(decode, file, wanted, limits, options, limits=_bounds(limits))
        with closing(items):
            for item in items:
                if item.content is None:
                    raise ValueError(f"{item.locator}: {item.reason}")
                if item.count > limits.items:
                    raise ValueError(
                        f"it has {item.count} passages, and the limit is {limits.items}; cut it into parts"
                    )
                yield item


def playable_upload(
    path: Path, name: str, wanted: tuple[Kind, ...], limits: Limits, always: bool = False
) -> bytes | None:
    """A small copy of an uploaded film that browsers play, see [`playable_copy`]; `None` where they play the film.

    Args:
        path (`Path`), name (`str`), wanted, limits ([`Limits`]): See [`read_upload`].
        always (`bool`): Also where they play it.

    Raises:
        RefusedError: what the visitor reads.
    """
    with _refusing(path, name, limits):
        file = _checked(path, name, wanted, limits)
        return run_limited(_playable, file, limits, always, limits=_bounds(limits))


@contextmanager
def _refusing(path: Path, name: str, limits: Limits) -> Iterator[None]:
    """Whatever is wrong with a file as a sentence that names it."""
    shown = shown_name(name, limits)
    try:
        yield
    except FileNotFoundError as error:
        raise RefusedError(f"“{shown}” is not there any more; upload it again.") from error
    except (ValueError, LimitError) as error:
        reason = _ERRNO.sub("", str(error).replace(str(path), "it"))
        raise RefusedError(f"“{shown}” was refused: {reason.rstrip('.')}.") from error


def _checked(path: Path, name: str, wanted: tuple[Kind, ...], limits: Limits) -> SourceFile:
    kind = check_name(name, wanted)
    check_first_bytes(path, kind, limits)
    return SourceFile(path.name, path, kind, path.stat().st_size, path.stat().st_mtime_ns)


def _bounds(limits: Limits) -> ProcessLimits:
    return ProcessLimits(limits.decode_seconds, limits.decode_bytes)


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
    kind = kind_by_suffix(suffix)
    if suffix in _DRAWINGS:
        raise ValueError("vector drawings can hold programs and addresses and are not taken; save it as PNG")
    if kind is None:
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
    if kind == "text":
        # Whether it is text is seen when it is read. That is done in this process, so not for a text that will be
        # refused for its length: a character has four bytes at most.
        if size > 4 * PASSAGE_CHARACTERS * limits.items:
            raise ValueError(f"it has more than {limits.items} passages; cut it into parts")
        return
    with path.open("rb") as opened:
        found = kind_of_bytes(opened.read(PDF_BYTES))
    if path.suffix.lower() in RAW_SUFFIXES:
        return  # each maker's begin in another way
    if found is None:
        raise ValueError(f"it is named like {NAMES[kind]}, but its content is something else")
    if found != kind:
        raise ValueError(f"it is named like {NAMES[kind]}, but its content is {NAMES[found]}")


def kind_of_bytes(start: bytes) -> Kind | None:
    """What the first `PDF_BYTES` of a file say; `None` for whatever is not taken here."""
    if start.startswith(_PICTURE_STARTS + _TIFF_STARTS + _JPEG_2000_STARTS):
        return "image"
    if start[4:8] == b"ftyp" and start[8:12] in _PICTURE_BRANDS:
        return "image"
    if start.startswith(_FILM_STARTS) or start[4:8] in _FILM_BOXES:
        return "video"
    if start[:4] == b"RIFF" and start[8:12] in (b"WEBP", b"AVI "):
        return "image" if start[8:12] == b"WEBP" else "video"
    if start[: 2 * _TRANSPORT_PACKET : _TRANSPORT_PACKET] == b"GG":
        return "video"
    return "page" if is_pdf(start) else None


def decode(file: SourceFile, wanted: tuple[Kind, ...], limits: Limits, options: Options) -> Iterator[FileItem]:
    """Checks the headers and reads the items as `options` say; runs in the process with limits.

    Raises:
        ValueError: over a limit, damaged or truncated.
    """
    path, is_film = file.absolute, file.kind == "video"
    if file.kind == "image":
        is_film = _check_picture(path, limits)
        if wanted == ("image",):
            yield FileItem(0, 1, "", "image", "", {"image": read_image(path, limits.pixels)})
            return
    elif is_film:
        _check_film(path, limits)
    if is_film:
        seconds, options = film_seconds(path, limits.film_pixels), replace(options, max_pixels=limits.film_pixels)
        yield FileItem(0, 1, "", "video", "", read_film(path, seconds, options))
        return
    answers = decode_file(file, replace(options, max_pixels=limits.pixels), frozenset())
    outline = next(answers)
    if len(outline.locators) > limits.pages:
        raise ValueError(f"it has {len(outline.locators)} pages, and the limit is {limits.pages}; cut it into parts")
    texts = iter(_page_texts(path) if file.kind == "page" else ())
    for item in items_of(chain([outline], answers)):
        yield replace(item, snippet=next(texts, item.snippet))


def _playable(file: SourceFile, limits: Limits, always: bool) -> bytes | None:
    if file.kind == "video":
        _check_film(file.absolute, limits)
    else:
        _check_picture(file.absolute, limits)
    return playable_copy(file.absolute, limits.film_pixels, always)


def _page_texts(path: Path) -> list[str]:
    """The text of every page, as far as a page may be asked for a passage."""
    texts = []
    with closing(pypdfium2.PdfDocument(path)) as document:
        for page in document:
            with closing(page), closing(page.get_textpage()) as text_page:
                text = text_page.get_text_bounded()[:_PAGE_CHARACTERS]
                texts.append(text.encode("utf-8", "replace").decode())  # it may hold half characters
    return texts


def _check_picture(path: Path, limits: Limits) -> bool:
    """Whether it is animated: a film."""
    if path.suffix.lower() in RAW_SUFFIXES:
        return False  # its decoder checks its size before it develops it
    try:
        with opened(path, "image") as file, Image.open(file, formats=_PILLOW_FORMATS) as picture:
            width, height = picture.size
            num_frames = picture.n_frames if is_animated(picture) else 1
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has more than {limits.pixels / 1e6:.0f} megapixels; make it smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError("it is damaged or truncated") from error
    limit = limits.pixels if num_frames == 1 else limits.film_pixels
    if width * height > limit:
        raise ValueError(
            f"it has {width} x {height} pixels, and the limit is {limit / 1e6:.3g} megapixels; make it smaller"
        )
    if num_frames > limits.film_frames:
        raise ValueError(f"it has more than {limits.film_frames:,} frames; cut it")
    return num_frames > 1


def _check_film(path: Path, limits: Limits) -> None:
    # The header counts the frames that an edit list leaves out too.
    with (
        telling_what_is_wrong(),
        opened(path, "video") as file,
        open_container(file, ignore_editlist="1") as (container, stream),
    ):
        if stream.width * stream.height > limits.film_pixels:
            raise ValueError(
                f"its frames have {stream.width} x {stream.height} pixels, and the limit is "
                f"{limits.film_pixels / 1e6:.3g} megapixels; make it smaller"
            )
        promised, found = stream.frames, 0
        for packet in container.demux(stream):  # finds the frames without decoding them
            found += packet.size > 0
            if found > limits.film_frames:
                raise ValueError(f"it has more than {limits.film_frames:,} frames; cut it")
        is_avi = container.format.name == "avi"
    # An AVI counts frames that were dropped too, and FFmpeg passes them over: there the length of the file tells.
    if found < promised and not (is_avi and _is_whole_riff(path)):
        raise ValueError(f"it is truncated: {found} of {promised} frames are there")


def _is_whole_riff(path: Path) -> bool:
    """Whether a RIFF file is as long as its header says."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8)[4:], "little") <= path.stat().st_size
