"""Manuals as documents: their headings, their pages and half pages, from PDF files of Debian packages.

A page is 280 x 392 pixels (10 x 14 visual tokens), a half page that starts at a heading 392 x 280 (14 x 10): 140 tokens
each. Margins are cut off, by one box for a whole manual, so that the half page shows text at about 600 pixels a page
width: body text can just be read, on a page only headings can. Pixels are 8 levels of grey, which text needs no more
than, and lossless: half the size of lossy colour.

An outline names what its author typed, not always what is printed. A heading counts only if its letters stand on the
page where the outline points to; what is not there is a wrong destination or no heading at all.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pypdfium2
from PIL import Image

from evaluation.miniature.sources.packages import DebianPackage

PAGE = (280, 392)  # width, height
CROP = (392, 280)
GREYS = 8
_DEEPEST = 8  # levels of an outline
_INK = 160  # a grey value below is ink
_SAMPLED_PAGES = 40  # for a manual's margins
_ABOVE, _BELOW = 14.0, 48.0  # points above and below a destination in which its heading must stand
_STEP, _LEAD = 2.0, 8.0  # points: how finely it is looked for, and how far above its middle it is cut
_SEPARATOR = " > "


@dataclass(frozen=True)
class Manual:
    """One manual.

    Attributes:
        name: Short and unique, part of ids.
        title: What it is about, as it stands in a sentence.
        package: A key of `DOCUMENT_PACKAGES`.
        file: Where its PDF lies below the unpacked package.
    """

    name: str
    title: str
    package: str
    file: str


_TEX, _LILYPOND = "usr/share/doc/texlive-doc", "usr/share/doc/lilypond/html/Documentation"
_PICTURES, _LATEX, _SCIENCE = "texlive-pictures-doc", "texlive-latex-recommended-doc", "texlive-science-doc"

TRAIN_MANUALS = (
    Manual("pgf", "the graphics system TikZ and PGF", _PICTURES, f"{_TEX}/generic/pgf/pgfmanual.pdf"),
    Manual("pgfplots", "plots with pgfplots", _PICTURES, f"{_TEX}/latex/pgfplots/pgfplots.pdf"),
    Manual("tkz-euclide", "plane geometry with tkz-euclide", _PICTURES, f"{_TEX}/latex/tkz-euclide/tkz-euclide.pdf"),
    Manual("circuitikz", "electrical networks", _PICTURES, f"{_TEX}/latex/circuitikz/circuitikzmanual.pdf"),
    Manual("genealogytree", "family trees", _PICTURES, f"{_TEX}/latex/genealogytree/genealogytree.pdf"),
    Manual("memoir", "books with the memoir class", _LATEX, f"{_TEX}/latex/memoir/memman.pdf"),
    Manual("beamer", "slides with beamer", _LATEX, f"{_TEX}/latex/beamer/beameruserguide.pdf"),
    Manual("listings", "program listings", _LATEX, f"{_TEX}/latex/listings/listings.pdf"),
    Manual("yquant", "quantum circuits", _SCIENCE, f"{_TEX}/latex/yquant/yquant-doc.pdf"),
    Manual("chemmacros", "chemistry with chemmacros", _SCIENCE, f"{_TEX}/latex/chemmacros/chemmacros-manual.pdf"),
    Manual("notation", "music notation with LilyPond", "lilypond-doc-pdf", f"{_LILYPOND}/notation.pdf"),
)
TEST_MANUALS = (
    Manual("asymptote", "the graphics language Asymptote", "asymptote-doc", "usr/share/doc/asymptote/asymptote.pdf"),
    Manual("tzplot", "drawing graphs with tzplot", _PICTURES, f"{_TEX}/latex/tzplot/tzplot-doc.pdf"),
    Manual("forest", "linguistic trees", _PICTURES, f"{_TEX}/latex/forest/forest-doc.pdf"),
    Manual("chemfig", "drawing molecules", _PICTURES, f"{_TEX}/generic/chemfig/chemfig-en.pdf"),
    Manual("xcolor", "colours", _LATEX, f"{_TEX}/latex/xcolor/xcolor.pdf"),
    Manual("fontspec", "choosing fonts", _LATEX, f"{_TEX}/latex/fontspec/fontspec.pdf"),
    Manual("siunitx", "numbers and units", _SCIENCE, f"{_TEX}/latex/siunitx/siunitx.pdf"),
)


def _package(name: str, version: str, sha256: str, licence: str, author: str, url: str) -> DebianPackage:
    files = tuple(manual.file for manual in (*TRAIN_MANUALS, *TEST_MANUALS) if manual.package == name)
    return DebianPackage(name, version, sha256, licence, author, url, files)


# Read when the benchmark is built; nothing of them is redistributed.
DOCUMENT_PACKAGES: dict[str, DebianPackage] = {
    package.name: package
    for package in (
        _package(
            _PICTURES,
            "2022.20230122-3",
            "9f24a348a9461952e09cac3a2c5e1617f00e9054bea1ab1a124a724cc7f40751",
            "LPPL-1.3c, GFDL-1.2, GPL-2+",
            "the authors of the manuals",
            "https://tug.org/texlive",
        ),
        _package(
            _LATEX,
            "2022.20230122-3",
            "8bea1f81bf50354fa4f3046c2dbb82efba9b8520aca0b2ab12eed18554a66c11",
            "LPPL-1.3c, GFDL-1.2, GPL-2+",
            "the authors of the manuals",
            "https://tug.org/texlive",
        ),
        _package(
            _SCIENCE,
            "2022.20230122-4",
            "0e0fcc74646b916402124e8394a7a8d896e1c959cd9b184b0d7a61e08c6e72db",
            "LPPL-1.3c",
            "the authors of the manuals",
            "https://tug.org/texlive",
        ),
        _package(
            "lilypond-doc-pdf",
            "2.24.1-2",
            "caf7a8b1a7936abf59e6e1f5e20342fc50ce867ea7cd67dd8228665c4f70e5a1",
            "GFDL-1.3+",
            "the LilyPond authors",
            "https://lilypond.org",
        ),
        _package(
            "asymptote-doc",
            "2.85+ds-1",
            "b2ae6e97c64ede66c1e41cc913f790b01188d198557203a2b3c500ba3495e6ca",
            "LGPL-3+",
            "Andy Hammerlindl, John Bowman and Tom Prince",
            "https://asymptote.sourceforge.io",
        ),
    )
}


@dataclass(frozen=True)
class Heading:
    """A heading of a manual.

    Attributes:
        manual: Name of the manual.
        path: Titles from the chapter down to itself, without numbers.
        page: Number of its page, from 0.
        top: Where it stands, in points below the page's upper edge.
    """

    manual: str
    path: tuple[str, ...]
    page: int
    top: float

    @property
    def text(self) -> str:
        """The path as a text."""
        return _SEPARATOR.join(self.path)

    @property
    def key(self) -> str:
        """The title by which headings of several manuals are the same."""
        return letters(self.path[-1])


class Document:
    """A manual's PDF.

    Args:
        name: Name of the manual.
        path: Its file.

    Raises:
        ValueError: it cannot be read, or is empty.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        try:
            self._pdf = pypdfium2.PdfDocument(path)
        except (pypdfium2.PdfiumError, OSError) as error:
            raise ValueError(f"cannot read the manual {name}, {path}: {error}") from error
        if not len(self._pdf):
            raise ValueError(f"the manual {name}, {path}, has no pages.")

    def close(self) -> None:
        """Close the file."""
        self._pdf.close()

    def __len__(self) -> int:
        return len(self._pdf)

    def headings(self) -> list[Heading]:
        """What the outline names and is printed where it points to, in order; of equal paths on one page the first."""
        found: dict[tuple[int, tuple[str, ...]], Heading] = {}
        path: list[str] = []
        for entry in self._pdf.get_toc(max_depth=_DEEPEST):
            title = plain_title(entry.get_title())
            path = [*path[: entry.level], *[""] * (entry.level - len(path)), title]
            target = entry.get_dest()
            place = None if target is None else self._place(target)
            top = None if place is None or not all(path) else self._printed_at(title, *place)
            if place is not None and top is not None:
                found.setdefault((place[0], tuple(path)), Heading(self.name, tuple(path), place[0], top))
        return list(found.values())

    def text(self, page: int, top: float = 0.0) -> str:
        """A page's text, from so many points below its upper edge."""
        upper = self._upper_edge(page)
        return self._pdf[page].get_textpage().get_text_bounded(top=upper - top + 1)

    def render_page(self, page: int) -> Image.Image:
        """A page without margins, PAGE pixels, on white."""
        left, top, right, bottom = self._box
        scale = min(PAGE[0] / (right - left), PAGE[1] / (bottom - top))
        return self._cut(page, scale, left, top, PAGE)

    def render_crop(self, heading: Heading) -> Image.Image:
        """The half page that starts at a heading, CROP pixels; white below the end of its page."""
        left, _, right, _ = self._box
        return self._cut(heading.page, CROP[0] / (right - left), left, heading.top, CROP)

    def _cut(self, page: int, scale: float, left: float, top: float, size: tuple[int, int]) -> Image.Image:
        rendered = self._pdf[page].render(scale=scale, grayscale=True).to_pil().convert("L")
        ground = Image.new("L", size, 255)
        ground.paste(rendered, (-round(left * scale), -round(top * scale)))
        return ground

    def _place(self, target: pypdfium2.PdfDest) -> tuple[int, float] | None:
        """Page and distance from its upper edge in points; None for a destination without one."""
        page, (mode, numbers) = target.get_index(), target.get_view()
        which = {pypdfium2.raw.PDFDEST_VIEW_XYZ: 1, pypdfium2.raw.PDFDEST_VIEW_FITH: 0}.get(mode)
        if page is None or not 0 <= page < len(self._pdf) or which is None or len(numbers) <= which:
            return None
        top = self._upper_edge(page) - numbers[which]
        return page, min(max(0.0, top), self._pdf[page].get_height())

    def _upper_edge(self, page: int) -> float:
        # Not get_cropbox: where a box is inherited from the tree of pages, that one answers US Letter.
        return self._pdf[page].get_bbox()[3]

    def _printed_at(self, title: str, page: int, top: float) -> float | None:
        """Where the line of a title begins, near a destination; None if it is not there.

        Destinations stand at the title's foot, at its head or some lines above it, as the manual's class has it.
        """
        texts, upper, wanted = self._pdf[page].get_textpage(), self._upper_edge(page), letters(title)

        def holds(start: float, end: float) -> bool:
            return wanted in letters(texts.get_text_bounded(bottom=upper - end, top=upper - start))

        if len(wanted) < 3 or not holds(top - _ABOVE, top + _BELOW):
            return None
        end = next(y for y in _steps(top - _ABOVE, top + _BELOW) if holds(top - _ABOVE, y))
        start = max(y for y in _steps(top - _ABOVE, end) if holds(y, end))
        return max(0.0, start - _LEAD)

    @cached_property
    def _box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the ink in points: what nine of ten pages keep within on each side."""
        boxes = []
        for page in sorted(set(np.linspace(0, len(self._pdf) - 1, _SAMPLED_PAGES).astype(int).tolist())):
            ink = np.asarray(self._pdf[page].render(scale=1, grayscale=True).to_pil().convert("L")) < _INK
            rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
            if len(rows):
                boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        if not boxes:
            width, height = self._pdf[0].get_size()
            return 0.0, 0.0, width, height
        sides = np.array(boxes, dtype=np.float64)
        left, top = np.percentile(sides[:, :2], 10, axis=0) - 3
        right, bottom = np.percentile(sides[:, 2:], 90, axis=0) + 3
        return max(0.0, left), max(0.0, top), right, bottom


def _steps(start: float, end: float) -> list[float]:
    return [*np.arange(start, end, _STEP).tolist(), end]


def plain_title(title: str) -> str:
    """A title without its number, in one line, without control characters and the lengths that TeX leaves in it."""
    title = re.sub(r"[\x00-\x1f\ufffe\uffff]", " ", re.sub(r"-?\d*\.\d+(?:em|ex|pt)", "", title))
    title = re.sub(r"\s+", " ", title).strip()
    return re.sub(r"^(?:\d+(?:\.\d+)*|[A-Z]\.\d+(?:\.\d+)*|[IVX]{2,}|[A-Z](?= [A-Z]))\.?\s+(?=\S)", "", title)


def letters(text: str) -> str:
    """Letters and digits only, in lower case: what is compared between an outline and a page."""
    ligatures = {"ﬁ": "fi", "ﬂ": "fl", "ﬀ": "ff", "ﬃ": "ffi", "ﬄ": "ffl"}
    for ligature, spelled in ligatures.items():
        text = text.replace(ligature, spelled)
    return re.sub(r"[\W_]+", "", text).casefold()


def encoded(picture: Image.Image) -> bytes:
    """A grey picture in GREYS levels as a lossless WebP file's bytes."""
    values = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    levels = np.round(np.round(values * (GREYS - 1)) * (255 / (GREYS - 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).convert("RGB").save(buffer, "WEBP", lossless=True, quality=80, method=4)
    return buffer.getvalue()


def without_shared(headings: Sequence[Sequence[Heading]]) -> Iterator[list[Heading]]:
    """Several sets of headings, each without those whose title occurs in another."""
    keys = [{heading.key for heading in members} for members in headings]
    for number, members in enumerate(headings):
        others = {key for other, found in enumerate(keys) if other != number for key in found}
        yield [heading for heading in members if heading.key not in others]
