"""A rollout that is read in several places: its cache as it was behind the prefix and k of its steps."""

import copy
from dataclasses import replace
from typing import Any

from plume_embed.model.modeling_plume import PlumePrefix


def behind(prefix: PlumePrefix, num_latent_steps: int) -> PlumePrefix:
    """The same prefix with a cache of its own that ends behind `num_latent_steps` steps; gradients flow through it.

    Args:
        prefix ([`PlumePrefix`]): Its cache holds the prefix and at least so many steps; it stays as it is.

    Raises:
        ValueError: the cache holds fewer steps, or layers that forget, with the remedy.
    """
    end = prefix.attention_mask.shape[1] + num_latent_steps
    cache = copy.copy(prefix.cache)
    cache.layers = [copy.copy(layer) for layer in prefix.cache.layers]
    layers: list[Any] = cache.layers  # of keys and values: models with others are refused
    for layer in layers:
        if layer.is_sliding:
            raise ValueError(
                "A layer with sliding attention forgets what an earlier step saw; read this model behind its last step."
            )
        if layer.get_seq_length() < end:
            raise ValueError(f"The cache holds {layer.get_seq_length()} entries, not the {end} that are to be kept.")
        layer.crop(end - layer.get_seq_length())  # by so many entries; the copy gets views of its own
    return replace(prefix, cache=cache)
