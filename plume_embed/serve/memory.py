"""Gives memory that is free back to the operating system.

glibc keeps freed memory for later. A server's batches have many sizes, so the large tensors of one leave holes that the
next does not fit into, and the process grows by hundreds of megabytes though it holds no more than before.
"""

import ctypes
import sys
from collections.abc import Callable

_SECONDS_BETWEEN = 5.0


class Trimmer:
    """Calls glibc's `malloc_trim` from time to time; does nothing where there is another C library.

    Args:
        clock: Seconds.
        trim (`Callable`, *optional*): What gives the memory back, by default glibc's.
    """

    def __init__(self, clock: Callable[[], float], trim: Callable[[], object] | None = None):
        self._clock, self._trim = clock, trim or _malloc_trim()
        self._last = clock()

    def after_a_batch(self) -> None:
        """Trims if the last time is long enough ago."""
        if self._trim is not None and self._clock() - self._last >= _SECONDS_BETWEEN:
            self._trim()
            self._last = self._clock()


def _malloc_trim() -> Callable[[], object] | None:
    if sys.platform != "linux":
        return None
    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # musl
        return None
    return lambda: trim(0)
