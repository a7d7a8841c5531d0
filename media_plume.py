# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Media decoding: whatever a user hands over as an image or a video -> RGB pictures in memory.

Only what is named as media is opened: nothing here guesses that a text might be a path, and nothing is downloaded.
"""

import struct
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from PIL import Image, ImageOps

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"})

# What Pillow raises on damaged pictures; struct.error comes from damaged EXIF data.
_UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

# The backbones' own limit.
_MAX_ASPECT_RATIO = 200


def load_image(image: Any) -> Image.Image:
    """An RGB picture, upright (EXIF) and with transparency over white.

    Args:
        image (`PIL.Image.Image`, path, or uint8 array of shape [H, W], [H, W, C] or [C, H, W] with C = 1, 3 or 4).

    Raises:
        ValueError: not a picture, or a remote address, naming it.
    """
    if isinstance(image, str | Path):
        path = _local_path(image)
        try:
            with Image.open(path) as opened:
                return _to_rgb(opened)
        except FileNotFoundError as error:
            raise ValueError(f"No such image file: {path}") from error
        except _UNREADABLE as error:
            raise ValueError(f"Cannot read {path} as an image: {error}") from error
    if isinstance(image, Image.Image):
        try:
            return _to_rgb(image)
        except _UNREADABLE as error:
            raise ValueError(f"Cannot decode the image {image!r}: {error}") from error
    if isinstance(image, np.ndarray | torch.Tensor):
        return _to_rgb(Image.fromarray(_channels_last(np.asarray(image))))
    raise ValueError(f"An image must be a PIL image, a path or a uint8 array, got {type(image).__name__}.")


def load_video(video: Any, num_frames: int, max_frames: int) -> torch.Tensor:
    """Frames of a video as a uint8 tensor of shape [T, 3, H, W].

    A file is sampled at `num_frames` evenly spaced frames, first and last included (all, where it has fewer). Frames
    that the caller chose are all used, in their order.

    Args:
        video (path, list of images, or uint8 array of shape [T, H, W, C] or [T, C, H, W]).
        num_frames (`int`): How many frames to take of a file.
        max_frames (`int`): How many frames a caller may hand over.

    Raises:
        ValueError: not a video, no frames, frames of several sizes, or too many of them.
    """
    if isinstance(video, str | Path):
        frames = _sample_video_file(_local_path(video), num_frames)
    elif isinstance(video, list | tuple) or (isinstance(video, np.ndarray | torch.Tensor) and video.ndim == 4):
        if len(video) > max_frames:
            raise ValueError(
                f"A video of {len(video)} frames is over the limit of {max_frames}; hand over fewer, or a path, which "
                f"is sampled at {num_frames} frames."
            )
        frames = [load_image(frame) for frame in video]
    else:
        shape = f" of shape {tuple(video.shape)}" if isinstance(video, np.ndarray | torch.Tensor) else ""
        raise ValueError(
            "A video must be a path, a list of frames or a uint8 array [T, H, W, C], got "
            f"{type(video).__name__}{shape}."
        )
    if not frames:
        raise ValueError("A video must have at least one frame.")
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        raise ValueError(f"The frames of a video must be of one size, got {sizes}; resize them first.")
    return torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(0, 3, 1, 2)


def _local_path(path: str | Path) -> Path:
    if isinstance(path, str) and urlparse(path).scheme in ("http", "https", "ftp", "s3", "gs", "hf", "data"):
        raise ValueError(f"{path[:100]!r} is a remote address: download it and hand over the file or the picture.")
    return Path(path)


def _to_rgb(image: Image.Image) -> Image.Image:
    _check_size(image)
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _from_deep_grey(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def _check_size(image: Image.Image) -> None:
    short, long = sorted(image.size)
    if short == 0 or long > _MAX_ASPECT_RATIO * short:
        raise ValueError(
            f"An image of {image.size[0]} x {image.size[1]} pixels has no area or an aspect ratio over "
            f"{_MAX_ASPECT_RATIO}; crop it or add a margin."
        )


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey; Pillow's own conversion would clip it to white."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"A picture of mode {image.mode} has no fixed range; convert it to 8 or 16 bits first.")
    return Image.fromarray((values.astype(np.uint32) // 257).astype(np.uint8))


def _channels_last(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(f"An image array must be uint8 with values 0..255, got {array.dtype}; convert it first.")
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise ValueError(f"An image array must be [H, W], [H, W, C] or [C, H, W], got {array.shape}.")
    return np.ascontiguousarray(array)


def _sample_video_file(path: Path, num_frames: int) -> list[Image.Image]:
    import av

    if not path.is_file():
        raise ValueError(f"No such video file: {path}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video stream.")
            expected = container.streams.video[0].frames or _count_frames(path)
        frames, total = _decode_frames(path, _evenly_spaced(expected, num_frames))
        if total is not None:  # the header promised more frames than there are
            frames, _ = _decode_frames(path, _evenly_spaced(total, num_frames))
    except av.FFmpegError as error:
        raise ValueError(f"Cannot read {path} as a video: {error}") from error
    return frames


def _evenly_spaced(total: int, num_frames: int) -> list[int]:
    return np.linspace(0, total - 1, min(num_frames, total), dtype=int).tolist()


def _count_frames(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _decode_frames(path: Path, indices: list[int]) -> tuple[list[Image.Image], int | None]:
    """The frames at `indices`, and how many frames there are if the file ends before the last index."""
    import av

    wanted, frames, index = set(indices), [], -1
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                frames.append(frame.to_image())
            if len(frames) == len(indices):
                return frames, None
    return frames, index + 1


__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "load_image", "load_video"]
