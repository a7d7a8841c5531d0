"""Weights in: released PLUME checkpoints, and fresh models over a backbone."""

import json
import re
from pathlib import Path

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from transformers import (
    AddedToken,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    AutoVideoProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from plume_embed.model.arguments_plume import refuse_pickled_weights
from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.families_plume import SUPPORTED_BACKBONES
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PLUME_TOKENS, PlumeProcessor

# The released evaluation resizes to 3136..12845056 pixels first, then to 784..2359296: together, these limits.
RELEASED_MIN_PIXELS, RELEASED_MAX_PIXELS = 3136, 2359296
# What Qwen2-VL-2B-Instruct's own files say, for folders that lack them.
QWEN2_VL_SIZE = {"shortest_edge": 3136, "longest_edge": 12845056}
RELEASED_SETTINGS = {
    "num_latent_steps": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "use_shared_expert": True,
    "expert_expansion": 2,
    "router_context": "anchor",
    "num_step_embeddings": 32,
    "position_mode": "cache_length",
    "vision_position_advance": "max_thw",
}
# New tokens start as copies of tokens that the backbone was trained with (paper, training data).
TOKEN_DONORS = {
    "<disc_emb>": "<|object_ref_start|>",
    "<bot>": "<|object_ref_start|>",
    "<gen_emb>": "<|object_ref_end|>",
    "<eot>": "<|object_ref_end|>",
    "<ct>": "<|object_ref_end|>",
}
_ADAPTER = re.compile(r"^(?:.*\.)?latent_moe_transition\.(.+)$")
_EXPERT = re.compile(r"^(?:experts\.(\d+)|shared_expert)\.(fc[12])\.(weight|bias)$")


def convert_released(released_dir: Path, out_dir: Path, console: Console | None = None) -> Path:
    """Turns a released PLUME checkpoint into a folder of this project that gives the same embeddings.

    Accepts the key layouts before and since transformers 4.52, one or several safetensors files, the adapter under any
    prefix, and missing preprocessor files.

    Args:
        released_dir (`Path`): Folder with config.json, safetensors files and the tokenizer.
        out_dir (`Path`): Where to write; must not hold a model yet.

    Raises:
        ValueError: a tensor is missing, unexpected or of another shape, naming it; or the backbone is not supported.
    """
    released_dir, out_dir = _checked_folders(released_dir, out_dir)
    console = console or Console(quiet=True)
    tensors = _read_safetensors(released_dir)
    backbone_config = AutoConfig.from_pretrained(released_dir)
    processor = _make_processor(
        backbone_config,
        released_dir,
        pixel_limits=(RELEASED_MIN_PIXELS, RELEASED_MAX_PIXELS),
        vision_position_advance="max_thw",
        blank_image_for_text=True,
    )
    # The rows of the matrix decide: config.json may still name the backbone's original vocabulary.
    embedding = next((t for k, t in tensors.items() if k.endswith("embed_tokens.weight")), None)
    if embedding is None:
        raise ValueError(f"{released_dir} holds no embed_tokens.weight; is it a full checkpoint?")
    backbone_config.get_text_config().vocab_size = len(embedding)
    config = PlumeConfig(
        backbone_config=backbone_config,
        dtype=embedding.dtype,
        suffix_token_ids=processor.suffix_token_ids(),
        **processor.special_token_ids(),
        **RELEASED_SETTINGS,
    )
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in PlumeModel(config).state_dict().items()}
    state_dict = rename_released(tensors, expected, num_experts=config.num_experts)
    console.print(f"{len(tensors)} tensors read, {len(state_dict)} written")
    model = PlumeModel.from_pretrained(None, config=config, state_dict=state_dict, dtype=embedding.dtype)
    return _save(model, processor, out_dir)


