"""Fresh models over a backbone."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from plume_embed.hub.folders import checked_folders, make_processor, save_model
from plume_embed.model.arguments_plume import refuse_pickled_weights
from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.families_plume import SUPPORTED_BACKBONES, check_backbone, make_backbone_config
from plume_embed.model.modeling_plume import PlumeModel

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
        out_dir (`Path`): Where to write; must not hold a model yet.
        seed (`int`): Seed of the adapter's random initial weights.
        head (`str` or `Path`, *optional*): Folder or Hub id to take an untied output embedding from, where `backbone`
            has left it out.
        fps (`float`, *optional*): Frames for each second of a film, instead of 8 frames of each.
        settings: Fields of [`PlumeConfig`] that differ from the defaults.

    Raises:
        ValueError: the backbone is not supported, lacks weights, or its tokenizer lacks the donor tokens.
    """
    _, out_dir = checked_folders(None, out_dir)
    console = console or Console(quiet=True)
    backbone_config = _read_config(backbone)
    family = check_backbone(backbone_config)
    is_tied = family.ties_embeddings(backbone_config)
    if head is not None and is_tied:
        raise ValueError(f"The output embedding of {backbone} is its input embedding; leave the head out.")
    advance = settings.get("vision_position_advance", "max_hw")
    processor = make_processor(backbone_config, backbone, vision_position_advance=advance, fps=fps)
    vocabulary = processor.tokenizer.get_vocab()
    lacking = sorted({donor for donor in family.token_donors.values() if donor not in vocabulary})
    if lacking:
        raise ValueError(f"The tokenizer of {backbone} lacks {lacking}, from which the new tokens are initialised.")
    base, info = family.backbone_class.from_pretrained(
        backbone, config=backbone_config, use_safetensors=True, output_loading_info=True
    )
    if info["missing_keys"]:
        raise ValueError(f"{backbone} lacks weights: {sorted(info['missing_keys'])}.")
    rows = len(base.get_input_embeddings().weight)
    if max(vocabulary.values()) >= rows:
        base.resize_token_embeddings(max(vocabulary.values()) + 1, mean_resizing=False)
    weight = base.get_input_embeddings().weight
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
    return save_model(model, processor, out_dir)


def _read_config(backbone: str | Path) -> Any:
    """The backbone's config, as its family has it."""
    is_folder = isinstance(backbone, Path) or backbone.startswith((".", "/", "~")) or Path(backbone).exists()
    if is_folder:
        refuse_pickled_weights(backbone)
    if is_folder and not (Path(backbone) / "config.json").is_file():
        raise ValueError(f"{backbone} is no model folder: it has no config.json.")
    config = AutoConfig.from_pretrained(backbone)
    if config.model_type == "plume":
        raise ValueError(
            f"{backbone} is a 'plume', not a backbone; supported: {', '.join(SUPPORTED_BACKBONES)}. To train it "
            "further, give it to a recipe as model.path."
        )
    check_backbone(config)
    return make_backbone_config(config.to_dict())


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
    index = cached_file(str(source), "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    name = "model.safetensors" if index is None else json.loads(Path(index).read_text())["weight_map"].get(_HEAD)
    file = None if name is None else cached_file(str(source), name, _raise_exceptions_for_missing_entries=False)
    if file is not None:
        with safe_open(file, framework="pt") as opened:
            if _HEAD in opened.keys():  # noqa: SIM118 (safe_open is no dict)
                return opened.get_tensor(_HEAD)
    raise ValueError(
        f"{source} has an output embedding of its own by its config, and no {_HEAD}; name the model that it was made "
        "from with --head."
    )
