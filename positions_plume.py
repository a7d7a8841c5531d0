# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""All positions of PLUME, and with them the seam between backbones.

Prefix positions depend on the backbone and on the media, and are computed once, on the CPU, by PlumeProcessor. The
positions of the latent steps and of the suffix follow from the last prefix position and the row's length alone.

Position ids travel as [B, 3, L] (batch first, so that every library may slice a batch); `to_backbone_layout` turns them
into what a backbone takes. The three axes are the temporal, height and width axes of multimodal RoPE.
"""

from itertools import groupby

import torch
import transformers

# Backbones and their layers take the key-value cache under this name; transformers 5.24 renamed it.
_VERSION = tuple(int(number) for number in transformers.__version__.split(".")[:2])
CACHE_ARGUMENT = "cache" if _VERSION >= (5, 24) else "past_key_values"


def _qwen2_vl_prefix_positions(
    input_ids: list[int], image_grids: list[list[int]], video_grids: list[list[int]], config: dict
) -> torch.Tensor:
    """M-RoPE positions [3, L] of one unpadded row for Qwen2-VL.

    Text tokens advance all axes by one. The tokens of an image or video share the position at its start, plus their
    coordinates in the merged grid (t, h, w); after it, `advance` says how far the position has moved on.
    """
    merge, advance = config["merge_size"], config["vision_position_advance"]
    grids = {config["image_token_id"]: iter(image_grids), config["video_token_id"]: iter(video_grids)}
    runs, position = [], 0
    for token_id, run in groupby(input_ids, key=lambda token_id: token_id if token_id in grids else None):
        length = len(list(run))
        if token_id is None:
            runs.append((position + torch.arange(length)).expand(3, -1))
            position += length
            continue
        t, h, w = next(grids[token_id])
        h, w = h // merge, w // merge
        runs.append(position + torch.stack(torch.meshgrid(*map(torch.arange, (t, h, w)), indexing="ij")).flatten(1))
        position += max(h, w) if advance == "max_hw" else max(t, h, w)
    return torch.cat(runs, dim=1)


# One entry a backbone, by the model type of its config. What else may differ (deepstack features, timestamps between
# frames) belongs into the prefix and into the processor, never into the rollout.
PREFIX_POSITIONS = {"qwen2_vl": _qwen2_vl_prefix_positions}
SUPPORTED_BACKBONES = tuple(PREFIX_POSITIONS)


def prefix_positions(
    backbone_type: str, input_ids: list[int], image_grids: list[list[int]], video_grids: list[list[int]], config: dict
) -> torch.Tensor:
    """Positions [3, L] of one unpadded prefix.

    Args:
        backbone_type (`str`): Model type of the backbone.
        input_ids (`list[int]`): The L token ids of the row, media placeholders already repeated.
        image_grids, video_grids (`list[list[int]]`): (t, h, w) of each image or video, in patches, in order.
        config (`dict`): `merge_size`, `vision_position_advance`, `image_token_id`, `video_token_id`.
    """
    return PREFIX_POSITIONS[backbone_type](input_ids, image_grids, video_grids, config)


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


def to_backbone_layout(position_ids: torch.Tensor) -> torch.Tensor:
    """[B, 3, L] as it travels -> [3, B, L] as the backbone takes it."""
    return position_ids.transpose(0, 1)


__all__ = [
    "PREFIX_POSITIONS",
    "SUPPORTED_BACKBONES",
    "latent_positions",
    "prefix_positions",
    "suffix_positions",
    "to_backbone_layout",
]
