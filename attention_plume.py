# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Packed grouped-query attention, and a decoder layer of the backbone that runs with it over persistent buffers.

In a rollout step a few queries meet a long cache under a padding mask. The stock function then repeats every key and
value once per query head. Packed attention puts the query heads that share a key head side by side as if they were
more queries, and reads each key once; the sums are the same.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from .positions_plume import CACHE_ARGUMENT

PACKED_ATTENTION = "plume_packed"


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Grouped-query attention without repeated keys, in the form of transformers' attention functions.

    Args:
        module (`nn.Module`): The attention layer; not used.
        query (`torch.Tensor` of shape [B, heads, n, d]): Queries.
        key, value (`torch.Tensor` of shape [B, key heads, T, d]): Keys and values; `heads` is a multiple of theirs.
        attention_mask (`torch.Tensor` of shape [B, 1, n, T]): Added to the scores; finite somewhere in every row.
        scaling (`float`): Factor of the scores.
        dropout (`float`): Must be 0; this function is for inference.

    Returns:
        `torch.Tensor` of shape [B, n, heads, d], and `None` for the weights.

    Raises:
        ValueError: dropout is on, or there is no mask.
    """
    if dropout or attention_mask is None:
        raise ValueError(f"{PACKED_ATTENTION} attention is for inference and needs its mask; use sdpa instead.")
    batch, heads, n, head_dim = query.shape
    key_heads = key.shape[1]
    packed = query.reshape(batch, key_heads, -1, head_dim)  # [B, key heads, groups * n, d]
    # Row g * n + i of a key head is query i of its group g.
    mask = attention_mask if n == 1 else attention_mask.repeat(1, 1, heads // key_heads, 1)  # [B, 1, groups * n, T]
    attend = attend_matmul if query.is_cuda else attend_sdpa
    output = attend(packed, key, value, mask, scaling)  # [B, key heads, groups * n, d]
    return output.reshape(batch, heads, n, head_dim).transpose(1, 2), None


def attend_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """softmax(query key^T scaling + mask) value as one library call; the fastest form on CPU."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)


def attend_matmul(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """The same as two products. CUDA's fused kernels walk the keys of a key head one block after the other, and pad
    masks whose last dimension is no multiple of 8; with a handful of queries both cost more than they save."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling + mask  # [B, key heads, groups * n, T]
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value)  # [B, key heads, groups * n, d]


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
# Without a mask function of the same name transformers would pass no mask, and padding would be attended to.
AttentionMaskInterface.register(PACKED_ATTENTION, eager_mask)


class LayerSlots:
    """What a decoder layer takes for its cache: buffers whose last n slots are those of the n new positions.

    Args:
        keys, values (`torch.Tensor` of shape [B, key heads, T, d]): Views of persistent buffers, up to the new slots.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor):
        self.keys, self.values = keys, values

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args, **kwargs):
        """Writes n new entries [B, key heads, n, d] in place; returns all T. It must not read `layer_idx`, so that
        one compiled function serves all layers."""
        n = keys.shape[2]
        self.keys[:, :, -n:] = keys
        self.values[:, :, -n:] = values
        return self.keys, self.values


def decoder_layer(
    layer: nn.Module,
    hidden: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    mask: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """One decoder layer at n new positions. The one function that is compiled: it serves all layers and steps.

    Args:
        layer (`nn.Module`): From [`packed_layers`].
        hidden (`torch.Tensor` of shape [B, n, D]): Not a view, else views and others compile to two graphs.
        cos, sin (`torch.Tensor` of shape [B, n, d]): Rotary embedding of the new positions.
        mask (`torch.Tensor` of shape [B, 1, n, T]): Added to the scores.
        keys, values (`torch.Tensor` of shape [B, key heads, T, d]): Buffers; the last n slots are written.
    """
    return layer(
        hidden,
        attention_mask=mask,
        position_embeddings=(cos, sin),
        use_cache=True,
        **{CACHE_ARGUMENT: LayerSlots(keys, values)},
    )


def packed_layers(decoder: nn.Module) -> list[nn.Module]:
    """The decoder's layers with packed attention, sharing every weight and sub-module with the originals.

    The attention function of a layer is chosen by its config, which the prefix uses too, perhaps in another thread at
    the same moment; so a layer is copied as an object (not its weights) and given another config. This is cheap enough
    for every call, and a copy that is made anew cannot miss a change of the model, such as an injected LoRA.
    """
    config = copy.copy(decoder.config)
    config._attn_implementation = PACKED_ATTENTION
    layers = []
    for layer in decoder.layers:
        attention = copy.copy(layer.self_attn)
        attention.config = config
        packed = copy.copy(layer)
        packed._modules = {**layer._modules, "self_attn": attention}
        layers.append(packed)
    return layers


__all__ = ["PACKED_ATTENTION", "LayerSlots", "decoder_layer", "packed_attention", "packed_layers"]
