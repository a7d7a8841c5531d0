"""Random models and batches of exact sizes, straight on the device: speed does not depend on what the weights say."""

import torch

from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.family_plume import VisionBlock
from plume_embed.model.modeling_plume import PlumeModel

KINDS = ("text", "image", "video")
FIRST_TEXT_ID = 16  # below are the control tokens
_IDS = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}
_ANCHOR, _SLT, _ELT, _GEN, _THINK_END, _LINE_END = 5, 6, 7, 8, 9, 10

# Text: hidden, layers, inner, heads, key heads, vocabulary. Vision: depth, width, heads. Both as in config.json.
SHAPES = {
    "12x512": {
        "text": (512, 12, 2048, 8, 2, 32_000),
        "vision": (2, 128, 4),
        "sections": [8, 12, 12],
    },
    "2b": {
        "text": (1536, 28, 8960, 12, 2, 151_936),
        "vision": (32, 1280, 16),
        "sections": [16, 24, 24],
    },
    "test": {
        "text": (64, 2, 96, 4, 2, 500),
        "vision": (1, 32, 1),
        "sections": [2, 3, 3],
    },
}


def random_model(shape: str, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> PlumeModel:
    """A PLUME model of one of `SHAPES` with random weights, made on the device, in eval mode."""
    hidden, layers, inner, heads, key_heads, vocabulary = SHAPES[shape]["text"]
    depth, width, vision_heads = SHAPES[shape]["vision"]
    text_config = {
        "model_type": "qwen2_vl_text",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": SHAPES[shape]["sections"]},
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "tie_word_embeddings": True,
    }
    vision_config = {"depth": depth, "embed_dim": width, "num_heads": vision_heads, "hidden_size": hidden}
    backbone = {"model_type": "qwen2_vl", **_IDS, "tie_word_embeddings": True}
    backbone |= {"text_config": text_config, "vision_config": {**vision_config, "mlp_ratio": 4}}
    config = PlumeConfig(
        backbone_config=backbone,
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
    """Inputs of `model` on its device: `batch` rows of `prefix` tokens with one image or video each, or text only.

    Args:
        lengths (`list[int]`, *optional*): Shorter rows, padded on the left; for text only.
    """
    generator = torch.Generator().manual_seed(seed)
    config, vision = model.config.backbone_config, model.config.backbone_config.vision_config
    vocabulary = model.config.get_text_config().vocab_size
    media, grids, blocks = [], [], []
    if kind != "text":
        frames, height, width = media_grid(kind, prefix)
        token = _IDS[f"{kind}_token_id"]
        media = [_IDS["vision_start_token_id"], *[token] * (frames * height * width), _IDS["vision_end_token_id"]]
        grids = [[frames, height * vision.spatial_merge_size, width * vision.spatial_merge_size]]
        blocks = [VisionBlock(frames, height, width)]
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
        is_visual = [token in (config.image_token_id, config.video_token_id) for token in tokens]
        advance = model.config.vision_position_advance
        positions[row, :, -length:] = model.family.prefix_positions(is_visual, blocks, advance)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    if grids:
        grid = torch.tensor(grids * batch)
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        pixels = torch.randn(int(grid.prod(dim=1).sum()), patch, generator=generator).to(model.dtype)
        names = ("pixel_values", "image_grid_thw") if kind == "image" else ("pixel_values_videos", "video_grid_thw")
        inputs |= dict(zip(names, (pixels, grid), strict=True))
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}
