# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""FastVLM: a convolutional tower of timm, a fixed number of tokens a picture, ordinary positions.

A film is a run of pictures. Beside the library's projector (two linear layers) there is one of semantic tokens, see
[`SemanticProjector`]; which of them a model has stands in its config and travels with it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, CLIPImageProcessor, LlavaOnevisionVideoProcessor, PreTrainedConfig

from .family_plume import BackboneFamily, Film, MediaSpan, SmallSizes, VisionBlock, small_text_config
from .semantic_tokens_plume import PlumeFastVlmConfig, PlumeFastVlmModel

if TYPE_CHECKING:
    from .processing_plume import PlumeProcessor


_SMALL_SIDE = 64  # pixels of a small model's pictures: 2 x 2 tokens
# What a frame of a film must be brought into as a picture is.
_PIXEL_SETTINGS = ("do_resize", "size", "resample", "do_center_crop", "crop_size")
_PIXEL_SETTINGS += ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_convert_rgb")


class FastVlmFamily(BackboneFamily):
    """`model_type` "fast_vlm"."""

    model_type = "fast_vlm"
    image_token = video_token = image_placeholder = video_placeholder = "<image>"
    media_arguments = ("pixel_values",)
    media_counts = {"num_images_per_sample": "pixel_values"}  # the frames of a film are pictures
    # Qwen2's tokenizer, on which FastVLM builds, has no other tokens that were trained.
    token_donors = {
        "<disc_emb>": "<|im_start|>",
        "<bot>": "<|im_start|>",
        "<gen_emb>": "<|im_end|>",
        "<eot>": "<|im_end|>",
        "<ct>": "<|im_end|>",
    }

    # The model

    control_tokens = ("<image>",)
    backbone_class = PlumeFastVlmModel

    def make_config(self, values: dict[str, Any]) -> PreTrainedConfig:
        return PlumeFastVlmConfig(**values)

    def build(self, config: PreTrainedConfig) -> nn.Module:
        return PlumeFastVlmModel._from_config(config)

    def small_config(self, vocabulary: dict[str, int], sizes: SmallSizes) -> dict[str, Any]:
        return {
            "model_type": self.model_type,
            "image_token_index": vocabulary[self.image_token],
            "image_seq_length": (_SMALL_SIDE // 32) ** 2,
            "tie_word_embeddings": True,
            "text_config": small_text_config("qwen2", vocabulary, sizes),
            "vision_config": {
                "model_type": "timm_wrapper",
                "architecture": "test_efficientnet",
                "do_pooling": False,
                "hidden_size": 256,
                "initializer_range": sizes.initializer_range,
            },
        }

    def vision_modules(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.vision_tower, backbone.multi_modal_projector]

    def merger_modules(self, backbone: nn.Module) -> list[nn.Module]:
        return backbone.merger_modules()

    def media_checks(
        self, config: PreTrainedConfig, input_ids: torch.Tensor, media: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        per_row = (input_ids == config.image_token_id).sum(dim=1)  # [B]
        pictures = len(media["pixel_values"]) if media else 0
        whole = (per_row % config.image_seq_length == 0).all()
        message = (
            "The picture placeholders of the rows and the pictures of the batch do not match in number; pass the whole "
            "batch: model(**processor(items)), and slice pixel_values together with the rows."
        )
        return {message: whole & (per_row.sum() == pictures * config.image_seq_length)}

    def missing_features(self, backbone: nn.Module, given: Sequence[str]) -> list[torch.Tensor]:
        if "pixel_values" in given:
            return []
        blank = torch.zeros(1, 3, 64, 64, device=backbone.device)  # a convolutional tower takes any size
        return [backbone.get_image_features(blank).pooler_output]

    # Positions

    def prefix_positions(self, is_visual: list[bool], blocks: list[VisionBlock], advance: str) -> torch.Tensor:
        return torch.arange(len(is_visual)).expand(3, -1)

    def to_backbone_positions(self, position_ids: torch.Tensor) -> torch.Tensor:
        return position_ids[:, 0]  # all axes are the same

    # The processor

    def settings(self, config: PreTrainedConfig) -> dict[str, Any]:
        return {"tokens_per_picture": config.image_seq_length}

    def picture(
        self, processor: "PlumeProcessor", image: Image.Image, options: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        _refuse_sizes(options)
        pixels = processor.image_processor(images=[image], return_tensors="pt", **options)["pixel_values"]
        return self._pictures(processor, pixels)

    def film(
        self, processor: "PlumeProcessor", film: Film, options: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        _refuse_sizes(options)
        options = {"do_sample_frames": False, **options}
        pixels = processor.video_processor(videos=[film.frames], return_tensors="pt", **options)
        return self._pictures(processor, pixels["pixel_values_videos"][0])

    def _pictures(self, processor: "PlumeProcessor", pixels: torch.Tensor) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        token_id, count = processor.image_token_id, processor.backbone_settings["tokens_per_picture"]
        return {"pixel_values": pixels}, MediaSpan(token_id, [token_id] * (count * len(pixels)))

    def size_after_resizing(
        self, processor: "PlumeProcessor", size: tuple[int, int], num_frames: int | None
    ) -> tuple[int, int]:
        wanted = (processor.image_processor if num_frames is None else processor.video_processor).size
        if "height" in wanted:
            return wanted["height"], wanted["width"]
        edge, short, long = wanted["shortest_edge"], min(size), max(size)
        return (edge, int(edge * long / short)) if size[0] <= size[1] else (int(edge * long / short), edge)

    def load_processors(self, source: str | Path) -> tuple[Any, Any]:
        image_processor = AutoImageProcessor.from_pretrained(source)
        same = {name: value for name, value in image_processor.to_dict().items() if name in _PIXEL_SETTINGS}
        return image_processor, LlavaOnevisionVideoProcessor(**same)

    def make_processors(self, config: PreTrainedConfig) -> tuple[Any, Any]:
        raise ValueError("A fast_vlm folder needs its preprocessor_config.json: its pixels have no one convention.")

    def small_processors(self, side: int, max_side: int | None, temporal_patch_size: int) -> tuple[Any, Any]:
        return picture_processors(_SMALL_SIDE, mean=127, std=128)

    def num_visual_tokens(
        self, processor: "PlumeProcessor", size: tuple[int, int] | None, num_frames: int | None
    ) -> float:
        return processor.backbone_settings["tokens_per_picture"] * (1 if num_frames is None else num_frames)

    def describe_limits(self, processor: "PlumeProcessor") -> str:
        size = processor.image_processor.crop_size or processor.image_processor.size
        return f"Every picture and every frame is brought to {size['width']} x {size['height']} pixels"


def _refuse_sizes(options: dict[str, Any]) -> None:
    given = sorted(options.keys() & {"size", "crop_size", "do_resize", "do_center_crop"})
    if given:
        raise ValueError(
            f"Every picture of fast_vlm has one size, so {', '.join(given)} cannot be chosen; leave it out."
        )


def picture_processors(side: int, mean: float, std: float, keeps_all: bool = True) -> tuple[Any, Any]:
    """Image and video processor that bring pictures and frames to `side` x `side` pixels, bicubic, (x - mean) / std.

    Args:
        mean, std (`float`): Of pixel values in 0..255, alike for the three colours: 127 and 128 for EfficientNet-Lite.
        keeps_all (`bool`): Whether a picture is squeezed into the square, so that nothing of it is lost; else its
            middle is cut out, as ImageNet's evaluation does.
    """
    settings = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "image_mean": [mean / 255] * 3,
        "image_std": [std / 255] * 3,
        "resample": 3,  # bicubic
        "size": {"height": side, "width": side} if keeps_all else {"shortest_edge": side},
        "do_center_crop": not keeps_all,
        "crop_size": {"height": side, "width": side},
    }
    return CLIPImageProcessor(**settings), LlavaOnevisionVideoProcessor(**settings)


__all__ = ["FastVlmFamily", "picture_processors"]
