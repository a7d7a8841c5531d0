"""What there was: PLUME one sample at a time in the style of the released code, written down here for comparison.

Batch 1, a cache that grows by concatenation, logits of the whole prefix that nobody reads, experts one by one with the
chosen ones picked on the host. The vectors are the same as ours; only the time is not.
"""

from typing import Any

import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicCache

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.positions_plume import CACHE_ARGUMENT, latent_positions, suffix_positions

_GRIDS = {"image_grid_thw": "pixel_values", "video_grid_thw": "pixel_values_videos"}


@torch.no_grad()
def embed_one_by_one(model: PlumeModel, batch: dict[str, torch.Tensor], num_latent_steps: int = 8) -> torch.Tensor:
    """Embeddings [B, D] of a batch whose rows have one image, one video, equally many pictures or no media each, and
    no padding."""
    rows, count = [], len(batch["input_ids"])
    for row in range(count):
        one = {name: batch[name][row : row + 1] for name in ("input_ids", "attention_mask", "position_ids")}
        for grid, pixels in _GRIDS.items():
            if grid in batch:
                sizes = batch[grid].prod(dim=1).tolist()
                one[grid] = batch[grid][row : row + 1]
                one[pixels] = batch[pixels][sum(sizes[:row]) : sum(sizes[: row + 1])]
        if "pixel_values" in batch and "image_grid_thw" not in batch:
            one["pixel_values"] = batch["pixel_values"].chunk(count)[row]
        rows.append(_embed_one(model, one, num_latent_steps))
    return torch.cat(rows)


def _embed_one(model: PlumeModel, one: dict[str, torch.Tensor], num_latent_steps: int) -> torch.Tensor:
    config, device = model.config, one["input_ids"].device
    backbone: Any = model.backbone
    to_backbone_layout = model.family.to_backbone_positions
    ids, mask, position_ids = one["input_ids"], one["attention_mask"], one["position_ids"]
    media = {name: one[name] for name in model.family.media_arguments if name in one}
    cache = DynamicCache(config=config.get_text_config())

    def run(**inputs) -> torch.Tensor:
        return backbone(use_cache=True, **{CACHE_ARGUMENT: cache}, **inputs).last_hidden_state

    hidden = run(
        input_ids=ids, attention_mask=mask, position_ids=to_backbone_layout(position_ids), **media
    )  # [1, L, D]
    F.linear(hidden, backbone.get_input_embeddings().weight)  # [1, L, vocabulary]: the language-modelling head
    anchor = hidden[:, ids[0].tolist().index(config.anchor_token_id)]  # [1, D]
    where = (position_ids[:, :, -1], mask.sum(dim=1))
    z = hidden[:, -1]  # [1, D]
    for step in range(1, num_latent_steps + 1):
        mask = F.pad(mask, (0, 1), value=1)
        refined = _adapter(model.adapter, z, anchor, step).unsqueeze(1)  # [1, 1, D]
        positions = to_backbone_layout(latent_positions(config.position_mode, *where, step))
        z = run(inputs_embeds=refined, attention_mask=mask, position_ids=positions)[:, 0]
    suffix = torch.tensor([config.suffix_token_ids], device=device)  # [1, S]
    mask = F.pad(mask, (0, suffix.shape[1]), value=1)
    positions = suffix_positions(config.position_mode, *where, num_latent_steps, suffix.shape[1])
    embeds = backbone.get_input_embeddings()(suffix)  # [1, S, D]
    hidden = run(inputs_embeds=embeds, attention_mask=mask, position_ids=to_backbone_layout(positions))
    return F.normalize(hidden[:, -1].float(), dim=-1)


def looped_experts(adapter, u: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """E0(u) + sum over the chosen m of pi_m E_m(u), expert by expert over the rows that chose it; u, out [B, D]."""
    weights = adapter.experts

    def expert(index: int, rows: torch.Tensor) -> torch.Tensor:
        inner = F.gelu(rows @ weights.fc1_weight[index] + weights.fc1_bias[index])
        return inner @ weights.fc2_weight[index] + weights.fc2_bias[index]

    out = expert(0, u)
    top = probs.topk(adapter.num_experts_per_tok, dim=-1)
    for index in range(probs.shape[1]):
        rows, places = torch.where(top.indices == index)
        if len(rows):  # waits for the device
            out[rows] += top.values[rows, places, None].to(u.dtype) * expert(index + 1, u[rows])
    return out


def _adapter(adapter, z: torch.Tensor, anchor: torch.Tensor, step: int) -> torch.Tensor:
    probs = adapter.route(z, anchor, z, step)  # [1, Me]
    return z + looped_experts(adapter, adapter.layer_norm(z), probs)
