"""A folder -> the files in it that may hold items."""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from plume_embed.reading.items import SourceFile, UnreadableError
from plume_embed.reading.read import kind_by_suffix


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
    kind = kind_by_suffix(path.suffix.lower())
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


def _stays_inside(link: Path, root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # leads to nothing, or in a circle
        return False
    return target.is_relative_to(root)
