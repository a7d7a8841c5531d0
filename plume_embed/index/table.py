"""The table of an index: its columns, what it says about itself, opening it, and reading from it."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import lancedb
import pyarrow as pa
from filelock import FileLock, Timeout
from lancedb.table import Table

TABLE_NAME = "items"
DEFAULT_DATABASE = ".plume-index"  # inside the indexed folder; hidden, so that it is never indexed itself
FORMAT = 1  # raise when files are cut into items differently, or the columns change
_METADATA_KEY = "plume_index"
_VALUES_PER_QUERY = 500
_KEEP_VERSIONS = timedelta(hours=1)


@dataclass(frozen=True)
class Metadata:
    """What the vectors of an index come from.

    Args:
        fingerprint (`str`): Of the model, see [`Encoder.fingerprint`].
        num_latent_steps (`int`): K.
        model (`str`): The model's name, for messages.
        root (`str`): The indexed folder; relative to the database where that lies inside, so that both may move.
        format (`int`): `FORMAT` when it was made.
    """

    fingerprint: str
    num_latent_steps: int
    model: str
    root: str
    format: int = FORMAT

    def check(self, wanted: "Metadata", db: Path) -> None:
        """Refuses to mix vectors that do not compare.

        Raises:
            ValueError: made by another model, K or version, or of another folder, with the remedy.
        """
        anew = f"pass another --to, or delete {db} to index anew"
        if self.format != wanted.format:
            raise ValueError(f"{db} was made by another version of plume-embed; delete it to index anew.")
        if self.root != wanted.root:
            raise ValueError(f"{db} is the index of another folder ({self.root}); pass another --to.")
        if self.fingerprint != wanted.fingerprint:
            raise ValueError(f"{db} was made with another model ({self.model}); pass that one as --model, {anew}.")
        if self.num_latent_steps != wanted.num_latent_steps:
            raise ValueError(
                f"{db} was made with K = {self.num_latent_steps} latent steps, not {wanted.num_latent_steps}; pass "
                f"--latent-steps {self.num_latent_steps}, {anew}."
            )


@dataclass(frozen=True)
class Entry:
    """A file with one content, read as one kind: what the rows of an index belong to."""

    path: str
    file_hash: str
    kind: str

    @property
    def id(self) -> str:
        """A name for it without quotes or other surprises, for queries."""
        return hashlib.sha256(json.dumps([self.path, self.file_hash, self.kind]).encode()).hexdigest()[:32]


def schema(dimension: int, metadata: Metadata) -> pa.Schema:
    """Columns of the table for vectors of size D, with the metadata inside, so that both come in one commit."""
    fields = {
        "vector": pa.list_(pa.float32(), dimension),
        "path": pa.string(),  # relative to the folder, forward slashes
        "kind": pa.string(),  # text, image, video, page
        "locator": pa.string(),  # page=3, chars=0-1200, or empty
        "snippet": pa.string(),
        "item": pa.int32(),  # place in the file, from 0
        "num_items": pa.int32(),  # of the file: it is done when it has as many rows
        "file_hash": pa.string(),
        "entry": pa.string(),  # Entry.id
        "embedded_at": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema(fields.items(), metadata={_METADATA_KEY: json.dumps(asdict(metadata))})


@contextmanager
def damage_named(db: Path) -> Iterator[None]:
    """Turns what LanceDB raises on damaged data files, at any read or write, into a ValueError with the remedy."""
    try:
        yield
    except RuntimeError as error:
        if "lance" not in str(error).lower():
            raise
        raise ValueError(f"The index {db} is damaged; delete it to index anew.") from error


@contextmanager
def locked(db: Path) -> Iterator[None]:
    """Makes the database's folder and keeps other writers out of it; the system lifts the lock of a killed process.

    Raises:
        ValueError: another process writes there, or the folder cannot be written.
    """
    try:
        db.mkdir(parents=True, exist_ok=True)
        lock = FileLock(db / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"{db} is being updated by another process; wait until it is done.") from error
    except OSError as error:
        raise ValueError(
            f"Cannot write {db} ({error.strerror}); pass --to with a folder that can be written."
        ) from error
    try:
        yield
    finally:
        lock.release()


def open_table(db: Path, wanted: Metadata, dimension: int | None = None) -> Table:
    """The table of an index, checked to be the wanted one.

    Args:
        db (`Path`): The database's folder.
        wanted ([`Metadata`]): What the vectors must come from.
        dimension (`int`, *optional*): D; given, a table that is not there yet is made.

    Raises:
        ValueError: there is none, it is damaged, or it comes from something else, with the remedy.
    """
    connection = lancedb.connect(str(db)) if dimension is not None or db.is_dir() else None
    try:
        table = connection.open_table(TABLE_NAME) if connection else None
    except (ValueError, FileNotFoundError):
        table = None
    except RuntimeError as error:
        raise ValueError(f"The index {db} is damaged; delete it to index anew.") from error
    if table is None:
        if dimension is None:
            raise ValueError(f"There is no index in {db}; make it with `plume-embed index`.")
        return connection.create_table(TABLE_NAME, schema=schema(dimension, wanted))
    found = (table.schema.metadata or {}).get(_METADATA_KEY.encode())
    if found is None:
        raise ValueError(f"{db} holds a table that is no index of plume-embed; pass another --to.")
    Metadata(**json.loads(found)).check(wanted, db)
    return table


def root_label(folder: Path, db: Path) -> str:
    """How an index names its folder: relative where the database lies inside it, so that both may move together."""
    folder, db = folder.resolve(), db.resolve()
    return Path(os.path.relpath(folder, db)).as_posix() if db.is_relative_to(folder) else folder.as_posix()


def numbers_by_entry(table: Table) -> dict[Entry, tuple[set[int], int]]:
    """For each file in the table the numbers of the items that it has, and how many it should have."""
    columns = ["path", "file_hash", "kind", "item", "num_items"]
    found: dict[Entry, tuple[set[int], int]] = {}
    for batch in table.search().select(columns).limit(None).to_arrow().to_batches():
        for path, file_hash, kind, item, count in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            found.setdefault(Entry(path, file_hash, kind), (set(), count))[0].add(item)
    return found


def rows_of(table: Table, entries: Sequence[Entry]) -> pa.Table:
    """All rows of some files."""
    return table.search().where(_any_of(entries)).limit(None).to_arrow().select(table.schema.names)


def delete_rows(table: Table, entries: Sequence[Entry]) -> None:
    for start in range(0, len(entries), _VALUES_PER_QUERY):
        table.delete(_any_of(entries[start : start + _VALUES_PER_QUERY]))


def compact(table: Table) -> None:
    """Joins the small files of single commits, and drops versions that nobody can still be reading."""
    table.optimize(cleanup_older_than=_KEEP_VERSIONS)


def _any_of(entries: Sequence[Entry]) -> str:
    return f"entry IN ({', '.join(repr(entry.id) for entry in entries)})"
