# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""The registry of backbones: model type -> family. A new family is a file beside this one and a line here."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .family_fast_vlm_plume import FastVlmFamily
from .family_plume import BackboneFamily
from .family_qwen2_5_vl_plume import Qwen25VLFamily
from .family_qwen2_vl_plume import Qwen2VLFamily
from .family_qwen3_vl_plume import Qwen3VLFamily, Qwen3VLMoeFamily

FAMILIES: dict[str, BackboneFamily] = {
    family.model_type: family
    for family in (Qwen2VLFamily(), Qwen25VLFamily(), Qwen3VLFamily(), Qwen3VLMoeFamily(), FastVlmFamily())
}
SUPPORTED_BACKBONES = tuple(FAMILIES)
MEDIA_ARGUMENTS = tuple(dict.fromkeys(name for family in FAMILIES.values() for name in family.media_arguments))

# Kinds of layers whose state is keys and values, one entry a position: what a rollout appends to.
_CACHED_LAYERS = {"full_attention", "sliding_attention"}
# Kinds of rotary positions whose frequencies the library chooses anew by the longest position of every pass.
_ROPE_BY_LENGTH = {"dynamic", "longrope"}


def backbone_family(model_type: str) -> BackboneFamily:
    """The family of a model type.

    Raises:
        ValueError: it is none of [`SUPPORTED_BACKBONES`].
    """
    if model_type not in FAMILIES:
        raise ValueError(f"Backbone {model_type!r} is not supported; supported: {', '.join(SUPPORTED_BACKBONES)}.")
    return FAMILIES[model_type]


def make_backbone_config(values: dict[str, Any]) -> PreTrainedConfig:
    """A backbone's config from plain values; [`check_backbone`] says whether it is supported."""
    family = FAMILIES.get(values["model_type"])
    return AutoConfig.for_model(**values) if family is None else family.make_config(values)


def check_backbone(config: PreTrainedConfig) -> BackboneFamily:
    """The family of a backbone's config, once it is sure that a rollout can run over it.

    Raises:
        ValueError: the backbone is not supported, its layers keep another state than keys and values, or its rotary
            positions depend on the longest row of a batch.
    """
    text = config.get_text_config().to_dict()
    layer_types = text.get("layer_types") or ()
    others = sorted(set(layer_types) - _CACHED_LAYERS)
    if others:
        raise ValueError(
            f"Backbone {config.model_type!r} has layers of type {', '.join(others)}: they keep another state than keys "
            "and values, over which no latent step can be run. Use a backbone whose layers all attend, "
            f"one of {', '.join(SUPPORTED_BACKBONES)}."
        )
    family = backbone_family(config.model_type)
    rope = text.get("rope_parameters") or {}  # one for all layers, or one for each type of layer
    rope_types = {one.get("rope_type") for one in (rope, *rope.values()) if isinstance(one, dict)}
    by_length = sorted(rope_types & _ROPE_BY_LENGTH)
    if by_length:
        raise ValueError(
            f"Backbone {config.model_type!r} has rotary positions of type {by_length[0]}: their frequencies depend on "
            "the longest row of a batch, and with them the vectors of all its rows. Use a backbone with another "
            "rope_type, such as default or yarn."
        )
    return family


__all__ = [
    "FAMILIES",
    "MEDIA_ARGUMENTS",
    "SUPPORTED_BACKBONES",
    "backbone_family",
    "check_backbone",
    "make_backbone_config",
]
