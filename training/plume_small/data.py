"""What all stages learn from, made once from the packages and kept: texts, the teacher's vectors, classes, scenes.

python -m training.plume_small.data
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import ImageNetInfo

from plume_embed.atomic import replacing, write_json
from training.plume_small.pictures import Scenes, read_split
from training.plume_small.scenes import Scene, make_scenes
from training.plume_small.sources import DEFAULT_CACHE, EMOJI, WORDNET, fetch_folder, teacher_folder
from training.plume_small.student import WIDTH, reduced_words
from training.plume_small.teacher import Teacher, cached_vectors, reduction
from training.plume_small.texts import make_names, make_texts
from training.plume_small.tower import load_tower

SCENES = 2000
# How often the classes count against the texts where the space is reduced.
_CLASS_WEIGHT = 10


@dataclass
class Data:
    """Everything in the reduced space of `WIDTH` dimensions, unit norm.

    Attributes:
        texts, names: Strings of all kinds, and every noun for what a picture can show.
        vectors, name_vectors: Of the strings, [N, WIDTH] float16.
        table: Of "names: gloss" of the 1000 classes, [1000, WIDTH] float32.
        words: The teacher's word vectors, [V, WIDTH] float16.
        train, test: Scenes.
    """

    texts: list[str]
    vectors: torch.Tensor
    names: list[str]
    name_vectors: torch.Tensor
    table: torch.Tensor
    words: torch.Tensor
    train: Scenes
    test: Scenes

    def save(self, file: Path) -> None:
        """Writes it as one file, whole or not at all."""
        content: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for split in ("train", "test"):
            scenes = content[split]
            content[split] = {
                "scenes": [asdict(scene) for scene in scenes.scenes],
                "meanings": scenes.meanings,
                "captions": list(scenes.vectors),
                "vectors": torch.stack(list(scenes.vectors.values())),
            }
        # Of a path, torch would write its name into the file, and with it a process number: the same data would have
        # another digest each time that they are made.
        with replacing(file) as partial, partial.open("wb") as opened:
            torch.save(content, opened)

    @classmethod
    def load(cls, file: Path) -> Data:
        """What [`save`] wrote."""
        content = torch.load(file, weights_only=True)
        for split in ("train", "test"):
            stored = content[split]
            scenes = [Scene(**scene) for scene in stored["scenes"]]
            vectors = dict(zip(stored["captions"], stored["vectors"], strict=True))
            content[split] = Scenes(scenes, stored["meanings"], vectors)
        return cls(**content)


def class_texts() -> list[str]:
    """ "names: gloss" of the tower's 1000 classes."""
    info = ImageNetInfo()
    return [info.index_to_description(index, detailed=True) for index in range(1000)]


def prepare(work: Path, cache: Path = DEFAULT_CACHE) -> Data:
    """Makes what is missing in `work`, and reads it. It can be killed at any point."""
    return Data.load(_made(work, cache))


def digest_of_data(work: Path, cache: Path = DEFAULT_CACHE) -> str:
    """SHA-256 of what [`prepare`] reads, which is made where it is missing."""
    with _made(work, cache).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _made(work: Path, cache: Path) -> Path:
    file = work / "data.pt"
    if not file.exists():
        _make(work, cache).save(file)
    return file


def _make(work: Path, cache: Path) -> Data:
    work.mkdir(parents=True, exist_ok=True)
    teacher = teacher_folder(cache)
    texts_file = work / "texts.json"
    if not texts_file.exists():
        texts = make_texts(fetch_folder(WORDNET, cache), fetch_folder(EMOJI, cache), class_texts())
        write_json(texts_file, texts, indent=None)
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
    turned_table, classifier = torch.from_numpy(_turned(table, axes)), load_tower().classifier
    train, test = (
        read_split(work / "scenes", SCENES, encode, split, classifier, turned_table) for split in ("train", "test")
    )
    return Data(
        texts=texts,
        vectors=torch.from_numpy(_turned(vectors, axes)).half(),
        names=names,
        name_vectors=torch.from_numpy(_turned(name_vectors, axes)).half(),
        table=turned_table,
        words=reduced_words(teacher).half(),
        train=train,
        test=test,
    )


def _turned(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    reduced = vectors @ axes
    return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepare(Path(".data/plume-small"))
