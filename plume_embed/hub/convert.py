"""Released PLUME checkpoints in."""

import re
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from safetensors import safe_open

from plume_embed.hub.folders import make_processor, new_folder, save_model
from plume_embed.hub.sources import (
    check_files,
    check_tokenizer,
    check_weights,
    loaded_files,
    read_backbone_config,
)
from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.families_plume import backbone_family
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor

# The released evaluation resizes to 3136..12845056 pixels first, then to 784..2359296: together, these limits.
RELEASED_MIN_PIXELS, RELEASED_MAX_PIXELS = 3136, 2359296
RELEASED_SETTINGS = {
    "num_latent_steps": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "use_shared_expert": True,
    "expert_expansion": 2,
    "router_context": "anchor",
    "num_step_embeddings": 32,
    "position_mode": "cache_length",
}
_HEAD = "lm_head.weight"
_ADAPTER = re.compile(r"^(?:.*\.)?latent_moe_transition\.(.+)$")
_EXPERT = re.compile(r"^(?:experts\.(\d+)|shared_expert)\.(fc[12])\.(weight|bias)$")


def convert_released(released_dir: Path, out_dir: Path, console: Console | None = None) -> Path:
    """Turns a released PLUME checkpoint into a folder of this project that gives the same embeddings.

    Accepts the key layouts before and since transformers 4.52, one or several safetensors files, the adapter under any
    prefix, and missing preprocessor files. Where tensors differ in type, all are saved in the narrowest type that loses
    nothing of any.

    Args:
        released_dir (`Path`): Folder with config.json, safetensors files and the tokenizer. Of its weights those are
            read that transformers would load: `model.safetensors`, else what the index names, else all there are.
        out_dir (`Path`): Where to write; see [`new_folder`].

    Raises:
        ValueError: a tensor is missing, unexpected, there twice, or of another shape or type, or a file is missing or
            damaged, naming it; the backbone is not supported; or `out_dir` is not empty.
    """
    out_dir = Path(out_dir)
    with new_folder(out_dir) as folder:
        save_model(*_read_released(Path(released_dir), console or Console(quiet=True)), folder)
    return out_dir


def _read_released(released_dir: Path, console: Console) -> tuple[PlumeModel, PlumeProcessor]:
    backbone_config = read_backbone_config(released_dir, "not a released checkpoint; use it as it is.")
    check_files(released_dir)
    tensors = _read_safetensors(released_dir)
    # The rows of the matrix decide: config.json may still name the backbone's original vocabulary.
    embedding = next((t for k, t in tensors.items() if k.endswith("embed_tokens.weight")), None)
    if embedding is None:
        raise ValueError(f"{released_dir} holds no embed_tokens.weight; is it a full checkpoint?")
    if embedding.ndim != 2:
        raise ValueError(f"embed_tokens.weight of {released_dir} has shape {tuple(embedding.shape)} and is no matrix.")
    backbone_config.get_text_config().vocab_size = len(embedding)
    advance = _released_advance(backbone_family(backbone_config.model_type).position_advances)
    processor = make_processor(
        backbone_config, released_dir, vision_position_advance=advance, blank_image_for_text=True
    )
    _limit_pixels(processor)
    check_tokenizer(processor.tokenizer, backbone_config, released_dir)  # again, with the tokens of PLUME
    backbone_config.name_or_path = ""  # a place on this machine, which says nothing elsewhere
    config = PlumeConfig(
        backbone_config=backbone_config,
        suffix_token_ids=processor.suffix_token_ids(),
        vision_position_advance=advance,
        **processor.special_token_ids(),
        **RELEASED_SETTINGS,
    )
    with torch.device("meta"):
        expected = PlumeModel(config).state_dict()
    state_dict = rename_released(tensors, expected, num_experts=config.num_experts)
    config.dtype = _common_type(state_dict)
    console.print(f"{len(tensors)} tensors read, {len(state_dict)} written in {_shown(config.dtype)}")
    loaded: Any = PlumeModel.from_pretrained(None, config=config, state_dict=state_dict, dtype=config.dtype)
    return loaded, processor


