"""Explicit chain of thought: a model decodes its rationale greedily up to `<gen_emb>` and is read there."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from plume_embed.modeling_plume import PlumeModel
from plume_embed.training.objective import next_token_logits


@dataclass
class Rationale:
    """What [`generate_rationale`] gives.

    Args:
        embeddings (`torch.Tensor` of shape [B, D]): float32, unit norm, read at `<gen_emb>`.
        token_ids (`list[list[int]]`): What each row decoded, its last token `<gen_emb>`.
        finished (`torch.Tensor` of shape [B]): Whether the row came to `<gen_emb>` by itself.
    """

    embeddings: torch.Tensor
    token_ids: list[list[int]]
    finished: torch.Tensor


@torch.inference_mode()
def generate_rationale(
    model: PlumeModel, batch: dict[str, torch.Tensor], num_latent_steps: int = 0, max_new_tokens: int = 512
) -> Rationale:
    """Decodes greedily behind `num_latent_steps` latent steps, all rows together.

    Args:
        batch: From PlumeProcessor.
        num_latent_steps (`int`): 0 for an explicit-CoT model; more for the middle stages of the curriculum.
        max_new_tokens (`int`): Where a row is cut: `<gen_emb>` is put in, and `finished` says so.
    """
    prefix = model.prefix(**batch)
    z = prefix.z0
    for step in range(1, num_latent_steps + 1):
        z, _ = model.latent_step(z, prefix, step)
    gen_id = model.config.embedding_token_id
    rows, states = [[] for _ in z], torch.zeros_like(z)
    done = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    finished = done.clone()
    for index in range(max_new_tokens):
        tokens = next_token_logits(model, z).argmax(dim=-1)  # [B]
        finished |= ~done & (tokens == gen_id)
        if index == max_new_tokens - 1:
            tokens = torch.full_like(tokens, gen_id)
        # A token behind the rollout is a suffix of one: the tokens before it count as steps that the cache holds.
        z = model.suffix(prefix, num_latent_steps + index, tokens.unsqueeze(1))[:, 0]  # [B, D]
        for row, token, was_done in zip(rows, tokens.tolist(), done.tolist(), strict=True):
            if not was_done:
                row.append(token)
        ends = ~done & (tokens == gen_id)  # [B]
        states = torch.where(ends.unsqueeze(1), z, states)
        done |= ends
        if done.all():
            break
    return Rationale(F.normalize(states.float(), dim=-1), rows, finished)
