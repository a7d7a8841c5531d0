# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""What the rollout needs of a prefix, and a batch's prefixes computed in groups of rows of like length.

In one pass every row costs what the longest costs. On a CPU a pass costs little more than its positions do, so several
passes over fewer of them are quicker. The rollout behind them has as many positions in every row and stays one batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache

# What a pass of its own costs beside its positions, in positions: the launch of every operation, and reading the
# weights. Chosen above what plume-small costs on one thread, so that a split gains for certain.
_POSITIONS_A_PASS = 64


@dataclass
class PlumePrefix:
    """What the rollout needs of a prefix.

    Args:
        cache (`Cache`): C(0), keys and values of the prefix. Each latent step appends one entry a row.
        attention_mask (`torch.Tensor` of shape [B, L]): 1 for tokens, 0 for the padding on the left.
        start_position (`torch.Tensor` of shape [B, 3]): p_slt, the position of the start token.
        length (`torch.Tensor` of shape [B]): Tokens of each row, padding left out.
        anchor (`torch.Tensor` of shape [B, D]): c(x), last-layer state at `<disc_emb>`.
        z0 (`torch.Tensor` of shape [B, D]): z(0), last-layer state at the start token.
    """

    cache: Cache
    attention_mask: torch.Tensor
    start_position: torch.Tensor
    length: torch.Tensor
    anchor: torch.Tensor
    z0: torch.Tensor


def groups_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in the groups whose passes cost least together, the longest rows first.

    Args:
        lengths (`Sequence[int]`): Tokens of each row.

    Returns:
        `list[list[int]]`: Every row once. A group costs its rows times its longest one, and `_POSITIONS_A_PASS`.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    # Rows of one length are never parted, so groups begin and end only where the length changes.
    ends = [end for end in range(1, len(order)) if lengths[order[end]] < lengths[order[end - 1]]]
    ends += [len(order)] if order else []
    costs, begins = {0: 0}, {0: 0}  # of the first rows in that order: the least cost, and where their last group begins
    for end in ends:
        cost, begin = min(
            (costs[begin] + (end - begin) * lengths[order[begin]] + _POSITIONS_A_PASS, begin) for begin in costs
        )
        costs[end], begins[end] = cost, begin
    groups, end = [], len(order)
    while end > 0:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups[::-1]


def join_prefixes(
    parts: Sequence[PlumePrefix], groups: Sequence[Sequence[int]], attention_mask: torch.Tensor, cache: Cache
) -> PlumePrefix:
    """The prefixes of groups of rows as one of all rows, in the batch's order.

    Args:
        parts: One for each group, of no more positions than the whole has.
        groups: The rows of each, every row of the batch once.
        attention_mask (`torch.Tensor` of shape [B, L]): Of all rows.
        cache (`Cache`): An empty one without sliding windows. It is filled, padded with zeros on the left.
    """
    rows = torch.tensor([row for group in groups for row in group], device=attention_mask.device)
    back = rows.argsort()  # where each row of the batch stands among the parts'
    length = attention_mask.shape[1]

    def joined(tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(tensors)[back]

    def joined_slots(tensors: list[torch.Tensor]) -> torch.Tensor:
        """Of [rows of a group, heads, slots, d] each."""
        whole = tensors[0].new_zeros(len(rows), tensors[0].shape[1], length, tensors[0].shape[3])
        for group, tensor in zip(groups, tensors, strict=True):
            whole[list(group), :, length - tensor.shape[2] :] = tensor
        return whole

    for index, layers in enumerate(zip(*(part.cache.layers for part in parts), strict=True)):
        cache.update(joined_slots([one.keys for one in layers]), joined_slots([one.values for one in layers]), index)
    return PlumePrefix(
        cache=cache,
        attention_mask=attention_mask,
        start_position=joined([part.start_position for part in parts]),
        length=joined([part.length for part in parts]),
        anchor=joined([part.anchor for part in parts]),
        z0=joined([part.z0 for part in parts]),
    )


__all__ = ["PlumePrefix", "groups_by_length", "join_prefixes"]
