"""The model before it has learned anything: MiniLM's words, random Qwen2 layers, the pretrained tower and its classes.

Its prompt is PLUME's with a short instruction: the fixed part of the prompt costs a small model most of its time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.families_plume import backbone_family
from plume_embed.model.family_fast_vlm_plume import picture_processors
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.model.prompt_plume import PLUME_TOKENS, build_chat_template
from training.plume_small.tower import ARCHITECTURE, MEAN, SIDE, STD

FAMILY = "fast_vlm"
INSTRUCTION = "Represent this."
CONTROL_TOKENS = ["<|im_start|>", "<|im_end|>", "<image>", "<think>", "</think>", *PLUME_TOKENS]
FEATURES, PLACES, CLASSES = 1280, 49, 1000
WIDTH = 256
TEXT_SIZES = {"hidden_size": WIDTH, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
EMBEDDING_STD = 0.1
PAGE_WORDS = 24  # texts beside pictures are not longer in training


def make_tokenizer(teacher: Path) -> PreTrainedTokenizerFast:
    """MiniLM's WordPiece tokenizer with the control tokens of the prompt."""
    wordpiece = AutoTokenizer.from_pretrained(teacher).backend_tokenizer
    wordpiece.no_truncation()  # the teacher's file cuts at 128 tokens
    wordpiece.no_padding()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordpiece,
        pad_token="[PAD]",
        unk_token="[UNK]",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": CONTROL_TOKENS})
    return tokenizer


def backbone_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The fields of the family's config."""
    vocabulary = tokenizer.get_vocab()
    text = {
        "model_type": "qwen2",
        "vocab_size": len(tokenizer),
        "num_key_value_heads": TEXT_SIZES["num_attention_heads"],
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": vocabulary["<|im_end|>"],
        "pad_token_id": tokenizer.pad_token_id,
        **TEXT_SIZES,
    }
    vision = {"model_type": "timm_wrapper", "architecture": ARCHITECTURE, "do_pooling": False, "hidden_size": FEATURES}
    return {
        "model_type": FAMILY,
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": True,
        "image_token_index": vocabulary["<image>"],
        "image_seq_length": PLACES,
        "semantic_classes": CLASSES,
        "semantic_table_size": WIDTH,
        "semantic_detail": False,  # a way past the classes fits the few pictures there are, and nothing else
    }


def make_processor(tokenizer: PreTrainedTokenizerFast) -> PlumeProcessor:
    """Pictures squeezed into 224 x 224 pixels, the tower's normalisation, the short prompt."""
    image_processor, video_processor = picture_processors(SIDE, mean=MEAN, std=STD)
    config = PlumeConfig(backbone_config=backbone_config(tokenizer)).backbone_config
    return PlumeProcessor(
        image_processor,
        tokenizer,
        video_processor,
        chat_template=build_chat_template(INSTRUCTION, None, FAMILY),
        backbone_type=FAMILY,
        backbone_settings=backbone_family(FAMILY).settings(config),
        max_length=2048,
        page_words=PAGE_WORDS,
    )


def make_model(processor: PlumeProcessor, seed: int, **settings: Any) -> PlumeModel:
    """A model for the processor, all of it random; tower, classes and their table are frozen.

    Args:
        settings: Fields of [`PlumeConfig`] that differ from the defaults.
    """
    torch.manual_seed(seed)
    model = PlumeModel(
        PlumeConfig(
            backbone_config=backbone_config(processor.tokenizer),
            suffix_token_ids=processor.suffix_token_ids(),
            **processor.special_token_ids(),
            **settings,
        )
    )
    model.backbone.vision_tower.requires_grad_(False)
    projector = model.backbone.multi_modal_projector
    projector.classifier.requires_grad_(False)
    projector.table.requires_grad_(False)
    return model


@torch.no_grad()
def take_over(
    model: PlumeModel,
    processor: PlumeProcessor,
    words: torch.Tensor,
    tower: dict[str, torch.Tensor],
    table: torch.Tensor,
) -> None:
    """Puts into a random model what the packages have: words, tower, classifier and classes.

    Args:
        words (`torch.Tensor` of shape [V, WIDTH]): Of [`reduced_words`].
        tower: Of [`tower.load_state`].
        table (`torch.Tensor` of shape [1000, WIDTH]): Vectors of the classes' texts, in the space of the embeddings.
    """
    model.backbone.load_tower(tower)
    projector, weight = model.backbone.multi_modal_projector, model.get_input_embeddings().weight
    weight.normal_(std=EMBEDDING_STD)
    weight[: len(words)] = words
    weight[processor.tokenizer.pad_token_id] = 0
    projector.table.weight.copy_(table)
    projector.projection.weight.copy_(torch.eye(WIDTH) * (EMBEDDING_STD / table.std()))


def reduced_words(teacher: Path) -> torch.Tensor:
    """The teacher's word vectors, reduced to `WIDTH` dimensions by their principal components, [V, WIDTH].

    Args:
        teacher (`Path`): Folder of MiniLM.
    """
    tensors = load_file(teacher / "model.safetensors")
    words = next(tensor for name, tensor in tensors.items() if name.endswith("word_embeddings.weight")).float()
    centred = words - words.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)  # in ascending order
    reduced = centred @ axes.flip(1)[:, :WIDTH]
    return reduced * (EMBEDDING_STD / reduced.std())
