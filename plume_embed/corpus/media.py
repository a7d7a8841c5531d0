"""Media that rows name by their paths: where they are, and in what state, by which a change of them is seen."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plume_embed.corpus.rows import hash_of

MEDIA_KEYS = ("image", "video")
_LIST_KINDS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
STRING_KINDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")


def local_path(path: str, folder: Path) -> Path:
    """A path of a source, below its folder.

    Raises:
        ValueError: it is an address.
    """
    if _REMOTE.match(path):
        raise ValueError(f"a remote address, and nothing is downloaded: {path[:100]}; fetch the file and name its path")
    return folder / path


def content_key(content: dict[str, Any]) -> bytes:
    """A hash of the text and of the paths of media, with their sizes and dates.

    Raises:
        ValueError: a file that is not there, that may not be read, or that is empty.
    """
    parts: list[Any] = [content.get("text")]
    for name in MEDIA_KEYS:
        value = content.get(name, [])
        for path in value if isinstance(value, list) else [value]:
            parts.append([name, *_state_of(path)])
    return hash_of(parts)


class MediaStates:
    """The state of all files that tables of one source name, whatever rows each table has."""

    def __init__(self):
        self._columns = {name: hashlib.sha256() for name in MEDIA_KEYS}
        self._is_empty = True

    def add(self, table: pa.Table, folder: Path) -> str:
        """The next rows; returns their own [`media_digest`]."""
        states = _states_in(table, folder)
        for name, *state in states:
            self._columns[name].update(json.dumps(state).encode())
            self._is_empty = False
        return _digest(states)

    def digest(self) -> str:
        """Of all so far; "" where they name no file."""
        return "" if self._is_empty else hash_of([one.hexdigest() for one in self._columns.values()]).hex()


def media_digest(table: pa.Table, folder: Path) -> str:
    """A hash of the state of all files that a table's media columns name; "" where they name none.

    Args:
        table (`pa.Table`): With the columns of media, or only what holds paths in them, see [`path_columns`].
        folder (`Path`): The paths are relative to it.
    """
    return _digest(_states_in(table, folder))


def _digest(states: list[list[Any]]) -> str:
    return hash_of(states).hex() if states else ""


def _states_in(table: pa.Table, folder: Path) -> list[list[Any]]:
    """Column and state of each file, column after column."""
    states: list[list[Any]] = []
    for name in table.column_names:
        for path in _paths_in(table[name]) if name in MEDIA_KEYS else ():
            try:
                states.append([name, *_state_of(local_path(path, folder))])
            except ValueError as error:
                states.append([name, path, str(error)])
    return states


def path_columns(file: pq.ParquetFile) -> list[str]:
    """The columns inside those of media that hold paths; not where every row has the bytes beside its path."""
    leaves = [file.schema.column(number) for number in range(len(file.schema))]
    without_nulls = {leaf.path for number, leaf in enumerate(leaves) if _has_no_null(file, number)}
    return [
        leaf.path
        for leaf in leaves
        if leaf.path.split(".")[0] in MEDIA_KEYS
        and leaf.logical_type.type in ("STRING", "JSON")
        and f"{leaf.path.removesuffix('.path')}.bytes" not in without_nulls
    ]


def _has_no_null(file: pq.ParquetFile, number: int) -> bool:
    groups = (file.metadata.row_group(group).column(number) for group in range(file.num_row_groups))
    found = [group.statistics for group in groups]
    return all(one is not None and one.has_null_count and one.null_count == 0 for one in found)


def _paths_in(column: pa.ChunkedArray) -> Iterator[str]:
    """The paths of a column of paths, of {"bytes", "path"}, or of lists of either; none of bytes."""
    kind: Any = column.type
    if isinstance(kind, pa.BaseExtensionType):
        yield from _paths_in(column.cast(kind.storage_type))
    elif any(is_kind(kind) for is_kind in _LIST_KINDS):
        chunks: Any = column.chunks
        yield from _paths_in(pa.chunked_array([chunk.flatten() for chunk in chunks], kind.value_type))
    elif pa.types.is_struct(kind):
        names = [kind.field(number).name for number in range(kind.num_fields)]
        inside = dict(zip(names, column.flatten(), strict=True))
        if "path" in inside:
            paths = inside["path"]
            yield from _paths_in(paths.filter(inside["bytes"].is_null()) if "bytes" in inside else paths)
    elif pa.types.is_dictionary(kind):
        yield from _paths_in(column.cast(kind.value_type))
    elif any(is_kind(kind) for is_kind in STRING_KINDS):
        yield from column.drop_null().to_pylist()


def _state_of(path: Path) -> list[Any]:
    """Path, size and date of a file; the path as the system resolves it, by whatever name its folder was given.

    Raises:
        ValueError: it is not there, may not be read, or is empty; it is in another state when that is mended.
    """
    path = Path(os.path.realpath(path))  # of pathlib, it would raise where links go in a circle
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"no such file: {path}") from error
    except OSError as error:  # the name is too long, or the disk fails
        raise ValueError(f"{error.strerror}: {str(path)[:100]}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"no regular file: {path}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"Permission denied: {path}")
    if status.st_size == 0:
        raise ValueError(f"empty: {path}")
    return [str(path), status.st_size, status.st_mtime_ns]
