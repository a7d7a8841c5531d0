# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Pictures that wait for the model at the size at which it looks at them: a 36 MB photograph becomes 3 MB or less.

The resize is the library's own, done once and early: doing it again changes nothing, so the vector is the same to the
bit. Decoding a JPEG at a reduced size would be quicker, but its pixels are others.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional
from transformers.image_utils import pil_torch_interpolation_mapping

if TYPE_CHECKING:
    from .processing_plume import PlumeProcessor


def shrunk(processor: "PlumeProcessor", content: dict[str, Any]) -> dict[str, Any]:
    """An item whose decoded pictures and frames are no larger than the processor would make them.

    Args:
        processor ([`PlumeProcessor`]): The one that will process the item, with its own options.
        content (`dict`): text, image, video. Only PIL pictures, and lists of them, are shrunk; what is smaller than
            the model looks at it, or not decoded yet, stays as it is.
    """
    content = dict(content)
    if isinstance(content.get("image"), Image.Image):
        content["image"] = _shrunk(processor, [content["image"]], None)[0]
    frames = content.get("video")
    if isinstance(frames, list | tuple) and frames and all(isinstance(frame, Image.Image) for frame in frames):
        content["video"] = _shrunk(processor, frames, len(frames))
    return content


def _shrunk(processor: "PlumeProcessor", pictures: list[Image.Image], num_frames: int | None) -> list[Image.Image]:
    limits = processor.image_processor if num_frames is None else processor.video_processor
    width, height = pictures[0].size
    is_plain = all(picture.mode == "RGB" and picture.size == (width, height) for picture in pictures)
    if not (limits.do_resize and is_plain):
        return list(pictures)

    def resized(size: tuple[int, int]) -> tuple[int, int]:
        return processor.family.size_after_resizing(processor, size, num_frames)

    target = resized((height, width))
    # The second resize must find nothing to do; a very long picture may come to another shape.
    if target[0] * target[1] >= height * width or resized(target) != target:
        return list(pictures)
    mode = pil_torch_interpolation_mapping[limits.resample]
    return [_resized(picture, target, mode) for picture in pictures]


def _resized(picture: Image.Image, size: tuple[int, int], mode: Any) -> Image.Image:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()  # [3, H, W]
    pixels = functional.resize(pixels, list(size), interpolation=mode, antialias=True)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


__all__ = ["shrunk"]
