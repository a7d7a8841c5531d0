"""Several processes that share one evaluation: who I am, and agreeing on failures.

`accelerate launch` sets the environment; gloo on CPUs, NCCL on GPUs. A single process needs neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

# A rank may wait for another through a whole task.
_TIMEOUT = timedelta(days=2)
_EXPECTED = (ValueError, OSError)


class SharedFailureError(ValueError):
    """At least one process failed at a step that all of them took; the message names the first one's reason."""


class Ranks:
    """The processes of this run. On several machines they need one file system.

    Attributes:
        rank: This process, from 0.
        size: How many there are.
    """

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = 0
        self._state = None
        if self.size > 1:
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise ValueError("Several processes need accelerate: pip install accelerate.") from error
            import torch

            self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=_TIMEOUT)
            self.rank, self.size = self._state.process_index, self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process prints, scores and writes."""
        return self.rank == 0

    def together(self, step: Callable[[], T]) -> T:
        """Takes a step in every process and waits for all of them.

        Raises:
            SharedFailureError: in every process, if any failed, so that none waits for one that has given up.
        """
        result, failure = None, None
        try:
            result = step()
        except Exception as error:
            failure = reason_of(error)
        failures = [failure] if self._state is None else self._gather(failure)
        for first in filter(None, failures):
            raise SharedFailureError(first)
        return result  # type: ignore[return-value]

    def close(self) -> None:
        """Leaves the group; nothing may be shared afterwards."""
        if self._state is not None:
            self._state.destroy_process_group()
            self._state = None

    def _gather(self, value: str | None) -> list[str | None]:
        from accelerate.utils import gather_object

        return gather_object([value])


def reason_of(error: Exception) -> str:
    """An error as one line; with its type where it was not foreseen."""
    message = " ".join(str(error).split())
    return message if isinstance(error, _EXPECTED) and message else f"{type(error).__name__}: {message}"
