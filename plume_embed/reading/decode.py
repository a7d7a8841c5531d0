"""Decoders of files that hold pictures, films and pages; they run in the process that `bounded.py` starts.

Each gives an `Outline` first and then its items, so that whoever is left when a decoder dies knows what it died of.
Nothing here needs torch.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av  # noqa: F401  the films' reader imports it late; here it is imported once, for all forks
import pypdfium2
from PIL import Image, ImageSequence

from plume_embed.model.images_plume import (
    IMAGE_SUFFIXES,
    RAW_SUFFIXES,
    check_size,
    open_picture,
    opened,
    read_image,
    to_rgb,
    why,
)
from plume_embed.model.videos_plume import VIDEO_SUFFIXES, film_seconds, is_animated, naming_the_film, sample_frames
from plume_embed.reading.clips import CLIP_SECONDS, WHOLE_SECONDS, clip_locator, clip_windows, read_clips
from plume_embed.reading.items import Kind, SourceFile, one_line

Image.init()  # Pillow's plugins too

PAGE_LONG_SIDE = 1400  # pixels; small print of an A4 page stays readable
_SUBFILE_TYPE, _PREVIEW, _MASK = 254, 1, 4  # of a TIFF's pictures


class MediaReader(Protocol):
    """How a model wants its files read; [`PlumeProcessor`] is one, and says what these are."""

    @property
    def num_frames(self) -> int | None:
        """Frames of a film."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames for each second, instead."""
        ...

    @property
    def max_image_pixels(self) -> int:
        """Most pixels of a picture or a frame."""
        ...

    @property
    def page_words(self) -> int:
        """Words of a page's text that go with it."""
        ...

    def shrunk(self, content: dict[str, Any]) -> dict[str, Any]:
        """The item with its pictures no larger than the model looks at them; its vector is the same."""
        ...


@dataclass(frozen=True)
class Options:
    """How files are decoded.

    Args:
        num_frames (`int`, *optional*): Frames of a film, or of a clip of a long one.
        max_pixels (`int`): Most pixels of a picture or a frame.
        shrink (`Callable`, *optional*): Applied to each item's content as soon as it is decoded.
        fps (`float`, *optional*): Frames for each second, instead of `num_frames`.
        page_words (`int`): Words of a page's text layer that go with its picture.
    """

    num_frames: int | None
    max_pixels: int
    shrink: Callable[[dict], dict] | None = None
    fps: float | None = None
    page_words: int = 0

    @classmethod
    def of(cls, processor: MediaReader) -> "Options":
        """For items that this processor will process: decoded as it would, and at the size it looks at them."""
        limits = (processor.num_frames, processor.max_image_pixels, processor.shrunk, processor.fps)
        return cls(*limits, page_words=processor.page_words)

    def frames_of(self, seconds: float) -> int:
        """How many frames a film of this length gives."""
        return self.num_frames if self.fps is None else max(1, round(seconds * self.fps))


@dataclass(frozen=True)
class Outline:
    """The items of a file before any is decoded: their kind, and a locator for each."""

    kind: Kind
    locators: list[str]


@dataclass(frozen=True)
class Decoded:
    """An item: what the processor takes, or the reason why it cannot be read."""

    content: dict | None
    snippet: str = ""
    reason: str = ""


def decode(file: SourceFile, options: Options, skip: frozenset[int]) -> Iterator[Outline | Decoded]:
    """The outline of a file, then its items in their order, without those whose numbers are in `skip`.

    Raises:
        ValueError: the file as a whole cannot be read.
    """
    decoders = {"image": _decode_picture, "video": _decode_film, "page": decode_pdf}
    return decoders[file.kind](file.absolute, options, skip)


def kind_of(suffix: str) -> Kind | None:
    """What the items of a file are, by its suffix in small letters; `None` if it is none of these."""
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "page" if suffix == ".pdf" else None


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


def _decode_picture(path: Path, options: Options, skip: frozenset[int]) -> Iterator[Outline | Decoded]:
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
            types = [page.tag_v2.get(_SUBFILE_TYPE, 0) for page in ImageSequence.Iterator(picture)]
            return False, [place for place, kind in enumerate(types) if not kind & (_PREVIEW | _MASK)]
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


def _decode_film(path: Path, options: Options, skip: frozenset[int]) -> Iterator[Outline | Decoded]:
    seconds = film_seconds(path, options.max_pixels)
    windows, whole = clip_windows(seconds), [""] if seconds <= WHOLE_SECONDS else []
    yield Outline("video", [*whole, *map(clip_locator, windows)])
    if whole and 0 not in skip:
        frames, _ = sample_frames(path, options.frames_of(seconds), options.max_pixels)
        yield Decoded({"video": frames})
    wanted = [window for number, window in enumerate(windows, start=len(whole)) if number not in skip]
    if not wanted:
        return
    with naming_the_film(path):
        for frames in read_clips(path, wanted, options.frames_of(CLIP_SECONDS), options.max_pixels):
            yield Decoded({"video": frames})


def _render_page(document: pypdfium2.PdfDocument, number: int) -> tuple[Image.Image, str]:
    with closing(document[number]) as page:
        long_side = max(page.get_size())
        if long_side <= 0:
            raise ValueError("the page has no size")
        picture = page.render(scale=PAGE_LONG_SIDE / long_side).to_pil().convert("RGB")
        check_size(*picture.size, PAGE_LONG_SIDE**2)  # its shape; a page has one size
        with closing(page.get_textpage()) as text_page:
            return picture, text_page.get_text_bounded()
