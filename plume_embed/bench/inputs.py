"""Random models and batches of exact sizes, straight on the device: speed does not depend on what the weights say."""

import math
from typing import Any

import torch

from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.families_plume import backbone_family
from plume_embed.model.family_plume import SmallSizes, VisionBlock
from plume_embed.model.modeling_plume import PlumeModel

KINDS = ("text", "image", "video")
FIRST_TEXT_ID = 16  # below are the control tokens
_CONTROL_TOKENS = {"<|image_pad|>": 1, "<|video_pad|>": 2, "<|vision_start|>": 3, "<|vision_end|>": 4, "<image>": 1}
_CONTROL_TOKENS |= {"<|im_end|>": 11, "<|endoftext|>": 12}
_ANCHOR, _SLT, _ELT, _GEN, _THINK_END, _LINE_END = 5, 6, 7, 8, 9, 10
_STRIDE = 32  # of a convolutional tower: pixels of a picture's side for one token

# The vocabulary, and sizes with an initializer of 0.02. A tower of timm has its own.
SHAPES = {
    "12x512": (32_000, SmallSizes(512, 12, 2048, 128, 2, 0.02, heads=8, key_value_heads=2, vision_heads=4)),
    "2b": (151_936, SmallSizes(1536, 28, 8960, 1280, 32, 0.02, heads=12, key_value_heads=2, vision_heads=16)),
    "test": (500, SmallSizes(64, 2, 96, 32, 1, 0.02, heads=4, key_value_heads=2, vision_heads=1)),
}


def random_model(
    shape: str, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0, family: str = "qwen2_vl"
) -> PlumeModel:
    """A PLUME model of one of `SHAPES` with random weights, made on the device, in eval mode.

    Args:
        family (`str`): Model type of the backbone.
    """
    vocabulary_size, sizes = SHAPES[shape]
    vocabulary = _CONTROL_TOKENS | {f"token {index}": index for index in range(vocabulary_size - len(_CONTROL_TOKENS))}
    config = PlumeConfig(
        backbone_config=backbone_family(family).small_config(vocabulary, sizes),
        anchor_token_id=_ANCHOR,
        latent_start_token_id=_SLT,
        latent_end_token_id=_ELT,
        embedding_token_id=_GEN,
        suffix_token_ids=[_ELT, _THINK_END, _LINE_END, _LINE_END, _GEN],
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return PlumeModel(config).eval()
    finally:
        torch.set_default_dtype(before)


def media_grid(kind: str, prefix: int) -> tuple[int, int, int]:
    """(t, h, w) in merged patches, about 70 % of the prefix: 480 tokens of 700."""
    frames, width = (1, 24) if kind == "image" else (4, 12)
    return frames, max(1, int(0.7 * prefix) // (frames * width)), width


def random_batch(
    model: PlumeModel, batch: int, prefix: int, kind: str = "text", seed: int = 0, lengths: list[int] | None = None
) -> dict[str, torch.Tensor]:
    """Inputs of `model` on its device: `batch` rows of `prefix` tokens, text only or with media in about 70 % of them.

    Args:
        lengths (`list[int]`, *optional*): Shorter rows, padded on the left; for text only.
    """
    generator = torch.Generator().manual_seed(seed)
    vocabulary = model.config.get_text_config().vocab_size
    media, blocks, tensors = [], [], {}
    if kind != "text" and "image_grid_thw" in model.family.media_arguments:
        media, blocks, tensors = _patches(model, batch, prefix, kind, generator)
    elif kind != "text":
        media, tensors = _pictures(model, batch, prefix, generator)
    ids = torch.zeros(batch, prefix, dtype=torch.long)
    mask = torch.zeros(batch, prefix, dtype=torch.long)
    positions = torch.zeros(batch, 3, prefix, dtype=torch.long)
    for row, length in enumerate(lengths or [prefix] * batch):
        free = length - len(media) - 2
        if free < 1:
            raise ValueError(f"A prefix of {length} tokens has no room for {len(media)} tokens of {kind}.")
        text = torch.randint(FIRST_TEXT_ID, vocabulary, (free,), generator=generator).tolist()
        tokens = [*media, *text[: free // 2], _ANCHOR, *text[free // 2 :], _SLT]
        ids[row, -length:], mask[row, -length:] = torch.tensor(tokens), 1
        is_visual = [token in (_CONTROL_TOKENS["<|image_pad|>"], _CONTROL_TOKENS["<|video_pad|>"]) for token in tokens]
        advance = model.config.vision_position_advance
        positions[row, :, -length:] = model.family.prefix_positions(is_visual, blocks, advance)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **tensors}
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def _patches(
    model: PlumeModel, batch: int, prefix: int, kind: str, generator: torch.Generator
) -> tuple[list[int], list[VisionBlock], dict[str, torch.Tensor]]:
    """One image or film a row, as patches and grids: its tokens, their blocks, and the tensors of all rows."""
    family: Any = model.family  # one whose media are patches and grids
    vision = model.config.backbone_config.vision_config
    frames, height, width = media_grid(kind, prefix)
    grid = torch.tensor([[frames, height * vision.spatial_merge_size, width * vision.spatial_merge_size]])
    runs = int(family.runs_of(grid))  # a film may have one for each block of frames
    block = VisionBlock(frames // runs, height, width)
    start, end = _CONTROL_TOKENS["<|vision_start|>"], _CONTROL_TOKENS["<|vision_end|>"]
    run = [start, *[_CONTROL_TOKENS[f"<|{kind}_pad|>"]] * (block.t * height * width), end]
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.randn(batch * int(grid.prod()), patch, generator=generator).to(model.dtype)
    names = ("pixel_values", "image_grid_thw") if kind == "image" else ("pixel_values_videos", "video_grid_thw")
    return run * runs, [block] * runs, dict(zip(names, (pixels, grid.repeat(batch, 1)), strict=True))


def _pictures(
    model: PlumeModel, batch: int, prefix: int, generator: torch.Generator
) -> tuple[list[int], dict[str, torch.Tensor]]:
    """Pictures of one size, or frames of a film, as many as fit: the tokens of a row, and the pixels of all rows."""
    config = model.config.backbone_config
    count, side = max(1, int(0.7 * prefix) // config.image_seq_length), _STRIDE * math.isqrt(config.image_seq_length)
    pixels = torch.randn(batch * count, 3, side, side, generator=generator).to(model.dtype)
    return [config.image_token_id] * (count * config.image_seq_length), {"pixel_values": pixels}
