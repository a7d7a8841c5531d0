"""A corpus -> an output, by any engine."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from plume_embed.atomic import write_json
from plume_embed.corpus.local import run_local
from plume_embed.corpus.output import list_bad, rows_there, write_output
from plume_embed.corpus.plan import MadeBy, Plan, make_plan
from plume_embed.corpus.rows import BadRow, Slice, Source
from plume_embed.corpus.shards import Job
from plume_embed.encode.batching import BATCH_SIZE
from plume_embed.encode.encoder import Encoder
from plume_embed.index.table import BusyError, errors_named, locked

SHARD_ROWS = 256
JOB_FILE = "job.json"

# Makes the shards of slices, and calls back for each with how many items were embedded.
Engine = Callable[[Job, Iterator[Slice], Callable[[Slice, int], None]], None]


@dataclass
class EmbedReport:
    """What was done: rows in the output, items embedded just now, rows of shards that were there, and bad ones."""

    num_rows: int = 0
    embedded: int = 0
    resumed: int = 0
    num_bad: int = 0


@dataclass(frozen=True)
class EmbedOptions:
    """How a corpus is embedded.

    Args:
        num_latent_steps (`int`, *optional*): K, by default the model's own.
        dimensions (`int`, *optional*): Only the first so many dimensions, of unit norm again.
        instruction (`str`): Stands in front of every text, and alone with what has none.
        batch_size (`int`): Most items in a pass of the model.
        shard_rows (`int`): Rows (files, of a folder) of a shard: what a kill can cost a worker.
    """

    num_latent_steps: int | None = None
    dimensions: int | None = None
    instruction: str = ""
    batch_size: int = BATCH_SIZE
    shard_rows: int = SHARD_ROWS


def embed_corpus(
    source: Source,
    out: Path,
    encoder: Encoder,
    options: EmbedOptions = EmbedOptions(),
    engine: Engine | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_bad: Callable[[BadRow], None] = lambda bad: None,
) -> EmbedReport:
    """Writes `out`: id (string), further columns, embedding (float32 list of fixed size), in the order of the source.

    Args:
        source ([`Source`]): See [`open_source`].
        out (`Path`): A `.parquet` file, a `.lance` table, or otherwise a folder of Parquet parts. If it is there
            already, made from the same input by the same model, it stays.
        encoder ([`Encoder`]): The model; another engine loads its own from the same folder.
        options ([`EmbedOptions`])
        engine ([`Engine`], *optional*): Who makes the shards; by default this process.
        on_progress: Called with rows done and rows in all, as far as they are known.
        on_bad: Called at the end for everything that could not be embedded, in the order of the source.

    Raises:
        ValueError: nothing to embed, the source changes, or `out` (or what a run left beside it) comes from something
            else, with the remedy.
        BusyError: another process writes `out`.
    """
    if not out.parent.is_dir():
        raise ValueError(f"No such folder: {out.parent}; make it first.")
    dimension = _dimension(encoder, options.dimensions)
    steps = encoder.latent_steps(options.num_latent_steps)
    made_by = MadeBy(encoder.fingerprint, steps, options.dimensions, options.instruction)
    with _writing(out) as work:
        _check_made_by(work, made_by)
        plan = make_plan(source, made_by, options.shard_rows, work / "plan.jsonl")
        if not plan.num_slices:
            raise ValueError("There is nothing to embed: the source is empty.")
        if out.exists():
            there = rows_there(out, plan.origin)
            return EmbedReport(there, resumed=there)
        job = Job(source, work, made_by, dimension, plan.columns, options.batch_size)
        write_json(work / JOB_FILE, asdict(made_by))
        report = _make_shards(job, plan, engine or _local(encoder), on_progress)
        for bad in list_bad(job, plan):
            report.num_bad += 1
            on_bad(bad)
        report.num_rows = write_output(out, job, plan)
        _empty(work)
    if report.num_rows == 0:
        raise ValueError(f"Nothing in the source can be embedded ({report.num_bad} bad).")
    return report


def _local(encoder: Encoder) -> Engine:
    return lambda job, slices, on_shard: run_local(job, slices, encoder, on_shard)


def _make_shards(job: Job, plan: Plan, engine: Engine, on_progress: Callable[[int, int], None]) -> EmbedReport:
    """Runs the engine over what is missing; what no slice of the plan asks for is removed first."""
    wanted = {one.name for one in plan.slices()}
    for folder in (job.shards, job.bad):
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path.name not in wanted:
                path.unlink()
    there = {path.name for path in job.shards.iterdir()}
    done = sum(one.count for one in plan.slices() if one.name in there)
    report = EmbedReport(resumed=sum(pq.read_metadata(job.shards / name).num_rows for name in there))
    on_progress(done, plan.num_rows)

    def on_shard(one: Slice, embedded: int) -> None:
        nonlocal done
        done += one.count
        report.embedded += embedded
        on_progress(done, plan.num_rows)

    engine(job, (one for one in plan.slices() if one.name not in there), on_shard)
    return report


def _dimension(encoder: Encoder, dimensions: int | None) -> int:
    if dimensions is not None and not 0 < dimensions < encoder.dimension:
        raise ValueError(f"dimensions must lie in 1..{encoder.dimension - 1}, got {dimensions}.")
    return dimensions or encoder.dimension


def _check_made_by(work: Path, made_by: MadeBy) -> None:
    """Refuses to go on with the shards of another model."""
    file = work / JOB_FILE
    if file.exists() and json.loads(file.read_text()) != asdict(made_by):
        raise ValueError(
            f"{work} is left of a run with another model, precision or K; delete it to start anew, or go on with the "
            "same --model, --dtype, --latent-steps, --dimensions and --instruction."
        )


@contextmanager
def _writing(out: Path) -> Iterator[Path]:
    """Keeps other runs off an output, and gives the folder of this one; that goes when it holds no shards.

    Raises:
        BusyError: another process writes there.
        ValueError: something else has its name.
    """
    work = out.with_name(f"{out.name}.partial")
    if work.is_file():
        raise ValueError(f"{work} is left of a run of version 0.1; delete it to start anew.")
    try:
        with locked(work), errors_named(out, "The output", "to start anew"):
            yield work
    except BusyError as error:
        raise BusyError(f"{out} is being written by another process; wait until it is done.") from error
    finally:
        if work.is_dir() and not (work / JOB_FILE).exists():
            shutil.rmtree(work, ignore_errors=True)


def _empty(work: Path) -> None:
    """Removes what a run needed; its lock stays for as long as it is held."""
    (work / JOB_FILE).unlink(missing_ok=True)
    for name in ("shards", "bad", "leases", "lance"):
        shutil.rmtree(work / name, ignore_errors=True)
