"""Paired timing: all cases of a comparison take turns in one process, so that what disturbs one disturbs all."""

import math
import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

STEADY = 0.05  # of a ratio: the most that its uncertainty may be


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

    def ratio_uncertainty(self, other: "Timing") -> float:
        """Half the width of the 95 % interval of [`ratio_to`], as a share of it; infinite below three rounds.

        The standard error of a median is 1.25 sigma / sqrt(n), and sigma is the distance of the quartiles / 1.35.
        """
        ratios = [a / b for a, b in zip(self.times, other.times, strict=False)]
        if len(ratios) < 3:
            return math.inf
        first, middle, third = statistics.quantiles(ratios, n=4, method="inclusive")
        return 1.96 * 1.2533 * (third - first) / 1.349 / math.sqrt(len(ratios)) / middle


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
    steady_against: str | None = None,
) -> dict[str, Timing]:
    """Times every case once a round, in random order, until the budget is used up.

    Args:
        cases (`dict`): Names to functions without arguments.
        device (`torch.device`): Waited for before and after every run.
        budget_s (`float`): Seconds after which no round begins; `min_rounds` are run in any case.
        warm_up (`int`): Untimed runs of each case before the first round; compiling belongs here.
        clock (`str`, *optional*): Which clock to read; that of [`clock_of`] by default.
        steady_against (`str`, *optional*): A case. Ends before the budget does, once the ratio of every case to this
            one is certain to `STEADY`.
    """
    read = time.process_time if (clock or clock_of(device)) == "cpu" else time.perf_counter
    timings = {name: Timing() for name in cases}
    for function in cases.values():
        for _ in range(warm_up):
            function()
    order, rng, start = list(cases), random.Random(seed), time.perf_counter()
    for index in range(max_rounds):
        over = time.perf_counter() - start > budget_s or _all_steady(timings, steady_against)
        if index >= min_rounds and over:
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


def _all_steady(timings: dict[str, Timing], against: str | None) -> bool:
    if against is None:
        return False
    return all(timing.ratio_uncertainty(timings[against]) <= STEADY for timing in timings.values())


def peak_bytes(device: torch.device) -> int:
    """On CUDA, what the allocator has held at most since the last reset; else the most this process has ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
