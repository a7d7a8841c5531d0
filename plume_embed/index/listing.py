"""A folder -> the files in it that may hold items, and what is known to be gone."""

import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plume_embed.index.exclude import Exclusions
from plume_embed.index.place import check_folder
from plume_embed.reading.items import SourceFile, UnreadableError, date_of
from plume_embed.reading.read import check_unchanged, kind_by_suffix


class NotAccessibleError(UnreadableError):
    """The system does not let us look at a file, the disk fails, or the file is being written; nothing is known about
    its content."""


@dataclass
class Listing:
    """What a folder holds.

    Args:
        root (`Path`): The folder, resolved; all paths are relative to it.
        exclusions ([`Exclusions`]): The rules that it was listed by.
        files: What may hold items, sorted by path.
        unreadable: (path, reason) of what cannot even be looked at, folders included.
        others: The files of other types, by their paths.
        links: The links that are not followed: those that lead out of the folder, to folders or to nothing.
        excluded: How many files and folders each pattern of the command line leaves out; under "" other rules.
        time_ns (`int`): When the listing began.
    """

    root: Path
    exclusions: Exclusions
    files: list[SourceFile] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    time_ns: int = field(default_factory=time.time_ns)
    _names: dict[Path, frozenset[str]] = field(default_factory=dict)  # of what is in folders, where that was asked for

    @property
    def num_excluded(self) -> int:
        """Files and folders left out by a rule."""
        return self.excluded.total()

    def is_gone(self, path: str, prune: bool = False) -> bool:
        """Whether a file that was here, and is not listed, is known to be gone or no longer wanted.

        It is not while it cannot be looked at, or while its type cannot be read on this machine. A folder that is
        there and has become entirely empty is taken for the place of a drive that is away.

        Args:
            path (`str`): Relative to the root.
            prune (`bool`): Believe an empty folder.
        """
        place = self.root / path
        if self.exclusions.covers(path):
            return True
        try:
            return self._is_gone(place, prune)
        except OSError:
            return False

    def is_left_out(self, path: str) -> bool:
        """Whether a file that was here, and is not listed, is still there and left out by a rule."""
        try:
            return self.exclusions.covers(path) and self._is_there(self.root / path)
        except OSError:
            return False

    def is_of_an_empty_folder(self, path: str) -> bool:
        """Whether a file that was here, and is not listed, was in a folder that is there and has become empty: it is
        gone, or on a drive that is away."""
        place = self.root / path
        try:
            return not self._is_there(place) and _is_empty_folder(self._nearest_folder(place))
        except OSError:
            return False

    def _is_gone(self, place: Path, prune: bool) -> bool:
        if not self._is_there(place):
            return prune or not _is_empty_folder(self._nearest_folder(place))
        if any(parent.is_symlink() for parent in place.parents if parent.is_relative_to(self.root)):
            return True  # a folder that became a link is not entered
        if place.is_symlink() and not _stays_inside(place, self.root):
            return True
        return not stat.S_ISREG(place.stat().st_mode)

    def _is_there(self, place: Path) -> bool:
        """Whether something has exactly this name: many file systems find it under other ones too, in small or capital
        letters, or with its accents coded in another way."""
        try:
            place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        folder = self.root
        for name in place.relative_to(self.root).parts:
            if name not in self._names_in(folder):
                return False
            folder /= name
        return True

    def _nearest_folder(self, path: Path) -> Path:
        """The deepest folder above a path that is there; the root, whether it is or not."""
        inside = (parent for parent in path.parents if parent.is_relative_to(self.root))
        return next((one for one in inside if self._is_there(one) and one.is_dir()), self.root)

    def _names_in(self, folder: Path) -> frozenset[str]:
        if folder not in self._names:
            self._names[folder] = frozenset(os.listdir(folder))
        return self._names[folder]


def list_folder(folder: Path, scope: str = "", exclude: Sequence[str] = (), databases: Sequence[Path] = ()) -> Listing:
    """Walks a folder: sorted, without hidden files, and never out of it.

    Args:
        folder (`Path`): Where to look.
        scope (`str`): Only this folder inside it, by its relative path; "" for all.
        exclude: Patterns in the syntax of gitignore, see [`Exclusions`].
        databases: Folders to pass over.

    Raises:
        ValueError: no such folder, or a rule that is not valid.
    """
    check_folder(folder / scope if scope else folder)
    root = folder.resolve()
    listing = Listing(root, Exclusions(root, exclude))
    passed_over = {database.resolve() for database in databases}

    def cannot_enter(error: OSError) -> None:
        listing.unreadable.append((Path(error.filename).relative_to(root).as_posix(), f"{error.strerror}"))

    for parent, folders, names in os.walk(root / scope, onerror=cannot_enter):
        here = Path(parent)
        seen = [name for name in folders if not name.startswith(".") and here / name not in passed_over]
        entered = [name for name in seen if not os.path.islink(here / name)]
        listing.links += [(here / name).relative_to(root).as_posix() for name in seen if name not in entered]
        folders[:] = sorted(name for name in entered if not _is_excluded(here / name, listing, "/"))
        for name in names:
            if not name.startswith(".") and not _is_excluded(here / name, listing):
                _list_file(here / name, listing)
    listing.files.sort(key=lambda file: file.path)
    return listing


def content_hash(file: SourceFile) -> str:
    """SHA-256 of the bytes of a file that is as it was listed, as hex.

    Raises:
        UnreadableError: it is empty.
        NotAccessibleError: the system does not let us read it, or it has changed since it was listed.
    """
    _check_as_listed(file)
    if file.size == 0:
        raise UnreadableError("empty")
    try:
        with file.absolute.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise NotAccessibleError(error.strerror or type(error).__name__) from error
    _check_as_listed(file)  # else the hash might be of half the old content and half the new
    return digest


def is_of_content(file: SourceFile, content: str) -> bool:
    """Whether a file can be read, is as it was listed and has a content, by its name in the index."""
    try:
        return f"{file.kind}-{content_hash(file)}" == content
    except UnreadableError:
        return False


def has_content(path: Path, content: str) -> bool:
    """Whether a file still has the content that an index has of it, see [`Hit`].

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as opened:
        return content.endswith(f"-{hashlib.file_digest(opened, 'sha256').hexdigest()}")


def _check_as_listed(file: SourceFile) -> None:
    try:
        check_unchanged(file)
    except UnreadableError as error:
        raise NotAccessibleError(str(error)) from error


def _is_excluded(path: Path, listing: Listing, end: str = "") -> bool:
    rule = listing.exclusions.rule(path.relative_to(listing.root).as_posix() + end)
    if rule is None:
        return False
    listing.excluded[rule] += 1
    return True


def _list_file(path: Path, listing: Listing) -> None:
    relative = path.relative_to(listing.root).as_posix()
    kind = kind_by_suffix(path.suffix.lower())
    if os.path.islink(path) and not _stays_inside(path, listing.root):
        listing.links.append(relative)
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
        listing.others.append(relative)
        return
    listing.files.append(SourceFile(relative, path, kind, status.st_size, date_of(status)))


def _stays_inside(link: Path, root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # leads to nothing, or in a circle
        return False
    return target.is_relative_to(root)


def _is_empty_folder(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None
