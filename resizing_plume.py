# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Pictures that wait for the model at the size at which it looks at them: a 36 MB photograph becomes 3 MB or less.

The resize is the library's own, done once and early: doing it again changes nothing, so the vector is the same to the
bit. Decoding a JPEG at a reduced size would be quicker, but its pixels are others.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional
from transformers.image_utils import pil_torch_interpolation_mapping

from .videos_plume import TimedFrames

if TYPE_CHECKING:
    from .processing_plume import PlumeProcessor


Picture = Image.Image | np.ndarray


def shrunk(processor: "PlumeProcessor", content: dict[str, Any]) -> dict[str, Any]:
    """An item whose decoded pictures and frames are no larger than the processor would make them.

    Args:
        processor ([`PlumeProcessor`]): The one that will process the item, with its own options.
        content (`dict`): text, image, video. Only decoded RGB pictures (PIL, or uint8 arrays [H, W, 3]), and lists of
            them, are shrunk, to PIL pictures; what is smaller than the model looks at it, or not decoded yet, stays as
            it is.
    """
    content = dict(content)
    if _is_picture(content.get("image")):
        content["image"] = _shrunk(processor, [content["image"]], None)[0]
    frames = content.get("video")
    if isinstance(frames, list | tuple) and frames and all(map(_is_picture, frames)):
        content["video"] = TimedFrames.like(frames, _shrunk(processor, frames, len(frames)))
    return content


def _is_picture(value: Any) -> bool:
    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and value.ndim == 3)


def _shrunk(processor: "PlumeProcessor", pictures: Sequence[Picture], num_frames: int | None) -> list[Picture]:
    limits = processor.image_processor if num_frames is None else processor.video_processor
    looks = {_look(picture) for picture in pictures}
    mode, height, width = looks.pop()
    if looks or mode != "RGB" or not limits.do_resize:
        return list(pictures)

    def resized(size: tuple[int, int]) -> tuple[int, int]:
        return processor.family.size_after_resizing(processor, size, num_frames)

    target = resized((height, width))
    if target[0] * target[1] >= height * width or not _stays(target, resized):
        return list(pictures)
    mode = pil_torch_interpolation_mapping[limits.resample]
    return [_resized(picture, target, mode) for picture in pictures]


def _stays(size: tuple[int, int], resized: Callable[[tuple[int, int]], tuple[int, int]]) -> bool:
    """Whether the second resize finds nothing to do. A very long picture may come to another shape; or, rounded to
    whole tokens, it is longer and thinner than before, and the library refuses it."""
    try:
        return resized(size) == size
    except ValueError:
        return False


def _look(picture: Picture) -> tuple[str, int, int]:
    """Mode, height and width; the mode of an array that is no RGB picture is its dtype and its channels."""
    if isinstance(picture, Image.Image):
        return picture.mode, picture.height, picture.width
    height, width, channels = picture.shape
    is_rgb = channels == 3 and picture.dtype == np.uint8
    return "RGB" if is_rgb else f"{picture.dtype} {channels}", height, width


def _resized(picture: Picture, size: tuple[int, int], mode: Any) -> Image.Image:
    pixels = np.array(picture) if isinstance(picture, Image.Image) else np.require(picture, requirements=["C", "W"])
    # The same as of a contiguous [3, H, W], without bringing a photograph into that order, which takes longer.
    view = torch.from_numpy(pixels).permute(2, 0, 1)
    small = functional.resize(view, list(size), interpolation=mode, antialias=True)
    return Image.fromarray(small.permute(1, 2, 0).contiguous().numpy())


__all__ = ["shrunk"]
