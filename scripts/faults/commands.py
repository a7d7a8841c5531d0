"""`plume-embed` as a process of its own, and what it left: rows of an index and of a Parquet file, shards."""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow.parquet as pq

SAME = 1e-5  # two runs may put an item into other batches
_PATIENCE = 600  # seconds by the clock; the machine may be busy
_POLL = 0.001  # what is done behind the last item takes some 0.1 seconds

Rows = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal), and what it printed."""

    code: int
    out: str
    err: str

    @property
    def is_one_line(self) -> bool:
        """Whether it failed as it should: code 2 and one line on stderr."""
        return self.code == 2 and self.err.count("\n") == 1 and self.err.startswith("plume-embed: ")


class Command:
    """A running `plume-embed`.

    Args:
        arguments: As on the command line.
        options: Of `subprocess.Popen`.
    """

    def __init__(self, *arguments: Any, **options: Any):
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115  `end` closes them
        self.process = subprocess.Popen(
            [sys.executable, "-m", "plume_embed", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            **options,
        )

    def wait_until(self, is_so: Callable[[], bool]) -> bool:
        """Waits until something is so; False if it ended before."""
        deadline = time.monotonic() + _PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if is_so():
                return True
            time.sleep(_POLL)
        return False

    def holds_lock(self, folder: Path) -> bool:
        """Whether it holds the lock in this folder, as it does from before its first write until after its last."""
        lock, opened = str(folder.resolve() / ".lock"), Path(f"/proc/{self.process.pid}/fd")
        return any(_target(link) == lock for link in _entries(opened))

    def wait_for_lock(self, folder: Path) -> bool:
        """Waits until it holds the lock in this folder; False if it ended before."""
        return self.wait_until(lambda: self.holds_lock(folder))

    def kill_after(self, seconds: float, folder: Path) -> bool:
        """SIGKILL after so many seconds; False if it gave the lock in this folder back before."""
        end = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() >= end or not self.holds_lock(folder))
        if self.holds_lock(folder):
            self.process.kill()
            return self.process.wait() < 0
        return False

    def end(self) -> Ended:
        """Waits for it."""
        code = self.process.wait(_PATIENCE)
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read())
            file.close()
        return Ended(code, *texts)


def run(*arguments: Any, **options: Any) -> Ended:
    """A command from its start to its end."""
    return Command(*arguments, **options).end()


def index_rows(db: Path) -> Rows:
    """The items of an index by path and locator, read past the package; a row that is there twice raises."""
    if not (db / "items.lance").is_dir():
        return {}
    connection = lancedb.connect(str(db))
    files, items = (connection.open_table(name).search().limit(None).to_arrow().to_pylist() for name in _TABLES)
    count = Counter((item["content"], item["item"]) for item in items)
    if doubled := [key for key, number in count.items() if number > 1]:
        raise RuntimeError(f"{len(doubled)} rows are doubled")
    by_content: dict[str, list[dict]] = {}
    for item in items:
        by_content.setdefault(item["content"], []).append(item)
    return {(file["path"], item["locator"]): item for file in files for item in by_content.get(file["content"], ())}


def stored_items(db: Path) -> dict[tuple[str, int], Any]:
    """When each item was embedded, also of files that are not whole yet."""
    if not (db / "items.lance").is_dir():
        return {}
    rows = lancedb.connect(str(db)).open_table("items").search().limit(None).to_arrow().to_pylist()
    found = {(row["content"], row["item"]): row["embedded_at"] for row in rows}
    if len(found) < len(rows):
        raise RuntimeError(f"{len(rows) - len(found)} rows are doubled")
    return found


def shards_there(out: Path) -> dict[str, int]:
    """The shards that an unfinished `embed` keeps, and when each was written."""
    folder = out.with_name(f"{out.name}.partial") / "shards"
    files = [path for path in folder.glob("*.parquet") if not path.name.startswith(".")] if folder.is_dir() else []
    return {path.name: path.stat().st_mtime_ns for path in files}


def item_writes(db: Path) -> int:
    """How often items were written to an index, whether or not it holds them yet."""
    return sum(not path.name.startswith(".") for path in _entries(db / "items.lance" / "data"))


def newest(places: Iterable[Path]) -> str:
    """Which of these places was written last, and which file or folder inside it."""
    there = [place for place in places if place.exists()]
    files = [(path, place.parent) for place in there for path in (place, *place.rglob("*")) if path.is_file()]
    path, root = max(files, key=lambda file: file[0].stat().st_mtime_ns)
    return "/".join(path.relative_to(root).parts[:2])


def parquet_rows(out: Path) -> Rows:
    """The rows of a Parquet file by id."""
    rows = pq.read_table(out).to_pylist()
    found = {(row["id"], ""): {"vector": row["embedding"]} for row in rows}
    if len(found) < len(rows):
        raise RuntimeError(f"{len(rows) - len(found)} rows are doubled")
    return found


@dataclass(frozen=True)
class Difference:
    """Two sets of rows: how many of the wanted ones are lost or too many, and the largest difference of a vector."""

    lost: int
    extra: int
    largest: float

    @property
    def is_none(self) -> bool:
        """Whether they are equal."""
        return self.lost == 0 and self.extra == 0 and self.largest <= SAME


def compare(found: Rows, wanted: Rows) -> Difference:
    """Rows beside those of an undisturbed run."""
    both = found.keys() & wanted.keys()
    gaps = [np.abs(np.subtract(found[key]["vector"], wanted[key]["vector"])).max() for key in both]
    return Difference(len(wanted.keys() - both), len(found.keys() - both), float(max(gaps, default=0.0)))


_TABLES = ("files", "items")


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it has just ended
        return []


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
