"""SIGKILL at random moments of the work, and the same command once more, until it is through.

Nothing may be lost, done twice or left over. A moment is drawn by what is written, not by the clock from the start,
most of which goes by before the first write: behind some of the missing items or shards, and for the last kill of a
round behind all of them, while the output is put together, pruned, compacted and published.
"""

import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from scripts.faults.commands import (
    Command,
    Rows,
    compare,
    index_rows,
    item_writes,
    newest,
    parquet_rows,
    shards_there,
    stored_items,
)
from scripts.faults.inputs import change_folder, write_folder, write_jsonl

_KILLS_PER_ROUND = 4
_SHARD_ROWS = 8


@dataclass
class Tally:
    """What came of the kills of one command; all rows `lost`, `extra` (too many) or `redone` are faults.

    Args:
        behind_a_write (`int`): Kills of runs that had kept an item or a shard of their own, or had all of them there.
        at_end (`int`): Of those, kills with all items or shards there.
        left_over (`int`): Files of killed runs that are there when the work is through, a fault too.
        moments (`list[str]`): For each kill how much was there, and which file or table was written last.
    """

    command: str
    kills: int = 0
    behind_a_write: int = 0
    at_end: int = 0
    rounds: int = 0
    rows: int = 0
    lost: int = 0
    extra: int = 0
    redone: int = 0
    left_over: int = 0
    largest_difference: float = 0.0
    moments: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pace:
    """Seconds of an undisturbed run from one write to the next, and from the last one until the lock is given back."""

    write: float
    end: float


