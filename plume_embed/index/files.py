"""Files: a folder -> what in it can be embedded, file by file and item by item.

A picture, a video, a page of a PDF and a passage of a text are one item each. Whatever cannot be read is named with its
reason and never ends the run.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pypdfium2
from PIL import Image

from plume_embed.model.media_plume import IMAGE_SUFFIXES, VIDEO_SUFFIXES, load_image, load_video

# Plain text as a person reads it. Markup whose tags outweigh its words (html, xml) is left out on purpose.
TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".csv", ".tsv", ".json", ".jsonl"})
PASSAGE_CHARACTERS = 1200  # about 300 tokens: one topic, and short enough to point at
PAGE_LONG_SIDE = 1400  # pixels; small print of an A4 page stays readable
SNIPPET_CHARACTERS = 200
_NOT_SPACE = re.compile(r"\S")

Kind = Literal["text", "image", "video", "page"]


class UnreadableError(ValueError):
    """A file or an item that cannot be read; the message is the reason alone."""


@dataclass(frozen=True)
class SourceFile:
    """A file that may hold items.

    Args:
        path (`str`): Relative to the folder, with forward slashes.
        absolute (`Path`): Where it is.
        kind (`str`): What its items are, by its suffix: "text", "image", "video" or "page" (of a PDF).
        size (`int`): Bytes.
        mtime_ns (`int`): When it was last changed.
    """

    path: str
    absolute: Path
    kind: Kind
    size: int
    mtime_ns: int


@dataclass
class Listing:
    """What a folder holds.

    Args:
        files: What may hold items, sorted by path.
        unreadable: (path, reason) of what cannot even be looked at.
        num_other (`int`): Files of other types.
        num_links (`int`): Links that lead out of the folder, to folders or to nothing.
    """

    files: list[SourceFile] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    num_other: int = 0
    num_links: int = 0


@dataclass(frozen=True)
class FileItem:
    """One thing to embed.

    Args:
        number (`int`): Its place in the file, from 0.
        count (`int`): How many items the file has.
        locator (`str`): Where in the file: "page=3", "chars=0-1200", or "" for the whole file.
        snippet (`str`): How its text starts, in one line; "" without text.
        content (`dict`, *optional*): What the processor takes; `None` if it cannot be read.
        reason (`str`): Why it cannot be read.
    """

    number: int
    count: int
    locator: str
    snippet: str
    content: dict | None
    reason: str = ""


def list_folder(folder: Path, excluded: Path | None = None) -> Listing:
    """Walks a folder: sorted, without hidden files, and never out of it.

    Args:
        folder (`Path`): Where to look.
        excluded (`Path`, *optional*): A folder to pass over: the database.

    Raises:
        ValueError: no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"No such folder: {folder}")
    root = folder.resolve()
    excluded = excluded.resolve() if excluded else None
    listing = Listing()

    def cannot_enter(error: OSError) -> None:
        listing.unreadable.append((Path(error.filename).relative_to(root).as_posix(), f"{error.strerror}"))

    for parent, folders, names in os.walk(root, onerror=cannot_enter):
        here = Path(parent)
        seen = [name for name in folders if not name.startswith(".") and here / name != excluded]
        folders[:] = sorted(name for name in seen if not (here / name).is_symlink())
        listing.num_links += len(seen) - len(folders)
        for name in names:
            if not name.startswith("."):
                _list_file(here / name, root, listing)
    listing.files.sort(key=lambda file: file.path)
    return listing


def _list_file(path: Path, root: Path, listing: Listing) -> None:
    relative = path.relative_to(root).as_posix()
    kind = _kind(path.suffix.lower())
    if path.is_symlink() and not _stays_inside(path, root):
        listing.num_links += 1
        return
    try:
        status = path.stat()
        relative.encode("utf-8")
    except UnicodeEncodeError:
        listing.unreadable.append((relative, "its name is not valid UTF-8"))
        return
    except OSError as error:
        listing.unreadable.append((relative, str(error.strerror)))
        return
    # Opening a pipe or a device would wait for ever.
    if kind is None or not stat.S_ISREG(status.st_mode):
        listing.num_other += 1
        return
    listing.files.append(SourceFile(relative, path, kind, status.st_size, status.st_mtime_ns))


def content_hash(file: SourceFile) -> str:
    """SHA-256 of the file's bytes, as hex.

    Raises:
        UnreadableError: it is empty, or the system does not let us read it.
    """
    if file.size == 0:
        raise UnreadableError("empty")
    try:
        with file.absolute.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableError(str(error.strerror)) from error


def read_items(
    file: SourceFile,
    fits: Callable[[str], bool],
    num_frames: int,
    max_frames: int,
    skip: frozenset[int] = frozenset(),
) -> Iterator[FileItem]:
    """The items of a file in their order, each decoded when its turn comes.

    Args:
        file ([`SourceFile`]): As listed; refused if it has changed since.
        fits: Whether a text is short enough for one item.
        num_frames, max_frames (`int`): Of the processor, for videos.
        skip: Numbers of items that are not wanted.

    Raises:
        UnreadableError: the file as a whole cannot be read.
    """
    if file.kind == "text":
        items = _text_items(file, fits, skip)
    elif file.kind == "page":
        items = _page_items(file, skip)
    else:
        items = _media_item(file, num_frames, max_frames, skip)
    for item in items:
        _check_unchanged(file)
        yield item


