"""Films whose decoding is slow or never ends, in the process with limits; light, for that process imports it."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from plume_embed.model import videos_plume
from plume_embed.reading import read
from plume_embed.reading.decode import decode_to_arrays


def alter_films(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable) -> None:
    """Lets decoders run with another function of this name in the reader of films."""
    original = read.iterate_limited

    def iterate(function, *args, limits):
        return original(partial(_altered, name, change), *args, limits=limits)

    monkeypatch.setattr(read, "iterate_limited", iterate)


def slow(read_frames: Callable) -> Callable:
    """Takes a fifth of a second of processor time more for each frame."""

    def slowly(*args: Any) -> Iterator[Any]:
        for frame in read_frames(*args):
            start = time.process_time()
            while time.process_time() - start < 0.2:
                pass
            yield frame

    return slowly


def endless(function: Callable) -> Callable:
    """Never comes back."""

    def for_ever(*args: Any) -> None:
        while True:
            pass

    return for_ever


def _altered(name: str, change: Callable, *args: Any) -> Iterator[Any]:
    setattr(videos_plume, name, change(getattr(videos_plume, name)))
    yield from decode_to_arrays(*args)
