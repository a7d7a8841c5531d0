"""What each hostile input may take: 20 seconds of the processor and 2 GB, the process that reads files included."""

import os
import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

SECONDS = 20
MEBIBYTES = 2_000_000_000 / 2**20
_CLOCK = 180  # a busy machine gives a part of its time


def part_slow(values: Sequence[Any], every: int) -> list[Any]:
    """For a parametrised test: one of so many runs always, the others with `-m slow`."""
    return [
        value if place % every == 0 else pytest.param(value, marks=pytest.mark.slow)
        for place, value in enumerate(values)
    ]


@contextmanager
def within_limits(name: str, items: int = 1) -> Iterator[None]:
    """Fails if what happens inside takes too long or too much memory beyond what is there, or hangs.

    Args:
        name (`str`): Of the input.
        items (`int`): How many inputs there are; each has its seconds.
    """
    before, start, ended_before = _reset_peak(), _cpu_seconds(), _largest_ended_child()
    for child in _children():
        _reset_peak(child)
    with _alarm(_CLOCK * items, name):
        yield
    seconds = _cpu_seconds() - start
    assert seconds < SECONDS * items, f"{name}: {seconds:.0f} seconds"
    if before is not None:
        grown = _kibibytes("VmHWM") / 1024 - before
        ended = _largest_ended_child()  # of this whole process: if it is not larger now, it is of an earlier test
        alive = (_kibibytes("VmHWM", child) / 1024 for child in _children())
        child = max([*alive, ended if ended > ended_before else 0.0])
        assert grown + child < MEBIBYTES, f"{name}: {grown:.0f} MiB, and {child:.0f} MiB in a child"


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _reset_peak(process: str = "self") -> float | None:
    """MiB that are resident now, from which the peak counts; `None` where the system cannot say."""
    try:
        Path("/proc", process, "clear_refs").write_text("5")
        return _kibibytes("VmRSS", process) / 1024
    except OSError:
        return None


def _kibibytes(name: str, process: str = "self") -> int:
    """0 of a process that has just ended."""
    try:
        lines = Path("/proc", process, "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _children() -> list[str]:
    """Processes of this one that are alive, such as the one that reads files, which stays."""
    found: list[str] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += file.read_text().split()
    return found


def _largest_ended_child() -> float:
    """MiB of the largest process that this one has started and that has ended, at its peak."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


@contextmanager
def _alarm(seconds: int, name: str) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_) -> None:
        raise TimeoutError(f"{name} has not ended after {seconds} seconds")

    former = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
