"""Where the time of a call goes on the device, kernel by kernel, by torch's profiler."""

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from plume_embed.bench.inputs import random_batch
from plume_embed.bench.rollout import run_alone
from plume_embed.model.modeling_plume import PlumeModel

NAME_LENGTH = 72


def kernel_times(function: Callable[[], Any], device: torch.device) -> list[tuple[str, int, float]]:
    """(name, calls, milliseconds) of every kernel of one call, the longest first; on a CPU of every operator.

    A captured graph shows the kernels that it holds. The call is run once before, so that nothing is compiled in it.
    """
    function()
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as profiler:
        function()
        if on_cuda:
            torch.cuda.synchronize(device)
    found = []
    for event in profiler.key_averages():
        if on_cuda and event.device_type.name != "CUDA":
            continue
        microseconds = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        found.append((event.key[:NAME_LENGTH], event.count, microseconds / 1000))
    return sorted(found, key=lambda each: -each[2])


@torch.no_grad()
def kernel_rows(
    model: PlumeModel, batch: int, prefix: int, implementation: str, steps: int = 8, longest: int = 12
) -> list[dict[str, Any]]:
    """The rollout alone behind a prefix: rows of {name, batch, calls, ms, share} of the longest kernels and of all."""
    with torch.no_grad():
        made = model.prefix(**random_batch(model, batch, prefix))
    found = kernel_times(lambda: run_alone(model, made, steps, implementation), model.device)
    total = sum(ms for _, _, ms in found)
    listed = [("all kernels", sum(calls for _, calls, _ in found), total), *found[:longest]]
    return [
        {"name": name, "batch": batch, "prefix": prefix, "steps": steps, "calls": calls, "ms": ms, "share": ms / total}
        for name, calls, ms in listed
    ]


__all__ = ["kernel_rows", "kernel_times"]
