"""What the recipe `tiny` starts from: plume-tiny's first edition under a tokenizer that has seen the rationales.

    python -m training.tiny_base checkpoints/plume-tiny .data/plume-tiny-base --data .data/miniature

It stands where a pretrained backbone stands for a large model. The first edition's tokenizer knows names and keywords
only and cuts a rationale into half as many tokens again; here each new token starts as the mean of the old tokens that
spell it, and all other weights stay. The processor then leaves crops (4 tokens), stills (9) and scenes (24) at their
size, and shows anything larger with 25 tokens, too few to read a page by its words; a clip has 16, a film 48 to 64.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from plume_embed.modeling_plume import PlumeModel
from plume_embed.processing_plume import PlumeProcessor
from plume_embed.training.folder_corpus import read_folder
from plume_embed.training.tiny_model import make_processor


def with_tokenizer_of(
    model: PlumeModel, old: PlumeProcessor, texts: Iterable[str], vocab_size: int, side: int, max_side: int
) -> tuple[PlumeModel, PlumeProcessor]:
    """A model and its processor under a new tokenizer; the model is changed in place.

    Args:
        model ([`PlumeModel`]): With tied embeddings.
        old ([`PlumeProcessor`]): Its processor.
        texts (`Iterable[str]`): What the tokenizer is trained on.
        vocab_size (`int`): Of the new tokenizer.
        side, max_side (`int`): Pictures have at least side^2 and at most max_side^2 pixels.
    """
    new = make_processor(texts, vocab_size, side, max_side=max_side)
    before = model.get_input_embeddings().weight.detach()  # [V, D]
    vocabulary, known = new.tokenizer.get_vocab(), old.tokenizer.get_vocab()
    after = before.new_zeros(len(vocabulary), before.shape[1])
    for token, index in vocabulary.items():
        pieces = [known[token]] if token in known else _pieces(token, old)
        after[index] = before[pieces].mean(dim=0)
    embeddings = torch.nn.Embedding.from_pretrained(after, freeze=False)
    model.backbone.set_input_embeddings(embeddings)
    _rename_tokens(model, new)
    return model, new


def _pieces(token: str, old: PlumeProcessor) -> list[int]:
    """The old tokens that spell a new one."""
    spelt = old.tokenizer.backend_tokenizer.decoder.decode([token])
    return old.tokenizer.encode(spelt, add_special_tokens=False)


def _rename_tokens(model: PlumeModel, processor: PlumeProcessor) -> None:
    """The ids of the control tokens in the configuration."""
    config, vocabulary = model.config, processor.tokenizer.get_vocab()
    for name, value in processor.special_token_ids().items():
        setattr(config, name, value)
    config.suffix_token_ids = processor.suffix_token_ids()
    backbone = config.backbone_config
    backbone.image_token_id, backbone.video_token_id = vocabulary["<|image_pad|>"], vocabulary["<|video_pad|>"]
    backbone.vision_start_token_id = vocabulary["<|vision_start|>"]
    backbone.vision_end_token_id = vocabulary["<|vision_end|>"]
    text = backbone.get_text_config()
    text.vocab_size = len(vocabulary)
    text.eos_token_id, text.pad_token_id = vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]


def main(
    first: Annotated[Path, typer.Argument(help="Folder of the first edition.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    data: Annotated[Path, typer.Option(help="What `make miniature` wrote.")],
    vocab_size: Annotated[int, typer.Option(help="Of the new tokenizer.")] = 4096,
    side: Annotated[int, typer.Option(help="Smallest picture, and frame of a video, side in pixels.")] = 56,
    max_side: Annotated[int, typer.Option(help="Largest picture: this squared is its pixels.")] = 140,
) -> None:
    """Give the first edition a new tokenizer."""
    texts = read_folder(data).texts(6000)
    model, old = PlumeModel.from_pretrained(first), PlumeProcessor.from_pretrained(first)
    before = sum(len(old.tokenizer.encode(text)) for text in texts)
    model, new = with_tokenizer_of(model, old, texts, vocab_size, side, max_side)
    after = sum(len(new.tokenizer.encode(text)) for text in texts)
    model.save_pretrained(out)
    new.save_pretrained(out)
    Console().print(f"{out}: {after / before:.2f} of the tokens for the same texts, {len(new.tokenizer)} in all")


if __name__ == "__main__":
    typer.run(main)
