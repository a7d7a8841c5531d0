"""Results of other threads, brought into an event loop many at a time.

A batch ends with as many results as it has rows. To wake the loop for each of them costs more than what it then does,
and takes Python's lock from the thread of the model each time.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any


class Deliveries:
    """Wakes a loop once for all results that come while it is busy or asleep.

    Args:
        loop (`asyncio.AbstractEventLoop`): Whose coroutines wait for them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop, self._lock = loop, threading.Lock()
        self._calls: list[Callable[[], None]] = []

    def all_of(self, futures: Sequence[Future[Any]]) -> asyncio.Future[None]:
        """A future of the loop that is done when all of these are, or one of them has failed."""
        waiting: asyncio.Future[None] = self._loop.create_future()
        missing = len(futures)

        def arrived(future: Future[Any]) -> None:
            nonlocal missing
            missing -= 1
            if not waiting.done() and (missing == 0 or future.cancelled() or future.exception() is not None):
                waiting.set_result(None)

        for future in futures:
            future.add_done_callback(lambda done: self._call(partial(arrived, done)))
        return waiting

    def _call(self, call: Callable[[], None]) -> None:
        """Has the loop call it; from any thread."""
        with self._lock:
            self._calls.append(call)
            if len(self._calls) > 1:
                return  # the loop is woken already
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, []
        for call in calls:
            call()
