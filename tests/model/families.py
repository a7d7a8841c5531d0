"""A tiny random model of every family in the real layout, and a reference that caches nothing and knows no family."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from common import naive_adapter

from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.families_plume import FAMILIES
from plume_embed.model.family_fast_vlm_plume import picture_processors
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.model.prompt_plume import build_chat_template
from plume_embed.training.small_model import train_tokenizer

SIDE = 64  # of fast_vlm's pictures: 2 x 2 tokens
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
INTERLEAVED = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
QWEN3_TEXT = {"head_dim": 16, "rope_parameters": INTERLEAVED}
QWEN3_VISION = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 16,
    "out_hidden_size": 64,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0, 1],
    "initializer_range": 0.1,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
BACKBONES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "text_config": TEXT | {"rope_parameters": MROPE},
        "vision_config": {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64, "initializer_range": 0.1},
    },
    "qwen2_5_vl": {
        "text_config": TEXT | {"rope_parameters": MROPE},
        "vision_config": {
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "initializer_range": 0.1,
        },
    },
    "qwen3_vl": {"text_config": TEXT | QWEN3_TEXT, "vision_config": QWEN3_VISION},
    "qwen3_vl_moe": {"text_config": TEXT | QWEN3_TEXT | MOE, "vision_config": QWEN3_VISION},
    "fast_vlm": {
        "text_config": TEXT | {"model_type": "qwen2"},
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "test_efficientnet",
            "do_pooling": False,
            "hidden_size": 256,
        },
        "image_seq_length": 4,
    },
    "fast_vlm semantic": {"semantic_classes": 20, "semantic_table_size": 24},
}
BACKBONES["fast_vlm semantic"] |= BACKBONES["fast_vlm"]
NAMES = list(BACKBONES)


@dataclass
class Tiny:
    """A model of `family` with its processor."""

    family: Any
    processor: PlumeProcessor
    model: PlumeModel


@cache
def tokenizer():
    """One that has every family's tokens."""
    made = train_tokenizer(["a red bicycle near the lake", "<0.5 seconds> 12,345 cats and dogs"] * 5, 560)
    made.add_tokens(["<image>"], special_tokens=True)
    return made


def config_of(name: str, is_tied: bool = True) -> dict[str, Any]:
    """The backbone's config as plain values."""
    vocabulary, values = tokenizer().get_vocab(), BACKBONES[name]
    model_type = name.split()[0]
    ids = {f"{kind}_token_id": vocabulary[f"<|{kind}_pad|>"] for kind in ("image", "video")}
    ids |= {f"vision_{end}_token_id": vocabulary[f"<|vision_{end}|>"] for end in ("start", "end")}
    if model_type == "fast_vlm":
        ids = {"image_token_index": vocabulary["<image>"]}
    text = {"vocab_size": len(vocabulary), **values["text_config"], "tie_word_embeddings": is_tied}
    return {"model_type": model_type, **values, "text_config": text, "tie_word_embeddings": is_tied, **ids}


def processor_of(name: str, **settings: Any) -> PlumeProcessor:
    """A processor whose pictures come to a few tokens."""
    model_type = name.split()[0]
    family, config = FAMILIES[model_type], PlumeConfig(backbone_config=config_of(name)).backbone_config
    if model_type == "fast_vlm":
        image_processor, video_processor = picture_processors(SIDE, mean=127, std=128)
    else:
        image_processor, video_processor = family.make_processors(config)
        image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 64 * 64}
        video_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 64 * 64 * (8 if "qwen3" in name else 1)}
    return PlumeProcessor(
        image_processor,
        tokenizer(),
        video_processor,
        chat_template=build_chat_template("Represent.", None, model_type),
        backbone_type=model_type,
        backbone_settings=family.settings(config),
        **settings,
    )


def make_tiny(name: str, is_tied: bool = True, **settings: Any) -> Tiny:
    """A model with weights from a fixed seed, in eval mode."""
    processor = processor_of(name)
    config = PlumeConfig(
        backbone_config=config_of(name, is_tied),
        suffix_token_ids=processor.suffix_token_ids(),
        **{"num_latent_steps": 3, **processor.special_token_ids(), **settings},
    )
    torch.manual_seed(0)
    model = PlumeModel(config).eval()
    with torch.no_grad():  # what the pixels say, biases, norms and what starts at zero shall count
        for module in model.backbone.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return Tiny(model.family, processor, model)


@cache
def tiny(name: str) -> Tiny:
    """[`make_tiny`], shared by all tests. Read only."""
    return make_tiny(name)


@torch.no_grad()
def library_positions(tiny: Tiny, batch: dict[str, torch.Tensor], **kwargs: Any) -> torch.Tensor:
    """What the library's own model would give one unpadded row: [3, 1, L], or [1, L] where positions have one axis."""
    backbone, ids = tiny.model.backbone, batch["input_ids"]
    if tiny.family.model_type == "fast_vlm":
        seen = []
        handle = backbone.language_model.rotary_emb.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["position_ids"] if kwargs else args[1]), with_kwargs=True
        )
        backbone.language_model(input_ids=ids)
        handle.remove()
        return seen[0]
    config = tiny.model.config.backbone_config
    types = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
    grids = {name: batch[name] for name in ("image_grid_thw", "video_grid_thw") if name in batch}
    return backbone.get_rope_index(ids, mm_token_type_ids=types, **grids, **kwargs)[0]


@torch.no_grad()
def naive_embedding(tiny: Tiny, batch: dict[str, torch.Tensor], num_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """PLUME once more for one row without padding: no cache, the whole backbone with all pixels again for every step.

    Returns:
        The embedding [D] and the latent states [K, D].
    """
    model, backbone = tiny.model, tiny.model.backbone
    media = {name: tensor for name, tensor in batch.items() if name in tiny.family.media_arguments}
    positions = tiny.family.to_backbone_positions(batch["position_ids"])  # compared with the library's elsewhere

    def hidden_states(sequence: torch.Tensor) -> torch.Tensor:
        after = positions[..., -1:] + 1 + torch.arange(sequence.shape[1] - positions.shape[-1])
        return backbone(
            inputs_embeds=sequence,
            attention_mask=torch.ones(sequence.shape[:2], dtype=torch.long),
            position_ids=torch.cat((positions, after), dim=-1),
            use_cache=False,
            **media,
        ).last_hidden_state[0]

    embed = backbone.get_input_embeddings()
    sequence = embed(batch["input_ids"])  # [1, L, D], the backbone finds the placeholders by their embedding
    hidden = hidden_states(sequence)
    anchor, z = hidden[batch["input_ids"][0].tolist().index(model.config.anchor_token_id)], hidden[-1]
    latents = []
    for step in range(1, num_steps + 1):
        refined = naive_adapter(model.adapter, z, anchor, step)
        sequence = torch.cat((sequence, refined[None, None]), dim=1)
        z = hidden_states(sequence)[-1]
        latents.append(z)
    suffix = embed(torch.tensor([model.config.suffix_token_ids]))
    return F.normalize(hidden_states(torch.cat((sequence, suffix), dim=1))[-1], dim=0), torch.stack(latents)
