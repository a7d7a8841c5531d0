"""Paired timing: all cases of a comparison take turns in one process, so that what disturbs one disturbs all."""

import math
import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch

STEADY = 0.05  # of a ratio: the most that its uncertainty may be
LEAST_ROUNDS = 6  # whose median has a 95 % interval
LEAST_STEADY_ROUNDS = 8  # before a run may end because its ratios are steady


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
        return statistics.median(self._ratios(other))

    def ratio_uncertainty(self, other: "Timing") -> float:
        """How far the further end of the 95 % interval of [`ratio_to`] is from it, as a share of it.

        The interval is that of the sign test, from one round's ratio to another's; it supposes nothing of how they are
        distributed. Below `LEAST_ROUNDS` rounds there is none, and this is infinite.
        """
        ratios = sorted(self._ratios(other))
        outside = _rounds_outside(len(ratios))
        if outside is None:
            return math.inf
        low, middle, high = ratios[outside], statistics.median(ratios), ratios[-1 - outside]
        return max(high - middle, middle - low) / middle

    def _ratios(self, other: "Timing") -> list[float]:
        return [a / b for a, b in zip(self.times, other.times, strict=False)]


@cache
def _rounds_outside(count: int) -> int | None:
    """How many of `count` values, at either end, lie outside the 95 % interval of their median; `None` without one.

    It is the largest k with 2 P(X <= k) at most 5 %, X being how many values are below the true median: binomial, 1/2.
    """
    probability = 0.0
    for outside in range(count):
        probability += 2 * math.comb(count, outside) / 2**count
        if probability > 0.05:
            return outside - 1 if outside else None
    return None


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
            one is certain to `STEADY`, from `LEAST_STEADY_ROUNDS` rounds on.
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
    if against is None or len(timings[against].times) < LEAST_STEADY_ROUNDS:
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
