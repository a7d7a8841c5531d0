# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Qwen2.5-VL: as Qwen2-VL, with the temporal axis in seconds; the windows of its tower are the tower's own affair."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig

from .family_plume import Film, MediaSpan, SmallSizes
from .family_qwen2_vl_plume import Qwen2VLFamily

if TYPE_CHECKING:
    from .processing_plume import PlumeProcessor


class Qwen25VLFamily(Qwen2VLFamily):
    """`model_type` "qwen2_5_vl"."""

    model_type = "qwen2_5_vl"
    position_advances = ("max_hw",)
    sees_times = True

    def small_vision_config(self, sizes: SmallSizes) -> dict[str, Any]:
        return {
            "depth": sizes.vision_depth,
            "hidden_size": sizes.vision_size,
            "intermediate_size": 4 * sizes.vision_size,
            "num_heads": sizes.vision_heads or sizes.vision_size // 32,
            "out_hidden_size": sizes.hidden_size,
            "patch_size": self.patch_size,
            "temporal_patch_size": sizes.temporal_patch_size,
            "window_size": 4 * self.patch_size,
            "fullatt_block_indexes": [sizes.vision_depth - 1],
            "tokens_per_second": 2,
            "initializer_range": sizes.initializer_range,
        }

    def packed_attention_class(self) -> type | None:
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionAttention

        return Qwen2_5_VLVisionAttention

    def settings(self, config: PreTrainedConfig) -> dict[str, Any]:
        return {"tokens_per_second": config.vision_config.tokens_per_second}

    def film_span(self, processor: "PlumeProcessor", film: Film, grid: tuple[int, int, int]) -> MediaSpan:
        """The t of a film stand `tokens_per_second` positions a second apart, at the rate of its frames."""
        span = super().film_span(processor, film, grid)
        seconds = processor.video_processor.temporal_patch_size / film.fps
        step = processor.backbone_settings["tokens_per_second"] * seconds
        return replace(span, blocks=[replace(block, time_step=step) for block in span.blocks])


__all__ = ["Qwen25VLFamily"]
