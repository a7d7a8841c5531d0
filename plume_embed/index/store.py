"""What is read from an index and written to it: files by folder, items by content, vectors by digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plume_embed.index.folders import IndexedFolder, Scope, folders_of, write_folder
from plume_embed.index.neighbours import AnnIndex, approximate, exact, read_ann, with_short
from plume_embed.index.place import Place
from plume_embed.index.table import FILES_SCHEMA, Metadata, open_tables

if TYPE_CHECKING:
    from lancedb.table import Table

FILTER_COLUMNS = ("kind", "locator", "snippet", "embedded_at")  # what a filter is for
_NO_COLUMN = re.compile(r"No field named (.+?)\. Valid fields")
_VALUES_PER_QUERY = 500
_ROWS_PER_WRITE = 10_000
_KEEP_VERSIONS = timedelta(hours=1)  # nobody reads an older one any more


@dataclass(frozen=True)
class FileRow:
    """A file in the index; see `FILES_SCHEMA`."""

    folder: int
    path: str
    kind: str
    size: int
    mtime_ns: int
    content: str
    num_items: int
    unreadable: tuple[tuple[str, str], ...]
    version: str
    note: str = ""

    @property
    def id(self) -> str:
        """Its key, without quotes or other surprises."""
        return hashlib.sha256(json.dumps([self.folder, self.path]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class StoredVector:
    """A vector [D] that was computed before."""

    vector: np.ndarray
    embedded_at: datetime


class Index:
    """An open index.

    Args:
        db ([`Place`]): The database.
        wanted ([`Metadata`]): What the vectors must come from.
        dimension (`int`, *optional*): D; given, an index that is not there yet is made.

    Raises:
        ValueError: see [`open_tables`].
    """

    def __init__(self, db: Place, wanted: Metadata, dimension: int | None = None):
        self.db = db
        self._tables = open_tables(db, wanted, dimension)

    @property
    def items(self) -> Table:
        """The table of vectors."""
        return self._tables.items

    def folders(self) -> list[IndexedFolder]:
        """The folders that are indexed."""
        return folders_of(self._tables.folders.search().limit(None).to_arrow().to_pylist(), self.db)

    def write_folder(self, folder: IndexedFolder) -> None:
        """Adds a folder, or changes its place or patterns."""
        write_folder(self._tables.folders, self.db, folder)

    def files_of(self, scope: Scope) -> dict[str, FileRow]:
        """The files of a scope, by path."""
        query = self._tables.files.search().where(f"folder = {scope.folder.number}").limit(None)
        rows = (file_row(row) for batch in query.to_batches() for row in batch.to_pylist())
        return {row.path: row for row in rows if row.path.startswith(scope.prefix)}

    def paths_in(self, folder: int) -> Iterator[str]:
        """The files of a folder that have items, by its number; read as far as they are asked for."""
        query = self._tables.files.search().where(f"folder = {folder} AND num_items > 0").select(["path"]).limit(None)
        return (path for batch in query.to_batches() for path in batch["path"].to_pylist())

    def files_with(self, contents: Sequence[str]) -> Iterator[FileRow]:
        """The files that have one of these contents."""
        for some in _chunks(contents, _VALUES_PER_QUERY):
            query = self._tables.files.search().where(_any_of("content", some)).limit(None)
            yield from map(file_row, query.to_arrow().to_pylist())

    def finished(self, contents: set[str]) -> dict[str, FileRow]:
        """For each of these contents that is in the index, whole, one of the files that have it."""
        if not contents or self._tables.files.count_rows() == 0:
            return {}
        wanted = pa.array(sorted(contents))
        found: dict[str, FileRow] = {}
        for batch in self._tables.files.search().limit(None).to_batches():
            chosen = batch.filter(pc.is_in(batch["content"], value_set=wanted))
            found |= {row.content: row for row in map(file_row, chosen.to_pylist())}
        return found

    def put_files(self, rows: Sequence[FileRow]) -> None:
        """Adds files, or replaces what the index says of them."""
        for some in _chunks(rows, _ROWS_PER_WRITE):
            with _whole(self._tables.files, self.db):
                merge = self._tables.files.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(pa.Table.from_pylist([_as_dict(row) for row in some], schema=FILES_SCHEMA))

    def drop_files(self, rows: Iterable[FileRow]) -> None:
        """Forgets files. Their items stay until [`drop_unused_items`]."""
        for some in _chunks([row.id for row in rows], _VALUES_PER_QUERY):
            self._tables.files.delete(_any_of("id", some))

    def contents(self) -> set[str]:
        """The contents that have items."""
        return {content for contents in self._columns(self.items, "content") for content in contents}

    def item_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All items, a part at a time."""
        yield from self.items.search().select(list(columns)).limit(None).to_batches()

    def nearest(
        self,
        query_vector: np.ndarray,
        limit: int,
        kinds: Sequence[str],
        columns: Sequence[str],
        where: str = "",
        ann: AnnIndex | None = None,
    ) -> list[dict]:
        """The rows nearest to a query [D], nearest first.

        Args:
            limit (`int`): How many; all where there are fewer.
            kinds: Only these; all where none is given.
            columns: What a row has beside its `_distance`, 1 - the cosine similarity.
            where (`str`): SQL that holds for every row, tried by [`check_filter`].
            ann ([`AnnIndex`], *optional*): Chooses candidates; without it all vectors are scanned.
        """
        parts = [f"kind IN ({', '.join(map(repr, kinds))})"] if kinds else []
        condition = " AND ".join([*parts, f"({where})"] if where else parts)
        limit = min(limit, max(1, self.items.count_rows()))  # LanceDB takes no number above 32 bits, and not 0
        if ann is None:
            return exact(self.items, query_vector, limit, condition, columns)
        return approximate(self.items, ann, query_vector, limit, condition, columns)

    def ann(self) -> AnnIndex | None:
        """Its index of approximate neighbours."""
        return read_ann(self.items)

    def check_filter(self, where: str) -> None:
        """Tries a condition.

        Raises:
            ValueError: it is no SQL over the columns of items.
        """
        failure = self._failure_of(where)
        if failure is not None:
            unknown = _NO_COLUMN.search(str(failure))
            if unknown:  # LanceDB would name columns of ours that say nothing to anybody
                raise ValueError(
                    f"The filter {where!r} is not understood: there is no column {unknown[1]}; the columns are "
                    f"{', '.join(FILTER_COLUMNS)}."
                ) from failure
            reason = str(failure).splitlines()[0].removeprefix("lance error: ")
            raise ValueError(f"The filter {where!r} is not understood: {reason}") from failure
        # LanceDB passes over whatever follows a condition. Only one whole condition fits both forms: one that closes
        # the parenthesis in front of it is no operand of CAST.
        for form in (f"({where})", f"(CAST({where} AS BOOLEAN))"):
            failure = self._failure_of(form)
            if failure is not None:
                raise ValueError(
                    f"The filter {where!r} is not understood: it is not one whole condition; see that its parentheses "
                    "and comments are closed and nothing follows it."
                ) from failure

    def _failure_of(self, condition: str) -> RuntimeError | ValueError | None:
        try:
            self.items.search().where(condition).select(["kind"]).limit(1).to_arrow()
        except (RuntimeError, ValueError) as error:
            return error
        return None

    def small_tables(self) -> tuple[pa.Table, pa.Table]:
        """The tables of files and of folders, whole."""
        files, folders = (one.search().limit(None).to_arrow() for one in (self._tables.files, self._tables.folders))
        return files, folders

    def numbers_of(self, contents: Iterable[str]) -> dict[str, set[int]]:
        """The numbers of the items that are there of each of these contents."""
        wanted = pa.array(sorted(contents), pa.string())
        found: dict[str, set[int]] = {}
        for batch in self.items.search().select(["content", "item"]).limit(None).to_batches():
            chosen = batch.filter(pc.is_in(batch["content"], value_set=wanted))
            for content, item in zip(chosen["content"].to_pylist(), chosen["item"].to_pylist(), strict=True):
                found.setdefault(content, set()).add(item)
        return found

    def is_settled(self) -> bool:
        """Whether every item belongs to a file: not after a run that was killed."""
        rows_of: dict[str, int] = {}
        for batch in self._tables.files.search().select(["content", "num_items"]).limit(None).to_batches():
            rows_of.update(zip(batch["content"].to_pylist(), batch["num_items"].to_pylist(), strict=True))
        return sum(rows_of.values()) == self.items.count_rows()

    def incomplete(self) -> set[str]:
        """Contents that have fewer items than their files say."""
        counted: Counter[str] = Counter()
        for contents in self._columns(self.items, "content"):
            counted.update(contents)
        found = set()
        for batch in self._tables.files.search().select(["content", "num_items"]).limit(None).to_batches():
            pairs = zip(batch["content"].to_pylist(), batch["num_items"].to_pylist(), strict=True)
            found |= {content for content, number in pairs if counted[content] < number}
        return found

    def drop_unused_items(self) -> None:
        """Removes the items of contents that no file has."""
        used = pa.array(sorted({c for b in self._columns(self._tables.files, "content") for c in b}), pa.string())
        unused: set[str] = set()
        for batch in self.items.search().select(["content"]).limit(None).to_batches():
            contents = pc.unique(batch["content"])
            unused.update(contents.filter(pc.invert(pc.is_in(contents, value_set=used))).to_pylist())
        for some in _chunks(sorted(unused), _VALUES_PER_QUERY):
            self.items.delete(_any_of("content", some))

    def digests(self) -> KnownDigests:
        """Those of all items."""
        return KnownDigests(b"".join(bytes.fromhex("".join(some)) for some in self._columns(self.items, "digest")))

    def vectors_of(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        """The vectors of passages and pictures that were embedded before, by digest."""
        found: dict[str, StoredVector] = {}
        for some in _chunks(sorted(set(digests)), _VALUES_PER_QUERY):
            query = self.items.search().where(_any_of("digest", some)).select(["digest", "vector", "embedded_at"])
            for row in query.limit(None).to_arrow().to_pylist():
                found[row["digest"]] = StoredVector(np.asarray(row["vector"], np.float32), row["embedded_at"])
        return found

    def add_items(self, rows: list[dict]) -> None:
        """Adds rows of `items`, in one commit."""
        schema = self.items.schema
        with _whole(self.items, self.db):
            self.items.add(pa.Table.from_pylist(with_short(rows, schema), schema=schema))

    def compact(self) -> None:
        """Joins the small files of single commits, brings what is new into an ANN index, and drops versions that nobody
        can still be reading."""
        for table in (self.items, self._tables.files, self._tables.folders):
            table.optimize(cleanup_older_than=_KEEP_VERSIONS)

    @staticmethod
    def _columns(table: Table, name: str) -> Iterator[list[str]]:
        for batch in table.search().select([name]).limit(None).to_batches():
            yield batch[name].to_pylist()


@contextmanager
def _whole(table: Table, db: Place) -> Iterator[None]:
    """A write that is taken back where its data did not arrive.

    LanceDB commits a file whose last bytes a full disk has refused, and finds it damaged when it is read. So the last
    row is read at once, which is one of the new file.

    Raises:
        ValueError: the data did not arrive; the table is as before.
    """
    version = table.version
    yield
    try:
        table.search().select(table.schema.names[:1]).offset(table.count_rows() - 1).limit(1).to_arrow()
    except RuntimeError as error:
        table.restore(version)
        raise ValueError(
            f"The index {db} cannot be written: the last write did not arrive whole, as on a full disk. It is as it "
            "was after the last step; make room and run the same command again."
        ) from error


class KnownDigests:
    """A set of digests that takes 16 bytes for each: an index may have ten million.

    Args:
        digests (`bytes`): 16 bytes each, one behind the other.
    """

    def __init__(self, digests: bytes):
        halves = np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)
        halves = halves[np.argsort(halves[:, 0], kind="stable")]
        self._high, self._low = np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])

    def __contains__(self, digest: str) -> bool:
        high, low = np.uint64(int(digest[:16], 16)), np.uint64(int(digest[16:], 16))
        start, end = np.searchsorted(self._high, high, "left"), np.searchsorted(self._high, high, "right")
        return bool((self._low[start:end] == low).any())


def file_row(row: dict) -> FileRow:
    """A row of the table of files."""
    unreadable = tuple((one["locator"], one["reason"]) for one in row["unreadable"])
    return FileRow(**{name: value for name, value in row.items() if name != "id"} | {"unreadable": unreadable})


def _as_dict(row: FileRow) -> dict:
    unreadable = [{"locator": locator, "reason": reason} for locator, reason in row.unreadable]
    return {**vars(row), "id": row.id, "unreadable": unreadable}


def _any_of(column: str, values: Sequence[str]) -> str:
    """A condition; the values hold no quotes."""
    return f"{column} IN ({', '.join(map(repr, values))})"


def _chunks(elements: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(elements), size):
        yield elements[start : start + size]
