"""SIGKILL at random moments, and the same command once more, until it is through: nothing lost, nothing done twice."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scripts.faults.commands import Command, Ended, Rows, compare, index_rows, parquet_rows, shards_there, stored_items
from scripts.faults.inputs import change_folder, write_folder, write_jsonl

# A run is killed in the first part of the time that the whole work takes, so that most runs are, and a round has
# several kills.
_PART = 0.12
_KILLS_PER_ROUND = 6


@dataclass
class Tally:
    """What came of the kills of one command; all rows `lost`, `extra` (too many) or `redone` are faults."""

    command: str
    kills: int = 0
    rounds: int = 0
    rows: int = 0
    lost: int = 0
    extra: int = 0
    redone: int = 0
    largest_difference: float = 0.0


@dataclass(frozen=True)
class Job:
    """A command that can be killed.

    Args:
        arguments: Of the command.
        lock (`Path`): The folder with its lock.
        kept (`Callable`): What it has done so far, by key; what a kill must not lose and the next run not redo.
    """

    arguments: tuple[Any, ...]
    lock: Path
    kept: Callable[[], dict[Any, Any]]

    def finish_with_kills(self, tally: Tally, most: int, seconds: float, rng: random.Random) -> None:
        """Runs it until it is through, with at most so many kills.

        Args:
            seconds (`float`): Which the whole work takes.

        Raises:
            RuntimeError: it failed otherwise than by a kill.
        """
        before = self.kept()
        while True:
            command = Command(*self.arguments)
            if most > 0 and command.wait_for_lock(self.lock) and command.kill_after(rng.uniform(0, _PART * seconds)):
                most -= 1
                tally.kills += 1
            ended = command.end()
            if ended.code not in (0, -9):
                raise RuntimeError(f"exit code {ended.code}: {ended.err}")
            after = self.kept()
            tally.lost += len(before.keys() - after.keys())
            tally.redone += sum(after[key] != value for key, value in before.items() if key in after)
            if ended.code == 0:
                return
            before = after


def kill_index(work: Path, model: Path, kills: int, size: int, seed: int) -> Iterator[Tally]:
    """Kills `plume-embed index` while a folder is new, and while it has changed; gives the tally after each round."""
    tally, rng = Tally("index"), random.Random(seed)
    states = [write_folder(work / "first", size), work / "second"]
    shutil.copytree(states[0], states[1])
    change_folder(states[1])
    whole, seconds = [], []
    for state in states:
        command = Command(*_index(state, work / f"{state.name}.index", model))
        command.wait_for_lock(work / f"{state.name}.index")
        seconds.append(_success(command).seconds)
        whole.append(index_rows(work / f"{state.name}.index"))
    folder, db = work / "folder", work / "index"
    while tally.kills < kills:
        shutil.rmtree(db, ignore_errors=True)
        for state, wanted, work_seconds in zip(states, whole, seconds, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(state, folder)
            job = Job(_index(folder, db, model), db, partial(_items_of, wanted, db))
            job.finish_with_kills(tally, min(_KILLS_PER_ROUND, kills - tally.kills), work_seconds, rng)
            _judge(tally, index_rows(db), wanted)
        tally.rounds += 1
        yield tally


def kill_embed(work: Path, model: Path, kills: int, size: int, seed: int) -> Iterator[Tally]:
    """Kills `plume-embed embed`; gives the tally after each round."""
    tally, rng = Tally("embed"), random.Random(seed)
    source = write_jsonl(work / "rows.jsonl", write_folder(work / "pictures", size), size)
    command = Command(*_embed(source, work / "whole.parquet", model))
    command.wait_for_lock(work / "whole.parquet.partial")
    seconds, whole = _success(command).seconds, parquet_rows(work / "whole.parquet")
    out = work / "out.parquet"
    seen: dict[str, int] = {}

    def kept() -> dict[str, int]:
        nonlocal seen
        if not out.exists():  # else the shards are gone, as they should be
            seen = shards_there(out)
        return seen

    job = Job(_embed(source, out, model), work / "out.parquet.partial", kept)
    while tally.kills < kills:
        out.unlink(missing_ok=True)
        job.finish_with_kills(tally, min(_KILLS_PER_ROUND, kills - tally.kills), seconds, rng)
        _judge(tally, parquet_rows(out), whole)
        tally.rounds += 1
        yield tally


def _items_of(wanted: Rows, db: Path) -> dict[Any, Any]:
    """Of the items in an index those that shall stay: those of files that are gone may go at any run."""
    stay = {(row["content"], row["item"]) for row in wanted.values()}
    return {key: value for key, value in stored_items(db).items() if key in stay}


def _judge(tally: Tally, found: Rows, wanted: Rows) -> None:
    difference = compare(found, wanted)
    tally.rows += len(wanted)
    tally.lost += difference.lost
    tally.extra += difference.extra
    tally.largest_difference = max(tally.largest_difference, difference.largest)


def _success(command: Command) -> Ended:
    ended = command.end()
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code}: {ended.err}")
    return ended


def _index(folder: Path, db: Path, model: Path) -> tuple[Any, ...]:
    return ("index", folder, "--to", db, "--model", model, "--batch-size", 1)


def _embed(source: Path, out: Path, model: Path) -> tuple[Any, ...]:
    return ("embed", source, "--to", out, "--model", model, "--batch-size", 1, "--shard-rows", 8)
