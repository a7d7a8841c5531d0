"""Parquet files and data sets as sources: the columns text, image, video, an id, and those that are kept."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from plume_embed.corpus.media import (
    MEDIA_KEYS,
    STRING_KINDS,
    MediaStates,
    content_key,
    local_path,
    media_digest,
    path_columns,
)
from plume_embed.corpus.rows import BadRow, Draft, Row, hash_of
from plume_embed.encode.prepare import Preparer
from plume_embed.stored import check_utf8

if TYPE_CHECKING:
    from datasets import Dataset

_CONTENT = ("text", *MEDIA_KEYS)


@dataclass
class ParquetSource:
    """Parquet files, one after the other; their media are paths, bytes, or {"bytes", "path"} as `datasets` writes them.

    Args:
        files (`tuple[Path]`): Paths in them are relative to the folder of each.
        keep: Further columns.
        folder (`Path`, *optional*): Where all of them are, and others may come to be.
    """

    files: tuple[Path, ...]
    keep: tuple[str, ...] = ()
    folder: Path | None = None
    _columns: dict[str, pa.DataType] = field(default_factory=dict)
    _digest: str = ""

    def asked(self) -> dict[str, Any]:
        """See [`Source`]."""
        return {"source": str((self.folder or self.files[0]).resolve()), "keep": list(self.keep)}

    def slices(self, size: int) -> Iterator[Draft]:
        """See [`Source`]. Only ids and paths are read, where there are any."""
        whole, seen, row = hashlib.sha256(json.dumps(self.keep).encode()), MediaStates(), 0
        self._columns = {}
        some_have_ids = any("id" in opened(path).schema_arrow.names for path in self.files)
        for number, path in enumerate(self.files):
            file, stamp = opened(path), _stamp(path)
            whole.update(json.dumps(stamp).encode())
            self._note_columns(path, file.schema_arrow)
            has_ids, of_media = "id" in file.schema_arrow.names, path_columns(file)
            parts = _parts(file, size, ["id"] * has_ids + of_media)
            for start in range(0, file.metadata.num_rows, size):
                count = min(size, file.metadata.num_rows - start)
                spec = {"file": number, "start": start, "count": count, "row": row, "stamp": stamp}
                part = next(parts) if has_ids or of_media else pa.table({})
                media = seen.add(part, path.parent)
                if media:
                    spec["media"] = media
                draft = Draft(spec, count, hash_of(spec).hex())
                if some_have_ids:  # another file's id may be the number of a row of this one
                    draft.ids = _named_ids(part["id"].to_pylist() if has_ids else [None] * count, row)
                yield draft
                row += count
        whole.update(seen.digest().encode())
        self._digest = whole.hexdigest()

    def _note_columns(self, path: Path, schema: pa.Schema) -> None:
        _check_columns(schema, self.keep, str(path))
        found = {name: schema.field(name).type for name in self.keep}
        if self._columns and found != self._columns:
            raise ValueError(f"{path}: the kept columns have other types than in {self.files[0]}.")
        self._columns = found

    def digest(self) -> str:
        """See [`Source`]: of the files' names, sizes and dates, and of those of media."""
        return self._digest

    def columns(self) -> dict[str, pa.DataType]:
        """See [`Source`]."""
        return self._columns

    def read(self, spec: dict[str, Any], preparer: Preparer) -> Iterator[Row | BadRow]:
        """See [`Source`]."""
        self.check(spec)
        path = self.files[spec["file"]]
        file = opened(path)
        names = [name for name in ("id", *_CONTENT, *self.keep) if name in file.schema_arrow.names]
        place = 0
        for batch in _batches_between(file, spec["start"], spec["count"], names):
            for record in batch.to_pylist():
                where = f"{path}: row {spec['start'] + place}"
                yield _row(record, place, spec["row"] + place, where, path.parent, self.keep)
                place += 1

    def bad_places(self, spec: dict[str, Any], places: set[int]) -> set[int]:
        """See [`Source`]. The whole slice is read."""
        self.check(spec)
        path = self.files[spec["file"]]
        file, place, found = opened(path), 0, set[int]()
        names = [name for name in _CONTENT if name in file.schema_arrow.names]
        for batch in _batches_between(file, spec["start"], spec["count"], names):
            for here in places & set(range(place, place + len(batch))):
                (record,) = batch.slice(here - place, 1).to_pylist()
                if isinstance(_row(record, 0, 0, "", path.parent, ()), BadRow):
                    found.add(here)
            place += len(batch)
        return found

    def check(self, spec: dict[str, Any]) -> None:
        """See [`Source`]."""
        path, media = self.files[spec["file"]], ""
        is_same = _stamp(path) == spec["stamp"]
        if is_same and "media" in spec:
            file = opened(path)
            batches = _batches_between(file, spec["start"], spec["count"], path_columns(file))
            media = media_digest(pa.Table.from_batches(batches), path.parent)
        if not is_same or media != spec.get("media", ""):
            raise ValueError(f"{path} or a file in it changed while it was read; run again.")


