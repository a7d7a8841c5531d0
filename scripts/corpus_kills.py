"""Kills workers and drivers of `plume-embed embed --engine ray` at random moments: `python -m scripts.corpus_kills`.

A round embeds one corpus. Its processes are killed while they are at shards, the driver is started again where it was
killed, sometimes as the local engine, and at the end the rows are compared with those of a run that nobody disturbed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import typer

from plume_embed.atomic import write_json

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "corpus_kills.json"
_WORKERS = 2
_KILLS_PER_ROUND = 7
_SHARD_ROWS = 8
_LONGEST_PAUSE = 1.0  # seconds of a kill behind the shard that it waited for
_POLL = 0.1
_SHARE_OF_DRIVERS = 0.35
# Not the agents of a node: with one of them goes the node, and that is a whole cluster here.
_WORKER_NAMES = ("ray::_Worker", "ray::_read", "ray::IDLE")


def kill_corpus(work: Path, model: Path, kills: int, rows: int, seed: int = 0) -> dict[str, Any]:
    """Kills so many processes.

    Args:
        work (`Path`): For corpora and outputs.
        model (`Path`): Of the workers.
        kills (`int`): In all rounds.
        rows (`int`): Of the corpus.
        seed (`int`): Of the moments and of who is killed.

    Returns:
        Kills by kind, with how many of the shards were there at each; rounds, and rows lost, doubled and how far
        vectors differ, over all rounds.
    """
    rng, source = random.Random(seed), work / "in.jsonl"
    lines = [json.dumps({"text": f"row {n} " * (1 + n % 9), "id": str(n)}) for n in range(rows)]
    source.write_text("\n".join(lines) + "\n")
    whole = work / "whole.parquet"
    _wait(_start(source, whole, model, "local"))
    wanted = parquet_rows(whole)
    found = {"kills": 0, "of_workers": 0, "of_drivers": 0, "rounds": 0, "rows": 0, "lost": 0, "doubled": 0}
    found |= {"largest_difference": 0.0, "shards": -(-rows // _SHARD_ROWS), "shards_there": []}
    while found["kills"] < kills:
        out = work / "out.parquet"
        out.unlink(missing_ok=True)
        shutil.rmtree(work / "out.parquet.partial", ignore_errors=True)
        _round(source, out, model, min(_KILLS_PER_ROUND, kills - found["kills"]), rng, found)
        compared = rows_compared(parquet_rows(out), wanted)
        found["rounds"] += 1
        found["rows"] += len(wanted)
        for name in ("lost", "doubled"):
            found[name] += compared[name]
        found["largest_difference"] = max(found["largest_difference"], compared["largest_difference"])
    return found


def _round(source: Path, out: Path, model: Path, kills: int, rng: random.Random, found: dict[str, Any]) -> None:
    """Embeds the corpus once, with so many kills at most, of a driver that is at work and of its workers."""
    work = out.with_name(f"{out.name}.partial")
    driver, before = _start(source, out, model, "ray"), frozenset[str]()
    while driver.poll() is None:
        seen = shards_there(work)
        number = rng.randint(0, 2 * (found["shards"] - len(seen)) // (kills + 1))  # about as many for each further kill
        while driver.poll() is None and not (
            kills > 0 and len(shards_there(work) - seen) >= number and is_at_work(work, driver.pid, before)
        ):
            time.sleep(_POLL)
        time.sleep(rng.uniform(0, _LONGEST_PAUSE))
        if driver.poll() is not None:
            continue
        there = shards_there(work)
        if rng.random() < _SHARE_OF_DRIVERS:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
            found["of_drivers"] += 1
            before = shards_there(work)
            driver = _start(source, out, model, rng.choice(("ray", "ray", "local")))
        else:
            workers = _workers_of(driver.pid)
            if not workers:
                continue
            workers[rng.randrange(len(workers))].kill()
            found["of_workers"] += 1
        found["kills"] += 1
        found["shards_there"].append(len(there))
        kills -= 1
    _wait(driver)


def is_at_work(work: Path, driver: int, before: Collection[str]) -> bool:
    """Whether a driver makes shards: a process of its own holds a lease, or one is there since its start.

    A lease alone says nothing: those of killed drivers stay.

    Args:
        work (`Path`): The folder of the run.
        driver (`int`): Its process.
        before: The shards that were there at its start.
    """
    own = {driver, *(process.pid for process in psutil.Process(driver).children(recursive=True))}
    return not own.isdisjoint(_holders(work / "leases")) or bool(shards_there(work) - set(before))


def shards_there(work: Path) -> frozenset[str]:
    """The names of the shards that a run keeps."""
    return frozenset(path.name for path in (work / "shards").glob("*.parquet") if not path.name.startswith("."))


def _holders(leases: Path) -> Iterator[int]:
    for lease in leases.glob("*"):
        with suppress(FileNotFoundError, ValueError):  # it has just been given back, or is being written
            yield json.loads(lease.read_text())["pid"]


def _start(source: Path, out: Path, model: Path, engine: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "plume_embed", "embed", str(source), "--to", str(out), "--model", str(model)]
    command += ["--latent-steps", "2", "--shard-rows", str(_SHARD_ROWS), "--batch-size", "4", "--engine", engine]
    command += ["--workers", str(_WORKERS)] if engine == "ray" else []
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _wait(process: subprocess.Popen[bytes]) -> None:
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {error.decode()[-2000:]}")


def _workers_of(driver: int) -> list[psutil.Process]:
    """Processes of actors and tasks of a driver's own cluster; Ray names them after what they do."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if process.name().startswith(_WORKER_NAMES):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def parquet_rows(path: Path) -> list[tuple[str, np.ndarray]]:
    """Ids and vectors of a file or of a folder of parts."""
    table = pq.read_table(path)
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    return list(zip(table["id"].to_pylist(), vectors, strict=True))


def rows_compared(found: list[tuple[str, np.ndarray]], wanted: list[tuple[str, np.ndarray]]) -> dict[str, Any]:
    """How many rows are lost, doubled or foreign, and how far vectors differ at most."""
    there, expected = Counter(name for name, _ in found), dict(wanted)
    vectors = dict(found)
    differences = [float(np.abs(vectors[name] - vector).max()) for name, vector in expected.items() if name in vectors]
    return {
        "lost": sum(name not in there for name in expected),
        "doubled": sum(count - (name in expected) for name, count in there.items()),
        "largest_difference": max(differences, default=0.0),
    }


def main(
    model: Annotated[Path, typer.Option(help="A model; a small one.")] = Path("checkpoints/plume-tiny"),
    kills: Annotated[int, typer.Option(help="Of workers and drivers.")] = 20,
    rows: Annotated[int, typer.Option(help="Of the corpus.")] = 600,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    to: Annotated[Path, typer.Option("--json", help="Results file.")] = RESULTS,
) -> None:
    """Kill, finish, compare."""
    with tempfile.TemporaryDirectory() as work:
        found = kill_corpus(Path(work), model.resolve(), kills, rows, seed)
    write_json(to, {"model": model.name, "workers": _WORKERS, **found})
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