def split_text(text: str, fits: Callable[[str], bool], limit: int = PASSAGE_CHARACTERS) -> list[tuple[int, int]]:
    """Passages of a text as (start, end), at most `limit` characters each, cut at the best break in the second half.

    Every character that is no white space at the edge of a passage is in exactly one passage.

    Raises:
        UnreadableError: not even one character fits.
    """
    passages, start = [], _skip_space(text, 0)
    while start < len(text):
        end = _break(text, start, min(start + limit, len(text)))
        while not fits(text[start:end]):
            if end - start == 1:
                raise UnreadableError("not even one character fits behind the model's prompt")
            end = _break(text, start, start + (end - start) // 2)
        passages.append((start, start + len(text[start:end].rstrip())))
        start = _skip_space(text, end)
    return passages


def _break(text: str, start: int, end: int) -> int:
    """The end of a passage from `start` that must not go beyond `end`."""
    if end == len(text):
        return end
    middle = start + (end - start) // 2
    for separator in ("\n\n", "\n", ". ", " "):
        found = text.rfind(separator, middle, end)
        if found > start:
            return found + len(separator)
    return end


def _skip_space(text: str, start: int) -> int:
    found = _NOT_SPACE.search(text, start)
    return found.start() if found else len(text)


def _text_items(file: SourceFile, fits: Callable[[str], bool], skip: frozenset[int]) -> Iterator[FileItem]:
    try:
        text = file.absolute.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UnreadableError(str(error.strerror)) from error
    if "\0" in text:
        raise UnreadableError("not text: it holds NUL characters")
    passages = split_text(text, fits)
    if not passages:
        raise UnreadableError("empty: nothing but white space")
    for number, (start, end) in enumerate(passages):
        if number not in skip:
            passage = text[start:end]
            locator = f"chars={start}-{end}" if len(passages) > 1 else ""
            yield FileItem(number, len(passages), locator, _snippet(passage), {"text": passage})


def _page_items(file: SourceFile, skip: frozenset[int]) -> Iterator[FileItem]:
    try:
        document = pypdfium2.PdfDocument(file.absolute)
    except (pypdfium2.PdfiumError, OSError) as error:
        needs_password = "password" in str(error).lower()
        raise UnreadableError("encrypted: it needs a password" if needs_password else f"{error}") from error
    with closing(document):
        count = len(document)
        if count == 0:
            raise UnreadableError("a PDF without pages")
        for number in range(count):
            if number in skip:
                continue
            locator = f"page={number + 1}"
            try:
                picture, text = _render_page(document, number)
            except (pypdfium2.PdfiumError, ValueError) as error:
                yield FileItem(number, count, locator, "", None, reason=f"cannot render it: {error}")
                continue
            yield FileItem(number, count, locator, _snippet(text), {"image": picture})


def _render_page(document: pypdfium2.PdfDocument, number: int) -> tuple[Image.Image, str]:
    with closing(document[number]) as page:
        long_side = max(page.get_size())
        if long_side <= 0:
            raise ValueError("the page has no size")
        picture = page.render(scale=PAGE_LONG_SIDE / long_side).to_pil().convert("RGB")
        with closing(page.get_textpage()) as text_page:
            return picture, text_page.get_text_bounded()


def _media_item(file: SourceFile, num_frames: int, max_frames: int, skip: frozenset[int]) -> Iterator[FileItem]:
    if 0 in skip:
        return
    try:
        if file.kind == "image":
            content = {"image": load_image(file.absolute)}
        else:
            frames, _ = load_video(file.absolute, num_frames, max_frames)  # [T, 3, H, W]
            content = {"video": [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]}
    except Exception as error:  # decoders raise anything on damaged files, and one file must not end the run
        reason = str(error).replace(str(file.absolute), "it") or type(error).__name__
        raise UnreadableError(reason) from error
    yield FileItem(0, 1, "", "", content)


def _check_unchanged(file: SourceFile) -> None:
    try:
        status = file.absolute.stat()
    except OSError as error:
        raise UnreadableError(str(error.strerror)) from error
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise UnreadableError("it changed while it was being read; run again")


def _stays_inside(link: Path, root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # leads to nothing, or in a circle
        return False
    return target.is_relative_to(root)


def _kind(suffix: str) -> Kind | None:
    if suffix in TEXT_SUFFIXES:
        return "text"
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "page" if suffix == ".pdf" else None


def _snippet(text: str) -> str:
    start = " ".join(text[: 4 * SNIPPET_CHARACTERS].split())[:SNIPPET_CHARACTERS]
    return start.encode("utf-8", "replace").decode()  # the text of a PDF may hold half characters
