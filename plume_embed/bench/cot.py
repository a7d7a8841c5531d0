"""What PLUME replaces: a rationale written out token by token with `generate`, over the same backbone and weights."""

from typing import Any

import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, PreTrainedModel

from plume_embed.model.families_plume import backbone_family
from plume_embed.model.modeling_plume import PlumeModel

NUM_TOKENS = 403  # the mean length of UME-R1's rationales (paper, table of inference costs)


def language_model(model: PlumeModel) -> PreTrainedModel:
    """The library's own generating model over the backbone of `model` and its output embedding; shares all weights."""
    config = model.config.backbone_config
    known: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    generating = next(known[each] for each in type(config).__mro__ if each in known)
    with torch.device("meta"):
        generator = generating(config)
    generator.register_module("model", model.backbone)
    head = model.get_input_embeddings() if model.lm_head is None else model.lm_head
    generator.lm_head.weight = head.weight
    return generator.eval()


@torch.no_grad()
def write_rationale(
    generator: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    num_tokens: int = NUM_TOKENS,
    static_cache: bool = False,
) -> torch.Tensor:
    """Exactly `num_tokens` greedy tokens for each row, [B, num_tokens].

    Args:
        static_cache (`bool`): transformers' preallocated cache instead of the growing one; uncompiled in both cases.
    """
    config, ids = generator.config, batch["input_ids"]
    inputs = {name: tensor for name, tensor in batch.items() if name != "position_ids"}
    if "image_grid_thw" in backbone_family(config.model_type).media_arguments:
        types = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()  # [B, L]
        inputs["mm_token_type_ids"] = types
    generate: Any = generator.generate  # its mixin asks for attributes that type stubs do not show
    out = generate(
        **inputs,
        do_sample=False,
        min_new_tokens=num_tokens,
        max_new_tokens=num_tokens,
        pad_token_id=0,
        eos_token_id=None,
        disable_compile=True,
        **({"cache_implementation": "static"} if static_cache else {}),
    )
    return out[:, ids.shape[1] :]
