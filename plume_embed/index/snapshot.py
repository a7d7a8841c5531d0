"""The tables of a small index in one file, for a search from cold: LanceDB takes two CPU seconds to import.

An update leaves the file in the database's folder. It says what the tables looked like: names, sizes and dates of their
files. Every commit of LanceDB adds files, so as long as that fits, the file holds what the tables hold; when it does
not fit, or is damaged, the tables are read, and the next update writes it anew.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from plume_embed.atomic import replacing
from plume_embed.index.folders import IndexedFolder, Scope, folders_of
from plume_embed.index.neighbours import distances_to
from plume_embed.index.place import Place
from plume_embed.index.store import FileRow, Index, file_row
from plume_embed.index.table import ANN_ROWS, SNAPSHOT_DATA, SNAPSHOT_STATE, Metadata, check_origin

MOST_BYTES = 2**27  # of vectors; above it a search reads the tables
_ITEM_COLUMNS = ["vector", "content", "item", "kind", "locator", "snippet", "digest"]


class Snapshot:
    """What a search reads of an [`Index`], by the same names.

    Rows are chosen in Python: pyarrow's own functions import pandas where it is installed.

    Args:
        db (`Path`): The database's folder.
        items, files, folders (`pa.Table`): As they were.
    """

    def __init__(self, db: Path, items: pa.Table, files: pa.Table, folders: pa.Table):
        self.db, self._items, self._folders = db, items, folders
        self._files = [file_row(row) for row in files.to_pylist()]

    def folders(self) -> list[IndexedFolder]:
        """The folders that are indexed."""
        return folders_of(self._folders.to_pylist(), self.db)

    def files_of(self, scope: Scope) -> dict[str, FileRow]:
        """The files of a scope, by path."""
        number, prefix = scope.folder.number, scope.prefix
        return {row.path: row for row in self._files if row.folder == number and row.path.startswith(prefix)}

    def paths_in(self, folder: int) -> Iterator[str]:
        """The files of a folder that have items, by its number."""
        return (row.path for row in self._files if row.folder == folder and row.num_items > 0)

    def files_with(self, contents: Sequence[str]) -> Iterator[FileRow]:
        """The files that have one of these contents."""
        wanted = set(contents)
        return (row for row in self._files if row.content in wanted)

    def contents(self) -> set[str]:
        """The contents that have items."""
        return set(self._items["content"].to_pylist())

    def item_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All items."""
        yield from self._items.select(list(columns)).to_batches()

    def nearest(self, query_vector: np.ndarray, limit: int, kinds: Sequence[str], columns: Sequence[str]) -> list[dict]:
        """The rows nearest to a query [D], nearest first; see [`Index.nearest`]."""
        distances = distances_to(query_vector, self._vectors())  # [N]
        places = np.argsort(distances, kind="stable")
        if kinds:
            is_wanted = np.array([kind in kinds for kind in self._items["kind"].to_pylist()], bool)
            places = places[is_wanted[places]]
        rows = self._items.select(list(columns))
        return [
            {**rows.slice(place, 1).to_pylist()[0], "_distance": float(distances[place])}
            for place in places[:limit].tolist()
        ]

    def _vectors(self) -> np.ndarray:
        """[N, D], as they lie in the file."""
        column = self._items["vector"].combine_chunks()
        return np.from_dlpack(column.flatten()).reshape(len(column), column.type.list_size)


def read_snapshot(db: Place, wanted: Metadata) -> Snapshot | None:
    """The snapshot of an index if it is there, whole, and says what the tables say. An object store has none.

    Raises:
        ValueError: the index comes from another model or K, with the remedy.
    """
    data = _fitting_data(db) if isinstance(db, Path) else None
    if data is None or not isinstance(db, Path):
        return None
    source = pa.BufferReader(data)
    items, files, folders = (pa.ipc.open_stream(source).read_all() for _ in range(3))
    check_origin(items.schema, wanted, db)
    return Snapshot(db, items, files, folders)


def write_snapshot(index: Index) -> None:
    """Leaves a snapshot of an index that nobody else writes to, unless one fits already or it would be too large."""
    items, db, num_rows = index.items, index.db, index.items.count_rows()
    if not index.is_settled() or not isinstance(db, Path):
        return  # what is missing comes with the next update
    num_bytes = items.schema.field("vector").type.list_size * np.float32().nbytes * num_rows
    if num_bytes > MOST_BYTES or num_rows >= ANN_ROWS or _fitting_data(db) is not None:
        return
    sink = pa.BufferOutputStream()
    for table in (index.items.search().select(_ITEM_COLUMNS).limit(None).to_arrow(), *index.small_tables()):
        _write_table(sink, table.replace_schema_metadata(items.schema.metadata))
    data = sink.getvalue().to_pybytes()
    with suppress(OSError):  # a full disk: the index is whole without it
        for name, content in ((SNAPSHOT_DATA, data), (SNAPSHOT_STATE, json.dumps(_state(db, data)).encode())):
            with replacing(db / name, db / f".{name}.partial") as partial:
                partial.write_bytes(content)


def _write_table(sink: pa.BufferOutputStream, table: pa.Table) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _fitting_data(db: Path) -> bytes | None:
    """What a snapshot holds, unless it is missing, damaged, or of tables that have changed since."""
    try:
        said, data = json.loads((db / SNAPSHOT_STATE).read_bytes()), (db / SNAPSHOT_DATA).read_bytes()
        return data if said == _state(db, data) else None
    except (OSError, ValueError):
        return None


def _state(db: Path, data: bytes) -> dict[str, str | int]:
    return {"tables": _state_of_tables(db), "checksum": zlib.crc32(data)}


def _state_of_tables(db: Path) -> str:
    """SHA-256 of the names, sizes and dates of all files of the tables."""
    digest = hashlib.sha256()
    for table in sorted(db.glob("*.lance")):
        for parent, folders, names in os.walk(table):
            folders.sort()
            for name in sorted(names):
                file = Path(parent, name)
                status = file.stat()
                digest.update(f"{file.relative_to(db)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
