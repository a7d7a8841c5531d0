"""Decoders that something outside kills, as a system that is short of memory does."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import pytest

from plume_embed.reading import read
from plume_embed.reading.decode import decode_to_arrays


def killed_after(num_answers: int, *args: Any) -> Iterator[Any]:
    """What the decoder gives, and then its end."""
    yield from islice(decode_to_arrays(*args), num_answers)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_decoders(monkeypatch: pytest.MonkeyPatch, after: list[int]) -> None:
    """Kills as many of the next decoders as numbers are given, each after so many answers; the first is the outline."""
    left, original = list(after), read.iterate_limited

    def iterate(function, *args, limits):
        return original(partial(killed_after, left.pop(0)) if left else function, *args, limits=limits)

    monkeypatch.setattr(read, "iterate_limited", iterate)
