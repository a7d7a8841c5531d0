# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""The seam between backbones: what a family of backbones says about itself, and nothing else asks for.

    prompt      image_placeholder, video_placeholder; picture, film -> pixels, and token ids as a [`MediaSpan`]
    positions   prefix_positions [3, L], and their layout for the backbone
    model       build, media_arguments, media_checks, vision_modules, merger_modules
    files       token_donors, make_processors, settings, refusal

A family is one file with one class like the ones beside this file, and one line in families_plume.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoVideoProcessor, PreTrainedConfig

if TYPE_CHECKING:
    from .processing_plume import PlumeProcessor


@dataclass(frozen=True)
class VisionBlock:
    """One run of visual tokens: t x h x w of them, in that order.

    Args:
        t, h, w (`int`): Extents in tokens.
        time_step (`float`): Positions from one of the t to the next on the temporal axis, before rounding down.
    """

    t: int
    h: int
    w: int
    time_step: float = 1.0


@dataclass(frozen=True)
class MediaSpan:
    """What one media placeholder of the prompt becomes.

    Args:
        placeholder_id (`int`): The token that stands for it in the prompt.
        ids (`list[int]`): The tokens that take its place, the visual ones among them.
        blocks (`list[VisionBlock]`): The runs of visual tokens in `ids`, in order.
    """

    placeholder_id: int
    ids: list[int]
    blocks: list[VisionBlock] = field(default_factory=list)


@dataclass(frozen=True)
class Film:
    """A decoded video.

    Args:
        frames (`torch.Tensor` of shape [T, 3, H, W]): uint8.
        times (`tuple[float, ...]`): When each frame is shown, in seconds from the start.
        fps (`float`): Frames a second, by the time between one and the next.
    """

    frames: torch.Tensor
    times: tuple[float, ...]
    fps: float


@dataclass(frozen=True)
class SmallSizes:
    """What a small random backbone is asked to be, as far as its kind allows.

    Args:
        hidden_size, layers, intermediate_size (`int`): Of the language model.
        vision_size, vision_depth (`int`): Of the tower, where it has them to choose.
        initializer_range (`float`): Standard deviation of the weights.
        temporal_patch_size (`int`): Frames of a film that share their visual tokens.
        heads, key_value_heads, vision_heads (`int`, *optional*): By default as the sizes suggest.
    """

    hidden_size: int
    layers: int
    intermediate_size: int
    vision_size: int
    vision_depth: int
    initializer_range: float
    temporal_patch_size: int = 2
    heads: int | None = None
    key_value_heads: int | None = None
    vision_heads: int | None = None