@dataclass(frozen=True)
class Job:
    """A command that can be killed.

    Args:
        arguments: Of the command.
        lock (`Path`): The folder with its lock.
        total (`int`): Items or shards in all.
        writes (`Callable`): How many items or shards were written, to be asked often.
        kept (`Callable`): What it has done so far, by key; what a kill must not lose and the next run not redo.
        places (`Callable`): Where it writes.
        is_published (`Callable`): Whether the output is there, and what was kept may be gone.
    """

    arguments: tuple[Any, ...]
    lock: Path
    total: int
    writes: Callable[[], int]
    kept: Callable[[], dict[Any, Any]]
    places: Callable[[], list[Path]]
    is_published: Callable[[], bool] = lambda: False

    def pace(self, number: Callable[[], int]) -> Pace:
        """Of a run that nobody disturbs.

        Args:
            number (`Callable`): Its items or shards, asked when it is through. What is written behind them belongs to
                the end, such as compacted items.

        Raises:
            RuntimeError: it failed.
        """
        command, seen = Command(*self.arguments), self.writes()
        times: list[float] = []

        def is_through() -> bool:
            if self.writes() > seen + len(times):
                times.append(time.monotonic())
            return not command.holds_lock(self.lock)

        command.wait_for_lock(self.lock)
        command.wait_until(is_through)
        end = time.monotonic()
        _check(command)
        first, *_, last = times[: number()]
        return Pace((last - first) / (number() - 1), end - last)

    def finish_with_kills(self, tally: Tally, most: int, pace: Pace, rng: random.Random) -> None:
        """Runs it until it is through, with at most so many kills.

        Raises:
            RuntimeError: it failed otherwise than by a kill.
        """
        before, done = self.kept(), self._done()
        while True:
            command = Command(*self.arguments)
            is_killed = most > 0 and self._is_killed(command, self.total - done, most, pace, rng)
            _check(command, is_killed)
            after = self.kept()
            tally.lost += len(before.keys() - after.keys())
            tally.redone += sum(after[key] != value for key, value in before.items() if key in after)
            if not is_killed:
                return
            most -= 1
            tally.kills += 1
            done, done_before = self._done(), done
            tally.at_end += done == self.total
            tally.behind_a_write += done > done_before or done == self.total
            tally.moments.append(f"{done} of {self.total}, {newest(self.places())}")
            before = after

    def _done(self) -> int:
        return self.total if self.is_published() else len(self.kept())

    def _is_killed(self, command: Command, missing: int, most: int, pace: Pace, rng: random.Random) -> bool:
        """Kills it behind a write; False if it was through before.

        The last kill comes behind the last of the missing writes, each of the others behind so many that the same
        share of them is left for each kill that follows.
        """
        number = missing if most == 1 else rng.randint(min(1, missing), max(1, 2 * missing // most - 1))
        longest, seen = (pace.end if number == missing else pace.write), self.writes()
        is_there = command.wait_for_lock(self.lock) and command.wait_until(lambda: self.writes() >= seen + number)
        return is_there and command.kill_after(rng.uniform(0, longest), self.lock)


def kill_index(work: Path, model: Path, kills: int, size: int, seed: int) -> Iterator[Tally]:
    """Kills `plume-embed index` while a folder is new, and while it has changed; gives the tally after each round."""
    tally, rng = Tally("index"), random.Random(seed)
    states = [write_folder(work / "first", size), work / "second"]
    shutil.copytree(states[0], states[1])
    change_folder(states[1])
    folder, db = work / "folder", work / "index"

    def job(wanted: Rows) -> Job:
        stay = {(row["content"], row["item"]) for row in wanted.values()}  # others go, with their files, at any run
        kept = partial(_items_of, stay, db)
        return Job(_index(folder, db, model), db, len(stay), partial(item_writes, db), kept, lambda: [db])

    whole, paces = [], []
    for state in states:
        _put(state, folder)
        before = stored_items(db).keys()
        paces.append(job({}).pace(lambda before=before: len(stored_items(db).keys() - before)))
        whole.append(index_rows(db))
    while tally.kills < kills:
        shutil.rmtree(db, ignore_errors=True)
        for state, wanted, pace in zip(states, whole, paces, strict=True):
            _put(state, folder)
            job(wanted).finish_with_kills(tally, min(_KILLS_PER_ROUND, kills - tally.kills), pace, rng)
            _judge(tally, index_rows(db), wanted)
            tally.left_over += sum(1 for _ in db.rglob("*.partial*"))
        tally.rounds += 1
        yield tally


def kill_embed(work: Path, model: Path, kills: int, size: int, seed: int) -> Iterator[Tally]:
    """Kills `plume-embed embed`; gives the tally after each round."""
    tally, rng = Tally("embed"), random.Random(seed)
    source = write_jsonl(work / "rows.jsonl", write_folder(work / "pictures", size), size)
    (work / "out").mkdir()
    out = work / "out" / "out.parquet"
    seen: dict[str, int] = {}

    def kept() -> dict[str, int]:
        nonlocal seen
        if not out.exists():  # else the shards are gone, as they should be
            seen = shards_there(out)
        return seen

    job = Job(
        _embed(source, out, model),
        out.with_name(f"{out.name}.partial"),
        -(-size // _SHARD_ROWS),
        lambda: len(shards_there(out)),
        kept,
        lambda: list(out.parent.iterdir()),
        out.exists,
    )
    pace = job.pace(lambda: job.total)
    whole = parquet_rows(out)
    while tally.kills < kills:
        shutil.rmtree(out.parent)
        out.parent.mkdir()
        seen = {}
        job.finish_with_kills(tally, min(_KILLS_PER_ROUND, kills - tally.kills), pace, rng)
        _judge(tally, parquet_rows(out), whole)
        tally.left_over += sum(path != out for path in out.parent.rglob("*"))
        tally.rounds += 1
        yield tally


def _items_of(stay: set[tuple[str, int]], db: Path) -> dict[Any, Any]:
    return {key: value for key, value in stored_items(db).items() if key in stay}


def _judge(tally: Tally, found: Rows, wanted: Rows) -> None:
    difference = compare(found, wanted)
    tally.rows += len(wanted)
    tally.lost += difference.lost
    tally.extra += difference.extra
    tally.largest_difference = max(tally.largest_difference, difference.largest)


def _check(command: Command, is_killed: bool = False) -> None:
    ended = command.end()
    if ended.code != (-9 if is_killed else 0):
        raise RuntimeError(f"exit code {ended.code}: {ended.err}")


def _put(state: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(state, folder)


def _index(folder: Path, db: Path, model: Path) -> tuple[Any, ...]:
    return ("index", folder, "--to", db, "--model", model, "--batch-size", 1)


def _embed(source: Path, out: Path, model: Path) -> tuple[Any, ...]:
    return ("embed", source, "--to", out, "--model", model, "--batch-size", 1, "--shard-rows", _SHARD_ROWS)