def rename_released(
    tensors: dict[str, torch.Tensor], expected: dict[str, torch.Size], num_experts: int
) -> dict[str, torch.Tensor]:
    """The tensors of a released checkpoint under the names of [`PlumeModel`], experts stacked and transposed.

    Args:
        tensors: As read.
        expected: Name -> shape of the model's state dict.
        num_experts (`int`): Routed experts; with the shared one there is one more.

    Raises:
        ValueError: a tensor is missing, unexpected or mis-shaped, or an untied LM head would be lost.
    """
    renamed, experts, unexpected = {}, {}, []
    for key, tensor in tensors.items():
        adapter = _ADAPTER.match(key)
        expert = _EXPERT.match(adapter[1]) if adapter else None
        if expert:
            index = 0 if expert[1] is None else int(expert[1]) + 1  # the shared expert comes first
            experts.setdefault(f"adapter.experts.{expert[2]}_{expert[3]}", {})[index] = (key, tensor)
        elif adapter:
            name = adapter[1].replace("ln.", "layer_norm.").replace("step_embed.", "step_embedding.")
            renamed[f"adapter.{name}"] = (key, tensor)
        elif key.endswith("lm_head.weight"):
            continue  # compared with the embedding below
        else:
            renamed[f"backbone.{_backbone_key(key)}"] = (key, tensor)
    for name, by_index in experts.items():
        missing = [i for i in range(num_experts + 1) if i not in by_index]
        too_many = [by_index[i][0] for i in by_index if i > num_experts]
        if missing or too_many:
            raise ValueError(
                f"The adapter must have {num_experts} experts and a shared one; {name.removeprefix('adapter.')}: "
                f"missing {['shared_expert' if i == 0 else f'experts.{i - 1}' for i in missing]}, "
                f"unexpected {too_many}."
            )
        shapes = {tuple(tensor.shape) for _, tensor in by_index.values()}
        if len(shapes) > 1:
            raise ValueError(f"The experts differ in shape: { {k: tuple(t.shape) for k, t in by_index.values()} }.")
        stacked = torch.stack([by_index[i][1] for i in range(num_experts + 1)])
        stacked = stacked.transpose(1, 2).contiguous() if name.endswith("weight") else stacked.unsqueeze(1)
        renamed[name] = (f"{name} (stacked)", stacked)
    unexpected = [key for name, (key, _) in renamed.items() if name not in expected]
    missing = sorted(set(expected) - set(renamed))
    if missing or unexpected:
        raise ValueError(f"The checkpoint does not fit. Missing: {missing}. Unexpected: {unexpected}.")
    for name, (key, tensor) in renamed.items():
        if tensor.shape != expected[name]:
            raise ValueError(f"{key} has shape {tuple(tensor.shape)}, the model needs {tuple(expected[name])}.")
    head = next((tensor for key, tensor in tensors.items() if key.endswith("lm_head.weight")), None)
    embedding = renamed["backbone.language_model.embed_tokens.weight"][1]
    if head is not None and not torch.equal(head, embedding):
        raise ValueError("lm_head.weight differs from embed_tokens.weight: an untied LM head would be lost.")
    return {name: tensor for name, (_, tensor) in renamed.items()}


def init_model(backbone: str | Path, out_dir: Path, seed: int = 0, console: Console | None = None, **settings) -> Path:
    """A fresh PLUME model over a Qwen2-VL folder or Hub id: backbone kept, adapter and tokens new.

    Args:
        backbone (`str` or `Path`): Folder or Hub id of the backbone.
        out_dir (`Path`): Where to write; must not hold a model yet.
        seed (`int`): Seed of the adapter's random initial weights.
        settings: Fields of [`PlumeConfig`] that differ from the defaults.

    Raises:
        ValueError: the backbone is not supported, has an untied LM head, or its tokenizer lacks the donor tokens.
    """
    _, out_dir = _checked_folders(None, out_dir)
    console = console or Console(quiet=True)
    is_folder = isinstance(backbone, Path) or backbone.startswith((".", "/", "~")) or Path(backbone).exists()
    if is_folder:
        refuse_pickled_weights(backbone)
    if is_folder and not (Path(backbone) / "config.json").is_file():
        raise ValueError(f"{backbone} is no model folder: it has no config.json.")
    backbone_config = AutoConfig.from_pretrained(backbone)
    if backbone_config.model_type not in SUPPORTED_BACKBONES:
        raise ValueError(
            f"{backbone} is a {backbone_config.model_type!r}, not a backbone; supported: "
            f"{', '.join(SUPPORTED_BACKBONES)}."
        )
    if not backbone_config.tie_word_embeddings:
        raise ValueError(
            f"{backbone} has an untied LM head, which PlumeModel does not keep yet; use a backbone with tied "
            "embeddings (Qwen2-VL-2B has them)."
        )
    advance = settings.get("vision_position_advance", "max_hw")
    processor = _make_processor(backbone_config, backbone, vision_position_advance=advance)
    vocabulary = processor.tokenizer.get_vocab()
    lacking = sorted({donor for donor in TOKEN_DONORS.values() if donor not in vocabulary})
    if lacking:
        raise ValueError(f"The tokenizer of {backbone} lacks {lacking}, from which the new tokens are initialised.")
    base, info = AutoModel.from_pretrained(backbone, use_safetensors=True, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"{backbone} lacks weights: {sorted(info['missing_keys'])}.")
    rows = len(base.get_input_embeddings().weight)
    if max(vocabulary.values()) >= rows:
        base.resize_token_embeddings(max(vocabulary.values()) + 1, mean_resizing=False)
    with torch.no_grad():
        weight = base.get_input_embeddings().weight
        for token, donor in TOKEN_DONORS.items():
            weight[vocabulary[token]] = weight[vocabulary[donor]]
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
    console.print(
        f"{rows} -> {len(weight)} token embeddings, {sum(p.numel() for p in model.parameters()):,} parameters"
    )
    return _save(model, processor, out_dir)


