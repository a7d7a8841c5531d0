"""The vision tower's attention with one call for all pictures of a size instead of one call for each picture.

transformers attends within each picture, or frame, in a call of its own. A batch of 128 films has 1,024 frames, and at
the size of `hops` these calls were most of the time of a training step. The sums are the same.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from plume_embed.model.modeling_plume import PlumeModel


class GroupedVisionAttention(nn.Module):
    """Forward of a tower's attention layer by scaled dot product, mixed into the layer: same weights, same names."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **kwargs,
    ) -> torch.Tensor:
        """[patches, width] -> [patches, width]; `cu_seqlens` holds the borders of the pictures, from 0."""
        count = hidden_states.shape[0]
        qkv = self.qkv(hidden_states).reshape(count, 3, self.num_heads, -1).permute(1, 0, 2, 3)  # [3, P, heads, d]
        query, key = apply_rotary_pos_emb_vision(qkv[0], qkv[1], *position_embeddings)
        lengths = cu_seqlens.diff()
        sizes = lengths.unique().tolist()
        if len(sizes) == 1:
            output = self._attend(query, key, qkv[2], sizes[0])
        else:
            size_of_patch = lengths.repeat_interleave(lengths)  # [P]
            places = [(size_of_patch == size).nonzero()[:, 0] for size in sizes]
            parts = [self._attend(query[at], key[at], qkv[2][at], size) for at, size in zip(places, sizes, strict=True)]
            output = torch.cat(parts)[torch.cat(places).argsort()]  # [P, heads, d]
        return self.proj(output.reshape(count, -1))

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, size: int) -> torch.Tensor:
        """[P, heads, d], `size` patches a picture -> [P, heads, d]."""
        query, key, value = (t.unflatten(0, (-1, size)).transpose(1, 2) for t in (query, key, value))
        output = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)  # [pictures, heads, size, d]
        return output.transpose(1, 2).flatten(0, 1)


def group_vision_attention(model: PlumeModel) -> None:
    """Gives the vision tower [`GroupedVisionAttention`] where it runs transformers' own by scaled dot product.

    Flash attention needs no grouping, and another tower is left as it is. Weights and files do not change.
    """
    attention = model.family.packed_attention_class()
    for module in model.modules():
        if type(module) is attention and module.config._attn_implementation == "sdpa":
            module.__class__ = _grouped(attention)


@cache
def _grouped(attention: type) -> type:
    return type(f"Grouped{attention.__name__}", (GroupedVisionAttention, attention), {})
