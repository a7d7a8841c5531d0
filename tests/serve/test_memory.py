"""Freed memory goes back to the operating system, from time to time."""

import platform
import sys

import numpy as np
import psutil
import pytest

from plume_embed.serve.memory import Trimmer

MEGABYTE = 2**20


def test_memory_is_given_back_at_most_every_five_seconds():
    now, calls = [0.0], []
    trimmer = Trimmer(lambda: now[0], lambda: calls.append(now[0]))
    for now[0] in (1.0, 4.9, 5.0, 9.9, 10.5, 12.0):
        trimmer.after_a_batch()
    assert calls == [5.0, 10.5]


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc's own function")
def test_holes_between_what_is_kept_are_given_back():
    """Blocks of 64 KiB lie in the heap, not in a mapping of their own; every thousandth stays."""
    now = [0.0]
    trimmer, process = Trimmer(lambda: now[0]), psutil.Process()
    blocks = [np.ones(64 * 1024, np.uint8) for _ in range(4_000)]  # 250 MB
    kept = blocks[::1000] + blocks[-1:]
    del blocks
    before, now[0] = process.memory_info().rss, 5.0
    trimmer.after_a_batch()
    assert before - process.memory_info().rss > 150 * MEGABYTE
    assert len(kept) == 5
