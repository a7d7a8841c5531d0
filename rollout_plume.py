# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""The fast rollout: the reference's K steps and suffix over persistent buffers, eager, compiled or as one CUDA graph.

One function, [`rollout`], is run eagerly (`"static"`), with its decoder layer compiled (`"compiled"`), or captured and
replayed (`"cuda_graph"`). It computes what `PlumeModel` computes step by step, with two savings: keys and values are
written into place instead of concatenated, and the last latent step shares its pass with the suffix, whose tokens are
known beforehand.

Nothing here is state of the model: engines live beside the models and are never saved, and every run begins by writing
all that it will read.
"""

import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.utils import logging

from .attention_plume import decoder_layer, packed_layers
from .buckets_plume import Bucket, BucketKey, CapturedRollout, RolloutInputs, RolloutOutput
from .positions_plume import latent_positions, suffix_positions

if TYPE_CHECKING:
    from .modeling_plume import PlumeModel
    from .prefix_plume import PlumePrefix

logger = logging.get_logger(__name__)

# Each falls back to the next one, the last one to PlumeModel's own loop.
FAST_IMPLEMENTATIONS = ("cuda_graph", "compiled", "static")
ROLLOUT_IMPLEMENTATIONS = ("auto", *FAST_IMPLEMENTATIONS, "reference")
# On a CPU the product of one row with a weight matrix as a loop of Inductor's own, which reads the weights twice as
# fast as the library's product (measured: 30 against 14 GB/s); weights of any size, by default only small ones.
COMPILE_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"post_grad_fusion_options": {"decompose_mm_pass": {"cpu_max_other_dimension_decomposition": 2**31}}}
}
CPU_MEMORY_LIMIT = 2 * 2**30  # bytes
CUDA_MEMORY_SHARE = 1 / 8


def rollout(
    model: "PlumeModel", inputs: RolloutInputs, num_steps: int, layer_function: Callable[..., torch.Tensor]
) -> RolloutOutput:
    """K latent steps and the suffix in K passes over the layers; nothing in here waits for the device.

    Args:
        model ([`PlumeModel`]): Whose adapter and backbone are run.
        inputs ([`RolloutInputs`]): The slots behind the prefix are written.
        num_steps (`int`): K, from 1.
        layer_function (`Callable`): [`decoder_layer`], or the same compiled.
    """
    decoder = model.backbone.get_decoder()
    layers = packed_layers(decoder)
    suffix = model.get_input_embeddings()(inputs.suffix_ids).expand(len(inputs.z0), -1, -1)  # [B, S, D]
    cos, sin = decoder.rotary_emb(suffix, _positions(model, inputs, num_steps))  # [B, K + S, d]
    visible = inputs.visible[:, None, None]  # [B, 1, 1, T]
    bias = torch.zeros_like(visible, dtype=suffix.dtype).masked_fill(~visible, float("-inf"))  # [B, 1, 1, T]
    num_prefix_slots = visible.shape[-1] - num_steps - suffix.shape[1]

    z, hidden, probs, latent_states, router_probs = inputs.z0, None, None, [], []
    for step in range(1, num_steps + 1):
        refined, probs = model.adapter(z, inputs.anchor, inputs.z0, step)  # [B, D], [B, Me]
        new = (refined.unsqueeze(1),) if step < num_steps else (refined.unsqueeze(1), suffix)
        hidden = torch.cat(new, dim=1)  # [B, n, D], n = 1, and 1 + S in the last pass
        first, n = step - 1, hidden.shape[1]
        end = num_prefix_slots + first + n
        mask = _causal(bias[..., :end], n)  # [B, 1, n, end]
        # Copies, because torch.compile tells views from tensors of their own, and an offset of zero from others.
        rotary = [part[:, first : first + n].clone(memory_format=torch.contiguous_format) for part in (cos, sin)]
        for layer, keys, values in zip(layers, inputs.keys, inputs.values, strict=True):
            hidden = layer_function(layer, hidden, *rotary, mask, keys[:, :, :end], values[:, :, :end])
        hidden = decoder.norm(hidden)
        z = hidden[:, 0]  # [B, D]
        latent_states.append(z)
        router_probs.append(probs)
    return RolloutOutput(
        gen_state=hidden[:, -1],
        latent_states=torch.stack(latent_states, dim=1),
        router_probs=None if probs is None else torch.stack(router_probs, dim=1),
    )


def _positions(model: "PlumeModel", inputs: RolloutInputs, num_steps: int) -> torch.Tensor:
    """Positions of the K latent steps and the S suffix tokens, as the backbone takes them."""
    mode, where = model.config.position_mode, (inputs.start_position, inputs.length)
    latent = [latent_positions(mode, *where, step) for step in range(1, num_steps + 1)]  # K times [B, 3, 1]
    suffix = suffix_positions(mode, *where, num_steps, len(inputs.suffix_ids))  # [B, 3, S]
    return model.family.to_backbone_positions(torch.cat((*latent, suffix), dim=-1))  # from [B, 3, K + S]


def _causal(bias: torch.Tensor, n: int) -> torch.Tensor:
    """The mask [B, 1, n, end] of the n last of `end` positions, from what they may see but for the future of each."""
    if n == 1:
        return bias
    end = bias.shape[-1]
    future = torch.full((n, end), float("-inf"), dtype=bias.dtype, device=bias.device).triu(end - n + 1)
    return bias + future


def unsupported_reason(model: "PlumeModel", prefix: "PlumePrefix") -> str | None:
    """Why the fast rollout would not be exact or not work here, or `None`."""
    decoder = model.backbone.get_decoder()
    layers = decoder.layers
    if torch.is_autocast_enabled(prefix.z0.device.type):
        return "autocast is on; load the model in the dtype you want instead"
    if any(cached.is_sliding for cached in prefix.cache.layers):
        return "the backbone uses sliding-window attention"
    if any(cached.keys.device != prefix.z0.device for cached in prefix.cache.layers):
        return "the layers are on several devices"
    if any("forward" in vars(module) for layer in layers for module in (layer, layer.self_attn)):
        return "the forward of a layer has been replaced, for offloading perhaps"
    # The layers are called one by one: a hook on what usually calls them would be passed over.
    for module in (model.backbone, decoder):
        if is_altered(module):
            return f"{type(module).__name__} has a forward hook or a replaced forward"
    return None


def is_altered(module: nn.Module) -> bool:
    """Whether calling a module does something else than the forward of its class: for offloading, for example."""
    return "forward" in vars(module) or _has_hook(module)


def _has_hook(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


@dataclass(frozen=True)
class RolloutRun:
    """What a call of [`RolloutEngine.run`] came to.

    Args:
        implementation (`str`): What ran; `"reference"` where the model's own loop has to do it.
        reasons (`tuple[str, ...]`): Why nothing before it did, a sentence each; empty where it ran as asked.
    """

    implementation: str
    reasons: tuple[str, ...] = ()


class RolloutEngine:
    """Buckets, compiled layer and graphs for one model, from [`rollout_engine`]; safe to use from several threads.

    Weights that are replaced, by loading or by moving the model, are noticed. A model with peft layers is not captured,
    nor is one with forward hooks in its decoder or adapter, and one with hooks in a decoder layer is not compiled.
    After a change that shows in no weight, such as one of `adapter.num_experts_per_tok`, call [`release`].

    A hook on a decoder layer, or on its attention, is called K times, since the suffix shares the last latent step's
    pass, and its `module` is a copy made for that run, with the layer's own weights. Where a hook asks which module it
    is, or leaves something at it, set `rollout_implementation = "reference"`.

    Args:
        memory_limit (`int`, *optional*): Bytes that the buckets may take; the least recently used go first. By default
            an eighth of a CUDA device's memory, else 2 GiB. A batch that does not fit takes the reference path.

    Attributes:
        last_run ([`RolloutRun`], *optional*): What the last call of [`run`] came to, of whichever thread; each makes a
            new one.
    """

    def __init__(self, memory_limit: int | None = None):
        self.memory_limit = memory_limit
        self.last_run: RolloutRun | None = None
        self._lock = threading.RLock()
        self._buckets: OrderedDict[BucketKey, Bucket] = OrderedDict()
        self._layer_functions: dict[tuple[torch.device, torch.dtype], Callable] = {}
        self._failed: dict[str, str] = {}
        self._fallbacks: list[str] = []
        self._pool: Any = None
        self._weights: tuple[int, ...] = ()
        self._last_event: torch.cuda.Event | None = None

    @property
    def buckets(self) -> list[BucketKey]:
        """The buckets that are held, least recently used first."""
        with self._lock:
            return list(self._buckets)

    @property
    def fallbacks(self) -> list[str]:
        """What ran instead of the implementation asked for, and why; each reason once, as logged."""
        with self._lock:
            return list(self._fallbacks)

    @property
    def num_bytes(self) -> int:
        """Bytes held by the buckets and their graphs."""
        with self._lock:
            return sum(b.num_bytes + (b.graph.num_bytes if b.graph else 0) for b in self._buckets.values())

    def run(
        self, model: "PlumeModel", prefix: "PlumePrefix", num_steps: int, implementation: str = "auto"
    ) -> RolloutOutput | None:
        """The rollout of one batch, or `None` where the model's own loop has to do it, for a reason that is logged.

        Args:
            model ([`PlumeModel`]): The model that the engine belongs to.
            prefix ([`PlumePrefix`]): Copied, not changed.
            num_steps (`int`): K, from 1.
            implementation (`str`): One of `FAST_IMPLEMENTATIONS`, or `"auto"`: `"cuda_graph"` on CUDA and `"static"`
                elsewhere, because on a CPU compiling takes up to a minute and gains little.
        """
        device = prefix.z0.device
        if implementation == "auto":
            implementation = "cuda_graph" if device.type == "cuda" else "static"
        reason = unsupported_reason(model, prefix)
        if reason is None:
            key = BucketKey.of(prefix, num_steps, model.config)
            if key.num_bytes(prefix) > self._limit(device):
                reason = f"{key.num_bytes(prefix):,} bytes of buffers for one batch are above memory_limit"
        if reason is not None:
            self.last_run = RolloutRun("reference", (self._passed_over(implementation, "reference", reason),))
            return None
        # Each grad mode would compile its own graphs, and buffers made in inference mode can be written only there.
        with self._lock, torch.inference_mode(False), torch.no_grad():
            self._wait_for_last_run(device)
            output, self.last_run = self._run_first_available(model, prefix, key, implementation)
            if device.type == "cuda":
                self._last_event = torch.cuda.current_stream(device).record_event()
            return output

    def prepare(
        self, model: "PlumeModel", prefixes: "Iterable[PlumePrefix]", num_steps: int, implementation: str = "auto"
    ) -> None:
        """Compiles and captures for examples of the batches to come, the biggest first, so that the graphs of smaller
        batches find room in memory that the bigger ones have already claimed."""
        for prefix in sorted(prefixes, key=lambda prefix: prefix.attention_mask.numel(), reverse=True):
            self.run(model, prefix, num_steps, implementation)

    def release(self) -> None:
        """Frees buffers, graphs and compiled code; what has failed will be tried again."""
        with self._lock:
            self._drop(list(self._buckets))
            self._layer_functions.clear()
            self._failed.clear()
            self._fallbacks.clear()
            self.last_run = None
            self._pool, self._weights, self._last_event = None, (), None

    def _run_first_available(
        self, model: "PlumeModel", prefix: "PlumePrefix", key: BucketKey, wanted: str
    ) -> tuple[RolloutOutput, RolloutRun]:
        """Runs `wanted` or what it falls back to."""
        first, reasons = FAST_IMPLEMENTATIONS.index(wanted), []
        for name, following in zip(FAST_IMPLEMENTATIONS[first:], FAST_IMPLEMENTATIONS[first + 1 :], strict=False):
            reason = self._failed.get(name) or self._unavailable_reason(name, key, model)
            if reason is None:
                try:
                    return self._run(model, prefix, key, name), RolloutRun(name, tuple(reasons))
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:
                    # Compilers fail in many ways. An error of our own shows again in "static", which runs the same
                    # function uncaught.
                    reason = self._failed[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            reasons.append(self._passed_over(name, following, reason))
        return self._run(model, prefix, key, "static"), RolloutRun("static", tuple(reasons))

    def _run(self, model: "PlumeModel", prefix: "PlumePrefix", key: BucketKey, name: str) -> RolloutOutput:
        bucket = self._bucket(model, prefix, key)
        inputs = bucket.load(prefix, whole=name == "cuda_graph")
        layer_function = decoder_layer if name == "static" else self._compiled_layer(key)
        if name != "cuda_graph":
            return rollout(model, inputs, key.num_steps, layer_function)
        if bucket.graph is None:
            bucket.graph = self._capture(lambda: rollout(model, inputs, key.num_steps, layer_function), key.device)
            self._make_room(0, key.device, keep=key)
        return bucket.graph().rows(len(prefix.z0))

    def _unavailable_reason(self, name: str, key: BucketKey, model: "PlumeModel") -> str | None:
        if name == "static":
            return None
        decoder, is_graph = model.backbone.get_decoder(), name == "cuda_graph"
        if is_graph and key.device.type != "cuda":
            return f"the model is on {key.device}"
        # Looked at before every run: hooks and LoRAs come and go.
        parts = chain(decoder.modules(), model.adapter.modules()) if is_graph else decoder.layers.modules()
        for part in parts:
            # Switching or merging a LoRA changes what is computed, but no address that a captured graph was keyed by.
            if is_graph and type(part).__module__.startswith("peft."):
                return "the model has peft layers, whose state a captured graph cannot follow"
            # A replay runs no Python; a compiled layer serves all layers, and torch.compile does not look at hooks.
            if _has_hook(part):
                return f"{type(part).__name__} has a forward hook, which {name!r} would pass over"
        return None

    def _capture(self, body: Callable[[], RolloutOutput], device: torch.device) -> CapturedRollout:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CapturedRollout(body, device, self._pool)

    def _compiled_layer(self, key: BucketKey) -> Callable[..., torch.Tensor]:
        """[`decoder_layer`] compiled with batch, slots and positions left open. It makes four graphs: compilers tell
        one from many, for the rows and for the new positions."""
        kind = (key.device, key.dtype)
        if kind not in self._layer_functions:
            # Recompilations are counted by code object: another model must not use up the limit of this one.
            own = types.FunctionType(decoder_layer.__code__.replace(), decoder_layer.__globals__)
            options = COMPILE_OPTIONS.get(key.device.type, {})
            self._layer_functions[kind] = torch.compile(own, dynamic=True, fullgraph=True, options=options)
        return self._layer_functions[kind]

    def _bucket(self, model: "PlumeModel", prefix: "PlumePrefix", key: BucketKey) -> Bucket:
        if key.device.type == "cuda":
            # A graph holds the addresses of weights: other weights, other graphs.
            weights = tuple(parameter.data_ptr() for parameter in model.parameters())
            if weights != self._weights:
                self._drop(list(self._buckets))
                self._weights = weights
        if key not in self._buckets:
            self._make_room(key.num_bytes(prefix), key.device)
            self._buckets[key] = Bucket(key, prefix)
        self._buckets.move_to_end(key)
        return self._buckets[key]

    def _make_room(self, needed: int, device: torch.device, keep: BucketKey | None = None) -> None:
        """Drops the least recently used buckets until `needed` bytes more are within the limit."""
        while self.num_bytes + needed > self._limit(device):
            oldest = next((key for key in self._buckets if key != keep), None)
            if oldest is None:
                return
            self._drop([oldest])

    def _drop(self, keys: list[BucketKey]) -> None:
        if keys and self._last_event is not None:
            self._last_event.synchronize()  # the memory may be handed to a stream that has not waited for the last run
        for key in keys:
            del self._buckets[key]

    def _limit(self, device: torch.device) -> int:
        if self.memory_limit is not None:
            return self.memory_limit
        if device.type != "cuda":
            return CPU_MEMORY_LIMIT
        return int(torch.cuda.get_device_properties(device).total_memory * CUDA_MEMORY_SHARE)

    def _wait_for_last_run(self, device: torch.device) -> None:
        # The lock orders the threads on the host; their streams are ordered here.
        if self._last_event is not None and device.type == "cuda":
            torch.cuda.current_stream(device).wait_event(self._last_event)

    def _passed_over(self, name: str, following: str, reason: str) -> str:
        """Says that `following` runs in the place of `name`, and logs it the first time."""
        message = f"The rollout runs as {following!r}, not as {name!r}: {reason}."
        with self._lock:
            if message in self._fallbacks:
                return message
            self._fallbacks.append(message)
        logger.warning(message)
        return message


_ENGINES: "weakref.WeakKeyDictionary[PlumeModel, RolloutEngine]" = weakref.WeakKeyDictionary()
_ENGINES_LOCK = threading.Lock()


def rollout_engine(model: "PlumeModel") -> RolloutEngine:
    """The engine of a model, made on first use. It lives beside the model, so that copies and files do not hold it, and
    ends with it."""
    with _ENGINES_LOCK:
        if model not in _ENGINES:
            _ENGINES[model] = RolloutEngine()
        return _ENGINES[model]


__all__ = [
    "ROLLOUT_IMPLEMENTATIONS",
    "RolloutEngine",
    "RolloutOutput",
    "RolloutRun",
    "is_altered",
    "rollout",
    "rollout_engine",
]
