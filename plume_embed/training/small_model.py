"""A fresh plume-tiny: a small Qwen2-VL backbone and its own tokenizer, through the same classes as the 2B model."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import INSTRUCTION, PLUME_TOKENS, PlumeProcessor, build_chat_template

_QWEN_NAMES = ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end")
_QWEN_NAMES = ("endoftext", "im_start", "im_end", *_QWEN_NAMES, "vision_start", "vision_end", "vision_pad")
QWEN_TOKENS = [f"<|{name}|>" for name in (*_QWEN_NAMES, "image_pad", "video_pad")]
# Qwen2's way of splitting text before the merges: contractions, words, single digits, punctuation, line ends.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The constant part of the prompt costs a small model most of its time, so plume-tiny has a short one.
TINY_INSTRUCTION = "Represent the input."


def train_tokenizer(texts: Iterable[str], vocab_size: int, plume_tokens: tuple[str, ...] = PLUME_TOKENS):
    """A byte-level BPE tokenizer in Qwen2's layout, with its control tokens and PLUME's (`()`: a bare backbone's)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(QWEN_TOKENS) - len(plume_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    frame = f"user assistant system think {TINY_INSTRUCTION} {INSTRUCTION} </think>\n"
    tokenizer.train_from_iterator([*texts, *([frame] * 20)], trainer)
    tokenizer.add_special_tokens([*QWEN_TOKENS, *plume_tokens])
    settings = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings))
        return AutoTokenizer.from_pretrained(folder)


def make_processor(
    texts: Iterable[str], vocab_size: int, side: int, temporal_patch_size: int = 2, max_side: int | None = None
) -> PlumeProcessor:
    """The processor of a tiny model that sees every frame of a video at about `side` x `side` pixels, and so every
    picture, or that at its own size between `side` x `side` and `max_side` x `max_side`.

    Args:
        temporal_patch_size (`int`): Frames of a video that share their visual tokens; the same as in [`make_model`].
    """
    tokenizer = train_tokenizer(texts, vocab_size)
    frame_size = {"shortest_edge": side * side, "longest_edge": side * side}
    picture_size = {"shortest_edge": side * side, "longest_edge": (max_side or side) ** 2}
    return PlumeProcessor(
        Qwen2VLImageProcessor(size=picture_size, temporal_patch_size=temporal_patch_size),
        tokenizer,
        Qwen2VLVideoProcessor(size=frame_size, temporal_patch_size=temporal_patch_size),
        chat_template=build_chat_template(TINY_INSTRUCTION, system_message=None),
        max_length=2048,
    )


def make_model(
    processor: PlumeProcessor,
    hidden_size: int,
    layers: int,
    intermediate_size: int,
    vision_size: int,
    vision_depth: int,
    initializer_range: float,
    seed: int,
    temporal_patch_size: int = 2,
    **settings,
) -> PlumeModel:
    """A model with random weights for `processor`.

    Args:
        settings: Fields of [`PlumeConfig`] that differ from the defaults.
    """
    vocabulary = processor.tokenizer.get_vocab()
    head_size = 48 if hidden_size % 48 == 0 else 64
    sections = [head_size // 8, 3 * head_size // 16, 3 * head_size // 16]  # temporal, height and width share of RoPE
    backbone_config = {
        "model_type": "qwen2_vl",
        "image_token_id": vocabulary["<|image_pad|>"],
        "video_token_id": vocabulary["<|video_pad|>"],
        "vision_start_token_id": vocabulary["<|vision_start|>"],
        "vision_end_token_id": vocabulary["<|vision_end|>"],
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "qwen2_vl_text",
            "vocab_size": len(vocabulary),
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden_size // head_size,
            "num_key_value_heads": max(1, hidden_size // head_size // 2),
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections},
            "rms_norm_eps": 1e-6,
            "initializer_range": initializer_range,
            "bos_token_id": None,
            "eos_token_id": vocabulary["<|im_end|>"],
            "pad_token_id": vocabulary["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "depth": vision_depth,
            "embed_dim": vision_size,
            "num_heads": vision_size // 32,
            "hidden_size": hidden_size,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": temporal_patch_size,
            "initializer_range": initializer_range,
        },
    }
    torch.manual_seed(seed)
    return PlumeModel(
        PlumeConfig(
            backbone_config=backbone_config,
            suffix_token_ids=processor.suffix_token_ids(),
            **processor.special_token_ids(),
            **settings,
        )
    )
