"""Paired timing: all cases of a comparison take turns in one process, so that what disturbs one disturbs all."""

import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch


@dataclass
class Timing:
    """Times of one case, in milliseconds, by round."""

    times: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """Distance between the quartiles, in milliseconds; 0 for a single time."""
        if len(self.times) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.times, n=4, method="inclusive")
        return third - first

    def ratio_to(self, other: "Timing") -> float:
        """Median over the rounds of this time to the other's in the same round."""
        return statistics.median(a / b for a, b in zip(self.times, other.times, strict=False))


def clock_of(device: torch.device) -> str:
    """Which clock is read: on a CPU with one thread, its process's time, which other processes do not lengthen."""
    return "cpu" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"


def interleaved(
    cases: dict[str, Callable[[], Any]],
    device: torch.device,
    budget_s: float,
    min_rounds: int = 3,
    max_rounds: int = 15,
    warm_up: int = 1,
    seed: int = 0,
    clock: Literal["cpu", "wall"] | None = None,
) -> dict[str, Timing]:
    """Times every case once a round, in random order, until the budget is used up.

    Args:
        cases (`dict`): Names to functions without arguments.
        device (`torch.device`): Waited for before and after every run.
        budget_s (`float`): Seconds after which no round begins; `min_rounds` are run in any case.
        warm_up (`int`): Untimed runs of each case before the first round; compiling belongs here.
        clock (`str`, *optional*): Which clock to read; that of [`clock_of`] by default.
    """
    read = time.process_time if (clock or clock_of(device)) == "cpu" else time.perf_counter
    timings = {name: Timing() for name in cases}
    for function in cases.values():
        for _ in range(warm_up):
            function()
    order, rng, start = list(cases), random.Random(seed), time.perf_counter()
    for index in range(max_rounds):
        if index >= min_rounds and time.perf_counter() - start > budget_s:
            break
        rng.shuffle(order)
        for name in order:
            _synchronize(device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            begin = read()
            cases[name]()
            _synchronize(device)
            timings[name].times.append(1000 * (read() - begin))
            timings[name].peak_bytes = max(timings[name].peak_bytes, peak_bytes(device))
    return timings


def peak_bytes(device: torch.device) -> int:
    """On CUDA, what the allocator has held at most since the last reset; else the most this process has ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes, the best of several."""
    size = 2**30 if device.type == "cuda" else 2**27
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    timings = interleaved({"copy": lambda: target.copy_(source)}, device, budget_s=1, min_rounds=10, max_rounds=30)
    return 2 * size / (min(timings["copy"].times) / 1000)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
