"""What a pass of the model has freed stays with the process for the next pass.

By default glibc gives large pieces back to the system and asks for them again in every layer, and the system clears
each page anew: on pictures that is a quarter to a third of the time of a small model. Only processes that are ours keep
them: the command line, the Space, and the workers of a corpus.
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_PIECE = 2**28  # bytes; what is larger is mapped by itself, and unmapped when it is freed
_MOST_KEPT = 2**29  # bytes of free memory at the end of the heap
_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Keeps it from now on, unless the user has settings for glibc's memory.

    Returns:
        `bool`: Whether it does; without glibc, or with such settings, nothing changes.
    """
    if not _has_glibc() or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    library = ctypes.CDLL(None)
    kept = library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_PIECE)
    return bool(kept and library.mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT))


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # Windows has no confstr; macOS and musl do not know the name
        return False


__all__ = ["keep_freed_memory"]
