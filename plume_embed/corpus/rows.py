"""What a corpus is made of: rows, slices of them, and what a source has to give."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from plume_embed.encode.prepare import Preparer

HASH_BYTES = 16
CHUNK_ROWS = 128  # rows that are read, prepared and embedded together


@dataclass(frozen=True)
class Row:
    """One thing to embed.

    Args:
        place (`int`): In its slice, as the plan counts.
        id (`str`): Its own, or its place in the source.
        where (`str`): Line, row or file, for messages.
        content (`dict`): What the processor takes.
        key (`bytes`): Rows with equal keys have equal vectors; b"" is equal to none.
        kept (`dict`): Values of the further columns that were asked for.
    """

    place: int
    id: str
    where: str
    content: dict[str, Any]
    key: bytes = b""
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BadRow:
    """What cannot be embedded, and why."""

    id: str
    where: str
    reason: str


@dataclass
class Draft:
    """A slice as its source cuts it.

    Args:
        spec (`dict`): What the source needs to read it again, in plain JSON.
        count (`int`): Rows, as far as that is known before they are read.
        digest (`str`): Changes where what the slice holds changes.
        ids (`list[tuple[int, bytes, str]]`): Place, hash and name of the row for every id that may repeat.
    """

    spec: dict[str, Any]
    count: int
    digest: str
    ids: list[tuple[int, bytes, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Slice:
    """A slice of the plan: it says what its shard will hold, and nothing else does.

    Args:
        number (`int`): Its place in the source.
        spec (`dict`): See [`Draft`].
        count (`int`): See [`Draft`].
        digest (`str`): Of the slice, its repeated ids, the further columns and what decides the vectors, 16 hex digits.
        repeated (`dict[int, str]`): Places of rows whose id an earlier row has, with the name of that row.
    """

    number: int
    spec: dict[str, Any]
    count: int
    digest: str
    repeated: dict[int, str]

    @property
    def name(self) -> str:
        """Of its shard."""
        return f"{self.number:08d}-{self.digest}.parquet"

    def as_json(self) -> str:
        """One line of the plan."""
        return json.dumps([self.number, self.spec, self.count, self.digest, self.repeated])

    @classmethod
    def from_json(cls, line: str) -> "Slice":
        """The slice of such a line."""
        number, spec, count, digest, repeated = json.loads(line)
        return cls(number, spec, count, digest, {int(place): first for place, first in repeated.items()})


class Source(Protocol):
    """Where rows come from. It is sent to other processes, so it holds names and no open files."""

    def asked(self) -> dict[str, Any]:
        """Which source it is, and what was asked of it, in plain JSON; the same when its content changes."""
        ...

    def slices(self, size: int) -> Iterator[Draft]:
        """The source once, from its beginning to its end, in slices of about so many rows."""
        ...

    def digest(self) -> str:
        """Of all that the last round of `slices` has seen, whatever the size of slices."""
        ...

    def columns(self) -> dict[str, pa.DataType]:
        """The further columns that were asked for, as the last round of `slices` found them."""
        ...

    def read(self, spec: dict[str, Any], preparer: Preparer) -> Iterator[Row | BadRow]:
        """The rows of a slice, one after the other.

        Raises:
            ValueError: the source has changed since it was cut.
        """
        ...

    def bad_places(self, spec: dict[str, Any], places: set[int]) -> set[int]:
        """Which of some rows of a slice are bad before anything is decoded. Asked where an id repeats: they do not
        use it, and one whose media turn out damaged does.

        Raises:
            ValueError: the source has changed since it was cut.
        """
        ...

    def check(self, spec: dict[str, Any]) -> None:
        """Looks whether a slice is still what it was when it was cut; asked again before its shard appears.

        Raises:
            ValueError: it is not.
        """
        ...


def hash_of(value: Any) -> bytes:
    """16 bytes of a plain value."""
    return hashlib.sha256(json.dumps(value).encode()).digest()[:HASH_BYTES]
