"""What has changed: a listing and what the index knows -> files that are as they were, and contents to read."""

import time
from collections import defaultdict
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace

from plume_embed.index.listing import Listing, NotAccessibleError, content_hash
from plume_embed.index.store import FileRow
from plume_embed.reading.items import SourceFile, UnreadableError
from plume_embed.reading.read import READER
from plume_embed.stored import printable

# A file that changed a moment before it was listed can change again within the same tick of the file system's clock.
# When in a long listing that was is not known: it may be any time since the listing began.
_UNSURE_NS = 2 * 10**9

OnUnreadable = Callable[[str, str], None]


class Unreadable:
    """Collects what cannot be read, and tells of each thing once: not again at later updates.

    Args:
        known: What the index remembers, by path.
        on_unreadable (`Callable`): Told of what is new.
        tell_all (`bool`): Tell of what is remembered too.
    """

    def __init__(self, known: dict[str, FileRow], on_unreadable: OnUnreadable, tell_all: bool = False):
        self._known, self._on_unreadable, self._tell_all = known, on_unreadable, tell_all
        self.found: list[tuple[str, str]] = []

    def add(self, path: str, reason: str, locator: str = "") -> None:
        """Notes a file, or an item of it."""
        place = f"{path}#{locator}" if locator else path
        self.found.append((place, reason))
        row = self._known.get(path)
        is_known = row is not None and (reason == row.note or (locator, reason) in row.unreadable)
        if self._tell_all or not is_known:
            self._on_unreadable(place, reason)


@dataclass
class Changes:
    """What an update has to do.

    Args:
        rows: What the index shall say, by path, of files whose items are all there.
        unchanged: Paths whose rows are right as they are.
        to_read: The files of each content whose items are not in the index, or not all.
        num_reused (`int`): Items of files whose content the index knows from another file.
        num_changed (`int`): Files with another content than before.
    """

    rows: dict[str, FileRow] = field(default_factory=dict)
    unchanged: set[str] = field(default_factory=set)
    to_read: dict[str, list[SourceFile]] = field(default_factory=lambda: defaultdict(list))
    num_reused: int = 0
    num_changed: int = 0

    def paths(self) -> set[str]:
        """All that was listed, readable or not."""
        return self.rows.keys() | self.unchanged | {file.path for files in self.to_read.values() for file in files}

    def contents(self) -> set[str]:
        """The contents of all files that were read for their hash."""
        return {row.content for row in self.rows.values()} | self.to_read.keys()

    def contents_there(self, known: dict[str, FileRow]) -> set[str]:
        """The contents of all files that are there and could be looked at; `known` says those of unchanged files."""
        looked_at = {row.content for row in self.rows.values() if not row.note}
        return looked_at | self.to_read.keys() | {known[path].content for path in self.unchanged}


def look(
    listing: Listing,
    folder: int,
    known: dict[str, FileRow],
    finished: Callable[[set[str]], dict[str, FileRow]],
    unreadable: Unreadable,
    verify: bool = False,
    lost: Container[str] = frozenset(),
) -> Changes:
    """Compares a listing with the index. Only files whose size or date has changed are read for their hash.

    Args:
        listing ([`Listing`])
        folder (`int`): Its number in the index.
        known: What the index says of its files, by path.
        finished (`Callable`): The contents among those given that are in the index, see [`Index.finished`].
        unreadable ([`Unreadable`]): Gets what cannot be looked at or was found to be unreadable.
        verify (`bool`): Hash every file, and read again what could not be read.
        lost: Contents that the index says it holds and does not.
    """
    changes = Changes()
    for path, reason in listing.unreadable:
        path = printable(path)
        unreadable.add(path, reason)
        changes.rows[path] = _noted(known.get(path), folder, path, reason)
    hashed: dict[str, tuple[SourceFile, str]] = {}
    for file in listing.files:
        row = known.get(file.path)
        if row is not None and not verify and row.content not in lost and _is_as_it_was(file, row):
            changes.unchanged.add(file.path)
            for locator, reason in row.unreadable:
                unreadable.add(file.path, reason, locator)
            continue
        try:
            hashed[file.path] = file, f"{file.kind}-{content_hash(file)}"
        except NotAccessibleError as error:
            unreadable.add(file.path, str(error))
            changes.rows[file.path] = _noted(row, folder, file.path, str(error))
        except UnreadableError as error:
            unreadable.add(file.path, str(error))
            content, reasons = f"{file.kind}-empty", (("", str(error)),)
            changes.rows[file.path] = row_of(file, folder, content, 0, reasons, listing.time_ns)
            changes.num_changed += row is not None and row.num_items > 0
    there = finished({content for _, content in hashed.values() if content not in lost})
    for file, content in hashed.values():
        row, twin = known.get(file.path), there.get(content)
        _compare(file, content, folder, row, twin, verify, unreadable, changes, listing.time_ns)
    return changes


def is_unchanged(listing: Listing, known: dict[str, FileRow]) -> bool:
    """Whether a folder holds the files that the index knows, by size and date, no more, and all can be looked at."""
    files = {file.path: file for file in listing.files}
    are_same = not listing.unreadable and files.keys() == known.keys()
    return are_same and all(_is_as_it_was(file, known[path]) for path, file in files.items())


def _compare(
    file: SourceFile,
    content: str,
    folder: int,
    row: FileRow | None,
    twin: FileRow | None,
    verify: bool,
    unreadable: Unreadable,
    changes: Changes,
    listed_ns: int,
) -> None:
    """Decides on a file by its content; `twin` is a file in the index with the same one."""
    is_new = row is None or row.content != content
    changes.num_changed += is_new and row is not None and row.num_items > 0
    if twin is None or (twin.unreadable and (verify or twin.version != READER)):
        changes.to_read[content].append(file)
        return
    changes.num_reused += twin.num_items if is_new else 0
    changes.rows[file.path] = row_of(file, folder, content, twin.num_items, twin.unreadable, listed_ns)
    for locator, reason in twin.unreadable:
        unreadable.add(file.path, reason, locator)


def row_of(
    file: SourceFile,
    folder: int,
    content: str,
    num_items: int,
    unreadable: tuple[tuple[str, str], ...],
    listed_ns: int,
) -> FileRow:
    """What the index says of a file that was read, of a listing that began at `listed_ns`."""
    is_unsure = listed_ns - _UNSURE_NS < file.mtime_ns < time.time_ns() + _UNSURE_NS
    mtime_ns = 0 if is_unsure else file.mtime_ns
    return FileRow(folder, file.path, file.kind, file.size, mtime_ns, content, num_items, unreadable, READER)


def _is_as_it_was(file: SourceFile, row: FileRow) -> bool:
    is_judged_by_another = bool(row.unreadable) and row.version != READER
    same = (row.size, row.mtime_ns, row.kind) == (file.size, file.mtime_ns, file.kind)
    return same and bool(row.content) and not row.note and not is_judged_by_another


def _noted(row: FileRow | None, folder: int, path: str, reason: str) -> FileRow:
    """The row of something that cannot be looked at: what is known of it stays."""
    if row is not None:
        return replace(row, note=reason)
    return FileRow(folder, path, "", 0, 0, "", 0, (), READER, reason)
