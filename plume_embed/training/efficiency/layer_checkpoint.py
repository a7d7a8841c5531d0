"""Activations recomputed layer by layer in training, with the cache that the rollout needs.

transformers' own gradient checkpointing drops the cache, and a rollout without its prefix is another function. Here a
layer call is recomputed in the backward pass from its hidden states and from the keys and values before it, which are
inputs of the checkpoint; those that it adds are outputs. What is kept of the cache is one piece for each pass (prefix,
every latent step, suffix): pieces are joined inside the checkpoint, so no joined copy waits for the backward pass.
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache, DynamicLayer

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.positions_plume import CACHE_ARGUMENT

Piece = tuple[torch.Tensor, torch.Tensor]  # keys and values [B, key heads, n, d]


class _Pieces(DynamicLayer):
    """The cache of one layer in a training pass; it tells its length and holds its pieces.

    A piece more or less makes another tuple, so that a copy of the layer (`latents/branches.py`) is one of its own.
    """

    def __init__(self):
        super().__init__()
        self.pieces: tuple[Piece, ...] = ()

    def get_seq_length(self) -> int:
        return sum(keys.shape[-2] for keys, _ in self.pieces)

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last entries, as many as `-tokens_to_remove`."""
        left, kept = self.get_seq_length() + tokens_to_remove, []
        for keys, values in self.pieces:
            if left > 0:
                kept.append((keys[..., :left, :], values[..., :left, :]))
            left -= keys.shape[-2]
        self.pieces = tuple(kept)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        raise RuntimeError("A layer wrote to the cache outside its checkpoint; call checkpoint_layers on the model.")


class _Slot:
    """What a layer takes for its cache inside a checkpoint."""

    def __init__(self, before: list[Piece]):
        self.before = before
        self.added: Piece | None = None

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args, **kwargs) -> Piece:
        """All keys and values, the new ones behind those before them."""
        self.added = (keys, values)
        pieces = [*self.before, self.added]
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*pieces, strict=True))


class _Checkpointed:
    """Put in front of a decoder layer's class; in evaluation and without gradients the layer is as it was."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(hidden_states, *args, **kwargs)
        cache: Cache | None = kwargs.pop(CACHE_ARGUMENT, None)
        if cache is None:
            raise RuntimeError(
                f"A layer was called without {CACHE_ARGUMENT}: this transformers has another name for the cache, and "
                "nothing would be recomputed. Set checkpoint_layers to false, or install a version that was tested."
            )
        run_layer = super().forward
        index = self.self_attn.layer_idx
        if not isinstance(cache.layers[index], _Pieces):
            if cache.layers[index].get_seq_length() > 0:
                raise RuntimeError("The prefix ran without gradients and its latent steps with them.")
            cache.layers[index] = _Pieces()
        own = cache.layers[index]

        def recomputed(hidden_states: torch.Tensor, *flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
            slot = _Slot(list(zip(flat[::2], flat[1::2], strict=True)))
            output = run_layer(hidden_states, *args, **{CACHE_ARGUMENT: slot}, **kwargs)
            return output, *slot.added

        flat = [tensor for piece in own.pieces for tensor in piece]
        output, keys, values = checkpoint(recomputed, hidden_states, *flat, use_reentrant=False)
        own.pieces = (*own.pieces, (keys, values))
        return output


def checkpoint_layers(model: PlumeModel) -> None:
    """Makes the decoder's layers keep their inputs only and recompute the rest in the backward pass.

    Weights, names and files do not change, nor does evaluation. A layer's class gets a subclass of the same name, so
    that what is chosen by class name, such as FSDP's wrapping, still finds it.
    """
    for layer in model.backbone.language_model.layers:
        if not isinstance(layer, _Checkpointed):
            layer.__class__ = _checkpointed_class(type(layer))


@cache  # one class for all layers: FSDP looks for instances of the first that it finds
def _checkpointed_class(layer_class: type[nn.Module]) -> type[nn.Module]:
    return type(layer_class.__name__, (_Checkpointed, layer_class), {"__module__": __name__})
