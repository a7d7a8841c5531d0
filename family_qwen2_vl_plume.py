# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Qwen2-VL: patches of any grid, three axes of positions, a film as one block. The other Qwen families build on it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from .family_plume import (
    BackboneFamily,
    Film,
    MediaSpan,
    SmallSizes,
    VisionBlock,
    mrope_positions,
    runs_match,
    small_text_config,
)

if TYPE_CHECKING:
    from .processing_plume import PlumeProcessor


class Qwen2VLFamily(BackboneFamily):
    """`model_type` "qwen2_vl"."""

    model_type = "qwen2_vl"
    image_token, video_token = "<|image_pad|>", "<|video_pad|>"
    image_placeholder = f"<|vision_start|>{image_token}<|vision_end|>"
    video_placeholder = f"<|vision_start|>{video_token}<|vision_end|>"
    media_arguments = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
    position_advances = ("max_hw", "max_thw")
    # New tokens start as copies of tokens that the backbone was trained with (paper, training data).
    token_donors = {
        "<disc_emb>": "<|object_ref_start|>",
        "<bot>": "<|object_ref_start|>",
        "<gen_emb>": "<|object_ref_end|>",
        "<eot>": "<|object_ref_end|>",
        "<ct>": "<|object_ref_end|>",
    }
    # What the first releases' own files say.
    image_size = {"shortest_edge": 3136, "longest_edge": 12845056}
    video_size = image_size
    pixel_statistics: dict[str, list[float]] = {}
    patch_size = 14
    video_processor_class: type = Qwen2VLVideoProcessor

    # The model

    def small_config(self, vocabulary: dict[str, int], sizes: SmallSizes) -> dict[str, Any]:
        text = small_text_config(f"{self.model_type}_text", vocabulary, sizes)
        head_size = sizes.hidden_size // text["num_attention_heads"]
        text["rope_parameters"] |= self.mrope_sections(head_size)
        return {
            "model_type": self.model_type,
            "image_token_id": vocabulary[self.image_token],
            "video_token_id": vocabulary[self.video_token],
            "vision_start_token_id": vocabulary["<|vision_start|>"],
            "vision_end_token_id": vocabulary["<|vision_end|>"],
            "tie_word_embeddings": True,
            "text_config": text,
            "vision_config": self.small_vision_config(sizes),
        }

    def mrope_sections(self, head_size: int) -> dict[str, Any]:
        """The temporal, height and width share of a head's rotary embedding."""
        return {"mrope_section": [head_size // 8, 3 * head_size // 16, 3 * head_size // 16]}

    def small_vision_config(self, sizes: SmallSizes) -> dict[str, Any]:
        """Of a small tower."""
        return {
            "depth": sizes.vision_depth,
            "embed_dim": sizes.vision_size,
            "num_heads": sizes.vision_heads or sizes.vision_size // 32,
            "hidden_size": sizes.hidden_size,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": sizes.temporal_patch_size,
            "initializer_range": sizes.initializer_range,
        }

    def vision_modules(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.visual]

    def merger_modules(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.visual.merger]

    def packed_attention_class(self) -> type | None:
        from transformers.models.qwen2_vl.modeling_qwen2_vl import VisionAttention

        return VisionAttention

    def media_checks(
        self, config: PreTrainedConfig, input_ids: torch.Tensor, media: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        merge, checks = config.vision_config.spatial_merge_size, {}
        for kind, pixels, grid, token_id in (
            ("image", "pixel_values", "image_grid_thw", config.image_token_id),
            ("video", "pixel_values_videos", "video_grid_thw", config.video_token_id),
        ):
            if (pixels in media) != (grid in media):
                raise ValueError(
                    f"{pixels} and {grid} come together, got only one of them; pass the whole batch: "
                    "model(**processor(items))."
                )
            message = (
                f"The {kind} placeholders of the rows and the {kind}s of the batch do not match in number or size; "
                f"pass the whole batch: model(**processor(items)), and slice {pixels} and {grid} together with the "
                "rows."
            )
            is_placeholder = input_ids == token_id
            if grid not in media:
                checks[message] = ~is_placeholder.any()
                continue
            grids = media[grid]
            num_runs = self.runs_of(grids)
            good = runs_match(is_placeholder, num_runs, grids.prod(dim=-1) // merge**2 // num_runs)
            checks[message] = good & (grids.prod(dim=-1).sum() == len(media[pixels]))
        return checks

    def runs_of(self, grids: torch.Tensor) -> torch.Tensor:
        """How many runs of placeholders each image or film of `grids` [M, 3] has: [M]."""
        return torch.ones_like(grids[:, 0])

    def missing_features(self, backbone: nn.Module, given: Sequence[str]) -> list[torch.Tensor]:
        vision = backbone.config.vision_config
        side = vision.spatial_merge_size
        size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        features = []
        for pixels in ("pixel_values", "pixel_values_videos"):
            if pixels not in given:
                blank = torch.zeros(side * side, size, device=backbone.device)
                grid = torch.tensor([[1, side, side]], device=backbone.device)
                features += self.tower_outputs(backbone, blank, grid)
        return features

    def tower_outputs(self, backbone: nn.Module, pixels: torch.Tensor, grid: torch.Tensor) -> list[torch.Tensor]:
        """All that the tower hands to the language model."""
        return list(backbone.get_image_features(pixels, grid).pooler_output)

    # Positions

    def prefix_positions(self, is_visual: list[bool], blocks: list[VisionBlock], advance: str) -> torch.Tensor:
        return mrope_positions(is_visual, blocks, advance)

    # The processor

    def picture(
        self, processor: "PlumeProcessor", image: Image.Image, options: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        pixels = processor.image_processor(images=[image], return_tensors="pt", **options)
        tensors = {name: pixels[name] for name in ("pixel_values", "image_grid_thw")}
        return tensors, self.image_span(processor, self.tokens_of(processor, tensors["image_grid_thw"]))

    def film(
        self, processor: "PlumeProcessor", film: Film, options: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        film = self.prepare_film(processor, film)
        # The frames are chosen already; the pixel cap is the limit of `size`.
        options = {"do_sample_frames": False, "cap_pixels_per_frame": False, **options}
        pixels = processor.video_processor(videos=[film.frames], return_tensors="pt", **options)
        tensors = {name: pixels[name] for name in ("pixel_values_videos", "video_grid_thw")}
        return tensors, self.film_span(processor, film, self.tokens_of(processor, tensors["video_grid_thw"]))

    def tokens_of(self, processor: "PlumeProcessor", grid: torch.Tensor) -> tuple[int, int, int]:
        """A grid [1, 3] of patches -> t, h and w in tokens."""
        t, h, w = grid[0].tolist()
        merge = processor.image_processor.merge_size
        return t, h // merge, w // merge

    def prepare_film(self, processor: "PlumeProcessor", film: Film) -> Film:
        """The film as the video processor takes it."""
        return film

    def image_span(self, processor: "PlumeProcessor", grid: tuple[int, int, int]) -> MediaSpan:
        """An image of t x h x w = `grid` tokens."""
        token_id = processor.image_token_id
        t, h, w = grid
        return MediaSpan(token_id, [token_id] * (t * h * w), [VisionBlock(t, h, w)])

    def film_span(self, processor: "PlumeProcessor", film: Film, grid: tuple[int, int, int]) -> MediaSpan:
        """A film of t x h x w = `grid` tokens."""
        token_id = processor.video_token_id
        t, h, w = grid
        return MediaSpan(token_id, [token_id] * (t * h * w), [VisionBlock(t, h, w)])

    def size_after_resizing(
        self, processor: "PlumeProcessor", size: tuple[int, int], num_frames: int | None
    ) -> tuple[int, int]:
        limits = processor.image_processor if num_frames is None else processor.video_processor
        least, most = self.pixel_limits(limits, num_frames)
        return smart_resize(*size, factor=limits.patch_size * limits.merge_size, min_pixels=least, max_pixels=most)

    def make_processors(self, config: PreTrainedConfig) -> tuple[Any, Any]:
        vision = config.vision_config
        sizes = {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
            **self.pixel_statistics,
        }
        return (
            Qwen2VLImageProcessor(size=dict(self.image_size), **sizes),
            self.video_processor_class(size=dict(self.video_size), **sizes),
        )

    def small_processors(self, side: int, max_side: int | None, temporal_patch_size: int) -> tuple[Any, Any]:
        picture = {"shortest_edge": side * side, "longest_edge": (max_side or side) ** 2}
        sizes = {"patch_size": self.patch_size, "temporal_patch_size": temporal_patch_size, **self.pixel_statistics}
        return (
            Qwen2VLImageProcessor(size=picture, **sizes),
            self.video_processor_class(size=self.small_film_size(side), **sizes),
        )

    def small_film_size(self, side: int) -> dict[str, int]:
        """Limits that bring every frame to about `side` x `side` pixels."""
        return {"shortest_edge": side * side, "longest_edge": side * side}

    def num_visual_tokens(
        self, processor: "PlumeProcessor", size: tuple[int, int] | None, num_frames: int | None
    ) -> float:
        limits = processor.image_processor if num_frames is None else processor.video_processor
        least, most = self.pixel_limits(limits, num_frames)
        pixels = most if size is None else min(max(size[0] * size[1], least), most)
        times = 1 if num_frames is None else num_frames / limits.temporal_patch_size
        return pixels * times / (limits.patch_size * limits.merge_size) ** 2

    def pixel_limits(self, limits: Any, num_frames: int | None) -> tuple[float, float]:
        """Least and most pixels of a picture, or of a frame of a film, by the library's odd names for them.

        `min_pixels` and `max_pixels`, deprecated, stand above `size` where they are set and the library reads them.
        """
        read = limits.valid_kwargs.__annotations__
        older = {name: value for name, value in vars(limits).items() if name in read and value is not None}
        size = limits.size
        return older.get("min_pixels", size["shortest_edge"]), older.get("max_pixels", size["longest_edge"])

    def describe_limits(self, processor: "PlumeProcessor") -> str:
        _, most = self.pixel_limits(processor.image_processor, None)
        return f"Pictures are scaled to at most {most:,} pixels"


__all__ = ["Qwen2VLFamily"]
