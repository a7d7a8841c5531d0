"""A fresh plume-tiny: a small backbone and its own tokenizer, through the same classes as the 2B model."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from plume_embed.model.families_plume import backbone_family, make_backbone_config
from plume_embed.model.family_plume import SmallSizes
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.model.prompt_plume import INSTRUCTION, PLUME_TOKENS, build_chat_template

_QWEN_NAMES = ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end")
_QWEN_NAMES = ("endoftext", "im_start", "im_end", *_QWEN_NAMES, "vision_start", "vision_end", "vision_pad")
QWEN_TOKENS = [f"<|{name}|>" for name in (*_QWEN_NAMES, "image_pad", "video_pad")]
# Qwen2's way of splitting text before the merges: contractions, words, single digits, punctuation, line ends.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The constant part of the prompt costs a small model most of its time, so plume-tiny has a short one.
TINY_INSTRUCTION = "Represent the input."


def train_tokenizer(texts: Iterable[str], vocab_size: int, more_tokens: tuple[str, ...] = PLUME_TOKENS):
    """A byte-level BPE tokenizer in Qwen2's layout, with its control tokens and PLUME's (`()`: a bare backbone's).

    Raises:
        ValueError: vocab_size has no room for every byte and the control tokens.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    least = len(alphabet) + len(QWEN_TOKENS) + len(more_tokens)
    if vocab_size < least:
        raise ValueError(f"vocab_size must be at least {least}, for every byte and control token, got {vocab_size}.")
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
        vocab_size=vocab_size - len(QWEN_TOKENS) - len(more_tokens),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    frame = f"user assistant system think {TINY_INSTRUCTION} {INSTRUCTION} </think>\n"
    tokenizer.train_from_iterator([*texts, *([frame] * 20)], trainer)
    tokenizer.add_special_tokens([*QWEN_TOKENS, *more_tokens])
    settings = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings))
        return AutoTokenizer.from_pretrained(folder)


def make_processor(
    texts: Iterable[str],
    vocab_size: int,
    side: int,
    temporal_patch_size: int = 2,
    max_side: int | None = None,
    backbone_type: str = "qwen2_vl",
) -> PlumeProcessor:
    """The processor of a tiny model that sees every frame of a video at about `side` x `side` pixels, and so every
    picture, or that at its own size between `side` x `side` and `max_side` x `max_side`.

    Args:
        temporal_patch_size (`int`): Frames of a video that share their visual tokens; the same as in [`make_model`].
        backbone_type (`str`): Model type of the backbone, with the limits that its pictures have.
    """
    family = backbone_family(backbone_type)
    tokenizer = train_tokenizer(texts, vocab_size, (*PLUME_TOKENS, *family.control_tokens))
    image_processor, video_processor = family.small_processors(side, max_side, temporal_patch_size)
    vocabulary = tokenizer.get_vocab()
    any_sizes = SmallSizes(64, 1, 64, 32, 1, 0.02)
    settings = family.settings(make_backbone_config(family.small_config(vocabulary, any_sizes)))
    return PlumeProcessor(
        image_processor,
        tokenizer,
        video_processor,
        chat_template=build_chat_template(TINY_INSTRUCTION, None, backbone_type),
        backbone_type=backbone_type,
        backbone_settings=settings,
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
    model_class: type[PlumeModel] = PlumeModel,
    **settings,
) -> PlumeModel:
    """A model with random weights for `processor`, over its kind of backbone.

    Args:
        model_class: [`PlumeModel`], or an experiment's own with a config of its own.
        settings: Fields of its config that differ from the defaults.
    """
    sizes = SmallSizes(
        hidden_size,
        layers,
        intermediate_size,
        vision_size,
        vision_depth,
        initializer_range,
        temporal_patch_size=temporal_patch_size,
    )
    torch.manual_seed(seed)
    config_class: Any = model_class.config_class
    return model_class(
        config_class(
            backbone_config=processor.family.small_config(processor.tokenizer.get_vocab(), sizes),
            suffix_token_ids=processor.suffix_token_ids(),
            **processor.special_token_ids(),
            **settings,
        )
    )
