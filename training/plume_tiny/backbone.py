"""A random small backbone in the Hub's own layout: what `plume-embed init` takes where no pretrained one can be had.

python -m training.plume_tiny.backbone .data/backbone --data .data/miniature
plume-embed init .data/backbone .data/plume-fresh
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoConfig, AutoModelForImageTextToText

from plume_embed.command import run_command
from plume_embed.model.families_plume import backbone_family
from plume_embed.model.family_plume import SmallSizes
from plume_embed.training.data.folder_corpus import read_folder
from plume_embed.training.small_model import train_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def write_backbone(
    out: Path,
    texts: Iterable[str],
    vocab_size: int,
    side: int = 56,
    max_side: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    padding_rows: int = 0,
    backbone_type: str = "qwen2_vl",
    is_tied: bool = True,
    **sizes: int | float,
) -> Path:
    """Weights, configuration, tokenizer and picture limits of a backbone that knows nothing of PLUME.

    Args:
        out (`Path`): Folder to write.
        texts (`Iterable[str]`): What the tokenizer is trained on.
        side, max_side (`int`): Pictures have at least side^2 and at most max_side^2 pixels.
        dtype (`str`): Of the weights, "float32" or "bfloat16".
        padding_rows (`int`): Rows of the embedding matrix beyond the vocabulary, as pretrained models have them.
        backbone_type (`str`): Its model type.
        is_tied (`bool`): Whether the output embedding is the input embedding.
        sizes: Of [`SmallSizes`]: `hidden_size`, `layers` ...
    """
    texts = list(texts)
    family = backbone_family(backbone_type)
    tokenizer = train_tokenizer(texts, vocab_size, family.control_tokens)
    config = family.small_config(tokenizer.get_vocab(), SmallSizes(**sizes))
    config["text_config"] |= {"vocab_size": len(tokenizer) + padding_rows, "tie_word_embeddings": is_tied}
    config["tie_word_embeddings"] = is_tied
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config))
    model.to(DTYPES[dtype]).save_pretrained(out)
    tokenizer.save_pretrained(out)
    image_processor, _ = family.small_processors(side, max_side, SmallSizes(**sizes).temporal_patch_size)
    image_processor.save_pretrained(out)
    return out


def main(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    data: Annotated[Path, typer.Option(help="What `make miniature` wrote: the tokenizer learns its texts.")] = Path(
        ".data/miniature"
    ),
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
) -> None:
    """Write a backbone of plume-tiny's size with random weights."""
    sizes = {"hidden_size": 128, "layers": 3, "intermediate_size": 384, "vision_size": 128, "vision_depth": 4}
    write_backbone(out, read_folder(data).texts(2000), 4096, max_side=140, seed=seed, initializer_range=0.04, **sizes)
    typer.echo(f"written: {out}")


if __name__ == "__main__":
    run_command(main)
