"""Shards: a slice of the plan -> a Parquet file of its vectors, and one of what could not be embedded.

A shard is a function of its slice alone. It is written under another name and appears by renaming, when it is on the
disk; so it is there whole or not at all, whoever was killed, and whoever makes it a second time makes the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plume_embed.atomic import replacing
from plume_embed.corpus.plan import MadeBy
from plume_embed.corpus.rows import CHUNK_ROWS, BadRow, Row, Slice, Source
from plume_embed.encode.prepare import Preparer
from plume_embed.stored import printable

METADATA_KEY = b"plume_embed"
BAD_SCHEMA = pa.schema({"id": pa.string(), "where": pa.string(), "reason": pa.string()}.items())


@dataclass(frozen=True)
class Job:
    """What every worker of a run must know; it is sent to them.

    Args:
        source ([`Source`]): What is embedded.
        work (`Path`): The folder of the run, on a disk that all workers share.
        made_by ([`MadeBy`]): What decides the vectors.
        dimension (`int`): Of the vectors that are written.
        columns (`dict`): The further columns.
        batch_size (`int`): Most items in a pass of the model.
    """

    source: Source
    work: Path
    made_by: MadeBy
    dimension: int
    columns: dict[str, pa.DataType]
    batch_size: int

    @property
    def shards(self) -> Path:
        """The folder of the shards."""
        return self.work / "shards"

    @property
    def bad(self) -> Path:
        """The folder of what could not be embedded."""
        return self.work / "bad"

    def schema(self) -> pa.Schema:
        """Of a shard and of the output."""
        embedding = pa.list_(pa.float32(), self.dimension)
        return pa.schema({"id": pa.string(), **self.columns, "embedding": embedding}.items())

    def is_done(self, one: Slice) -> bool:
        """Whether the shard is there."""
        return (self.shards / one.name).exists()


@dataclass
class Chunk:
    """Some rows of a slice that are embedded together; equal ones once.

    Args:
        rows: Those to embed, in their order.
        numbers (`list[int]`): For each of them its number in the chunk, bad ones counted.
        bad (`dict[int, BadRow]`): The others, by this number.
        items: The contents, each once.
        item_of (`list[int]`): For each row the place of its content.
    """

    rows: list[Row] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    bad: dict[int, BadRow] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    item_of: list[int] = field(default_factory=list)

    def without_contents(self) -> "Chunk":
        """What is needed when the contents are prepared."""
        rows = [Row(row.place, row.id, row.where, {}, row.key, row.kept) for row in self.rows]
        return replace(self, rows=rows, items=[])


def read_chunks(job: Job, one: Slice, preparer: Preparer) -> Iterator[Chunk]:
    """The rows of a slice, a few at a time, as they are read and decoded."""
    rows = job.source.read(one.spec, preparer)
    while some := list(islice(rows, CHUNK_ROWS)):
        chunk, known = Chunk(), {}
        for number, row in enumerate(some):
            if isinstance(row, BadRow):
                chunk.bad[number] = row
                continue
            if row.place in one.repeated:
                reason = f"the id {row.id!r} was used in {one.repeated[row.place]}"
                chunk.bad[number] = BadRow(row.id, row.where, reason)
                continue
            place = known.get(row.key) if row.key else None
            if place is None:
                place = known[row.key] = len(chunk.items)
                chunk.items.append(_instructed(row.content, job.made_by.instruction))
            chunk.rows.append(row)
            chunk.numbers.append(number)
            chunk.item_of.append(place)
        yield chunk


def _instructed(content: dict[str, Any], instruction: str) -> dict[str, Any]:
    if not instruction:
        return content
    text = content.get("text", [])
    return content | {"text": [instruction, *(text if isinstance(text, list) else [text])]}


class ShardWriter:
    """Collects the vectors of a slice and publishes its shard.

    Args:
        job ([`Job`])
        one ([`Slice`])
    """

    def __init__(self, job: Job, one: Slice):
        self._job, self._slice = job, one
        self._rows: list[Row] = []
        self._vectors: list[np.ndarray] = []
        self._bad: list[BadRow] = []
        self.num_embedded = 0

    def add(self, chunk: Chunk, vectors: np.ndarray, reasons: dict[int, str]) -> None:
        """The vectors [N, D] of a chunk's items, and why there is none, by place."""
        bad, places = dict(chunk.bad), []
        for number, row, place in zip(chunk.numbers, chunk.rows, chunk.item_of, strict=True):
            if place in reasons:
                bad[number] = BadRow(row.id, row.where, reasons[place])
            else:
                self._rows.append(row)
                places.append(place)
        self._bad += [bad[number] for number in sorted(bad)]
        self._vectors.append(_shortened(vectors[places], self._job.made_by.dimensions))
        self.num_embedded += len(set(places))

    def publish(self) -> int:
        """Writes the shard; returns how many rows it has. What is bad comes first: the shard says that all is there.

        Raises:
            ValueError: the slice changed while it was read.
        """
        self._job.source.check(self._slice.spec)
        if self._bad:
            records = [{name: printable(value) for name, value in vars(bad).items()} for bad in self._bad]
            with replacing(self._job.bad / self._slice.name) as partial:
                pq.write_table(pa.Table.from_pylist(records, schema=BAD_SCHEMA), partial)
        with replacing(self._job.shards / self._slice.name) as partial:
            pq.write_table(self._table(), partial)
        return len(self._rows)

    def _table(self) -> pa.Table:
        schema = self._job.schema()
        columns: list[pa.Array] = [pa.array([row.id for row in self._rows], pa.string())]
        for name, kind in self._job.columns.items():
            columns.append(pa.array([row.kept.get(name) for row in self._rows], kind))
        vectors = self._vectors or [np.empty((0, self._job.dimension), np.float32)]
        flat = np.concatenate(vectors).reshape(-1)
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), self._job.dimension))
        return pa.table(columns, schema=schema)


def _shortened(vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
    if dimensions is None:
        return vectors
    vectors = vectors[:, :dimensions]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
