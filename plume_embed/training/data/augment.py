"""Small random changes of pictures: what differs between drawing styles, and more."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from plume_embed.training.data.corpus import Side


def augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random shift, scale, turn, colour and softness.

    Args:
        pixels (`torch.Tensor` of shape [B, 3, H, W]): uint8, on white.

    Returns:
        uint8 of the same shape.
    """
    batch = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    ink = 1 - pixels.float() / 255  # white is zero, so that what is shifted in is white
    angle, scale = uniform(-0.25, 0.25, batch), uniform(0.82, 1.2, batch)
    stretch = uniform(0.88, 1.14, batch)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack(
        (
            torch.stack((cos * stretch, -sin, uniform(-0.12, 0.12, batch)), dim=1),
            torch.stack((sin, cos / stretch, uniform(-0.12, 0.12, batch)), dim=1),
        ),
        dim=1,
    )  # [B, 2, 3]
    ink = F.grid_sample(ink, F.affine_grid(theta, list(ink.shape), align_corners=False), align_corners=False)
    image = 1 - ink
    grey = image.mean(dim=1, keepdim=True)
    image = grey + (image - grey) * uniform(0.4, 1.6, batch, 1, 1, 1)  # saturation
    image = image + ink * uniform(-0.18, 0.18, batch, 3, 1, 1)  # tint of what is drawn, not of white
    image = image.clamp(0.001, 1).pow(uniform(0.65, 1.5, batch, 1, 1, 1))  # gamma
    soft = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
    image = image + (soft - image) * uniform(-0.6, 1.0, batch, 1, 1, 1)  # softer or sharper
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def augment_side(
    side: Side, seed: str, max_side: int, enlarge_to: int = 0, keeps_look: bool = False, videos: bool = False
) -> Side:
    """A side with its pictures changed, a function of the seed.

    Args:
        seed (`str`): Of this side in this step.
        max_side (`int`): Larger pictures are left as they are: what stands where in a scene is part of its meaning, and
            a page is to be read.
        enlarge_to (`int`): Half of the pictures are shown larger, half of these at this side, as any large picture will
            be, the others at a random one below; 0: none. A model that has seen a thing at one size only does not know
            it at another.
        keeps_look (`bool`): Whether colour, shape and softness stay.
        videos (`bool`): Whether videos are changed too, whatever their size, all frames of one alike.
    """
    images, films = side.item.get("image", []), side.item.get("video", [])
    rng, changed = random.Random(seed), {}
    if images and all(max(image.size) <= max_side for image in images):
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        images = images if keeps_look else [_augmented(image, generator) for image in images]
        changed["image"] = [enlarge(image, enlarge_to, rng) for image in images]
    if films and videos and not keeps_look:
        number = rng.getrandbits(63)
        changed["video"] = [
            [_augmented(frame, torch.Generator().manual_seed(number + n)) for frame in film]
            for n, film in enumerate(films)
        ]
    return Side({**side.item, **changed}, side.rationale, side.answer) if changed else side


def _augmented(image: Image.Image, generator: torch.Generator) -> Image.Image:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return Image.fromarray(augment(pixels, generator)[0].permute(1, 2, 0).numpy())


def enlarge(image: Image.Image, up_to: int, rng: random.Random) -> Image.Image:
    """The picture as it is, or in half of the cases larger, as [`augment_side`] says."""
    longer = max(image.size)
    if longer >= up_to or rng.random() < 0.5:
        return image
    side = up_to if rng.random() < 0.5 else rng.randint(longer, up_to)
    return image.resize([round(length * side / longer) for length in image.size], Image.Resampling.BICUBIC)
