"""Decoders of files that hold pictures, films and pages; they run in the process that `bounded.py` starts.

Each gives an `Outline` first and then its items, so that whoever is left when a decoder dies knows what it died of.
Before an item of a film comes a `None` for each second of the film that was decoded: the limits begin anew with each,
so that they grow with what has to be decoded. Nothing here needs torch.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import av  # noqa: F401  the films' reader imports it late; here it is imported once, for all forks
import pypdfium2
from PIL import Image, ImageSequence

from plume_embed.model.images_plume import (
    MASK,
    PREVIEW,
    RAW_SUFFIXES,
    SUBFILE_TYPE,
    check_size,
    open_picture,
    opened,
    read_image,
    to_rgb,
    why,
)
from plume_embed.model.videos_plume import (
    TimedFrames,
    film_seconds,
    is_animated,
    naming_the_film,
    sample_frames,
    sample_in_steps,
)
from plume_embed.reading.clips import CLIP_SECONDS, WHOLE_SECONDS, clip_locator, clip_windows, read_clips
from plume_embed.reading.items import SourceFile, one_line
from plume_embed.reading.options import Decoded, Options, Outline
from plume_embed.reading.pixels import with_arrays

Image.init()  # Pillow's plugins too

PAGE_LONG_SIDE = 1400  # pixels; small print of an A4 page stays readable


def decode(file: SourceFile, options: Options, skip: frozenset[int]) -> Iterator[Outline | Decoded | None]:
    """The outline of a file, then its items in their order, without those whose numbers are in `skip`.

    Raises:
        ValueError: the file as a whole cannot be read.
    """
    decoders = {"image": _decode_picture, "video": _decode_film, "page": decode_pdf}
    return decoders[file.kind](file.absolute, options, skip)


def decode_to_arrays(file: SourceFile, options: Options, skip: frozenset[int]) -> Iterator[Outline | Decoded | None]:
    """[`decode`], with the pictures as arrays, see [`with_arrays`]."""
    for one in decode(file, options, skip):
        has_content = isinstance(one, Decoded) and one.content is not None
        yield replace(one, content=with_arrays(one.content)) if has_content else one


def decode_pdf(path: Path, options: Options, skip: frozenset[int]) -> Iterator[Outline | Decoded]:
    """[`decode`] for a PDF: each page as a picture, what is filled into its forms included, with words of its text."""
    try:
        document = pypdfium2.PdfDocument(path)
    except (pypdfium2.PdfiumError, OSError) as error:
        needs_password = "password" in str(error).lower()
        raise ValueError("encrypted: it needs a password" if needs_password else "damaged, or no PDF") from error
    with closing(document):
        document.init_forms()  # before any page is loaded, or what is filled in is not drawn
        if len(document) == 0:
            raise ValueError("a PDF without pages")
        yield Outline("page", [f"page={number + 1}" for number in range(len(document))])
        for number in range(len(document)):
            if number in skip:
                continue
            try:
                picture, text = _render_page(document, number)
            except (pypdfium2.PdfiumError, ValueError) as error:
                yield Decoded(None, reason=f"cannot render it: {error}")
                continue
            words = text.split()[: options.page_words]
            content = {"image": picture, "text": " ".join(words)} if words else {"image": picture}
            yield Decoded(content, one_line(text))


def _decode_picture(path: Path, options: Options, skip: frozenset[int]) -> Iterator[Outline | Decoded | None]:
    is_film, pages = _several(path)
    if is_film:
        yield from _decode_film(path, options, skip)
    elif len(pages) > 1:
        yield Outline("page", [f"page={number + 1}" for number in range(len(pages))])
        yield from _decode_pages(path, pages, options, skip)
    else:
        yield Outline("image", [""])
        if 0 not in skip:
            yield Decoded({"image": read_image(path, options.max_pixels)})


def _several(path: Path) -> tuple[bool, list[int]]:
    """Whether a picture is a film, and the places of the pages in a TIFF: neither previews nor masks of pages."""
    if path.suffix.lower() in RAW_SUFFIXES:
        return False, []
    try:
        with opened(path, "image") as file, open_picture(file) as picture:
            if picture.format != "TIFF":
                return is_animated(picture), []
            types = [page.tag_v2.get(SUBFILE_TYPE, 0) for page in ImageSequence.Iterator(picture)]
            return False, [place for place, kind in enumerate(types) if not kind & (PREVIEW | MASK)]
    except MemoryError:
        raise
    except Exception:  # its reader names what is wrong
        return False, []


def _decode_pages(path: Path, pages: list[int], options: Options, skip: frozenset[int]) -> Iterator[Decoded]:
    with opened(path, "image") as file, open_picture(file) as picture:
        for number, place in enumerate(pages):
            if number in skip:
                continue
            try:
                picture.seek(place)
                decoded = Decoded({"image": to_rgb(picture, options.max_pixels)})
            except MemoryError:
                raise
            except Exception as error:  # decoders raise anything on damaged files
                decoded = Decoded(None, reason=f"cannot read it: {why(error)}")
            yield decoded


def _decode_film(path: Path, options: Options, skip: frozenset[int]) -> Iterator[Outline | Decoded | None]:
    seconds = film_seconds(path, options.max_pixels)
    windows, whole = clip_windows(seconds), [""] if seconds <= WHOLE_SECONDS else []
    yield Outline("video", [*whole, *map(clip_locator, windows)])
    if whole and 0 not in skip:
        for sampled in sample_in_steps(path, options.frames_of(seconds), options.max_pixels):
            yield Decoded(_film(TimedFrames(*sampled), options)) if sampled else None
    wanted = [window for number, window in enumerate(windows, start=len(whole)) if number not in skip]
    if not wanted:
        return
    with naming_the_film(path):
        for frames in read_clips(path, wanted, options.frames_of(CLIP_SECONDS), options.max_pixels):
            yield Decoded(_film(frames, options)) if frames else None


def read_film(path: Path, seconds: float, options: Options) -> dict[str, Any]:
    """A whole film, of this many seconds, as the processor would sample it.

    Raises:
        ValueError: it cannot be read, naming it.
    """
    return _film(TimedFrames(*sample_frames(path, options.frames_of(seconds), options.max_pixels)), options)


def _film(frames: TimedFrames, options: Options) -> dict[str, Any]:
    return {"video": frames if options.with_times else list(frames)}


def _render_page(document: pypdfium2.PdfDocument, number: int) -> tuple[Image.Image, str]:
    with closing(document[number]) as page:
        long_side = max(page.get_size())
        if long_side <= 0:
            raise ValueError("the page has no size")
        scale = PAGE_LONG_SIDE / long_side
        if math.ceil(long_side * scale) > PAGE_LONG_SIDE:  # by the last bit, and PDFium would draw a row of pixels more
            scale = math.nextafter(scale, 0)
        picture = page.render(scale=scale).to_pil().convert("RGB")
        check_size(*picture.size, PAGE_LONG_SIDE**2)  # its shape; a page has one size
        with closing(page.get_textpage()) as text_page:
            return picture, text_page.get_text_bounded()
