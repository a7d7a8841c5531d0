"""All shards -> the output: one Parquet file, a folder of Parquet parts, or a LanceDB table; it appears whole."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
from lancedb.util import validate_table_name

from plume_embed.atomic import partial_beside, replacing, write_json
from plume_embed.corpus.media import MEDIA_KEYS
from plume_embed.corpus.plan import Plan, called
from plume_embed.corpus.rows import BadRow
from plume_embed.corpus.shards import BAD_SCHEMA, METADATA_KEY, Job
from plume_embed.outputs import PARTIAL, STAMP_FILE

BAD_FILE = "_bad.parquet"
_BAD_SUFFIX = ".bad.parquet"
_DATABASE = "lance"  # in the folder of a run
_JOINED = "joined.parquet"  # there as well, where the next run finds what a killed one left
_LANCE_SCHEMA = "LanceError(Schema): "  # what LanceDB says of columns that it cannot store


def form_of(out: Path) -> str:
    """What an output is, by its name in any case: ".parquet", ".lance", or "" for a folder of Parquet parts.

    Raises:
        ValueError: LanceDB would not find a table of this name.
    """
    form = out.suffix.lower()
    if form == ".lance" and out.suffix != form:
        raise ValueError(f"A table of LanceDB has a name that ends in .lance; write to {out.with_suffix(form)}.")
    return form if form in (".parquet", ".lance") else ""


def check_place(out: Path) -> None:
    """Refuses a name or a place at which nothing could be written when all is embedded.

    Raises:
        ValueError: what is wrong with it, and what to do.
    """
    if form_of(out) == ".lance":
        try:
            validate_table_name(out.stem)
        except ValueError as error:
            raise ValueError(f"{out} is no name of a table: {error}. Give it another one.") from error
    if out.suffix == PARTIAL or out.name.lower().endswith(_BAD_SUFFIX):
        raise ValueError(
            f"{out} has the name of what `embed` writes beside an output ({PARTIAL}, {_BAD_SUFFIX}); give it another."
        )
    if out.is_symlink() and not out.exists():
        raise ValueError(f"{out} is a link to nothing; remove it, or write to where it points.")
    bad = bad_file(out)
    for path in (out, bad):
        try:
            os.lstat(partial_beside(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ValueError(f"{out} cannot be written ({error.strerror}); give it another name.") from error
    if os.path.lexists(bad) and not _is_bad_file(bad):
        raise ValueError(
            f"{bad} is where what cannot be embedded is listed, and something else is there; rename it, or {out.name}."
        )


def _is_bad_file(path: Path) -> bool:
    try:
        return pq.read_schema(path).equals(BAD_SCHEMA)
    except (pa.ArrowInvalid, OSError):
        return False


def check_columns(out: Path, job: Job) -> None:
    """Refuses columns that LanceDB cannot store, by asking it for an empty table of them.

    Raises:
        ValueError: with what it says.
    """
    if form_of(out) != ".lance":
        return
    try:
        _fresh_database(job).create_table(out.stem, schema=job.schema())
    except RuntimeError as error:
        _, is_of_columns, reason = str(error).partition(_LANCE_SCHEMA)
        if not is_of_columns:
            raise
        raise ValueError(
            f"LanceDB cannot store these columns ({reason.split(', /')[0]}): cast those of --keep, leave them out, or "
            f"write to {out.with_suffix('.parquet')}."
        ) from error


def is_of_output(schema: pa.Schema) -> bool:
    """Whether a Parquet file is an output of `embed`, or its table of what could not be embedded.

    It has no column that can be embedded: where someone has added one, it is a source like any other.
    """
    is_ours = METADATA_KEY in (schema.metadata or {}) and not {"text", *MEDIA_KEYS} & set(schema.names)
    return is_ours or schema.equals(BAD_SCHEMA)


def rows_there(out: Path, origin: dict[str, Any]) -> tuple[int, int]:
    """The number of rows of an output that is there, and of those that could not be embedded.

    Raises:
        ValueError: it comes from something else.
    """
    found, num_rows = _stamp_of(out)
    if not isinstance(found, dict):
        raise ValueError(
            f"{out} is there already and is no output of `embed`, or a damaged one; delete it or rename it, or write "
            "to another one."
        )
    others = _differences(found, origin)
    if others:
        raise ValueError(
            f"{out} is there already and comes from another {', '.join(others)}; delete it or rename it, or write to "
            "another one."
        )
    bad = bad_file(out)
    return num_rows, pq.read_metadata(bad).num_rows if bad.exists() else 0


def _differences(found: dict[str, Any], origin: dict[str, Any]) -> list[str]:
    """What an output comes from and a run does not, as messages call it."""
    # An older output says neither which pictures were too large nor what was kept.
    known = {"max_image_pixels": origin["max_image_pixels"], "keep": origin["keep"], **found}
    others = [
        called(name, known.get(name), origin[name])
        for name in origin
        if name != "input" and known.get(name) != origin[name]
    ]
    if known.get("input") != origin["input"] and known["keep"] == origin["keep"]:
        keep = "" if "keep" in found else ", or with another --keep"
        others.append(f"input, or this one before a change of it{keep}")
    return others


def write_output(out: Path, job: Job, plan: Plan) -> int:
    """Puts the shards together; returns the number of rows. Nothing is written if there are none."""
    num_rows = sum(pq.read_metadata(job.shards / one.name).num_rows for one in plan.slices())
    if num_rows == 0:
        return 0
    stamp = {METADATA_KEY: json.dumps(plan.origin)}
    bad = list_bad(job, plan)
    if form_of(out) == ".parquet":
        _write_bad(bad_file(out), bad, job)
        _join(out, job, plan, stamp)
    elif form_of(out) == ".lance":
        _write_bad(bad_file(out), bad, job)
        _load_lance(out, job, plan, stamp)
    else:
        _write_bad(job.shards / BAD_FILE, bad, job)
        write_json(job.shards / STAMP_FILE, {"origin": plan.origin, "rows": num_rows})
        job.shards.rename(out)
    return num_rows


def bad_file(out: Path) -> Path:
    """Where an output's table of what could not be embedded is: `x.bad.parquet`, for a table `x.lance.bad.parquet`."""
    form = form_of(out)
    if form == "":
        return out / BAD_FILE
    return out.with_name(f"{out.stem if form == '.parquet' else out.name}{_BAD_SUFFIX}")


