# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""The persistent buffers of the fast rollout, one set a bucket, and the CUDA graph captured over them.

    slots of a bucket     [ padding | prefix ........ ][ z~(0) ... z~(K-1) ][ suffix ]
                          0                           C                  C + K    C + K + S

The prefix is right-aligned, so the slot of every step is a constant of the bucket.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .configuration_plume import PlumeConfig
    from .prefix_plume import PlumePrefix

# One slot at either end is never used. Without them a view of an exactly full bucket would have no offset and be
# contiguous, and torch.compile would make graphs of their own for it.
SPARE_SLOTS = 2


@dataclass
class RolloutOutput:
    """What the rollout and the suffix give.

    Args:
        gen_state (`torch.Tensor` of shape [B, D]): State at `<gen_emb>`, not normalised.
        latent_states (`torch.Tensor` of shape [B, K, D]): z(1) to z(K).
        router_probs (`torch.Tensor` of shape [B, K, Me], *optional*): pi(1) to pi(K), where there is a router.
    """

    gen_state: torch.Tensor
    latent_states: torch.Tensor
    router_probs: torch.Tensor | None

    def rows(self, batch: int) -> "RolloutOutput":
        """A copy of the first `batch` rows."""
        copies = {f.name: getattr(self, f.name) for f in fields(self)}
        return RolloutOutput(**{n: None if t is None else t[:batch].clone() for n, t in copies.items()})