def rename_released(
    tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], num_experts: int
) -> dict[str, torch.Tensor]:
    """The tensors of a released checkpoint under the names of [`PlumeModel`], experts stacked and transposed.

    Args:
        tensors: As read.
        expected: The model's state dict, whose shapes and kinds of number count.
        num_experts (`int`): Routed experts; with the shared one there is one more.

    Raises:
        ValueError: a tensor is missing, unexpected, there under two keys, mis-shaped or of a type that no model has, or
            the head of a backbone that ties it differs.
    """
    renamed, experts = {}, {}
    parts = {name.split(".")[1] for name in expected if name.startswith("backbone.")}
    for key, tensor in tensors.items():
        adapter = _ADAPTER.match(key)
        expert = _EXPERT.match(adapter[1]) if adapter else None
        if expert:
            index = 0 if expert[1] is None else int(expert[1]) + 1  # the shared expert comes first
            _put(experts.setdefault(f"adapter.experts.{expert[2]}_{expert[3]}", {}), index, key, tensor)
        elif adapter:
            name = adapter[1].replace("ln.", "layer_norm.").replace("step_embed.", "step_embedding.")
            _put(renamed, f"adapter.{name}", key, tensor)
        elif key.endswith(_HEAD):
            _put(renamed, _HEAD, key, tensor)
        else:
            _put(renamed, f"backbone.{_backbone_key(key, parts)}", key, tensor)
    tied_head = None if _HEAD in expected else renamed.pop(_HEAD, None)  # compared with the embedding below
    for name, by_index in experts.items():
        missing = [i for i in range(num_experts + 1) if i not in by_index]
        too_many = [by_index[i][0] for i in by_index if i > num_experts]
        if missing or too_many:
            raise ValueError(
                f"The adapter must have {num_experts} experts and a shared one; {name.removeprefix('adapter.')}: "
                f"missing {['shared_expert' if i == 0 else f'experts.{i - 1}' for i in missing]}, "
                f"unexpected {too_many}."
            )
        for key, tensor in by_index.values():
            _check_type(key, tensor)
        shapes = {tuple(tensor.shape) for _, tensor in by_index.values()}
        axes = 2 if name.endswith("weight") else 1
        if len(shapes) > 1 or len(next(iter(shapes))) != axes:
            raise ValueError(
                f"The experts differ in shape, or have not {axes} axes: "
                f"{ {k: tuple(t.shape) for k, t in by_index.values()} }."
            )
        stacked = torch.stack([by_index[i][1] for i in range(num_experts + 1)])
        stacked = stacked.transpose(1, 2).contiguous() if name.endswith("weight") else stacked.unsqueeze(1)
        renamed[name] = (f"{name} (stacked)", stacked)
    unexpected = [key for name, (key, _) in renamed.items() if name not in expected]
    missing = sorted(set(expected) - set(renamed))
    if missing or unexpected:
        raise ValueError(f"The checkpoint does not fit. Missing: {missing}. Unexpected: {unexpected}.")
    for name, (key, tensor) in renamed.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(f"{key} has shape {tuple(tensor.shape)}, the model needs {tuple(expected[name].shape)}.")
        if expected[name].is_floating_point():  # a tower of timm also counts its batches
            _check_type(key, tensor)
    embedding = renamed["backbone.language_model.embed_tokens.weight"][1]
    if tied_head is not None and not _are_equal(tied_head[1], embedding):
        raise ValueError(
            "lm_head.weight differs from embed_tokens.weight, and config.json says that they are one: set "
            "tie_word_embeddings to false there, and the head is kept."
        )
    return {name: tensor for name, (_, tensor) in renamed.items()}


def _put(taken: dict[Any, tuple[str, torch.Tensor]], name: str | int, key: str, tensor: torch.Tensor) -> None:
    """Files a tensor and its key under the name that the key means.

    Raises:
        ValueError: another key means it as well, and which of the two is meant nobody knows.
    """
    if name in taken:
        raise ValueError(
            f"{taken[name][0]} and {key} are two keys of one tensor of the model; delete the one that is not meant, or "
            "fetch the checkpoint again."
        )
    taken[name] = (key, tensor)


def _check_type(key: str, tensor: torch.Tensor) -> None:
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        raise ValueError(
            f"{key} is in {_shown(tensor.dtype)}, as quantised weights are; convert the checkpoint that it was made of."
        )


def _are_equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """In shape and values; the types may differ."""
    return first.shape == second.shape and bool((first == second).all())


def _common_type(tensors: dict[str, torch.Tensor]) -> torch.dtype:
    """The narrowest type that holds the values of all: the released adapter may be wider than its backbone."""
    return reduce(torch.promote_types, {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()})


def _shown(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _read_safetensors(folder: Path) -> dict[str, torch.Tensor]:
    # Parts under names of their own and without an index are taken too; transformers would not find them.
    files = loaded_files(folder) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no safetensors files.")
    check_weights(files)
    tensors = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (safe_open is no dict)
                if key in tensors:
                    raise ValueError(f"{key} occurs in two files of {folder}.")
                tensors[key] = opened.get_tensor(key)
    return tensors


def _released_advance(advances: tuple[str, ...]) -> Literal["max_hw", "max_thw"]:
    """The released code moves on by the largest of three extents; it knows Qwen2-VL, and no other backbone has this."""
    return "max_thw" if "max_thw" in advances else "max_hw"


def _limit_pixels(processor: PlumeProcessor) -> None:
    """The limits of the released evaluation, where the number of pixels is what limits a picture."""
    size = processor.image_processor.size
    if size.get("longest_edge") and size.get("shortest_edge"):
        processor.image_processor.size = processor.video_processor.size = {
            "shortest_edge": max(RELEASED_MIN_PIXELS, size["shortest_edge"]),
            "longest_edge": min(RELEASED_MAX_PIXELS, size["longest_edge"]),
        }


def _backbone_key(key: str, parts: set[str]) -> str:
    """Name of a backbone tensor in either key layout -> its name in the library's base model, which has `parts`."""
    for prefix in ("base_model.model.", "module."):
        key = key.removeprefix(prefix)
    key = key.removeprefix("model.")
    return key if key.partition(".")[0] in parts else f"language_model.{key}"
