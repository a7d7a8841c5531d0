"""The tables of an index: their columns, what they say about themselves, opening them, and what can go wrong.

`items` holds the vectors by the content of files, `files` says which file has which content, `folders` which folders
are indexed. So a moved or copied file is a changed row of `files`, and no vector is touched.

LanceDB is imported when tables are opened: it takes two CPU seconds, which a search by a snapshot saves.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from filelock import FileLock, Timeout

from plume_embed.index.place import ObjectStore, Place, lock_file

if TYPE_CHECKING:
    import lancedb
    from lancedb.table import Table

ANN_ROWS = 100_000  # with fewer items every search is an exact scan
FORMAT = 2  # raise when files are cut into items differently, or the columns change
FORMAT_WITH_TIMES = 3  # of models that see when a film's frames are shown: with 2 they were given other times
DEFAULT_DATABASE = ".plume-index"  # inside the indexed folder; hidden, so that it is never indexed itself
_ITEMS, _FILES, _FOLDERS = "items", "files", "folders"
SNAPSHOT_DATA, SNAPSHOT_STATE = "snapshot.arrow", "snapshot.json"
# What lies in the folder of an index.
PARTS = frozenset({*(f"{name}.lance" for name in (_ITEMS, _FILES, _FOLDERS)), SNAPSHOT_DATA, SNAPSHOT_STATE})
_METADATA_KEY = "plume_index"
_NAMED = 3  # files that an error names
_STORE_REASON = re.compile(r"<Message>(.+?)</Message>|message: \"(.+?)\"")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# As Rust names it. One inside a table is of the index; the folder of all others is that of the system.
_TEMPORARY = re.compile(r"\(os error (\d+)\) at path \"((?:(?!\.lance)[^\"])+[\\/]\.tmp\w{6})\b")
_LANCE = re.compile(r"lance|no longer exists\. Was it cleaned up", re.IGNORECASE)
# What LanceDB says of data that is cut short, overwritten or lost; whatever else fails is no reason to delete an index.
_DAMAGE = re.compile(
    r"failed to fill whole buffer|sufficient data|Not found: \S+\.(lance|manifest|txn)|invalid magic|[Cc]orrupt"
    r"|protobuf|decode|does not appear to be a Lance file|out of range|no longer exists",
)


class BusyError(ValueError):
    """Another process is updating the index."""


@dataclass(frozen=True)
class Metadata:
    """What the vectors of an index come from.

    Args:
        fingerprint (`str`): Of the model, see [`Encoder.fingerprint`].
        num_latent_steps (`int`): K of the documents in it.
        model (`str`): The model's name, for messages.
        format (`int`): `FORMAT`, or `FORMAT_WITH_TIMES` by what the model sees.
        fingerprints (`dict[str, str]`): Of the model with each `--dtype`; for messages, and not stored.
    """

    fingerprint: str
    num_latent_steps: int
    model: str
    format: int = FORMAT
    fingerprints: dict[str, str] = field(default_factory=dict, compare=False)

    def as_json(self) -> str:
        """As the items' table holds it."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "fingerprints"})

    def check(self, wanted: Metadata, db: Place) -> None:
        """Refuses to mix vectors that do not compare.

        Raises:
            ValueError: made by another model, precision or K, with the remedy.
        """
        anew = f"pass another --to, or delete {db} to index anew"
        precisions = {fingerprint: dtype for dtype, fingerprint in wanted.fingerprints.items()}
        if self.fingerprint != wanted.fingerprint and self.fingerprint in precisions:
            own, other = precisions[self.fingerprint], precisions.get(wanted.fingerprint, "another precision")
            raise ValueError(
                f"{db} was made with this model in {own}, not {other}; pass --dtype {own} (to `plume-embed serve` "
                f"where it is a server's), {anew}."
            )
        if self.fingerprint != wanted.fingerprint:
            raise ValueError(
                f"{db} was made with another model ({self.model}); pass that one as --model (to `plume-embed "
                f"serve` where it is a server's), {anew}."
            )
        if self.num_latent_steps != wanted.num_latent_steps:
            raise ValueError(
                f"{db} was made with K = {self.num_latent_steps} latent steps, not {wanted.num_latent_steps}; pass "
                f"--latent-steps {self.num_latent_steps}, {anew}."
            )