def _checked_folders(source: Path | None, out_dir: Path) -> tuple[Path | None, Path]:
    out_dir = Path(out_dir)
    if (out_dir / "config.json").exists():
        raise ValueError(f"{out_dir} holds a model already; choose another folder.")
    if source is not None and not (Path(source) / "config.json").is_file():
        raise ValueError(f"{source} is no checkpoint folder: it has no config.json.")
    return Path(source) if source is not None else None, out_dir


def _read_safetensors(folder: Path) -> dict[str, torch.Tensor]:
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        weight_map = json.loads(index.read_text())["weight_map"]
        files = [folder / name for name in sorted(set(weight_map.values()))]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise ValueError(f"{folder} lacks the shards {absent} that its index names.")
    if not files:
        refuse_pickled_weights(folder)
        raise ValueError(f"{folder} holds no safetensors files.")
    tensors = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 (safe_open is no dict)
                    if key in tensors:
                        raise ValueError(f"{key} occurs in two files of {folder}.")
                    tensors[key] = opened.get_tensor(key)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged: {error}. Download it again.") from error
    return tensors


def _backbone_key(key: str) -> str:
    """Name of a backbone tensor in either key layout -> its name in the library's base model."""
    for prefix in ("base_model.model.", "module."):
        key = key.removeprefix(prefix)
    key = key.removeprefix("model.")
    return key if key.startswith(("visual.", "language_model.")) else f"language_model.{key}"


def _make_processor(
    backbone_config, source: str | Path, pixel_limits: tuple[int, int] | None = None, **attributes
) -> PlumeProcessor:
    """The processor over the tokenizer and the media processors of `source`, which may lack the latter."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in PLUME_TOKENS if t not in known])
    preprocessors = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
    is_folder = Path(source).is_dir()
    if not is_folder or any((Path(source) / name).is_file() for name in preprocessors):
        image_processor = AutoImageProcessor.from_pretrained(source)
        video_processor = AutoVideoProcessor.from_pretrained(source)
    else:
        vision = backbone_config.vision_config
        sizes = {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
            "size": dict(QWEN2_VL_SIZE),
        }
        image_processor = Qwen2VLImageProcessor(**sizes)
        video_processor = Qwen2VLVideoProcessor(**sizes)
    if pixel_limits is not None:
        low, high = pixel_limits
        size = image_processor.size
        limits = {
            "shortest_edge": max(low, size["shortest_edge"]),
            "longest_edge": min(high, size["longest_edge"]),
        }
        image_processor.size = video_processor.size = limits
    return PlumeProcessor(
        image_processor, tokenizer, video_processor, backbone_type=backbone_config.model_type, **attributes
    )


def _save(model: PlumeModel, processor: PlumeProcessor, out_dir: Path) -> Path:
    model.save_pretrained(out_dir)
    processor.save_pretrained(out_dir)
    return out_dir
