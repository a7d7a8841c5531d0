"""The least that a rollout can cost on a machine: what it must read and compute, at the speeds measured there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from plume_embed.bench.timing import interleaved
from plume_embed.model.modeling_plume import PlumeModel


@dataclass(frozen=True)
class Machine:
    """What a device does at best, by torch and with the threads that are set.

    Args:
        bytes_per_s (`float`): Read from memory, by a scalar product of two long vectors.
        flops_per_s (`float`): Floating-point operations of a product of two large matrices.
    """

    bytes_per_s: float
    flops_per_s: float

    def conditions(self) -> dict[str, float]:
        """As the results state them."""
        return {
            "read_gigabytes_per_s": self.bytes_per_s / 1e9,
            "matrix_gigaflops_per_s": self.flops_per_s / 1e9,
        }


@dataclass(frozen=True)
class Pass:
    """One pass over the layers: `new` positions a row behind `cached` ones, a latent step where `adapter` is set."""

    new: int
    cached: int = 0
    adapter: bool = False


@dataclass(frozen=True)
class Work:
    """What passes must read and compute, and the time below which no implementation comes on a machine.

    Args:
        bytes (`int`): Weights and cached keys and values, each once a pass.
        flops (`int`): A multiplication and an addition are two.
        limit_ms (`float`): Of each pass the longer of reading and computing, summed.
    """

    bytes: int
    flops: int
    limit_ms: float

    def columns(self, ms_median: float) -> dict[str, float]:
        """What a row of the results says about it."""
        return {
            "bytes_read": self.bytes,
            "flops": self.flops,
            "limit_ms": self.limit_ms,
            "times_limit": ms_median / self.limit_ms,
        }


def measure_machine(device: torch.device, dtype: torch.dtype, budget_s: float = 2) -> Machine:
    """The best of several rounds of either; on a CPU 180 MB are read, about the weights of the 12 x 512 backbone."""
    half = 2**28 if device.type == "cuda" else 90_000_000  # bytes
    vectors = [torch.rand(half // 4, device=device) for _ in range(2)]
    size = 8192 if device.type == "cuda" else 1024
    # Random numbers: a GPU multiplies equal ones faster than any real weights.
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    cases = {"read": lambda: torch.dot(*vectors), "compute": lambda: matrix @ matrix}
    timings = interleaved(cases, device, budget_s, min_rounds=10, max_rounds=60)
    best = {name: min(timing.times) / 1000 for name, timing in timings.items()}
    return Machine(2 * half / best["read"], 2 * size**3 / best["compute"])


def rollout_passes(model: PlumeModel, prefix: int, steps: int) -> list[Pass]:
    """The K passes behind a prefix; the last latent step shares its pass with the suffix."""
    suffix = model.config.suffix_token_ids or []
    new = [1] * (steps - 1) + [1 + len(suffix)] if steps else []
    return [Pass(n, prefix + index, adapter=True) for index, n in enumerate(new)]


def work(model: PlumeModel, batch: int, passes: Sequence[Pass], machine: Machine) -> Work | None:
    """The work of a batch; `None` where the experts of a backbone leave it open. A vision tower is not counted."""
    if not model.family.reads_all_weights:
        return None
    backbone: Any = model.backbone
    text: Any = model.config.get_text_config()
    layers, adapter = ([*part.parameters()] for part in (backbone.get_decoder().layers, model.adapter))
    head_dim = text.to_dict().get("head_dim") or text.hidden_size // text.num_attention_heads
    entry = (
        2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * model.dtype.itemsize
    )  # bytes of a position
    attended = 4 * text.num_hidden_layers * text.num_attention_heads * head_dim  # operations of a query with a key
    moved = computed = 0
    limit_s = 0.0
    for each in passes:
        weights = layers + (adapter if each.adapter else [])
        read = sum(p.nbytes for p in weights) + batch * each.cached * entry
        keys = each.new * each.cached + each.new * (each.new + 1) // 2
        products = each.new * sum(p.numel() for p in layers) + each.adapter * sum(p.numel() for p in adapter)
        flops = batch * (2 * products + attended * keys)
        limit_s += max(read / machine.bytes_per_s, flops / machine.flops_per_s)
        moved, computed = moved + read, computed + flops
    return Work(moved, computed, 1000 * limit_s)
