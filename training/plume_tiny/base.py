"""A plume-tiny with other limits for pictures and frames: what the recipes `tiny` and `tiny_more` start from.

    python -m training.plume_tiny.base checkpoints/plume-tiny-stills .data/plume-tiny-base
    python -m training.plume_tiny.base .data/runs/tiny/full-0/model .data/plume-tiny-frames --frame-side 84

`checkpoints/plume-tiny-stills` stands where a pretrained backbone stands for a large model. It has seen stills only,
all of them at 84 x 84 pixels (9 tokens); the stills trainer of version 0.1.0 made it. Here the processor leaves crops
(4 tokens), stills (9) and scenes (24) at their size, and shows anything larger with 25 tokens, too few to read a page
by its words. A clip has 16 tokens and a film 48 to 64 at 56 pixels a side; at 84, as large as stills, 36 and 108 to
144. Weights and tokenizer stay: under a tokenizer that cuts rationales into two thirds of the tokens the model loses
most of the names that it knows.
"""

from pathlib import Path
from typing import Annotated

import typer
from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from plume_embed.command import run_command
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor


def with_picture_sizes(processor: PlumeProcessor, side: int, max_side: int, frame_side: int) -> PlumeProcessor:
    """The processor with other limits for pictures and the frames of videos; what it is made of is changed in place.

    Args:
        side, max_side (`int`): Pictures have at least side^2 and at most max_side^2 pixels.
        frame_side (`int`): Frames of a video have about frame_side^2 pixels.
    """
    picture = {"shortest_edge": side * side, "longest_edge": max_side * max_side}
    frame = {"shortest_edge": frame_side * frame_side, "longest_edge": frame_side * frame_side}
    patches = processor.image_processor.temporal_patch_size
    processor.image_processor = Qwen2VLImageProcessor(size=picture, temporal_patch_size=patches)
    processor.video_processor = Qwen2VLVideoProcessor(size=frame, temporal_patch_size=patches)
    return processor


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the model.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    side: Annotated[int, typer.Option(help="Smallest picture: this squared is its pixels.")] = 56,
    max_side: Annotated[int, typer.Option(help="Largest picture, likewise.")] = 140,
    frame_side: Annotated[int, typer.Option(help="Frame of a video, likewise.")] = 56,
) -> None:
    """Give a model other limits for pictures and frames."""
    PlumeModel.from_pretrained(model).save_pretrained(out)
    with_picture_sizes(PlumeProcessor.from_pretrained(model), side, max_side, frame_side).save_pretrained(out)
    typer.echo(f"{out}: pictures from {side}^2 to {max_side}^2 pixels, frames of {frame_side}^2")


if __name__ == "__main__":
    run_command(main)
