"""A corpus -> an output, by any engine."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from plume_embed.atomic import write_json
from plume_embed.corpus.local import run_local
from plume_embed.corpus.output import check_columns, check_place, list_bad, rows_there, write_output
from plume_embed.corpus.plan import MadeBy, Plan, called, make_plan
from plume_embed.corpus.rows import BadRow, Slice, Source
from plume_embed.corpus.shards import Job
from plume_embed.encode.batching import BATCH_SIZE, check_batch_limits
from plume_embed.encode.encoder import Encoder
from plume_embed.index.place import lock_file
from plume_embed.index.table import BusyError, errors_named
from plume_embed.outputs import PARTIAL
from plume_embed.stored import check_utf8, read_json

SHARD_ROWS = 256
JOB_FILE = "job.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing raises, without the name of a file

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
        on_bad: Called at the end for everything that could not be embedded, in the order of the source; of a folder,
            what cannot be opened comes before the files that are read with it.

    Raises:
        ValueError: nothing to embed, the source changes, `out` (or what a run left beside it) comes from something
            else, or nothing can be written by its name or at its place, with the remedy; or the batch size is no whole
            number above 0.
        BusyError: another process writes `out`.
    """
    check_batch_limits(options.batch_size)
    if not out.parent.is_dir():
        raise ValueError(f"No such folder: {out.parent}; make it first.")
    check_utf8(out)
    check_place(out)
    dimension = _dimension(encoder, options.dimensions)
    steps = encoder.latent_steps(options.num_latent_steps)
    most_pixels = encoder.processor.max_image_pixels
    made_by = MadeBy(encoder.fingerprint, steps, options.dimensions, options.instruction, most_pixels)
    with _writing(out) as work:
        run = asdict(made_by) | source.asked() | {"shard_rows": options.shard_rows}
        _check_run(work, run)
        plan = make_plan(source, made_by, options.shard_rows, work / "plan.jsonl")
        if not plan.num_slices:
            raise ValueError("There is nothing to embed: the source is empty.")
        if out.exists():
            there, num_bad = rows_there(out, plan.origin)
            _empty(work)  # of a run that was killed when OUT had just appeared
            return EmbedReport(there, resumed=there, num_bad=num_bad)
        job = Job(source, work, made_by, dimension, plan.columns, options.batch_size)
        check_columns(out, job)
        write_json(work / JOB_FILE, run)
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


def _check_run(work: Path, run: dict[str, Any]) -> None:
    """Refuses to go on with the shards of another run: they would be deleted, or mixed with others."""
    file = work / JOB_FILE
    if not file.exists():
        return
    found = read_json(file, f"Delete {work} to start anew.")
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged or of another form. Delete {work} to start anew.")
    if found.keys() != run.keys():
        raise ValueError(f"{work} is left of a run of an older version; delete it to start anew.")
    others = [called(name, found[name], run[name]) for name in run if found[name] != run[name]]
    if others:
        raise ValueError(
            f"{work} is left of a run with another {', '.join(others)}; delete it to start anew, or finish that run "
            "first, by its own command."
        )


@contextmanager
def _writing(out: Path) -> Iterator[Path]:
    """Keeps other runs off an output, and gives the folder of this one; that goes when it holds no shards.

    Raises:
        BusyError: another process writes there.
        ValueError: something else has its name, it cannot be written, or the disk is full.
    """
    work = out.with_name(f"{out.name}{PARTIAL}")
    if work.is_file():
        raise ValueError(f"{work} is left of a run of version 0.1; delete it to start anew.")
    try:
        file = lock_file(work)
        with file.open("a") as opened:  # while it is open, no other file can get its inode
            held = FileLock(file).acquire(timeout=0)
            is_there = _is_at(file, opened)
    except Timeout as error:
        raise BusyError(f"{out} is being written by another process; wait until it is done.") from error
    except OSError as error:
        raise ValueError(f"Cannot write {work} ({error.strerror}); write to a folder that can be written.") from error
    try:
        with held, errors_named(out, "The output", "to start anew"):
            if not is_there:  # else this run and the next one would hold the locks of two files
                raise BusyError(f"Another process was writing {out} and ended just now; run this again.")
            try:
                yield work
            finally:  # while the lock is held: without it the folder is another run's
                if not (work / JOB_FILE).exists():
                    shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ValueError(
            f"{out} cannot be written: {os.strerror(error.errno)}. Make room (or lift `ulimit -f`) and run the same "
            "command again; it goes on where it was."
        ) from error


def _is_at(path: Path, opened: IO[Any]) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _empty(work: Path) -> None:
    """Removes what a run needed; its lock stays for as long as it is held."""
    (work / JOB_FILE).unlink(missing_ok=True)
    for name in ("shards", "bad", "leases", "lance"):
        shutil.rmtree(work / name, ignore_errors=True)