@dataclass
class RolloutInputs:
    """What a rollout reads: views of a bucket's buffers. T = prefix slots + K + S.

    Args:
        keys, values (`list[torch.Tensor]` of shape [B, key heads, T, d]): One of each a layer; prefix slots filled.
        visible (`torch.Tensor` of shape [B, T]): False at the padding.
        z0, anchor (`torch.Tensor` of shape [B, D]): z(0) and c(x).
        start_position (`torch.Tensor` of shape [B, 3]): p_slt.
        length (`torch.Tensor` of shape [B]): Tokens of each prefix without padding.
        suffix_ids (`torch.Tensor` of shape [S]): The fixed tokens after the rollout.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    visible: torch.Tensor
    z0: torch.Tensor
    anchor: torch.Tensor
    start_position: torch.Tensor
    length: torch.Tensor
    suffix_ids: torch.Tensor


@dataclass(frozen=True)
class BucketKey:
    """What one set of buffers serves: up to `batch` rows and `length` prefix slots, with all else equal.

    The shapes are in it, because a model may lose layers between two calls: `hidden_size` is D, and `cached` has the
    key heads and their size d of each layer's keys and values.
    """

    batch: int
    length: int
    num_steps: int
    suffix_ids: tuple[int, ...]
    position_mode: str
    device: torch.device
    dtype: torch.dtype
    hidden_size: int
    cached: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, prefix: "PlumePrefix", num_steps: int, config: "PlumeConfig") -> "BucketKey":
        batch, length = prefix.attention_mask.shape
        layers = prefix.cache.layers
        keys = layers[0].keys
        return cls(
            batch=round_batch(batch),
            length=round_length(length),
            num_steps=num_steps,
            suffix_ids=tuple(config.suffix_token_ids),
            position_mode=config.position_mode,
            device=keys.device,
            dtype=keys.dtype,
            hidden_size=prefix.z0.shape[1],
            cached=tuple((like.shape[1], like.shape[3]) for layer in layers for like in (layer.keys, layer.values)),
        )

    @property
    def num_slots(self) -> int:
        """T, the slots of the prefix, the steps and the suffix."""
        return self.length + self.num_steps + len(self.suffix_ids)

    def num_bytes(self, prefix: "PlumePrefix") -> int:
        """Bytes of keys and values in the shapes of `prefix`; all else is small beside them."""
        keys = prefix.cache.layers[0].keys  # [B, key heads, L, d]
        slot = keys.shape[1] * keys.shape[3] * keys.itemsize
        return 2 * len(prefix.cache.layers) * self.batch * (self.num_slots + SPARE_SLOTS) * slot


def round_batch(batch: int) -> int:
    """The next power of two."""
    return 1 << (batch - 1).bit_length()


def round_length(length: int) -> int:
    """The next multiple of 64, or of an eighth of the next power of two where that is more."""
    unit = max(64, (1 << (length - 1).bit_length()) // 8)
    return -(-length // unit) * unit


class Bucket:
    """The persistent tensors of a [`BucketKey`].

    Args:
        key ([`BucketKey`]): Their sizes.
        prefix ([`PlumePrefix`]): Gives the number of layers, key heads and so on; not loaded yet.
    """

    def __init__(self, key: BucketKey, prefix: "PlumePrefix"):
        def zeros(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=key.device)

        def slots(like: torch.Tensor) -> torch.Tensor:
            # A storage of its own each, for torch.compile takes inputs that share one as possibly the same.
            shape = (key.batch, like.shape[1], key.num_slots + SPARE_SLOTS, like.shape[3])
            return zeros(*shape, dtype=key.dtype)[:, :, 1:-1]

        cached = prefix.cache.layers
        hidden_size, hidden_dtype = prefix.z0.shape[1], prefix.z0.dtype
        self.key = key
        self.num_bytes = key.num_bytes(prefix)
        self.buffers = RolloutInputs(
            keys=[slots(like=layer.keys) for layer in cached],  # [B, key heads, T, d] each
            values=[slots(like=layer.values) for layer in cached],
            visible=zeros(key.batch, key.num_slots, dtype=torch.bool).fill_(True),
            z0=zeros(key.batch, hidden_size, dtype=hidden_dtype),
            anchor=zeros(key.batch, hidden_size, dtype=hidden_dtype),
            start_position=zeros(key.batch, 3, dtype=torch.long),
            length=zeros(key.batch, dtype=torch.long),
            suffix_ids=torch.tensor(key.suffix_ids, device=key.device),
        )
        self.graph: CapturedRollout | None = None

    def load(self, prefix: "PlumePrefix", whole: bool) -> RolloutInputs:
        """Copies a prefix of B rows and L slots in, right-aligned; the prefix stays as it is.

        Args:
            prefix ([`PlumePrefix`]): To be copied.
            whole (`bool`): Whether to fill the bucket: more rows by repeating the last one, more slots by padding.

        Returns:
            [`RolloutInputs`] over B rows and L prefix slots, or over the whole bucket.
        """
        batch, length = prefix.attention_mask.shape
        buffers, end = self.buffers, self.key.length
        start = end - length
        pairs = [
            (buffers.visible[:, start:end], prefix.attention_mask.bool()),
            (buffers.z0, prefix.z0),
            (buffers.anchor, prefix.anchor),
            (buffers.start_position, prefix.start_position),
            (buffers.length, prefix.length),
        ]
        for keys, values, cached in zip(buffers.keys, buffers.values, prefix.cache.layers, strict=True):
            pairs += [(keys[:, :, start:end], cached.keys), (values[:, :, start:end], cached.values)]
        for target, source in pairs:
            target[:batch].copy_(source)
            if whole and batch < self.key.batch:
                target[batch:].copy_(source[-1:].expand_as(target[batch:]))
        if whole:
            buffers.visible[:, :start].fill_(False)
            # A weight of zero does not undo a NaN that an earlier batch may have left in a slot.
            for stale in (*buffers.keys, *buffers.values):
                stale[:, :, :start].zero_()
            return buffers
        return RolloutInputs(
            keys=[keys[:batch, :, start:] for keys in buffers.keys],
            values=[values[:batch, :, start:] for values in buffers.values],
            visible=buffers.visible[:batch, start:],
            z0=buffers.z0[:batch],
            anchor=buffers.anchor[:batch],
            start_position=buffers.start_position[:batch],
            length=buffers.length[:batch],
            suffix_ids=buffers.suffix_ids,
        )


class CapturedRollout:
    """A rollout over a bucket's buffers as one CUDA graph.

    Args:
        body (`Callable`): Reads and writes the bucket's buffers and waits for nothing.
        device (`torch.device`): Of the buffers.
        pool: Handle of the memory pool that all graphs of an engine share; they never run at the same time.
    """

    def __init__(self, body: Callable[[], RolloutOutput], device: torch.device, pool: Any):
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles, chooses kernels and allocates workspaces, none of which can be captured
                body()
        torch.cuda.current_stream(device).wait_stream(stream)
        before = torch.cuda.memory_reserved(device)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile: only this thread is held to what a capture allows.
        with torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.output = body()
        self.num_bytes = max(0, torch.cuda.memory_reserved(device) - before)

    def __call__(self) -> RolloutOutput:
        """Replays it. The next replay of any graph of the pool overwrites the output."""
        self.graph.replay()
        return self.output


__all__ = ["Bucket", "BucketKey", "CapturedRollout", "RolloutInputs", "RolloutOutput"]
