"""Embeds the lines of a JSONL file into a Parquet file.

While it runs, finished vectors go to a journal beside the output, so that it can be killed and started again at any
moment; the output itself appears at the end, whole.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plume_embed.encode.batching import BATCH_SIZE
from plume_embed.encode.encoder import Encoder

T = TypeVar("T")

_MEDIA_KEYS = ("image", "video")
_KEYS = {"id", "text", *_MEDIA_KEYS}
_METADATA_KEY = b"plume_embed"
_ROWS_PER_GROUP = 4096
_BATCHES_PER_COMMIT = 4  # sorted by length together; what a kill can cost


@dataclass(frozen=True)
class JsonlRow:
    """A valid line.

    Args:
        line (`int`): Its number, from 1.
        id (`str`): The "id" of the line, or its number.
        content (`dict`): What the processor takes, media as absolute paths.
        key (`bytes` of length 32): Hash of the content, with size and date of media: the same key, the same vector.
    """

    line: int
    id: str
    content: dict[str, Any]
    key: bytes


@dataclass
class EmbedReport:
    """What was done: vectors written, computed just now, taken from an interrupted run, and (line, reason) skipped."""

    num_rows: int = 0
    embedded: int = 0
    resumed: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)


def embed_jsonl(
    source: Path,
    out: Path,
    encoder: Encoder,
    num_latent_steps: int | None = None,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_skipped: Callable[[int, str], None] = lambda line, reason: None,
) -> EmbedReport:
    """Writes `out`: the columns id (string) and embedding (float32 list of fixed size D), in the order of the lines.

    Args:
        source (`Path`): One JSON object a line with the keys text, image, video (one or a list; paths relative to the
            file's folder) and optionally id.
        out (`Path`): A Parquet file. If it is there already, made from the same input by the same model, it stays.
        encoder ([`Encoder`]): The model.
        num_latent_steps (`int`, *optional*): K, by default the model's own.
        batch_size (`int`): Most items per pass of the model.
        on_progress: Called with rows done and rows in all.
        on_skipped: Called with line number and reason of each line that is left out.

    Raises:
        ValueError: no valid line, or `out` (or its journal) comes from something else, with the remedy.
    """
    if not out.parent.is_dir():
        raise ValueError(f"No such folder: {out.parent}; make it first.")
    report = EmbedReport()

    def skipped(line: int, reason: str) -> None:
        report.skipped.append((line, reason))
        on_skipped(line, reason)

    rows = read_jsonl(source, skipped)
    if not rows:
        raise ValueError(f"No valid line in {source} ({len(report.skipped)} skipped).")
    origin = {
        "fingerprint": encoder.fingerprint,
        "num_latent_steps": encoder.latent_steps(num_latent_steps),
        "input": hashlib.sha256(b"".join(row.id.encode() + b"\0" + row.key for row in rows)).hexdigest(),
    }
    if out.exists():
        return _already_there(out, origin, report)
    journal = _Journal(out.with_name(f"{out.name}.partial"), origin, encoder.dimension)
    known = journal.read()
    todo: dict[bytes, list[JsonlRow]] = {}  # lines with the same content are embedded once
    for row in rows:
        if row.key not in known:
            todo.setdefault(row.key, []).append(row)
    report.resumed = done = len(rows) - sum(map(len, todo.values()))
    on_progress(done, len(rows))
    for chunk in _chunks(list(todo.values()), batch_size * _BATCHES_PER_COMMIT):
        contents = [same[0].content for same in chunk]
        vectors, errors = encoder.encode_readable(contents, batch_size, num_latent_steps)
        for place in sorted(errors):
            for row in chunk[place]:
                skipped(row.line, errors[place])
        good = [place for place in range(len(chunk)) if place not in errors]
        journal.append([chunk[place][0].key for place in good], vectors[good])
        report.embedded += len(good)
        done += sum(map(len, chunk))
        on_progress(done, len(rows))
    known = journal.read()
    rows = [row for row in rows if row.key in known]
    if not rows:
        journal.path.unlink()
        raise ValueError(f"No readable line in {source} ({len(report.skipped)} skipped).")
    _write_parquet(out, rows, known, encoder.dimension, origin)
    journal.path.unlink()
    report.num_rows = len(rows)
    return report


def read_jsonl(source: Path, skipped: Callable[[int, str], None]) -> list[JsonlRow]:
    """The valid lines of a file; blank lines are passed over, bad ones go to `skipped` with number and reason."""
    if not source.is_file():
        raise ValueError(f"No such file: {source}")
    rows: list[JsonlRow] = []
    line_of_id: dict[str, int] = {}
    with source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = _parse(line, number, source.parent)
                if row.id in line_of_id:
                    raise ValueError(f"the id {row.id!r} was used in line {line_of_id[row.id]}")
            except ValueError as error:
                skipped(number, str(error))
                continue
            line_of_id[row.id] = number
            rows.append(row)
    return rows


def _parse(line: bytes, number: int, folder: Path) -> JsonlRow:
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string holds half a surrogate pair, which is no character") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"not a JSON object but a {type(record).__name__}")
    unknown = sorted(set(record) - _KEYS)
    if unknown:
        raise ValueError(f"unknown keys {unknown}; the keys are text, image, video and id")
    row_id = record.get("id")
    if isinstance(row_id, bool) or not isinstance(row_id, str | int | None):
        raise ValueError(f"the id must be a string or a whole number, got {row_id!r}")
    content: dict[str, Any] = {}
    for name in ("text", *_MEDIA_KEYS):
        value = record.get(name)
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(one, str) for one in values):
            raise ValueError(f"{name} must be a string or a list of strings")
        values = [folder / one for one in values] if name in _MEDIA_KEYS else values
        content[name] = values if isinstance(value, list) else values[0]
    if not content:
        raise ValueError("none of text, image, video")
    return JsonlRow(number, str(number) if row_id is None else str(row_id), content, _key(content))


def _key(content: dict[str, Any]) -> bytes:
    parts: list[Any] = [content.get("text")]
    for name in _MEDIA_KEYS:
        value = content.get(name, [])
        for path in value if isinstance(value, list) else [value]:
            if not path.is_file():
                raise ValueError(f"no such file: {path}")
            status = path.stat()
            parts.append([name, str(path), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class _Journal:
    """Append-only file of finished vectors: one line that says where they come from, then records of equal size.

    A record that a kill has cut short is cut off on reading.
    """

    def __init__(self, path: Path, origin: dict[str, Any], dimension: int):
        self.path = path
        self.record = np.dtype([("key", "V32"), ("vector", "<f4", (dimension,))])
        # Not the hash of the input: each record has its own key, so lines may come and go between two runs.
        made_by = {name: origin[name] for name in ("fingerprint", "num_latent_steps")}
        self.header = json.dumps({"plume_embed_journal": 1, **made_by}, sort_keys=True).encode() + b"\n"

    def read(self) -> dict[bytes, np.ndarray]:
        """Vectors by key; makes the file if it is not there.

        Raises:
            ValueError: it was written by another model or with another K.
        """
        if not self.path.exists() or self.path.stat().st_size < len(self.header):
            self.path.write_bytes(self.header)
            return {}
        with self.path.open("r+b") as file:
            if file.read(len(self.header)) != self.header:
                raise ValueError(
                    f"{self.path} is left of a run with another model or K; delete it to start anew, or go on with "
                    "the same --model and --latent-steps."
                )
            whole = (self.path.stat().st_size - len(self.header)) // self.record.itemsize
            file.truncate(len(self.header) + whole * self.record.itemsize)
        if whole == 0:
            return {}
        records = np.memmap(self.path, dtype=self.record, mode="r", offset=len(self.header), shape=(whole,))
        return {record["key"].tobytes(): record["vector"] for record in records}

    def append(self, keys: list[bytes], vectors: np.ndarray) -> None:
        """Adds `vectors` [n, D]."""
        records = np.empty(len(keys), dtype=self.record)
        records["key"] = np.array(keys, dtype="V32")
        records["vector"] = vectors
        with self.path.open("ab") as file:
            file.write(records.tobytes())


def _write_parquet(
    out: Path, rows: list[JsonlRow], vectors: dict[bytes, np.ndarray], dimension: int, origin: dict[str, Any]
) -> None:
    columns = {"id": pa.string(), "embedding": pa.list_(pa.float32(), dimension)}
    schema = pa.schema(columns.items(), metadata={_METADATA_KEY: json.dumps(origin)})
    unfinished = out.with_name(f"{out.name}.writing")
    with pq.ParquetWriter(unfinished, schema) as writer:
        for group in _chunks(rows, _ROWS_PER_GROUP):
            flat = np.concatenate([vectors[row.key] for row in group])
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dimension)
            writer.write_table(pa.table([pa.array([row.id for row in group]), embedding], schema=schema))
    os.replace(unfinished, out)


def _chunks(elements: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(elements), size):
        yield elements[start : start + size]


def _already_there(out: Path, origin: dict[str, Any], report: EmbedReport) -> EmbedReport:
    try:
        parquet = pq.ParquetFile(out)
        found = json.loads((parquet.schema_arrow.metadata or {}).get(_METADATA_KEY, b"null"))
    except (pa.ArrowInvalid, OSError):
        found = None
    if found != origin:
        raise ValueError(f"{out} is there already and comes from another input, model or K; delete it or rename it.")
    report.num_rows = report.resumed = parquet.metadata.num_rows
    # What a kill just before the end may have left.
    out.with_name(f"{out.name}.partial").unlink(missing_ok=True)
    return report
