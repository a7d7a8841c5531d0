"""Real pictures with names: emoji drawings alone or in twos, on grounds made by formulas, and the tower's maps of them.

    python -m training.plume_small.scenes

A scene is a function of the seed and its number. Concept families that the miniature benchmark holds out are kept for
validation: whether a stage is any good is read on them, never on the benchmark of photographs. Their names are among
the texts (`texts.py`), their drawings are not.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from evaluation.miniature.sources.concepts import Concept, match_pictures, read_concepts
from evaluation.miniature.sources.packages import CONCEPT_PACKAGE, STYLE_PACKAGES, fetch
from evaluation.miniature.sources.render import render_cutout
from plume_embed.atomic import replacing, write_json
from plume_embed.evaluation.miniature.stills import TRAIN_STYLES
from training.plume_small.sources import DEFAULT_CACHE
from training.plume_small.texts import with_article
from training.plume_small.tower import SIDE, load_tower, maps

SEED = 23
SHARD = 250
# Signs, letters, flags, faces and gestures look like nothing that a camera sees.
GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")
STYLES = {"fluent-3d": 0.5, "noto": 0.25, "fluent-flat": 0.25}


@dataclass(frozen=True)
class Scene:
    """What one picture shows.

    Attributes:
        texts: What is true of it; each is a fitting caption.
        names: The one or two concepts.
        split: "train" or "test".
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]
    split: str


class Painter:
    """Draws scenes from the unpacked icon packages.

    Args:
        cache (`Path`): Of packages.
    """

    def __init__(self, cache: Path = DEFAULT_CACHE):
        folders = fetch([CONCEPT_PACKAGE, *(STYLE_PACKAGES[style] for style in TRAIN_STYLES)], cache)
        concepts = [c for c in read_concepts(folders[CONCEPT_PACKAGE.name]) if not c.skin_tone and c.group in GROUPS]
        self.drawings = {s: match_pictures(concepts, s, folders[STYLE_PACKAGES[s].name]) for s in TRAIN_STYLES}
        self.concepts = [c for c in concepts if all(c.hexcode in drawings for drawings in self.drawings.values())]

    def scene(self, number: int) -> tuple[Scene, Image.Image]:
        """The scene of a number, and its picture."""
        random_ = random.Random(f"scene {SEED} {number}")
        concept = self.concepts[number % len(self.concepts)]
        style = random_.choices(list(STYLES), list(STYLES.values()))[0]
        ground = make_ground(random_)
        if random_.random() < 0.7:
            self._paste(ground, concept, style, random_, random_.uniform(0.55, 1.0), random_.uniform(0.4, 0.6), 0.5)
            return Scene((concept.label, with_article(concept.label)), (concept.label,), concept.split_family), ground
        fellows = [c for c in self.concepts if c.split_family == concept.split_family and c.family != concept.family]
        other = random_.choice(fellows)
        names = (concept.label, other.label)
        a, b = map(with_article, names)
        if random_.random() < 0.5:
            self._paste(ground, concept, style, random_, 0.5, 0.26, random_.uniform(0.4, 0.6))
            self._paste(ground, other, style, random_, 0.5, 0.74, random_.uniform(0.4, 0.6))
            texts = (f"{a} and {b}", f"{a} next to {b}", f"{a} beside {b}", f"{b} and {a}")
        else:
            self._paste(ground, other, style, random_, 0.85, 0.5, 0.42)
            self._paste(ground, concept, style, random_, 0.5, random_.uniform(0.3, 0.7), 0.74)
            texts = (f"{a} in front of {b}", f"{b} behind {a}", f"{a} and {b}", f"{a} with {b}")
        return Scene(texts, names, concept.split_family), ground

    def _paste(
        self, ground: Image.Image, concept: Concept, style: str, random_: random.Random, size: float, x: float, y: float
    ) -> None:
        """One drawing with its longer side `size` of the picture's, its middle at (x, y)."""
        cutout = render_cutout(self.drawings[style][concept.hexcode], round(size * SIDE))
        if random_.random() < 0.3:
            cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        ground.paste(cutout, (round(x * SIDE - cutout.width / 2), round(y * SIDE - cutout.height / 2)), cutout)


def make_ground(random_: random.Random) -> Image.Image:
    """White, one colour, a gradient, or blurred noise."""
    kind = random_.random()
    if kind < 0.35:
        return Image.new("RGB", (SIDE, SIDE), "white")
    colours = np.array([[random_.randrange(256) for _ in range(3)] for _ in range(4)], dtype=np.float32)
    if kind < 0.5:
        return Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in colours[0]))
    if kind < 0.75:
        corners = Image.fromarray(colours.reshape(2, 2, 3).astype(np.uint8))
        return corners.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    generator = np.random.default_rng(random_.randrange(2**32))
    coarse = generator.normal(0, random_.uniform(10, 60), (random_.choice((8, 28, 112)),) * 2 + (3,)) + colours[0]
    noise = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return noise.filter(ImageFilter.GaussianBlur(random_.uniform(0, 3)))


def make_scenes(folder: Path, count: int, cache: Path = DEFAULT_CACHE) -> None:
    """Writes `scenes-N.npy` (maps, float16) and `scenes-N.json` (what they show), `SHARD` each, where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    painter = tower = None
    for start in range(0, count, SHARD):
        file = folder / f"scenes-{start:06d}.json"
        if file.exists():
            continue
        painter, tower = painter or Painter(cache), tower or load_tower()
        drawn = [painter.scene(number) for number in range(start, start + SHARD)]
        with replacing(file.with_suffix(".npy")) as partial:
            np.save(partial, maps(tower, (picture for _, picture in drawn)))
        write_json(file, [asdict(scene) for scene, _ in drawn], indent=None)  # the last: with it the shard is there


def read_scenes(folder: Path, count: int) -> tuple[list[Scene], list[np.ndarray]]:
    """The first scenes, and their maps [49, 1280] each, read as they are needed."""
    scenes, features = [], []
    for start in range(0, count, SHARD):
        file = folder / f"scenes-{start:06d}.json"
        values = json.loads(file.read_text())
        scenes += [Scene(tuple(v["texts"]), tuple(v["names"]), v["split"]) for v in values]
        features += list(np.load(file.with_suffix(".npy"), mmap_mode="r"))
    return scenes, features


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_scenes(Path(".data/plume-small/scenes"), 6000)
