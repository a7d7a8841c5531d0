"""Embeds the lines of a JSONL file into a Parquet file.

While it runs, finished vectors go to a journal beside the output, so that it can be killed and started again at any
moment; the output itself appears at the end, whole. Memory grows by less than 300 bytes a line, whatever it holds.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plume_embed.atomic import replacing
from plume_embed.encode.batching import BATCH_SIZE
from plume_embed.encode.encoder import Encoder
from plume_embed.index.journal import Journal, remove_journal, writing
from plume_embed.index.jsonl_lines import Lines, OnSkipped, scan_lines

_METADATA_KEY = b"plume_embed"
_ROWS_PER_GROUP = 4096
_BATCHES_PER_COMMIT = 4  # sorted by length together; what a kill can cost
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}

OnProgress = Callable[[int, int], None]


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
    on_progress: OnProgress = lambda done, total: None,
    on_skipped: OnSkipped = lambda line, reason: None,
    keep: Sequence[str] = (),
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
        keep: Further keys that become columns: of strings, numbers or truth values, or of JSON texts where the values
            are of several kinds.

    Raises:
        ValueError: no valid line, or `out` (or its journal) comes from something else, with the remedy.
        BusyError: another process writes `out`.
    """
    if not out.parent.is_dir():
        raise ValueError(f"No such folder: {out.parent}; make it first.")
    report = EmbedReport()

    def skipped(line: int, reason: str) -> None:
        report.skipped.append((line, reason))
        on_skipped(line, reason)

    lines = scan_lines(source, keep, skipped)
    if not len(lines.numbers):
        raise ValueError(f"No valid line in {source} ({len(report.skipped)} skipped).")
    made_by = {"fingerprint": encoder.fingerprint, "num_latent_steps": encoder.latent_steps(num_latent_steps)}
    origin = {**made_by, "input": lines.digest}
    with writing(out) as folder:
        if out.exists():
            report.num_rows = report.resumed = _rows_there(out, origin)
        else:
            journal = Journal(folder, made_by, encoder.dimension)
            _embed(lines, journal, encoder, num_latent_steps, batch_size, report, on_progress, skipped)
            journal.compact()
            report.num_rows = _write_parquet(out, lines, journal, encoder.dimension, origin)
        remove_journal(folder)
    if report.num_rows == 0:
        raise ValueError(f"No readable line in {source} ({len(report.skipped)} skipped).")
    return report


def _embed(
    lines: Lines,
    journal: Journal,
    encoder: Encoder,
    num_latent_steps: int | None,
    batch_size: int,
    report: EmbedReport,
    on_progress: OnProgress,
    skipped: OnSkipped,
) -> None:
    """Embeds what the journal lacks, each content once, in the order of the lines."""
    keys, first, place_of, counts = np.unique(lines.keys, return_index=True, return_inverse=True, return_counts=True)
    todo = np.sort(first[~np.isin(keys, journal.keys())])
    report.resumed = done = int(len(lines.keys) - counts[place_of[todo]].sum())
    on_progress(done, len(lines.keys))
    for places in _chunks(todo, batch_size * _BATCHES_PER_COMMIT):
        rows = list(lines.read(places))
        vectors, errors = encoder.encode_readable([row.content for row in rows], batch_size, num_latent_steps)
        for place in sorted(errors):
            content = place_of[places[place]]
            for same in [places[place]] if counts[content] == 1 else np.flatnonzero(place_of == content):
                skipped(int(lines.numbers[same]), errors[place])
        good = [place for place in range(len(rows)) if place not in errors]
        journal.add([rows[place].key for place in good], vectors[good])
        report.embedded += len(good)
        done += int(counts[place_of[places]].sum())
        on_progress(done, len(lines.keys))


def _write_parquet(out: Path, lines: Lines, journal: Journal, dimension: int, origin: dict[str, Any]) -> int:
    """Writes the lines that have a vector, in their order; returns how many. Nothing is written if there are none."""
    stored = journal.keys()
    order = np.argsort(stored)
    at = np.searchsorted(stored, lines.keys, sorter=order) if len(stored) else np.zeros(len(lines.keys), int)
    rows_of = order[np.minimum(at, len(stored) - 1)] if len(stored) else order
    places = np.flatnonzero(stored[rows_of] == lines.keys) if len(stored) else np.array([], int)
    if not len(places):
        return 0
    schema = pa.schema(
        {
            "id": pa.string(),
            **{name: _type(kinds) for name, kinds in lines.kept.items()},
            "embedding": pa.list_(pa.float32(), dimension),
        }.items(),
        metadata={_METADATA_KEY: json.dumps(origin)},
    )
    with replacing(out) as partial, pq.ParquetWriter(partial, schema) as writer:
        for group in _chunks(places, _ROWS_PER_GROUP):
            vectors = journal.take(rows_of[group])
            writer.write_table(_group(lines, group, vectors, schema, dimension))
    return len(places)


def _group(
    lines: Lines, places: np.ndarray, vectors: dict[bytes, np.ndarray], schema: pa.Schema, dimension: int
) -> pa.Table:
    rows = list(lines.read(places))
    columns = [pa.array([row.id for row in rows])]
    for name in lines.kept:
        values = [row.kept.get(name) for row in rows]
        if lines.kept[name] and _type(lines.kept[name]) == pa.string() and lines.kept[name] != {"str"}:
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        columns.append(pa.array(values, schema.field(name).type))
    flat = np.concatenate([vectors[row.key] for row in rows])
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dimension))
    return pa.table(columns, schema=schema)


def _type(kinds: set[str]) -> pa.DataType:
    """The type of a column whose values are of these kinds; a string, of JSON, where they have no other in common."""
    if kinds == {"int", "float"}:
        return pa.float64()
    return _TYPES.get(next(iter(kinds)), pa.string()) if len(kinds) == 1 else pa.string()


def _rows_there(out: Path, origin: dict[str, Any]) -> int:
    """The number of rows of an output that is there.

    Raises:
        ValueError: it comes from something else.
    """
    try:
        parquet = pq.ParquetFile(out)
        found = json.loads((parquet.schema_arrow.metadata or {}).get(_METADATA_KEY, b"null"))
    except (pa.ArrowInvalid, OSError):
        found = None
    if found != origin:
        raise ValueError(f"{out} is there already and comes from another input, model or K; delete it or rename it.")
    return parquet.metadata.num_rows


def _chunks(elements: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(elements), size):
        yield elements[start : start + size]
