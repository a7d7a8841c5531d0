# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Qwen3-VL, dense and with experts: a film is one block a frame pair, each behind its time as text.

Features of some tower layers are added to the first text layers (DeepStack). That happens where visual tokens are, in
the prefix, inside the library's forward: the rollout and the suffix have none.

No pair of vision tokens stands around the film as a whole, as in the first release and in vLLM. transformers 5 keeps
the pair of the chat template there; two tokens of difference, and PLUME has a template of its own.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import Qwen3VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from .family_plume import Film, MediaSpan, SmallSizes, VisionBlock
from .family_qwen2_vl_plume import Qwen2VLFamily

if TYPE_CHECKING:
    from .processing_plume import PlumeProcessor


class Qwen3VLFamily(Qwen2VLFamily):
    """`model_type` "qwen3_vl"."""

    model_type = "qwen3_vl"
    video_placeholder = Qwen2VLFamily.video_token  # its frames bring the tokens around it with them
    position_advances = ("max_hw",)
    sees_times = True
    image_size = {"shortest_edge": 65536, "longest_edge": 16777216}
    video_size = {"shortest_edge": 4096, "longest_edge": 25165824}  # of all frames of a film together
    pixel_statistics = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    patch_size = 16
    video_processor_class = Qwen3VLVideoProcessor

    def mrope_sections(self, head_size: int) -> dict[str, Any]:
        share = head_size // 6  # every third frequency, from the first: what is left over is temporal
        return {"mrope_section": [head_size // 2 - 2 * share, share, share], "mrope_interleaved": True}

    def small_config(self, vocabulary: dict[str, int], sizes: SmallSizes) -> dict[str, Any]:
        config = super().small_config(vocabulary, sizes)
        config["text_config"]["head_dim"] = sizes.hidden_size // config["text_config"]["num_attention_heads"]
        return config

    def small_vision_config(self, sizes: SmallSizes) -> dict[str, Any]:
        return {
            "depth": sizes.vision_depth,
            "hidden_size": sizes.vision_size,
            "intermediate_size": 4 * sizes.vision_size,
            "num_heads": sizes.vision_heads or sizes.vision_size // 32,
            "out_hidden_size": sizes.hidden_size,
            "patch_size": self.patch_size,
            "temporal_patch_size": sizes.temporal_patch_size,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": list(range(min(sizes.vision_depth, sizes.layers))),
            "initializer_range": sizes.initializer_range,
        }

    def small_film_size(self, side: int) -> dict[str, int]:
        return {"shortest_edge": 2 * side * side, "longest_edge": 8 * side * side}  # of two frames, and of eight

    def merger_modules(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.visual.merger, backbone.visual.deepstack_merger_list]

    def packed_attention_class(self) -> type | None:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionAttention

        return Qwen3VLVisionAttention

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
    reads_all_weights = False

    def small_config(self, vocabulary: dict[str, int], sizes: SmallSizes) -> dict[str, Any]:
        config = super().small_config(vocabulary, sizes)
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": sizes.intermediate_size // 2}
        config["text_config"] |= experts
        return config

    def packed_attention_class(self) -> type | None:
        from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeVisionAttention

        return Qwen3VLMoeVisionAttention


__all__ = ["Qwen3VLFamily", "Qwen3VLMoeFamily"]
