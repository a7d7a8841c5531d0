"""What all stages learn from, made once from the packages and kept: texts, the teacher's vectors, classes, scenes.

python -m training.plume_small.data
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timm.data import ImageNetInfo

from training.plume_small.pictures import Scenes, read_split
from training.plume_small.scenes import make_scenes
from training.plume_small.sources import DEFAULT_CACHE, EMOJI, WORDNET, fetch_folder, teacher_folder
from training.plume_small.student import WIDTH
from training.plume_small.teacher import Teacher, cached_vectors, reduction
from training.plume_small.texts import make_names, make_texts

SCENES = 2000
# How often the classes count against the texts where the space is reduced.
_CLASS_WEIGHT = 10


@dataclass
class Data:
    """Everything in the reduced space of `WIDTH` dimensions, unit norm.

    Attributes:
        texts, names: Strings of all kinds, and every noun for what a picture can show.
        vectors, name_vectors: Of the strings, [N, WIDTH] float32.
        table: Of "names: gloss" of the 1000 classes.
        train, test: Scenes.
    """

    texts: list[str]
    vectors: np.ndarray
    names: list[str]
    name_vectors: np.ndarray
    table: torch.Tensor
    train: Scenes
    test: Scenes


def class_texts() -> list[str]:
    """ "names: gloss" of the tower's 1000 classes."""
    info = ImageNetInfo()
    return [info.index_to_description(index, detailed=True) for index in range(1000)]


def prepare(work: Path, cache: Path = DEFAULT_CACHE) -> Data:
    """Makes what is missing in `work`, and reads it. It can be killed at any point."""
    work.mkdir(parents=True, exist_ok=True)
    teacher = teacher_folder(cache)
    texts_file = work / "texts.json"
    if not texts_file.exists():
        texts = make_texts(fetch_folder(WORDNET, cache), fetch_folder(EMOJI, cache), class_texts())
        texts_file.write_text(json.dumps(texts, ensure_ascii=False))
    texts = json.loads(texts_file.read_text())
    vectors = cached_vectors(texts, teacher, work / "vectors")
    names = make_names(fetch_folder(WORDNET, cache))
    name_vectors = cached_vectors(names, teacher, work / "names")
    encoder = Teacher(teacher)
    table = encoder.encode(class_texts())
    axes = reduction(np.concatenate([vectors, np.repeat(table, _CLASS_WEIGHT, axis=0)]), WIDTH)

    def encode(strings: list[str]) -> np.ndarray:
        return _turned(encoder.encode(strings), axes)

    make_scenes(work / "scenes", SCENES, cache)
    return Data(
        texts=texts,
        vectors=_turned(vectors, axes),
        names=names,
        name_vectors=_turned(name_vectors, axes),
        table=torch.from_numpy(_turned(table, axes)),
        train=read_split(work / "scenes", SCENES, encode, "train"),
        test=read_split(work / "scenes", SCENES, encode, "test"),
    )


def _turned(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    reduced = vectors @ axes
    return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepare(Path(".data/plume-small"))
