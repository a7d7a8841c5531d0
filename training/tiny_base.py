"""What the recipe `tiny` starts from: plume-tiny's first edition, which shows pictures by their size.

    python -m training.tiny_base checkpoints/plume-tiny .data/plume-tiny-base

It stands where a pretrained backbone stands for a large model. The first edition has seen stills only, all of them at
84 x 84 pixels (9 tokens). Here the processor leaves crops (4 tokens), stills (9) and scenes (24) at their size, and
shows anything larger with 25 tokens, too few to read a page by its words; a clip has 16, a film 48 to 64. Weights and
tokenizer stay: under a tokenizer that cuts rationales into two thirds of the tokens the model loses most of the names
that it knows.
"""

from pathlib import Path
from typing import Annotated

import typer
from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from plume_embed.modeling_plume import PlumeModel
from plume_embed.processing_plume import PlumeProcessor


def with_picture_sizes(processor: PlumeProcessor, side: int, max_side: int) -> PlumeProcessor:
    """The processor with other limits for pictures and the frames of videos; what it is made of is changed in place.

    Args:
        side (`int`): Pictures have at least side^2 pixels, and frames of a video about as many.
        max_side (`int`): Pictures have at most max_side^2 pixels.
    """
    picture = {"shortest_edge": side * side, "longest_edge": max_side * max_side}
    frame = {"shortest_edge": side * side, "longest_edge": side * side}
    patches = processor.image_processor.temporal_patch_size
    processor.image_processor = Qwen2VLImageProcessor(size=picture, temporal_patch_size=patches)
    processor.video_processor = Qwen2VLVideoProcessor(size=frame, temporal_patch_size=patches)
    return processor


def main(
    first: Annotated[Path, typer.Argument(help="Folder of the first edition.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    side: Annotated[int, typer.Option(help="Smallest picture, and frame of a video, side in pixels.")] = 56,
    max_side: Annotated[int, typer.Option(help="Largest picture: this squared is its pixels.")] = 140,
) -> None:
    """Give the first edition other limits for pictures."""
    PlumeModel.from_pretrained(first).save_pretrained(out)
    with_picture_sizes(PlumeProcessor.from_pretrained(first), side, max_side).save_pretrained(out)
    typer.echo(f"{out}: pictures from {side}^2 to {max_side}^2 pixels")


if __name__ == "__main__":
    typer.run(main)
