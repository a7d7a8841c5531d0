"""Runs a function in a process of its own, with limits on time, memory and writing.

Decoders are C code that meets whatever people have in their folders, or upload: there, a crash, an endless loop or a
request for all memory ends that process and nothing else. On Windows the clock is the only limit; on macOS memory has
none.
"""

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from plume_embed.reading import worker

Item = TypeVar("Item")

# A busy machine gives a process but a part of the time, and a slow disk is no fault of the file's.
_CLOCK_SECONDS_PER_SECOND = 8
_PIPE_BYTES = 2**20
_MOST_IDLE = 4  # processes that wait for the next call; an index reads with as many at a time


class LimitError(RuntimeError):
    """The function took too much time or memory, or its process died; the message is the reason alone.

    Args:
        reason (`str`)
        is_from_outside (`bool`): Something other than the function may have ended it: the system, short of memory, or
            the clock, on a busy machine. Another call may come to its end.
    """

    def __init__(self, reason: str, is_from_outside: bool = False):
        super().__init__(reason)
        self.is_from_outside = is_from_outside


@dataclass(frozen=True)
class ProcessLimits:
    """What a call may take.

    Args:
        seconds (`int`): Of processor time for each item; eight times as many by the clock.
        memory (`int`): Bytes beyond what the process starts with.
    """

    seconds: int
    memory: int


def iterate_limited(function: Callable[..., Iterator[Item]], *args: Any, limits: ProcessLimits) -> Iterator[Item]:
    """What an iterator gives, item by item, computed in another process.

    Args:
        function (`Callable`): Importable by name, gives an iterator; its arguments and items are pickled. It cannot
            write files.
        limits ([`ProcessLimits`])

    Raises:
        LimitError: a limit was hit, or the process died.
        ValueError: what the function raised, its message alone.
    """
    process = _taken()
    is_whole = False
    try:
        process.send((function, args, limits.seconds, limits.memory))
        while True:
            kind, value = process.answer(limits)
            if kind == worker.ITEM:
                yield value
                continue
            is_whole = True
            if kind == worker.ERROR:
                raise ValueError(value)
            return
    finally:
        if is_whole:
            _put_back(process)
        else:
            process.kill()


def run_limited(function: Callable[..., Item], *args: Any, limits: ProcessLimits) -> Item:
    """What a function gives, computed in another process; see [`iterate_limited`]."""
    (result,) = iterate_limited(_once, function, args, limits=limits)
    return result


def warm_up() -> None:
    """Starts a process that waits for the first call."""
    _put_back(_taken())


def _once(function: Callable[..., Item], args: tuple) -> Iterator[Item]:
    yield function(*args)


class _Process:
    """A running `worker.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders grumble there about each damaged byte
            start_new_session=True,  # so that its forks can be ended with it, and Ctrl-C is for this program alone
            env=_environment(),
        )
        if sys.platform == "linux":
            from fcntl import F_SETPIPE_SZ, fcntl

            with contextlib.suppress(OSError):  # a user's pipes may hold no more: a smaller one is only slower
                fcntl(self._process.stdout, F_SETPIPE_SZ, _PIPE_BYTES)
        self._is_late = False
        try:
            self.send([str(Path(path).absolute()) for path in sys.path])
            self.answer(ProcessLimits(seconds=60, memory=0))
        except (LimitError, OSError) as error:
            raise RuntimeError(f"The process that reads files does not start: {sys.executable}") from error

    def send(self, value: Any) -> None:
        pickle.dump(value, self._process.stdin)
        self._process.stdin.flush()

    def answer(self, limits: ProcessLimits) -> tuple[str, Any]:
        """The next answer.

        Raises:
            LimitError: there is none.
        """
        timer = threading.Timer(_clock_seconds(limits), self._too_late)
        timer.daemon = True
        timer.start()
        try:
            pickled, sizes = pickle.load(self._process.stdout)
            return pickle.loads(pickled, buffers=[self._array(size) for size in sizes])
        except (EOFError, pickle.UnpicklingError) as error:  # it died, perhaps in the middle of a word
            raise self._ending(limits) from error
        finally:
            timer.cancel()

    def _array(self, num_bytes: int) -> np.ndarray:
        """The bytes of an array of an answer."""
        array = np.empty(num_bytes, dtype=np.uint8)  # neither cleared nor, where it is large, in small pages of memory
        if self._process.stdout.readinto(array) != num_bytes:
            raise EOFError
        return array

    @property
    def is_running(self) -> bool:
        """Whether it can be asked; the system may have ended it."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends it with its forks."""
        self._end()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was to be sent cannot be sent any more
                pipe.close()

    def _too_late(self) -> None:
        self._is_late = True
        # Also where the process itself is dead: a fork of it may hang, and hold the pipe that is waited for.
        self._end_all_of_it()

    def _end(self) -> None:
        if self.is_running:
            self._end_all_of_it()

    def _end_all_of_it(self) -> None:
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _ending(self, limits: ProcessLimits) -> LimitError:
        status = self._process.wait()
        if self._is_late:
            return LimitError(
                f"it takes longer than {_clock_seconds(limits)} seconds by the clock to read, as on a busy machine or "
                "from a slow disk; try again",
                is_from_outside=True,
            )
        if status == worker.OUT_OF_MEMORY:
            return LimitError("it takes too much memory to read")
        if sys.platform != "win32":
            number = -status if status < 0 else status - 128  # of the signal that ended the process, or its fork
            if number == signal.SIGXCPU:
                return LimitError(f"it takes longer than {limits.seconds} seconds to read")
            # None of our limits ends in one of these: beyond that on memory the system gives no more of it.
            if number in (signal.SIGKILL, signal.SIGTERM):
                return LimitError(
                    "its decoder was ended from outside, as by a system that is short of memory; try again",
                    is_from_outside=True,
                )
        return LimitError("it takes too much memory to read, or it is damaged: its decoder crashed")


def _clock_seconds(limits: ProcessLimits) -> int:
    return _CLOCK_SECONDS_PER_SECOND * limits.seconds


def _environment() -> dict[str, str]:
    """Of the process: one thread, and large pieces of memory in large pages, where the C library is glibc.

    Each call runs in a fork, whose memory is all new: a photograph of 12 megapixels takes 23,000 page faults in small
    pages, which cost as much time as its decoding.
    """
    tunables = [one for one in (os.environ.get("GLIBC_TUNABLES"), "glibc.malloc.hugetlb=1") if one]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **threads, "GLIBC_TUNABLES": ":".join(tunables)}


_idle: list[_Process] = []
_lock = threading.Lock()


def _taken() -> _Process:
    with _lock:
        while _idle:
            process = _idle.pop()
            if process.is_running:
                return process
            process.kill()
    return _Process()


def _put_back(process: _Process) -> None:
    with _lock:
        if len(_idle) < _MOST_IDLE:
            _idle.append(process)
            return
    process.kill()


def _end_all() -> None:
    while _idle:
        _idle.pop().kill()


def _forget() -> None:
    """In a fork of this process: the pipes belong to the parent."""
    global _lock
    _idle.clear()
    _lock = threading.Lock()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
