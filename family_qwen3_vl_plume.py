# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Qwen3-VL, dense and with experts: a film is one block a frame pair, each behind its time as text.

Features of some tower layers are added to the first text layers (DeepStack). That happens where visual tokens are, in
the prefix, inside the library's forward: the rollout and the suffix have none.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import Qwen3VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from .family_plume import Film, MediaSpan, VisionBlock
from .family_qwen2_vl_plume import Qwen2VLFamily

if TYPE_CHECKING:
    from .processing_plume import PlumeProcessor


class Qwen3VLFamily(Qwen2VLFamily):
    """`model_type` "qwen3_vl"."""

    model_type = "qwen3_vl"
    video_placeholder = Qwen2VLFamily.video_token  # its frames bring the tokens around it with them
    position_advances = ("max_hw",)
    image_size = {"shortest_edge": 65536, "longest_edge": 16777216}
    video_size = {"shortest_edge": 4096, "longest_edge": 25165824}  # of all frames of a film together
    pixel_statistics = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    video_processor_class = Qwen3VLVideoProcessor

    def merger_modules(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.visual.merger, backbone.visual.deepstack_merger_list]

    def runs_of(self, grids: torch.Tensor) -> torch.Tensor:
        return grids[:, 0]  # an image has a t of 1

    def tower_outputs(self, backbone: nn.Module, pixels: torch.Tensor, grid: torch.Tensor) -> list[torch.Tensor]:
        outputs = backbone.get_image_features(pixels, grid)
        return [*outputs.pooler_output, *(tensor for layer in outputs.deepstack_features for tensor in layer)]

    def prepare_film(self, processor: "PlumeProcessor", film: Film) -> Film:
        """The library's resizing refuses a film shorter than one block: its last frame then stands still."""
        size = processor.video_processor.temporal_patch_size
        lacking = size - len(film.frames)
        if lacking <= 0:
            return film
        frames = torch.cat((film.frames, film.frames[-1:].expand(lacking, -1, -1, -1)))
        return Film(frames, film.times + film.times[-1:] * lacking, film.fps)

    def film_span(self, processor: "PlumeProcessor", film: Film, grid: tuple[int, int, int]) -> MediaSpan:
        """For each block "<1.5 seconds>", the mean time of its first and its last frame, and then its tokens."""
        t, h, w = grid
        size, token_id = processor.video_processor.temporal_patch_size, processor.video_token_id
        times = film.times + film.times[-1:] * (t * size - len(film.times))
        start, end = processor.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
        ids: list[int] = []
        for index in range(t):
            mean = (times[index * size] + times[(index + 1) * size - 1]) / 2
            ids += processor.tokenizer.encode(f"<{mean:.1f} seconds>", add_special_tokens=False)
            ids += [start, *[token_id] * (h * w), end]
        return MediaSpan(token_id, ids, [VisionBlock(1, h, w)] * t)

    def size_after_resizing(
        self, processor: "PlumeProcessor", size: tuple[int, int], num_frames: int | None
    ) -> tuple[int, int]:
        if num_frames is None:
            return super().size_after_resizing(processor, size, None)
        limits = processor.video_processor
        return smart_resize(
            max(num_frames, limits.temporal_patch_size),
            *size,
            temporal_factor=limits.temporal_patch_size,
            factor=limits.patch_size * limits.merge_size,
            min_pixels=limits.size["shortest_edge"],
            max_pixels=limits.size["longest_edge"],
        )

    def pixel_limits(self, limits: Any, num_frames: int | None) -> tuple[float, float]:
        least, most = super().pixel_limits(limits, num_frames)
        return (least, most) if num_frames is None else (least / num_frames, most / num_frames)


class Qwen3VLMoeFamily(Qwen3VLFamily):
    """`model_type` "qwen3_vl_moe"."""

    model_type = "qwen3_vl_moe"


__all__ = ["Qwen3VLFamily", "Qwen3VLMoeFamily"]