@dataclass
class DatasetSource:
    """A data set of `datasets`: an id of the Hub, a folder that it reads, or one of `save_to_disk`.

    Args:
        name (`str`): See [`open_dataset`]; the split "train".
        keep: Further columns.
    """

    name: str
    keep: tuple[str, ...] = ()
    _digest: str = ""
    _opened: "tuple[list[Any], Dataset] | None" = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}  # each process opens its own

    def asked(self) -> dict[str, Any]:
        """See [`Source`]."""
        name = Path(self.name)
        return {"source": str(name.resolve()) if name.exists() else self.name, "keep": list(self.keep)}

    def _data(self) -> "Dataset":
        """Opened once, and again where its files have changed."""
        if self._opened is None or self._opened[0] != _stamps(self._opened[1]):
            data = self._open()
            self._opened = _stamps(data), data
        return self._opened[1]

    def _open(self) -> "Dataset":
        check_utf8(Path(self.name))
        import datasets

        from plume_embed.local_datasets import open_dataset

        data = open_dataset(self.name)
        _check_columns(data.features.arrow_schema, self.keep, self.name)
        for column, feature in data.features.items():
            if isinstance(feature, datasets.Image | datasets.Video):
                data = data.cast_column(column, type(feature)(decode=False))
        return data.select_columns([name for name in ("id", *_CONTENT, *self.keep) if name in data.column_names])

    def slices(self, size: int) -> Iterator[Draft]:
        """See [`Source`]. Only ids and paths are read, where there are any."""
        self._opened = None  # what was made of other files lies elsewhere, and only opening looks at them
        data, seen = self._data(), MediaStates()
        for start in range(0, len(data), size):
            spec = {"start": start, "count": min(size, len(data) - start), "fingerprint": data._fingerprint}
            media = seen.add(_media_of(data, spec), Path())
            if media:
                spec["media"] = media
            draft = Draft(spec, spec["count"], hash_of(spec).hex())
            if "id" in data.column_names:
                draft.ids = _named_ids(data[start : start + size]["id"], start)
            yield draft
        whole, of_media = [data._fingerprint, self.keep], seen.digest()
        self._digest = hash_of([*whole, of_media] if of_media else whole).hex()

    def digest(self) -> str:
        """See [`Source`]: the fingerprint of `datasets`, and the state of media that are named by a path."""
        return self._digest

    def columns(self) -> dict[str, pa.DataType]:
        """See [`Source`]."""
        schema = self._data().features.arrow_schema
        return {name: schema.field(name).type for name in self.keep}

    def read(self, spec: dict[str, Any], preparer: Preparer) -> Iterator[Row | BadRow]:
        """See [`Source`]."""
        data = self._unchanged(spec)
        for place in range(spec["count"]):
            row = spec["start"] + place
            yield _row(data[row], place, row, f"{self.name}: row {row}", Path(), self.keep)

    def bad_places(self, spec: dict[str, Any], places: set[int]) -> set[int]:
        """See [`Source`]."""
        data = self._unchanged(spec)
        rows = {place: _row(data[spec["start"] + place], 0, 0, "", Path(), ()) for place in places}
        return {place for place, row in rows.items() if isinstance(row, BadRow)}

    def check(self, spec: dict[str, Any]) -> None:
        """See [`Source`]. What `datasets` holds does not change once it is open."""
        if "media" in spec:
            self._unchanged(spec)

    def _unchanged(self, spec: dict[str, Any]) -> "Dataset":
        data = self._data()
        is_same = data._fingerprint == spec["fingerprint"]
        if not is_same or media_digest(_media_of(data, spec), Path()) != spec.get("media", ""):
            raise ValueError(f"{self.name} or a file in it changed while it was read; run again.")
        return data


def _media_of(data: "Dataset", spec: dict[str, Any]) -> pa.Table:
    """The columns of media of a slice."""
    names = [name for name in MEDIA_KEYS if name in data.column_names]
    if not names:
        return pa.table({})
    part: Any = data.select_columns(names).with_format("arrow")[spec["start"] : spec["start"] + spec["count"]]
    return part


def opened(path: Path) -> pq.ParquetFile:
    """A Parquet file.

    Raises:
        ValueError: it is none, or has a name that cannot be opened.
    """
    check_utf8(path)
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file, or not whole: {error}") from error