def list_bad(job: Job, plan: Plan) -> Iterator[BadRow]:
    """What could not be embedded, in the order of the source."""
    for one in plan.slices():
        if (job.bad / one.name).exists():
            for row in pq.read_table(job.bad / one.name).to_pylist():
                yield BadRow(**row)


def _write_bad(path: Path, bad: Iterator[BadRow], job: Job) -> None:
    """A table of them; none where there are none."""
    first = next(bad, None)
    if first is None:
        path.unlink(missing_ok=True)
        return
    with replacing(path, job.work / BAD_FILE) as partial, pq.ParquetWriter(partial, BAD_SCHEMA) as writer:
        waiting = [vars(first)]
        for row in bad:
            waiting.append(vars(row))
            if len(waiting) == 4096:
                writer.write_table(pa.Table.from_pylist(waiting, schema=BAD_SCHEMA))
                waiting = []
        writer.write_table(pa.Table.from_pylist(waiting, schema=BAD_SCHEMA))


def _tables(job: Job, plan: Plan) -> Iterator[pa.Table]:
    for one in plan.slices():
        table = pq.read_table(job.shards / one.name, schema=job.schema())
        if len(table):
            yield table


def _join(out: Path, job: Job, plan: Plan, stamp: dict[bytes, str]) -> None:
    schema = job.schema().with_metadata(stamp)
    with replacing(out, job.work / _JOINED) as partial, pq.ParquetWriter(partial, schema) as writer:
        for table in _tables(job, plan):
            writer.write_table(table.replace_schema_metadata(stamp))


def _load_lance(out: Path, job: Job, plan: Plan, stamp: dict[bytes, str]) -> None:
    """A table in the database that is the output's folder, loaded anew beside it and renamed."""
    schema = job.schema().with_metadata(stamp)
    batches = (batch for table in _tables(job, plan) for batch in table.replace_schema_metadata(stamp).to_batches())
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    _fresh_database(job).create_table(out.stem, data=reader, schema=schema)
    os.rename(job.work / _DATABASE / out.name, out)


def _fresh_database(job: Job) -> lancedb.DBConnection:
    shutil.rmtree(job.work / _DATABASE, ignore_errors=True)  # of a run that was killed, or of `check_columns`
    return lancedb.connect(str(job.work / _DATABASE))


def _stamp_of(out: Path) -> tuple[Any, int]:
    """What an output says it comes from, and its rows; (None, 0) for anything else."""
    try:
        if form_of(out) == ".lance":
            table = lancedb.connect(str(out.parent)).open_table(out.stem)
            return json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"null")), table.count_rows()
        if out.is_dir():
            stamp = json.loads((out / STAMP_FILE).read_text())
            return stamp["origin"], stamp["rows"]
        parquet = pq.ParquetFile(out)
        found = json.loads((parquet.schema_arrow.metadata or {}).get(METADATA_KEY, b"null"))
        return found, parquet.metadata.num_rows
    except (pa.ArrowInvalid, OSError, ValueError, RuntimeError, KeyError):
        return None, 0
