# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""What libraries and people hand to [`PlumeModel`], told apart from what it takes: arguments, tensors, weight files."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

# What libraries pass to every model (peft's FEATURE_EXTRACTION does), with what to do where more than the default is
# asked for.
_STANDARD_ARGUMENTS = {
    "inputs_embeds": "pass input_ids; what is put in place of tokens are pictures and films, from PlumeProcessor",
    "past_key_values": "the rollout makes its own cache; pass the whole input",
    "use_cache": "leave it out, the rollout always uses a cache of its own and gives none back",
    "output_attentions": "call model.backbone for attentions",
    "output_hidden_states": "use output_latent_states=True for the latent steps, or model.prefix for the prefix",
    "labels": "losses are made in training, see plume_embed.training.objective",
    "token_type_ids": "leave it out, no supported backbone has token types",
}
ANOTHER_SHAPE = "of another shape"  # what is wrong with a weight
_NAMED = 3  # weights in a message
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})


def media_among(arguments: dict[str, Any]) -> dict[str, Any]:
    """The media among the further arguments of `forward`: what is there, without the standard arguments at their
    default.

    Raises:
        ValueError: a standard argument that asks for something, with the remedy.
    """
    for name, remedy in _STANDARD_ARGUMENTS.items():
        value = arguments.get(name)
        if value is not None and value is not False:
            raise ValueError(f"{name} is not used by PlumeModel and cannot be passed: {remedy}.")
    return {name: value for name, value in arguments.items() if value is not None and name not in _STANDARD_ARGUMENTS}


def check_tensors(tensors: dict[str, Any]) -> None:
    """Refuses, by name, what is no tensor with values that can be read.

    Raises:
        ValueError: it is missing, no tensor, a meta tensor or a sparse one, with the remedy.
    """
    for name, tensor in tensors.items():
        if tensor is None:
            raise ValueError(f"{name} is missing; pass the whole batch: model(**processor(items)).")
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}; use torch.as_tensor.")
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values; make the batch on a real device.")
        if tensor.layout != torch.strided:
            raise ValueError(f"{name} is sparse ({tensor.layout}); pass {name}.to_dense().")


def check_number_of_layers(layers: Sequence[torch.nn.Module], config: PreTrainedConfig) -> None:
    """Refuses a decoder some of whose layers were removed, or to which some were added, without its config.

    Raises:
        ValueError: its cache would have a place for another number of layers, with the remedy.
    """
    if len(layers) != config.num_hidden_layers:
        raise ValueError(
            f"The decoder has {len(layers)} layers and its config says {config.num_hidden_layers}: set "
            f"config.get_text_config().num_hidden_layers = {len(layers)}, make its layer_types as long where it has "
            "them, and number the layers anew (layers[i].self_attn.layer_idx = i)."
        )


def weights_that_do_not_fit(report: dict[str, Any], ignore_mismatched_sizes: bool) -> dict[str, str]:
    """Name of a weight -> what is wrong with it, of what transformers reports of a loading."""
    kinds = {"missing_keys": "missing", "unexpected_keys": "not of this model"}
    if not ignore_mismatched_sizes:
        kinds["mismatched_keys"] = ANOTHER_SHAPE
    return {
        key if isinstance(key, str) else key[0]: kind for keys, kind in kinds.items() for key in sorted(report[keys])
    }


def refuse_weights(wrong: dict[str, str], source: str | Path | None) -> None:
    """Refuses a model that is not, weight by weight, what was saved.

    Raises:
        ValueError: there are wrong weights; it names the first of each kind.
    """
    by_kind = {kind: [name for name in wrong if wrong[name] == kind] for kind in dict.fromkeys(wrong.values())}
    shown = [f"{kind}: {', '.join(names[:_NAMED])}{_more(names)}" for kind, names in by_kind.items()]
    if shown:
        raise ValueError(
            f"The weights in {source} do not fit the model ({'; '.join(shown)}). Fetch or make the folder again, or "
            "mend its config.json."
        )


def _more(names: list[str]) -> str:
    return f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""


def documented_signature(forward: Callable, media_arguments: Sequence[str]) -> inspect.Signature:
    """The signature of `forward` with every family's media arguments by name, for libraries that look at it."""
    signature = inspect.signature(forward)
    named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    media = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=torch.Tensor | None)
        for name in media_arguments
    ]
    return signature.replace(parameters=[*named, *media])


def refuse_pickled_weights(model: str | Path, subfolder: str = "") -> None:
    """Refuses a file or a folder whose weights are pickles; a Hub id, and a folder with safetensors, pass.

    Args:
        model (`str` or `Path`): Whose weights will be read.
        subfolder (`str`): Where they lie in its folder; files beside it are no matter.

    Raises:
        ValueError: with the reason and the remedy.
    """
    path = Path(model, subfolder)
    files = [path] if path.is_file() else list(path.iterdir()) if path.is_dir() else []
    pickles = sorted(file.name for file in files if file.suffix in _PICKLES)
    if pickles and not any(file.suffix == ".safetensors" for file in files):
        raise ValueError(
            f"{path} holds its weights as {', '.join(pickles)}: a pickle can run any code when it is read, and only "
            "safetensors are read here. Save the model again with save_pretrained, or convert the file on a machine "
            "where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
            "'model.safetensors')."
        )


__all__ = [
    "ANOTHER_SHAPE",
    "check_number_of_layers",
    "check_tensors",
    "documented_signature",
    "media_among",
    "refuse_pickled_weights",
    "refuse_weights",
    "weights_that_do_not_fit",
]
