"""Fresh models over a backbone."""

import math
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedConfig

from plume_embed.hub.folders import make_processor, new_folder, save_model
from plume_embed.hub.sources import (
    FETCH_AGAIN,
    check_files,
    check_weights,
    find_file_of,
    is_folder,
    loaded_files,
    read_backbone_config,
)
from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.families_plume import SUPPORTED_BACKBONES, backbone_family, make_backbone_config
from plume_embed.model.family_plume import BackboneFamily
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor

_HEAD = "lm_head.weight"


def init_model(
    backbone: str | Path,
    out_dir: Path,
    seed: int = 0,
    console: Console | None = None,
    head: str | Path | None = None,
    fps: float | None = None,
    **settings: Any,
) -> Path:
    """A fresh PLUME model over a backbone's folder or Hub id: backbone kept, adapter and tokens new.

    Args:
        backbone (`str` or `Path`): Folder or Hub id of the backbone; an embedding model over one serves as well.
        out_dir (`Path`): Where to write; see [`new_folder`].
        seed (`int`): Seed of the adapter's random initial weights.
        head (`str` or `Path`, *optional*): Folder or Hub id to take an untied output embedding from, where `backbone`
            has left it out.
        fps (`float`, *optional*): Frames for each second of a film, instead of 8 frames of each.
        settings: Fields of [`PlumeConfig`] that differ from the defaults.

    Raises:
        ValueError: the backbone is not supported, damaged or incomplete, its tokenizer is another model's or lacks the
            donor tokens, or `out_dir` is not empty.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a number above 0, got {fps}; leave it out for 8 frames of each film.")
    out_dir = Path(out_dir)
    with new_folder(out_dir) as folder:
        model, processor = _make_model(backbone, seed, console or Console(quiet=True), head, fps, settings)
        save_model(model, processor, folder)
    return out_dir


def _make_model(
    backbone: str | Path, seed: int, console: Console, head: str | Path | None, fps: float | None, settings: dict
) -> tuple[PlumeModel, PlumeProcessor]:
    if_plume = (
        f"not a backbone; supported: {', '.join(SUPPORTED_BACKBONES)}. To train it further, give it to a recipe as "
        "model.path."
    )
    backbone_config = make_backbone_config(read_backbone_config(backbone, if_plume).to_dict())
    if is_folder(backbone):
        check_files(Path(backbone))
    family = backbone_family(backbone_config.model_type)
    if head is not None and family.ties_embeddings(backbone_config):
        raise ValueError(f"The output embedding of {backbone} is its input embedding; leave the head out.")
    advance = settings.get("vision_position_advance", "max_hw")
    processor = make_processor(backbone_config, backbone, vision_position_advance=advance, fps=fps)
    vocabulary = processor.tokenizer.get_vocab()
    lacking = sorted({donor for donor in family.token_donors.values() if donor not in vocabulary})
    if lacking:
        raise ValueError(f"The tokenizer of {backbone} lacks {lacking}, from which the new tokens are initialised.")
    base = _read_backbone(backbone, backbone_config, family)
    rows = len(base.get_input_embeddings().weight)
    if max(vocabulary.values()) >= rows:
        base.resize_token_embeddings(max(vocabulary.values()) + 1, mean_resizing=False)
    weight = base.get_input_embeddings().weight
    base.config.name_or_path = ""  # a place on this machine, which says nothing elsewhere
    config = PlumeConfig(
        backbone_config=base.config,
        dtype=weight.dtype,
        suffix_token_ids=processor.suffix_token_ids(),
        **processor.special_token_ids(),
        **settings,
    )
    torch.manual_seed(seed)
    model = PlumeModel(config).to(weight.dtype)
    model.backbone.load_state_dict(base.state_dict())
    donors = {vocabulary[token]: vocabulary[donor] for token, donor in family.token_donors.items()}
    _copy_rows(model.get_input_embeddings(), donors)
    if model.lm_head is not None:
        _fill_head(model.lm_head, _read_head(head or backbone))
        _copy_rows(model.lm_head, donors)
    console.print(
        f"{rows} -> {len(weight)} token embeddings, {sum(p.numel() for p in model.parameters()):,} parameters"
    )
    return model, processor


def _read_backbone(backbone: str | Path, config: PreTrainedConfig, family: BackboneFamily) -> Any:
    """The backbone's base model.

    Raises:
        ValueError: a file of its weights is damaged, or a tensor is missing or of another shape.
    """
    if is_folder(backbone):
        check_weights(loaded_files(Path(backbone)))
    try:
        base, info = family.backbone_class.from_pretrained(
            backbone, config=config, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except SafetensorError as error:
        raise ValueError(f"The weights of {backbone} are damaged: {error}. {FETCH_AGAIN}") from error
    mismatched = [
        f"{name} {tuple(found)}, not {tuple(expected)}" for name, found, expected in sorted(info["mismatched_keys"])
    ]
    if mismatched:
        raise ValueError(
            f"The weights of {backbone} do not fit its config.json: {'; '.join(mismatched)}. Take both from one model."
        )
    if info["missing_keys"]:
        raise ValueError(f"{backbone} lacks weights: {sorted(info['missing_keys'])}.")
    return base


def _copy_rows(module: nn.Embedding | nn.Linear, donors: dict[int, int]) -> None:
    with torch.no_grad():
        for token_id, donor_id in donors.items():
            module.weight[token_id] = module.weight[donor_id]


def _fill_head(lm_head: nn.Linear, weight: torch.Tensor) -> None:
    """Takes the rows that there are over, and sets those of tokens that the backbone did not have to zero."""
    if weight.shape[1] != lm_head.weight.shape[1]:
        raise ValueError(f"The output embedding is {weight.shape[1]} wide, the backbone {lm_head.weight.shape[1]}.")
    with torch.no_grad():
        lm_head.weight.zero_()
        rows = min(len(weight), len(lm_head.weight))
        lm_head.weight[:rows] = weight[:rows]


def _read_head(source: str | Path) -> torch.Tensor:
    """`lm_head.weight` alone [V, D], from a folder or from the Hub."""
    file = find_file_of(source, _HEAD)
    if file is not None:
        check_weights([file])
        with safe_open(file, framework="pt") as opened:
            if _HEAD in opened.keys():  # noqa: SIM118 (safe_open is no dict)
                return opened.get_tensor(_HEAD)
    raise ValueError(
        f"{source} has an output embedding of its own by its config, and no {_HEAD}; name the model that it was made "
        "from with --head."
    )
