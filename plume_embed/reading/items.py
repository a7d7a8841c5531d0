"""What a file is, and what an item of it is."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SNIPPET_CHARACTERS = 200

Kind = Literal["text", "image", "video", "page"]


class UnreadableError(ValueError):
    """A file or an item that cannot be read; the message is the reason alone.

    Args:
        reason (`str`)
        is_cut_short (`bool`): Something outside ended the reading; another try may come to its end.
    """

    def __init__(self, reason: str, is_cut_short: bool = False):
        super().__init__(reason)
        self.is_cut_short = is_cut_short


@dataclass(frozen=True)
class SourceFile:
    """A file that may hold items.

    Args:
        path (`str`): Relative to the folder, with forward slashes.
        absolute (`Path`): Where it is.
        kind (`str`): What its items are, by its suffix: "text", "image", "video" or "page" (of a PDF).
        size (`int`): Bytes.
        mtime_ns (`int`): When it was last changed, by [`date_of`].
    """

    path: str
    absolute: Path
    kind: Kind
    size: int
    mtime_ns: int


def date_of(status: os.stat_result) -> int:
    """When a file was last changed, in nanoseconds since 1970, or the nearest date that a table holds: a clock that is
    wrong may write one of the year 2400."""
    return max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))


@dataclass(frozen=True)
class FileItem:
    """One thing to embed.

    Args:
        number (`int`): Its place in the file, from 0.
        count (`int`): How many items the file has.
        locator (`str`): Where in the file: "page=3", "time=12-17" (seconds), "chars=0-1200", or "" for the whole file.
        kind (`str`): What it is. It need not be what the file's suffix says: an animated GIF is a video, and the
            pictures of a TIFF with several are pages.
        snippet (`str`): How its text starts, in one line; "" without text.
        content (`dict`, *optional*): What the processor takes; `None` if it cannot be read.
        reason (`str`): Why it cannot be read.
        is_cut_short (`bool`): See [`UnreadableError`].
    """

    number: int
    count: int
    locator: str
    kind: Kind
    snippet: str
    content: dict | None
    reason: str = ""
    is_cut_short: bool = False


def one_line(text: str) -> str:
    """The start of a text, for a snippet."""
    start = " ".join(text[: 4 * SNIPPET_CHARACTERS].split())[:SNIPPET_CHARACTERS]
    return start.encode("utf-8", "replace").decode()  # the text of a PDF may hold half characters
