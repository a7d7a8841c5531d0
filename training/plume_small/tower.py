"""EfficientNet-Lite0 as timm's model, and its maps of pictures. Its weights are compared with the package's own code.

python -m training.plume_small.tower        checks the logits to 1e-4, and says which of timm's twins they fit
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from training.plume_small.sources import TOWER_CODE_PACKAGE, fetch_folder, tower_weights

ARCHITECTURE = "tf_efficientnet_lite0"
TWINS = ("efficientnet_lite0", "tf_efficientnet_lite0")  # symmetric padding, TensorFlow's padding
SIDE, MEAN, STD = 224, 127, 128
TOLERANCE = 1e-4


def timm_state(package: dict[str, torch.Tensor], architecture: str = ARCHITECTURE) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names: both list them in the order of the layers.

    Raises:
        ValueError: number or shapes differ.
    """
    wanted = timm.create_model(architecture).state_dict()
    if [tuple(t.shape) for t in package.values()] != [tuple(t.shape) for t in wanted.values()]:
        raise ValueError(f"The package's {len(package)} tensors are not those of timm's {architecture}.")
    return dict(zip(wanted, package.values(), strict=True))


def load_state(architecture: str = ARCHITECTURE, cache: Path | None = None) -> dict[str, torch.Tensor]:
    """The pretrained weights under timm's names, the classifier's as `classifier.weight` and `classifier.bias`."""
    file = tower_weights() if cache is None else tower_weights(cache)
    return timm_state(torch.load(file, weights_only=True, map_location="cpu"), architecture)


def load_tower(architecture: str = ARCHITECTURE) -> torch.nn.Module:
    """The pretrained tower with its classifier, in eval mode."""
    tower = timm.create_model(architecture)
    tower.load_state_dict(load_state(architecture))
    return tower.eval()


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


@torch.inference_mode()
def differences() -> dict[str, float]:
    """timm's twin -> the largest difference of its logits from the package's own code, on four fixed inputs."""
    sys.path.insert(0, str(fetch_folder(TOWER_CODE_PACKAGE)))
    from efficientnet_lite_pytorch import EfficientNet

    own = EfficientNet.from_name("efficientnet-lite0")
    own.load_state_dict(torch.load(tower_weights(), weights_only=True, map_location="cpu"))
    pixels = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = own.eval()(pixels)
    return {name: (load_tower(name)(pixels) - wanted).abs().max().item() for name in TWINS}


if __name__ == "__main__":
    found = differences()
    print(found)
    if found[ARCHITECTURE] > TOLERANCE:
        raise SystemExit(f"{ARCHITECTURE} is not the package's model: {found}")
