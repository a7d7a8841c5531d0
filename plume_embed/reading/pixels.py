"""Decoded pictures as arrays, which the process that decodes hands over as they are.

A Pillow picture would be copied into a pickle and out of it, and once more for the resize.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from plume_embed.model.videos_plume import TimedFrames

_ROWS = 64  # packed at a time, so that what Pillow copies on the way stays in the processor's cache


def with_arrays(content: dict[str, Any]) -> dict[str, Any]:
    """An item with its RGB pictures as arrays [H, W, 3] of uint8."""
    return _replaced(content, to_array)


def with_pictures(content: dict[str, Any]) -> dict[str, Any]:
    """An item with its arrays as Pillow pictures."""
    return _replaced(content, lambda one: Image.fromarray(one) if isinstance(one, np.ndarray) else one)


def to_array(picture: Image.Image) -> np.ndarray:
    """An RGB picture as uint8 [H, W, 3]."""
    array = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    for top in range(0, picture.height, _ROWS):
        bottom = min(top + _ROWS, picture.height)
        array[top:bottom] = picture.crop((0, top, picture.width, bottom))
    return array


def _replaced(content: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    content = dict(content)
    if "image" in content:
        content["image"] = change(content["image"])
    if "video" in content:
        content["video"] = TimedFrames.like(content["video"], [change(frame) for frame in content["video"]])
    return content
