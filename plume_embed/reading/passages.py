"""Texts as passages: cut at the best break, and each short enough for one item."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from plume_embed.reading.items import FileItem, SourceFile, UnreadableError, one_line

PASSAGE_CHARACTERS = 1200  # about 300 tokens: one topic, and short enough to point at
TEXT_BYTES = 2**28  # of a file; all of it is in memory while its passages are read
_NOT_SPACE = re.compile(r"\S")


def read_passages(file: SourceFile, fits: Callable[[str], bool], skip: frozenset[int]) -> Iterator[FileItem]:
    """The passages of a text file.

    Raises:
        UnreadableError: it is too large, no UTF-8 text, or holds nothing but white space.
    """
    if file.size > TEXT_BYTES:
        raise UnreadableError(f"a text of more than {TEXT_BYTES >> 20} MiB; cut it into parts")
    text = read_text(file.absolute)
    passages = split_text(text, fits)
    if not passages:
        raise UnreadableError("empty: nothing but white space")
    for number, (start, end) in enumerate(passages):
        if number not in skip:
            passage = text[start:end]
            locator = f"chars={start}-{end}" if len(passages) > 1 else ""
            yield FileItem(number, len(passages), locator, "text", one_line(passage), {"text": passage})


def read_text(path: Path) -> str:
    """A text file whose line ends are left as they are: locators of passages count its characters.

    Raises:
        UnreadableError: it is no UTF-8 text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UnreadableError(str(error.strerror)) from error
    if "\0" in text:
        raise UnreadableError("not text: it holds NUL characters")
    return text


def text_at(text: str, locator: str) -> str:
    """The passage of a text that a locator names, "chars=0-1200", or "" for the only one."""
    if not locator:
        return text.strip()
    start, end = map(int, locator.removeprefix("chars=").split("-"))
    return text[start:end]


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