class BackboneFamily:
    """What differs between backbones. Subclasses set the attributes and override what is not as here.

    Attributes:
        model_type: `backbone_config.model_type`.
        image_placeholder, video_placeholder: What the chat template writes for an image and for a video.
        image_token, video_token: The token in them that a [`MediaSpan`] takes the place of.
        media_arguments: Keyword arguments of the backbone's forward that carry media, all optional.
        media_counts: What sentence-transformers cuts the media of a batch by -> the media argument that it is the
            length of in each row.
        position_advances: Values of `vision_position_advance` that there are.
        token_donors: New token -> the token of the backbone's tokenizer whose embedding it starts from.
        control_tokens: Tokens of small tokenizers made for this family, beside those that all Qwen models have.
        backbone_class: Whose `from_pretrained` reads the backbone of a checkpoint, without its head.
        reads_all_weights: Whether a pass reads every weight of the decoder; not where tokens choose among experts.
        sees_times: Whether it matters when the frames of a film are shown, or their order alone.
    """

    model_type: str
    image_placeholder: str
    video_placeholder: str
    image_token: str
    video_token: str
    media_arguments: tuple[str, ...]
    media_counts: dict[str, str] = {
        "num_images_per_sample": "image_grid_thw",
        "num_videos_per_sample": "video_grid_thw",
    }
    position_advances: tuple[str, ...] = ("max_hw",)
    token_donors: dict[str, str]
    control_tokens: tuple[str, ...] = ()
    backbone_class: type = AutoModel
    reads_all_weights: bool = True
    sees_times: bool = False

    # The model

    def make_config(self, values: dict[str, Any]) -> PreTrainedConfig:
        """The backbone's config from plain values."""
        return AutoConfig.for_model(**values)

    def build(self, config: PreTrainedConfig) -> nn.Module:
        """The backbone without its language-modelling head, with new weights."""
        return AutoModel.from_config(config)

    def small_config(self, vocabulary: dict[str, int], sizes: SmallSizes) -> dict[str, Any]:
        """Plain values of a small backbone's config, to be made with random weights.

        Args:
            vocabulary (`dict`): Token -> id, of the tokenizer.
        """
        raise NotImplementedError

    def ties_embeddings(self, config: PreTrainedConfig) -> bool:
        """Whether the output embedding is the input embedding."""
        return config.tie_word_embeddings

    def vision_modules(self, backbone: nn.Module) -> list[nn.Module]:
        """What turns pixels into the language model's input, the merger included: what `freeze_vision` freezes."""
        raise NotImplementedError

    def merger_modules(self, backbone: nn.Module) -> list[nn.Module]:
        """The parts of [`vision_modules`] that join the two and are trained in any case."""
        raise NotImplementedError

    def packed_attention_class(self) -> type | None:
        """The tower's attention layer, where it runs over pictures laid end to end, told apart by `cu_seqlens`."""
        return None

    def media_checks(
        self, config: PreTrainedConfig, input_ids: torch.Tensor, media: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """What must hold between the rows and the media of a batch.

        Args:
            config: Of the backbone.
            input_ids (`torch.Tensor` of shape [B, L]): The rows.
            media: Those of `media_arguments` that there are.

        Returns:
            Message with the remedy -> bool tensor, on the device, so that one synchronisation serves all.

        Raises:
            ValueError: what can be seen without looking into a tensor.
        """
        raise NotImplementedError

    def missing_features(self, backbone: nn.Module, given: Sequence[str]) -> list[torch.Tensor]:
        """What the tower gives for one smallest blank picture, once for each call of the tower that a batch lacks.

        Args:
            given: Those of `media_arguments` that the batch has.
        """
        raise NotImplementedError

    # Positions

    def prefix_positions(self, is_visual: list[bool], blocks: list[VisionBlock], advance: str) -> torch.Tensor:
        """Positions [3, L] of one unpadded row: the temporal, height and width axes of multimodal RoPE.

        Args:
            is_visual (`list[bool]`): Which of the L tokens are visual ones.
            blocks (`list[VisionBlock]`): Their runs, in order.
            advance (`str`): `PlumeConfig.vision_position_advance`.
        """
        raise NotImplementedError

    def to_backbone_positions(self, position_ids: torch.Tensor) -> torch.Tensor:
        """[B, 3, L] as positions travel -> what the backbone and its rotary embedding take."""
        return position_ids.transpose(0, 1)

    # The processor

    def settings(self, config: PreTrainedConfig) -> dict[str, Any]:
        """What the processor has to know of the backbone's config; saved with the processor and compared on loading."""
        return {}

    def picture(
        self, processor: "PlumeProcessor", image: Image.Image, options: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        """One image -> `media_arguments`, to be concatenated in the order of the prompt, and its span.

        Args:
            image (`PIL.Image.Image`): RGB.
            options: For the image processor.
        """
        raise NotImplementedError

    def film(
        self, processor: "PlumeProcessor", film: Film, options: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], MediaSpan]:
        """As [`picture`]. The frames are chosen already.

        Args:
            film ([`Film`]): Its frames and their times.
            options: For the video processor.
        """
        raise NotImplementedError

    def size_after_resizing(
        self, processor: "PlumeProcessor", size: tuple[int, int], num_frames: int | None
    ) -> tuple[int, int]:
        """Height and width to which the library resizes a picture, or the frames of a film, of height x width = `size`.

        Args:
            num_frames (`int`, *optional*): `None` is a picture.
        """
        raise NotImplementedError

    def load_processors(self, source: str | Path) -> tuple[Any, Any]:
        """Image and video processor of a backbone's folder or Hub id."""
        return AutoImageProcessor.from_pretrained(source), AutoVideoProcessor.from_pretrained(source)

    def make_processors(self, config: PreTrainedConfig) -> tuple[Any, Any]:
        """Image and video processor for a folder that has none, as the backbone's first release had them."""
        raise NotImplementedError

    def small_processors(self, side: int, max_side: int | None, temporal_patch_size: int) -> tuple[Any, Any]:
        """Image and video processor of a small backbone, as far as its kind allows.

        Args:
            side, max_side (`int`): Pictures have between side^2 and max_side^2 pixels, frames of films about side^2.
            temporal_patch_size (`int`): As in [`SmallSizes`].
        """
        raise NotImplementedError

    def num_visual_tokens(
        self, processor: "PlumeProcessor", size: tuple[int, int] | None, num_frames: int | None
    ) -> float:
        """About how many tokens a picture has, or a film of `num_frames` frames.

        Args:
            size (`tuple[int, int]`, *optional*): Width and height in pixels; `None` where they are not known, which
                gives the most there can be.
            num_frames (`int`, *optional*): `None` is a picture.
        """
        raise NotImplementedError

    def describe_limits(self, processor: "PlumeProcessor") -> str:
        """How pictures are scaled, as a sentence without its full stop, for the model card."""
        raise NotImplementedError


def small_text_config(model_type: str, vocabulary: dict[str, int], sizes: SmallSizes) -> dict[str, Any]:
    """What the language models of all families have in their config, for a small one."""
    head_size = 48 if sizes.hidden_size % 48 == 0 else 64
    heads = sizes.heads or sizes.hidden_size // head_size
    return {
        "model_type": model_type,
        "vocab_size": len(vocabulary),
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": sizes.key_value_heads or max(1, heads // 2),
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "rms_norm_eps": 1e-6,
        "initializer_range": sizes.initializer_range,
        "bos_token_id": None,
        "eos_token_id": vocabulary["<|im_end|>"],
        "pad_token_id": vocabulary["<|endoftext|>"],
        "tie_word_embeddings": True,
    }


def mrope_positions(is_visual: list[bool], blocks: list[VisionBlock], advance: str) -> torch.Tensor:
    """M-RoPE positions [3, L] of one unpadded row, as the Qwen-VL families have them.

    Text tokens advance all axes by one. The tokens of a block share the position at its start, plus their coordinates
    (t, h, w) in it; after it, `advance` says how far the position has moved on.
    """
    remaining, runs, position, index = iter(blocks), [], 0, 0
    while index < len(is_visual):
        if is_visual[index]:
            block = next(remaining)
            axes = [torch.arange(extent) for extent in (block.t, block.h, block.w)]
            axes[0] = (axes[0] * block.time_step).long()
            runs.append(position + torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1))
            position += max(block.h, block.w) if advance == "max_hw" else max(block.t, block.h, block.w)
            index += block.t * block.h * block.w
            continue
        end = index
        while end < len(is_visual) and not is_visual[end]:
            end += 1
        runs.append((position + torch.arange(end - index)).expand(3, -1))
        position += end - index
        index = end
    return torch.cat(runs, dim=1)