@dataclass(frozen=True)
class Tables:
    """The three tables of an index, opened."""

    items: Table
    files: Table
    folders: Table


def items_schema(dimension: int, metadata: Metadata) -> pa.Schema:
    """Columns of `items` for vectors of size D, with the metadata inside, so that both come in one commit."""
    fields = {
        "vector": pa.list_(pa.float32(), dimension),
        "content": pa.string(),  # of the file that it was read from: its kind and the hash of its bytes
        "item": pa.int32(),  # place in the file, from 0
        "kind": pa.string(),  # text, image, video, page
        "locator": pa.string(),  # page=3, time=12-17, chars=0-1200, or empty
        "snippet": pa.string(),
        "digest": pa.string(),  # of the passage or the decoded pixels: the same digest, the same vector
        "embedded_at": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema(fields.items(), metadata={_METADATA_KEY: metadata.as_json()})


FILES_SCHEMA = pa.schema(
    {
        "id": pa.string(),  # of folder and path, without quotes or other surprises
        "folder": pa.int32(),
        "path": pa.string(),  # relative to the folder, forward slashes
        "kind": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "content": pa.string(),  # empty for what could never be looked at
        "num_items": pa.int32(),  # rows of `items` with this content; all of them are there before this row is
        "unreadable": pa.list_(pa.struct({"locator": pa.string(), "reason": pa.string()}.items())),
        "note": pa.string(),  # why it could not be looked at the last time; what is known of it stays
        # Of what judged it unreadable, see `READER`; empty where something outside ended the reading.
        "version": pa.string(),
    }.items()
)
FOLDERS_SCHEMA = pa.schema(
    {
        "number": pa.int32(),
        "label": pa.string(),  # where it is; relative to the database where that lies inside, so that both may move
        "exclude": pa.list_(pa.string()),
    }.items()
)


@contextmanager
def errors_named(db: Place, name: str = "The index", anew: str = "to index anew") -> Iterator[None]:
    """Turns what LanceDB raises, at any read or write, into a ValueError that says what it is and what to do."""
    was_there = isinstance(db, Path) and db.exists()
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if was_there and not db.exists():
            raise ValueError(_lost(db)) from error
        message = str(error)
        if _LANCE.search(message) is None:
            raise
        if 'store: "' in message:  # of an object store, with its XML or the reason of the network
            reason = _STORE_REASON.search(message)
            raise ValueError(
                f"{name} {db} cannot be reached: {(reason[1] or reason[2]) if reason else message.splitlines()[0]}; "
                "see that the address is right, and the keys and the endpoint in the environment."
            ) from error
        found = _TEMPORARY.search(message)
        if found:
            raise ValueError(
                f"LanceDB cannot write its temporary file {found[2]} ({os.strerror(int(found[1]))}); set TMPDIR to a "
                "folder that is there and has room."
            ) from error
        found = _OS_ERROR.search(message)
        if found:
            raise ValueError(
                f"{name} {db} cannot be read or written: {os.strerror(int(found[1]))}. It is whole as it was after "
                "the last step; mend that and run the same command again."
            ) from error
        if _DAMAGE.search(message):
            raise ValueError(f"{name} {db} is damaged; delete it {anew}.") from error
        if isinstance(error, RuntimeError):
            first = message.splitlines()[0].removeprefix("lance error: ")
            raise ValueError(f"LanceDB cannot go on with {name.lower()} {db}: {first}") from error
        raise


@contextmanager
def locked(db: Place) -> Iterator[None]:
    """Makes the database's folder and keeps other writers out of it; the system lifts the lock of a killed process.

    Of an object store it keeps out the writers of this machine.

    Raises:
        BusyError: another process writes there.
        ValueError: the folder cannot be written, or was deleted or moved before the end.
    """
    try:
        file = lock_file(db)
        lock = FileLock(file)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(f"{db} is being updated by another process; wait until it is done.") from error
    except OSError as error:
        as_it_is = "search it as it is with --no-update, or " if isinstance(db, Path) and holds_index(db) else ""
        raise ValueError(
            f"Cannot write {db} ({error.strerror}); {as_it_is}pass --to with a folder that can be written."
        ) from error
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        if not file.exists():
            raise ValueError(_lost(db)) from error
        raise
    finally:
        lock.release()


def open_tables(db: Place, wanted: Metadata, dimension: int | None = None) -> Tables:
    """The tables of an index, checked to be the wanted one.

    Args:
        db ([`Place`]): The database.
        wanted ([`Metadata`]): What the vectors must come from.
        dimension (`int`, *optional*): D; given, tables that are not there yet are made.

    Raises:
        ValueError: there is none, it is damaged, or it comes from something else, with the remedy.
    """
    if dimension is None and isinstance(db, Path) and not db.is_dir():
        raise ValueError(_no_index(db))
    import lancedb

    connection = lancedb.connect(str(db))
    items = open_if_there(connection, _ITEMS)
    if items is None:
        if dimension is None:
            raise ValueError(_no_index(db))
        # The items come last: where they are, everything is.
        files = connection.create_table(_FILES, schema=FILES_SCHEMA, exist_ok=True)
        folders = connection.create_table(_FOLDERS, schema=FOLDERS_SCHEMA, exist_ok=True)
        items = connection.create_table(_ITEMS, schema=items_schema(dimension, wanted))
        return Tables(items, files, folders)
    check_origin(items.schema, wanted, db)
    files, folders = open_if_there(connection, _FILES), open_if_there(connection, _FOLDERS)
    if files is None or folders is None:
        raise ValueError(f"The index {db} is damaged; delete it to index anew.")
    return Tables(items, files, folders)


def holds_index(db: Place) -> bool:
    """Whether there is something that looks like an index that this version reads."""
    if isinstance(db, ObjectStore):
        import lancedb

        with errors_named(db):
            return open_if_there(lancedb.connect(str(db)), _ITEMS) is not None
    return all(os.path.isdir(db / f"{name}.lance") for name in (_ITEMS, _FOLDERS))


def check_free(db: Place) -> None:
    """Refuses a folder of other files, among which an index would lie. Hidden files do not count.

    Raises:
        ValueError: it holds something and nothing of an index, not even of one whose first run was killed.
    """
    try:
        names = sorted(name for name in os.listdir(db) if not name.startswith(".")) if isinstance(db, Path) else []
    except OSError:  # it is not there, or whoever writes to it says what is wrong
        return
    if names and PARTS.isdisjoint(names):
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        raise ValueError(
            f"{db} is not empty and holds no index, but {', '.join(names[:_NAMED])}{more}; pass --to with a folder "
            "that is new or empty."
        )


def check_origin(schema: pa.Schema, wanted: Metadata, db: Place) -> None:
    """Refuses items that come from something else than what is wanted, by what their schema says.

    Raises:
        ValueError: they do, with the remedy.
    """
    found = (schema.metadata or {}).get(_METADATA_KEY.encode())
    if found is None:
        raise ValueError(f"{db} holds a table that is no index of plume-embed; pass another --to.")
    said = json.loads(found)
    is_known = said.get("format") in (FORMAT, FORMAT_WITH_TIMES)
    if not is_known or (said["fingerprint"] == wanted.fingerprint and said["format"] != wanted.format):
        older = "version 0.1" if said.get("format") == 1 else "another version"
        raise ValueError(
            f"{db} was made by {older} of plume-embed, which read files differently; delete it to index anew, or pass "
            "another --to to keep it."
        )
    Metadata(**said).check(wanted, db)


def open_if_there(connection: lancedb.DBConnection, name: str) -> Table | None:
    """A table of a database, or `None`."""
    try:
        return connection.open_table(name)
    except FileNotFoundError:
        return None
    except ValueError as error:
        if "was not found" in str(error):
            return None
        raise


def _lost(db: Place) -> str:
    return (
        f"{db} was deleted or moved while it was in use. Delete what is left in its place, if anything, and run "
        "the same command again, with the new path if it was moved."
    )


def _no_index(db: Place) -> str:
    return f"There is no index in {db}; make it with `plume-embed index`."
