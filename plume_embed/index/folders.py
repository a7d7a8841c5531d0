"""Which folders an index holds, and which of them a folder belongs to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from plume_embed.index.place import Place, resolved_folder
from plume_embed.index.table import DEFAULT_DATABASE, FOLDERS_SCHEMA, holds_index

if TYPE_CHECKING:
    from lancedb.table import Table

    from plume_embed.index.snapshot import Snapshot
    from plume_embed.index.store import Index


@dataclass(frozen=True)
class IndexedFolder:
    """A folder in an index.

    Args:
        number (`int`): Its key in the table of files.
        path (`Path`): Where it is, resolved.
        exclude: The patterns that it was last indexed with.
    """

    number: int
    path: Path
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scope:
    """What a command is about: an indexed folder, or a folder inside it.

    Args:
        folder ([`IndexedFolder`])
        inside (`str`): Relative path of the folder inside; "" for all of it.
        is_new (`bool`): It is not in the table yet.
        is_moved (`bool`): The table has it at another place.
    """

    folder: IndexedFolder
    inside: str = ""
    is_new: bool = False
    is_moved: bool = False

    @property
    def prefix(self) -> str:
        """What the paths of its files begin with."""
        return f"{self.inside}/" if self.inside else ""


def default_database(folder: Path) -> Path:
    """Where the index of a folder is: that of the nearest folder above it that has one, else its own."""
    resolved = folder.resolve()
    for above in (resolved, *resolved.parents):
        is_hidden = any(part.startswith(".") for part in resolved.relative_to(above).parts)
        if not is_hidden and holds_index(above / DEFAULT_DATABASE):
            return folder / DEFAULT_DATABASE if above == resolved else above / DEFAULT_DATABASE
    return folder / DEFAULT_DATABASE


def folders_of(rows: Sequence[dict[str, Any]], db: Place) -> list[IndexedFolder]:
    """The folders of an index, from the rows of its table."""
    base = resolved_folder(db) or Path()
    return [IndexedFolder(row["number"], (base / row["label"]).resolve(), tuple(row["exclude"])) for row in rows]


def write_folder(table: Table, db: Place, folder: IndexedFolder) -> None:
    """Adds a folder, or changes the row with its number; one commit."""
    row = {"number": folder.number, "label": _label(folder.path, db), "exclude": list(folder.exclude)}
    changed = table.merge_insert("number").when_matched_update_all().when_not_matched_insert_all()
    changed.execute(pa.Table.from_pylist([row], schema=FOLDERS_SCHEMA))


def find_scope(index: Index | Snapshot, folder: Path) -> Scope:
    """The scope of a folder that is in the index, as it is or inside another.

    Raises:
        ValueError: it is not, with the remedy.
    """
    folders, path, db = index.folders(), folder.resolve(), index.db
    found = _inside(folders, path, index)
    if found is not None:
        return found
    around = _around(folders, path)
    if around is not None:
        raise ValueError(
            f"{db} lies in {around.path}, where none of its files is. If it was moved there out of the folder that it "
            f"is the index of, pass --moved where that is {folder}, else another --to; if its files are away or were "
            f"moved, bring that up to date first: plume-embed index {around.path} --to {db}"
        )
    known = ", ".join(str(one.path) for one in folders)
    raise ValueError(
        f"{db} is the index of another folder ({known}); pass another --to, --moved if that folder has moved to "
        f"{folder}, or name it and add this one by --also {folder}."
    )


def new_scope(index: Index | Snapshot, folder: Path, moved: bool = False, add: bool = False) -> Scope:
    """The scope of a folder that an update may bring into the index.

    Args:
        moved (`bool`): The folder is one of those in the index, at a new place.
        add (`bool`): The folder may join those that are in the index.

    Raises:
        ValueError: it is not in the index and may not come in, or it overlaps, with the remedy.
    """
    folders, path, db = index.folders(), folder.resolve(), index.db
    found = _inside(folders, path, index)
    if found is not None:
        return found
    if not folders:
        return Scope(IndexedFolder(0, path), is_new=True)
    if moved:
        return Scope(replace(_moved_from(folders, index), path=path), is_moved=True)
    if not add:
        return find_scope(index, folder)
    within = [one.path for one in folders if one.path.is_relative_to(path)]
    if within:
        raise ValueError(f"{folder} contains {within[0]}, which is in the index {db} already; pass another --to.")
    return Scope(IndexedFolder(1 + max(one.number for one in folders), path), is_new=True)


def _inside(folders: Sequence[IndexedFolder], path: Path, index: Index | Snapshot) -> Scope | None:
    nearest = _around(folders, path)
    if nearest is None or (nearest.path != path and not _is_in_place(nearest, index)):
        return None
    inside = path.relative_to(nearest.path)
    return Scope(nearest, "" if inside == Path() else inside.as_posix())


def _around(folders: Sequence[IndexedFolder], path: Path) -> IndexedFolder | None:
    """The nearest of the folders that are or hold a path."""
    around = [one for one in folders if path.is_relative_to(one.path)]
    return max(around, key=lambda one: len(one.path.parts)) if around else None


def _is_in_place(folder: IndexedFolder, index: Index | Snapshot) -> bool:
    """Whether the index of a folder still lies in that folder, by the files.

    A label that counts from the index names another folder when the index alone is moved.
    """
    inside = resolved_folder(index.db)
    if inside is None or not inside.is_relative_to(folder.path):
        return True
    are_there = (os.path.lexists(folder.path / path) for path in index.paths_in(folder.number))
    first = next(are_there, None)
    return first is None or first or any(are_there)


def _moved_from(folders: Sequence[IndexedFolder], index: Index | Snapshot) -> IndexedFolder:
    missing = [one for one in folders if not one.path.is_dir() or not _is_in_place(one, index)] or folders
    if len(missing) > 1:
        names = ", ".join(str(one.path) for one in missing)
        raise ValueError(f"Several folders of {index.db} could be the one that has moved: {names}.")
    return missing[0]


def _label(folder: Path, db: Place) -> str:
    inside = resolved_folder(db)
    if inside is None or not inside.is_relative_to(folder):
        return folder.as_posix()
    return Path(os.path.relpath(folder, inside)).as_posix()
