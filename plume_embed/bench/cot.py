"""What PLUME replaces: a rationale written out token by token with `generate`, over the same backbone and weights."""

from typing import Any

import torch
from transformers import PreTrainedModel, Qwen2VLForConditionalGeneration

from plume_embed.model.modeling_plume import PlumeModel

NUM_TOKENS = 403  # the mean length of UME-R1's rationales (paper, table of inference costs)


def language_model(model: PlumeModel) -> Qwen2VLForConditionalGeneration:
    """The backbone of `model` with a tied language-modelling head; shares all weights."""
    with torch.device("meta"):
        generator = Qwen2VLForConditionalGeneration(model.config.backbone_config)
    generator.register_module("model", model.backbone)
    generator.lm_head.weight = model.get_input_embeddings().weight
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
    config = generator.config
    ids = batch["input_ids"]
    types = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()  # [B, L]
    inputs = {name: tensor for name, tensor in batch.items() if name != "position_ids"}
    generate: Any = generator.generate  # its mixin asks for attributes that type stubs do not show
    out = generate(
        **inputs,
        mm_token_type_ids=types,
        do_sample=False,
        min_new_tokens=num_tokens,
        max_new_tokens=num_tokens,
        pad_token_id=0,
        eos_token_id=None,
        disable_compile=True,
        **({"cache_implementation": "static"} if static_cache else {}),
    )
    return out[:, ids.shape[1] :]