def runs_match(is_placeholder: torch.Tensor, num_runs: torch.Tensor, run_length: torch.Tensor) -> torch.Tensor:
    """Whether the runs of placeholders are, in order, those of the media: bool tensor of no dimension.

    Args:
        is_placeholder (`torch.Tensor` of shape [B, L]): Where the placeholders are.
        num_runs (`torch.Tensor` of shape [M]): How many runs each medium has.
        run_length (`torch.Tensor` of shape [M]): How long each of its runs is.
    """
    count = is_placeholder.numel()
    starts = is_placeholder & ~F.pad(is_placeholder[:, :-1], (1, 0))  # [B, L], first token of each run
    run = (starts.flatten().cumsum(0) - 1).clamp(min=0)  # [B * L], index of the run that a token belongs to
    found = torch.zeros(count, dtype=torch.long, device=run.device)
    found.scatter_add_(0, run, is_placeholder.flatten().long())  # length of the i-th run, 0 where there is none
    medium = torch.searchsorted(num_runs.cumsum(0), torch.arange(count, device=run.device), right=True)
    expected = F.pad(run_length, (0, 1))[medium]  # [B * L]
    return (found == expected).all() & (num_runs.sum() <= count)


__all__ = [
    "BackboneFamily",
    "Film",
    "MediaSpan",
    "SmallSizes",
    "VisionBlock",
    "mrope_positions",
    "runs_match",
    "small_text_config",
]
