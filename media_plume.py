# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Media decoding: whatever a user hands over as an image or a video -> RGB pictures in memory.

Only what is named as media is opened: nothing here guesses that a text might be a path, and nothing is downloaded.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile

from .images_plume import IMAGE_SUFFIXES, MAX_PIXELS, decode_shared, is_source, read_image, to_rgb, why
from .videos_plume import VIDEO_SUFFIXES, TimedFrames, film_seconds, sample_frames


def load_image(image: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An RGB picture, upright (EXIF) and with transparency over white.

    Args:
        image (`PIL.Image.Image`, path, bytes, binary file, dict with "bytes" or "path" as `datasets` gives undecoded
            images, or uint8 array of shape [H, W], [H, W, C] or [C, H, W] with C = 1, 3 or 4).
        max_pixels (`int`): A picture with more is refused before it is decoded.

    Raises:
        ValueError: not a picture, too large, or a remote address, naming it.
    """
    if is_source(image):
        return read_image(image, max_pixels)
    if isinstance(image, np.ndarray | torch.Tensor):
        image = Image.fromarray(_channels_last(_as_array(image)))
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"An image must be a PIL image, a path, the bytes of a file or a uint8 array, got {type(image).__name__}."
        )
    try:
        decode_shared(image, max_pixels)
        return to_rgb(image, max_pixels)
    except Exception as error:  # a picture that was opened and not yet decoded; decoders raise anything
        is_file = isinstance(image, ImageFile.ImageFile) and image.filename
        name = image.filename if is_file else f"the image of {image.width} x {image.height} pixels"
        raise ValueError(f"Cannot decode {name}: {why(error)}") from error


def load_video(
    video: Any, num_frames: int | None, max_frames: int, max_pixels: int = MAX_PIXELS, fps: float | None = None
) -> tuple[torch.Tensor, tuple[float, ...] | None]:
    """Frames of a video, and when they are shown.

    A file is sampled at `num_frames` evenly spaced frames, first and last included (all, where it has fewer). Frames
    that the caller chose are all used, in their order.

    Args:
        video (path, bytes, binary file, dict with "bytes" or "path", list of images, or uint8 array of shape
            [T, H, W, C] or [T, C, H, W]).
        num_frames (`int`, *optional*): How many frames to take of a file; needed where there is no `fps`.
        max_frames (`int`): How many frames a caller may hand over or ask for.
        max_pixels (`int`): A film with larger frames is refused before it is decoded.
        fps (`float`, *optional*): Frames for each second of a file, instead of `num_frames`.

    Returns:
        The frames, uint8 [T, 3, H, W], and their T times in seconds from the film's start; `None` for frames that the
        caller chose, whose times nobody knows unless they are [`TimedFrames`].

    Raises:
        ValueError: not a video, no frames, frames of several sizes, or too many of them.
    """
    if is_source(video):
        if fps is not None:
            num_frames = max(1, round(film_seconds(video, max_pixels) * fps))
        if num_frames > max_frames:
            raise ValueError(f"{num_frames} frames are over the limit of {max_frames}; ask for fewer.")
        frames, seconds = sample_frames(video, num_frames, max_pixels)
        return _stacked(frames), tuple(seconds)
    if isinstance(video, list | tuple) or (isinstance(video, np.ndarray | torch.Tensor) and video.ndim == 4):
        if len(video) > max_frames:
            raise ValueError(
                f"A video of {len(video)} frames is over the limit of {max_frames}; hand over fewer, or a path, which "
                "is sampled."
            )
        times = video.times if isinstance(video, TimedFrames) else None
        return _stacked([load_image(frame, max_pixels) for frame in video]), times
    shape = f" of shape {tuple(video.shape)}" if isinstance(video, np.ndarray | torch.Tensor) else ""
    raise ValueError(
        "A video must be a path, the bytes of a file, a list of frames or a uint8 array [T, H, W, C], got "
        f"{type(video).__name__}{shape}."
    )


def _stacked(frames: list[Image.Image]) -> torch.Tensor:
    if not frames:
        raise ValueError("A video must have at least one frame.")
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        raise ValueError(f"The frames of a video must be of one size, got {sizes}; resize them first.")
    return torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(0, 3, 1, 2)


def _as_array(image: np.ndarray | torch.Tensor) -> np.ndarray:
    if image.dtype not in (np.uint8, torch.uint8):
        raise ValueError(f"An image array must be uint8 with values 0..255, got {image.dtype}; convert it first.")
    if isinstance(image, np.ndarray):
        return image
    if image.device.type == "meta" or image.layout != torch.strided or image.is_nested:
        raise ValueError(
            "An image tensor must hold its values: a meta, a sparse or a nested tensor does not; make it dense."
        )
    return image.detach().cpu().numpy()


def _channels_last(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise ValueError(f"An image array must be [H, W], [H, W, C] or [C, H, W], got {array.shape}.")
    return np.ascontiguousarray(array)


__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "load_image", "load_video"]
