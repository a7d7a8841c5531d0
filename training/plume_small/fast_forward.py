"""PlumeModel for training without padding: the prefix in bfloat16 with a third of the kernel calls.

Rows of a batch have one length, so the mask is a triangle. On CPUs with AMX the products run eight times as fast in
bfloat16; what is left are element-wise kernels, and these are few here. Latent steps and suffix are the model's own,
over the cache that the prefix leaves. The library's layers stay the reference: a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import Qwen2Model
from transformers.cache_utils import DynamicCache

from plume_embed.model.modeling_plume import PlumeModel, PlumePrefix
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.model.prompt_plume import LATENT_START_TOKEN

DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Prompt:
    """Token ids around the content of an item; the last one is the start token."""

    before: list[int]
    after: list[int]

    @classmethod
    def of(cls, processor: PlumeProcessor, word: str = "dog") -> Prompt:
        """The processor's own prompt; `word` is any that is one token."""
        ids = processor(word)["input_ids"][0].tolist()
        place = ids.index(processor.tokenizer.convert_tokens_to_ids(word))
        return cls(ids[:place], ids[place + 1 :])

    @classmethod
    def bare(cls, processor: PlumeProcessor) -> Prompt:
        """The start token alone, behind the content: to learn words under."""
        return cls([], [processor.tokenizer.convert_tokens_to_ids(LATENT_START_TOKEN)])


def embed(
    model: PlumeModel, prompt: Prompt, content: torch.Tensor, num_latent_steps: int, dtype: torch.dtype = DTYPE
) -> torch.Tensor:
    """Embeddings [B, D], float32, unit norm, of contents of one length.

    Args:
        content (`torch.Tensor` of shape [B, n, D]): Input embeddings of the text's or the picture's tokens.
        num_latent_steps (`int`): K; 0 is a single pass.
    """
    words, language_model = model.get_input_embeddings(), model.backbone.language_model
    device = content.device
    sides = [
        words(torch.tensor(ids, dtype=torch.long, device=device)).expand(len(content), -1, -1)
        for ids in (prompt.before, prompt.after)
    ]
    cache = DynamicCache(config=model.config.get_text_config()) if num_latent_steps else None
    hidden = last_states(language_model, torch.cat((sides[0], content, sides[1]), 1), cache, dtype)  # [B, L, D]
    z = language_model.norm(hidden[:, -1].float())
    if cache is None:
        return F.normalize(z, dim=-1)
    batch, length, _ = hidden.shape
    anchor = len(prompt.before) + content.shape[1] + prompt.after.index(model.config.anchor_token_id)
    prefix = PlumePrefix(
        cache=cache,
        attention_mask=torch.ones(batch, length, dtype=torch.long, device=device),
        start_position=torch.full((batch, 3), length - 1, device=device),
        length=torch.full((batch,), length, device=device),
        anchor=language_model.norm(hidden[:, anchor].float()),
        z0=z,
    )
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        for step in range(1, num_latent_steps + 1):
            z, _ = model.latent_step(z, prefix, step)
        state = model.suffix(prefix, num_latent_steps)[:, -1]
    return F.normalize(state.float(), dim=-1)


def last_states(
    model: Qwen2Model, embeds: torch.Tensor, cache: DynamicCache | None = None, dtype: torch.dtype = DTYPE
) -> torch.Tensor:
    """Last hidden states [B, L, D] in `dtype`, before the final norm; keys and values go into the cache.

    Args:
        model (`Qwen2Model`): Whose layers are computed; it must have as many key and value heads as heads.
        embeds (`torch.Tensor` of shape [B, L, D]): Input embeddings, no row padded.

    Raises:
        ValueError: heads share keys and values.
    """
    if model.config.num_key_value_heads != model.config.num_attention_heads:
        raise ValueError("Heads that share keys and values are not for this path; use the model's own forward.")
    batch, length, width = embeds.shape
    heads, eps = model.config.num_attention_heads, model.config.rms_norm_eps
    size = width // heads
    positions = torch.arange(length, device=embeds.device).unsqueeze(0)
    cos, sin = model.rotary_emb(embeds, positions)  # [1, L, size]
    cos, sin = cos[0].to(dtype), sin[0].to(dtype)
    mask = torch.full((length, length), float("-inf"), dtype=dtype, device=embeds.device).triu(1)
    x = embeds.to(dtype)
    for index, layer in enumerate(model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = torch.cat([p.weight for p in projections]).to(dtype)
        bias = torch.cat([p.bias for p in projections]).to(dtype)
        h = F.rms_norm(x, (width,), layer.input_layernorm.weight.to(dtype), eps)
        q, k, v = F.linear(h, weight, bias).view(batch, length, 3 * heads, size).transpose(1, 2).chunk(3, 1)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)  # [B, heads, L, size]
        if cache is not None:
            cache.update(k, v, index)
        mixed = torch.softmax((q * size**-0.5) @ k.transpose(-1, -2) + mask, -1) @ v
        x = x + F.linear(mixed.transpose(1, 2).reshape(batch, length, width), attention.o_proj.weight.to(dtype))
        h = F.rms_norm(x, (width,), layer.post_attention_layernorm.weight.to(dtype), eps)
        weight = torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)).to(dtype)
        gate, up = F.linear(h, weight).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, mlp.down_proj.weight.to(dtype))
    return x


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
