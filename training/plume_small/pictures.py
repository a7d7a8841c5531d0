"""Pictures to learn from: made of class probabilities alone, without end, and real ones with names (scenes.py).

Tower, classes and their table are frozen, so a picture is its *meanings*: at each of 49 places the class probabilities
times the classes' vectors. They are computed once, and training never meets a pixel.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training.plume_small.scenes import Scene, read_scenes

GRID = 7
PLACES = GRID * GRID


class PseudoPictures:
    """Class probabilities at 49 places as the tower might leave them, and what they mean.

    One to three things lie in rectangles on a ground. At a place of a thing the logits are those of its class and of
    the classes that the tower finds alike (rows of its classifier that point the same way), sure or unsure; on the
    ground the tower guesses. The vector to be reached is the mean over the places, the closed form of retrieval.

    Args:
        classifier (`torch.Tensor` of shape [C, F]): Weights of the tower's classifier.
        table (`torch.Tensor` of shape [C, S]): Vectors of the classes' texts.
    """

    def __init__(self, classifier: torch.Tensor, table: torch.Tensor):
        centred = F.normalize(classifier - classifier.mean(0), dim=-1)
        self.alike, self.table = centred @ centred.T, table

    def batch(self, seed: int, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Meanings [B, 49, S], and the vectors to reach, unit norm [B, S]."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(*shape, generator=generator)

        classes = len(self.table)
        count = 1 + (uniform(size, 1) * uniform(size, 1) * 3).long()  # one to three, one most often
        things = torch.randint(classes, (size, 3), generator=generator)
        owner = _rectangles(generator, size, count)  # [B, 49], 0..2, or -1 for the ground
        ground = owner < 0
        shown = things.gather(1, owner.clamp(min=0))
        guess = torch.randint(classes, (size, PLACES), generator=generator)
        sure = 5 + 17 * uniform(size, 1, 1).expand(-1, PLACES, 1) * (0.5 + 0.5 * uniform(size, PLACES, 1))
        unsure = 2 + 6 * uniform(size, PLACES, 1)
        logits = self.alike[torch.where(ground, guess, shown)] * torch.where(ground.unsqueeze(-1), unsure, sure)
        logits += torch.randn(size, PLACES, classes, generator=generator)
        meanings = logits.softmax(-1) @ self.table  # [B, 49, S]
        return meanings, F.normalize(meanings.mean(1), dim=-1)


def _rectangles(generator: torch.Generator, size: int, count: torch.Tensor) -> torch.Tensor:
    """Which thing each place shows, [B, 49]: later things lie in front; -1 where there is none."""
    axis = torch.arange(GRID)
    owner = torch.full((size, GRID, GRID), -1)
    for thing in range(3):
        # The first may fill the picture, the others less.
        extent = (2 + torch.rand(2, size, 1, generator=generator) * (GRID - 1 if thing == 0 else 3)).floor()
        start = (torch.rand(2, size, 1, generator=generator) * (GRID + 1 - extent)).floor()
        inside = (axis >= start) & (axis < start + extent)  # [2, B, 7]
        covered = inside[0].unsqueeze(2) & inside[1].unsqueeze(1) & (thing < count).unsqueeze(-1)
        owner[covered] = thing
    return owner.flatten(1)


@dataclass
class Scenes:
    """Scenes with their meanings and the teacher's vectors of their captions.

    Attributes:
        scenes: Of one split.
        meanings (`torch.Tensor` of shape [N, 49, S]): float16.
        vectors: Caption -> [S], unit norm.
    """

    scenes: list[Scene]
    meanings: torch.Tensor
    vectors: dict[str, torch.Tensor]

    def batch(self, seed: int, step: int, size: int) -> torch.Tensor:
        """Meanings [B, 49, S] of scenes no two of which share a name."""
        random_ = random.Random(f"scenes {seed} {step}")
        rows, taken = [], set()
        for row in random_.sample(range(len(self.scenes)), min(len(self.scenes), 3 * size)):
            names = set(self.scenes[row].names)
            if not names & taken:
                rows.append(row)
                taken |= names
        return self.meanings[rows[:size]].float()


def picture_meanings(maps: Sequence[np.ndarray], classifier: nn.Linear, table: torch.Tensor) -> torch.Tensor:
    """Meanings [N, 49, S], float16, of maps [49, 1280] each.

    Args:
        classifier (`nn.Linear`): The tower's own, of C classes.
        table (`torch.Tensor` of shape [C, S]): Vectors of the classes' texts.
    """
    parts = []
    with torch.inference_mode():
        for start in range(0, len(maps), 100):
            features = torch.from_numpy(np.stack(maps[start : start + 100])).float()
            parts.append((classifier(features).softmax(-1) @ table).half())
    return torch.cat(parts).clone()


def read_split(
    folder: Path,
    count: int,
    encode: Callable[[list[str]], np.ndarray],
    split: str,
    classifier: nn.Linear,
    table: torch.Tensor,
) -> Scenes:
    """Of the first `count` scenes those of a split; `encode` turns a list of texts into vectors [N, S]."""
    scenes, features = read_scenes(folder, count)
    kept = [row for row, scene in enumerate(scenes) if scene.split == split]
    texts = sorted({text for row in kept for text in scenes[row].texts})
    vectors = dict(zip(texts, torch.from_numpy(encode(texts)), strict=True))
    meanings = picture_meanings([features[row] for row in kept], classifier, table)
    return Scenes([scenes[row] for row in kept], meanings, vectors)
