"""Maps of the frozen tower, computed once a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.plume_small.tower import MEAN, SIDE, STD


def to_pixels(picture: Image.Image) -> torch.Tensor:
    """[3, 224, 224] as the processor makes it: squeezed into the square, bicubic, (x - 127) / 128."""
    square = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - MEAN) / STD


@torch.inference_mode()
def maps(tower: torch.nn.Module, pictures: Iterable[Image.Image], batch_size: int = 16) -> np.ndarray:
    """The tower's last maps, [N, 49, 1280] float16."""
    tower = tower.to(memory_format=torch.channels_last)
    parts, batch = [], []

    def flush() -> None:
        features = tower.forward_features(torch.stack(batch).contiguous(memory_format=torch.channels_last))
        parts.append(features.flatten(2).transpose(1, 2).half().numpy())
        batch.clear()

    for picture in pictures:
        batch.append(to_pixels(picture))
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()
    return np.concatenate(parts)


def cached_maps(tower: torch.nn.Module, files: Sequence[Path], cache: Path) -> np.ndarray:
    """Maps of picture files, kept in one file."""
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".part.npy")
        np.save(partial, maps(tower, (Image.open(file) for file in files)))
        partial.rename(cache)
    return np.load(cache, mmap_mode="r")