def _check_columns(schema: pa.Schema, keep: tuple[str, ...], where: str) -> None:
    names = schema.names
    if not set(_CONTENT) & set(names):
        raise ValueError(f"{where} has no column {', '.join(_CONTENT)}; it has {', '.join(names)}. Rename one of them.")
    missing = sorted(set(keep) - set(names))
    if missing:
        raise ValueError(f"{where} has no column {missing[0]} for --keep; it has {', '.join(names)}.")
    if "id" in names and not _is_of_ids(schema.field("id").type):
        raise ValueError(
            f"{where}: an id is a string or a whole number, and the column id holds {schema.field('id').type}; cast it "
            "to string, or give it another name and the rows their numbers."
        )
    for name in keep:
        if _has_nanoseconds(schema.field(name).type):
            raise ValueError(
                f"{where}: the times of {name} are {schema.field(name).type}, and --keep would cut them to "
                "microseconds; cast the column to time64[us], int64 or string."
            )


def _is_of_ids(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_of_ids(kind.value_type)
    kinds = (pa.types.is_integer, pa.types.is_null, *STRING_KINDS)
    return any(is_kind(kind) for is_kind in kinds)


def _has_nanoseconds(kind: Any) -> bool:
    """Whether a type is, or holds, times of day in nanoseconds: rows are Python's values, whose times end at micro."""
    if pa.types.is_dictionary(kind):
        return _has_nanoseconds(kind.value_type)
    return kind == pa.time64("ns") or any(_has_nanoseconds(kind.field(n).type) for n in range(kind.num_fields))


def _stamp(path: Path) -> list[Any]:
    """Path, as the system resolves it by whatever name it was given, size and date of a file."""
    status = path.stat()
    return [os.path.realpath(path), status.st_size, status.st_mtime_ns]


def _stamps(data: "Dataset") -> list[Any]:
    return [_stamp(Path(one["filename"])) for one in data.cache_files]


def _parts(file: pq.ParquetFile, size: int, columns: list[str]) -> Iterator[pa.Table]:
    """Some columns in tables of `size` rows, whatever the row groups are."""
    waiting: list[pa.RecordBatch] = []
    for batch in file.iter_batches(columns=columns):
        waiting.append(batch)
        while sum(map(len, waiting)) >= size:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, size)
            waiting = table.slice(size).to_batches()
    if waiting:
        yield pa.Table.from_batches(waiting)


def _row_id(value: Any, number: int) -> str:
    """A row's own id, or its number in the source where it has none."""
    return str(number) if value is None else str(value)


def _named_ids(values: list[Any], first: int) -> list[tuple[int, bytes, str]]:
    """The `ids` of a [`Draft`] whose rows begin with number `first`."""
    return [(n, hash_of(_row_id(value, first + n)), f"row {first + n}") for n, value in enumerate(values)]


def _batches_between(file: pq.ParquetFile, start: int, count: int, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of the row groups that overlap, in small batches."""
    first, groups = 0, []
    skip = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first < start + count and first + rows > start:
            if not groups:
                skip = start - first
            groups.append(group)
        first += rows
    for batch in file.iter_batches(batch_size=64, row_groups=groups, columns=names):
        skipped = min(skip, len(batch))
        skip -= skipped
        batch = batch.slice(skipped, count)
        count -= len(batch)
        if len(batch):
            yield batch
        if not count:  # the rest of the row group is of other slices
            return


def _row(
    record: dict[str, Any], place: int, number: int, where: str, folder: Path, keep: tuple[str, ...]
) -> Row | BadRow:
    row_id = _row_id(record.get("id"), number)
    try:
        content = {name: _value(record[name], name, folder) for name in _CONTENT if record.get(name) is not None}
        if not content:
            raise ValueError("none of text, image, video")
        has_paths = all(_is_named(content[name]) for name in MEDIA_KEYS if name in content)
        key = content_key(content) if has_paths else b""
    except ValueError as error:
        return BadRow(row_id, where, str(error))
    return Row(place, row_id, where, content, key, {name: record[name] for name in keep if record[name] is not None})


def _is_named(media: Any) -> bool:
    return all(isinstance(one, Path) for one in (media if isinstance(media, list) else [media]))


def _text(value: Any) -> str | list[str]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return value
    kind = "a list with something else in it, or nothing" if isinstance(value, list) else type(value).__name__
    raise ValueError(f"text must be a string or a list of strings, got {kind}")


def _value(value: Any, name: str, folder: Path) -> Any:
    if name == "text":
        return _text(value)
    if isinstance(value, list):
        return [_value(one, name, folder) for one in value]
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
        value = value["path"]
    if isinstance(value, str):
        return local_path(value, folder)
    if isinstance(value, dict) and value.get("bytes"):
        return value["bytes"]
    if isinstance(value, bytes):
        return value
    raise ValueError(f"{name} must be a path or bytes, got {type(value).__name__}")
