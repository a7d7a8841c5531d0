# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Positions of the latent steps and of the suffix: they follow from the last prefix position and the row's length.

Prefix positions depend on the backbone and on the media, and are computed once, on the CPU, by PlumeProcessor, with the
backbone's family. Position ids travel as [B, 3, L] (batch first, so that every library may slice a batch). The three
axes are the temporal, height and width axes of multimodal RoPE; where a backbone has one axis, all three are the same.
"""

import torch
import transformers

# Backbones and their layers take the key-value cache under this name; transformers 5.24 renamed it.
_VERSION = tuple(int(number) for number in transformers.__version__.split(".")[:2])
CACHE_ARGUMENT = "cache" if _VERSION >= (5, 24) else "past_key_values"


def latent_positions(
    position_mode: str, start_position: torch.Tensor, prefix_length: torch.Tensor, step: int
) -> torch.Tensor:
    """Position of latent step k = 1..K: p_slt + k (paper), or the number of valid cache entries (released code).

    Args:
        position_mode (`str`): `PlumeConfig.position_mode`.
        start_position (`torch.Tensor` of shape [B, 3]): p_slt, the position of the start token.
        prefix_length (`torch.Tensor` of shape [B]): Tokens of each row without padding.
        step (`int`): k.

    Returns:
        `torch.Tensor` of shape [B, 3, 1].
    """
    if position_mode == "mrope":
        return (start_position + step).unsqueeze(-1)
    return (prefix_length + step - 1).view(-1, 1, 1).expand(-1, 3, 1)


def suffix_positions(
    position_mode: str, start_position: torch.Tensor, prefix_length: torch.Tensor, num_steps: int, length: int
) -> torch.Tensor:
    """Positions [B, 3, S] of the suffix tokens j = 0..S-1 after K = `num_steps` latent steps.

    `"mrope"` and `"released_training"` go on from p_slt, `"cache_length"` from the number of valid cache entries.
    Arguments as in [`latent_positions`], with `length` = S.
    """
    offsets = torch.arange(length, device=start_position.device)
    if position_mode == "cache_length":
        return (prefix_length + num_steps).view(-1, 1, 1) + offsets.expand(1, 3, -1)
    return start_position.unsqueeze(-1) + 1 + num_steps + offsets


__all__ = ["CACHE_ARGUMENT", "latent_positions", "suffix_positions"]
