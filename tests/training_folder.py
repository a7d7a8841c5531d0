"""A small training folder that several tests share."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from plume_embed.evaluation.miniature.schema import Built, Pair, Side, Taught, write_media, write_pairs


def encoded(seed: int, size: int = 56) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((size, size), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def taught(
    text: str = "", image: str = "", video: str = "", rationale: str = "A. B. C. D.", answer: str = ""
) -> Taught:
    return Taught(Side(text, image, video), rationale, answer)


def training_folder(out: Path) -> Path:
    """A folder as the miniature's builder writes it: eight pairs of a text and a picture, and one of a clip."""
    built = Built(media={f"scene/{n}": [encoded(n)] for n in range(8)} | {"clip/0": [encoded(n) for n in range(4)]})
    for n in range(8):
        query = taught(f"scene number {n}", answer="a scene")
        built.pairs.append(Pair(query, taught(image=f"scene/{n}", rationale="It shows colours."), "text-scene"))
    built.pairs.append(Pair(taught(video="clip/0"), taught("clip", "scene/1"), "clip-both"))
    write_media(built.media, out, "scenes")
    write_pairs(built.pairs, out)
    return out
