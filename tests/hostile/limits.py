"""What each hostile input may take: 20 seconds of the processor and 2 GB, the process that reads files included."""

import os
import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SECONDS = 20
MEBIBYTES = 2_000_000_000 / 2**20
_CLOCK = 180  # a busy machine gives a part of its time
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
    before, start, child_before = _reset_peak(), _cpu_seconds(), _largest_child()
    with _alarm(_CLOCK * items, name):
        yield
    seconds = _cpu_seconds() - start
    assert seconds < SECONDS * items, f"{name}: {seconds:.0f} seconds"
    if before is not None:
        grown = _kibibytes("VmHWM") / 1024 - before
        child = _largest_child()
        child = child if child > child_before else 0.0  # else it is that of an earlier test
        assert grown + child < MEBIBYTES, f"{name}: {grown:.0f} MiB, and {child:.0f} MiB in a child"


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _reset_peak() -> float | None:
    """MiB that are resident now, from which the peak counts; `None` where the system cannot say."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _kibibytes("VmRSS") / 1024


def _kibibytes(name: str) -> int:
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))


def _largest_child() -> float:
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
