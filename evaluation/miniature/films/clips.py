"""Moving clips: animated drawings as eight frames of 56 x 56 pixels.

Eight frames are four temporal pairs, which at 56 pixels are 2 x 2 visual tokens each: 16 tokens a clip. They are
spaced evenly over one turn of the loop, whose end is its start again and is left out. An "animated" file that does not
move is no clip.

There is one moving style, so that known concepts cannot be tested in an unseen one, as stills are. Splits are:

    unseen   the family is held out everywhere, in stills too (`concepts.split_of`)
    known    the family's stills are trained on, in three other renderings, but none of its clips is: one family in five
    train    the rest
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from evaluation.miniature.sources.concepts import Concept, normal_key, split_of, without_tones
from evaluation.miniature.sources.rationales import stable_order
from evaluation.miniature.sources.render import WHITE
from plume_embed.pools import end_with_parent

NUM_FRAMES = 8
SIDE = 56
QUALITY = 80
# Mean difference of pixel values (0..255) between the two frames that differ most. Two cars that shake by less than a
# pixel have 0.6; what moves least of the rest has 1.5.
LEAST_CHANGE = 1.0
# The same between two clips: below, they are one drawing under two names. The nearest of different ones have 1.45.
LEAST_DIFFERENCE = 1.0
TRAIN, KNOWN, UNSEEN = "train", "known", "unseen"


@dataclass(frozen=True)
class Clip:
    """One moving clip.

    Attributes:
        concept: What it shows.
        frames: NUM_FRAMES WebP pictures of SIDE x SIDE pixels.
        digest: Hash of the frames.
    """

    concept: Concept
    frames: tuple[bytes, ...]
    digest: str

    @property
    def id(self) -> str:
        """Its id as a medium."""
        return f"videos/clip/{self.concept.hexcode}"

    @property
    def split(self) -> str:
        """TRAIN, KNOWN or UNSEEN: see the module."""
        return clip_split(self.concept)


def clip_split(concept: Concept) -> str:
    """The split of a concept's clip: TRAIN, KNOWN or UNSEEN; that of all its family's clips."""
    if concept.split_family == "test":
        return UNSEEN
    return KNOWN if split_of(f"clips {concept.family}") == "test" else TRAIN


def match_clips(concepts: Iterable[Concept], folders: Sequence[Path]) -> dict[str, Path]:
    """The animated file of each concept, by hexcode; concepts without one are missing.

    Args:
        concepts: The concepts to look for.
        folders: The unpacked packages.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / "assets").glob("*.webp")):
            files.setdefault(normal_key(path.stem), path)  # some are there twice, with and without zeros in front
    return {concept.hexcode: files[concept.key] for concept in concepts if concept.key in files}


def choose(concepts: Iterable[Concept], files: Mapping[str, Path], most_tones: Mapping[str, int]) -> list[Concept]:
    """Concepts to make clips of: all without skin tones, and of each other only some tones.

    Args:
        concepts: To choose from.
        files: See `match_clips`.
        most_tones: How many tones of one concept, for each split.
    """
    tones: dict[str, list[Concept]] = {}
    chosen = []
    for concept in concepts:
        if concept.hexcode in files and has_frames(files[concept.hexcode]):
            if not concept.skin_tone:
                chosen.append(concept)
            elif "/" not in concept.skin_tone:
                tones.setdefault(without_tones(concept.key), []).append(concept)
    for name, members in tones.items():
        by_hexcode = {concept.hexcode: concept for concept in members}
        kept = stable_order(by_hexcode, f"tones {name}")[: most_tones[clip_split(members[0])]]
        chosen += [by_hexcode[hexcode] for hexcode in kept]
    return chosen


def has_frames(path: Path) -> bool:
    """Whether a file has more than one frame; whether they differ is seen when they are decoded."""
    with Image.open(path) as file:
        return file.n_frames > 1


def sample_frames(path: Path, count: int = NUM_FRAMES, side: int = SIDE) -> list[Image.Image]:
    """Evenly spaced frames of one turn of an animation, on a white ground, RGB, `side` x `side` pixels."""
    frames = []
    with Image.open(path) as file:
        for number in range(count):
            file.seek(number * file.n_frames // count)
            drawn = file.convert("RGBA")
            drawn.thumbnail((side, side), Image.Resampling.LANCZOS)
            ground = Image.new("RGB", (side, side), WHITE)
            ground.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2), drawn)
            frames.append(ground)
    return frames


def largest_change(frames: Sequence[Image.Image]) -> float:
    """Mean absolute difference of pixel values, 0..255, between the two frames that differ most."""
    arrays = [np.asarray(frame, dtype=np.int16) for frame in frames]
    return max(float(np.abs(a - b).mean()) for a, b in combinations(arrays, 2))


def read_clip(path: Path) -> tuple[tuple[bytes, ...], str] | None:
    """The frames of a clip as WebP pictures and their hash; None for a file that does not move."""
    frames = sample_frames(path)
    if largest_change(frames) < LEAST_CHANGE:
        return None
    encoded = tuple(_webp(frame) for frame in frames)
    return encoded, hashlib.sha256(b"".join(encoded)).hexdigest()[:16]


def read_clips(concepts: Sequence[Concept], files: Mapping[str, Path], processes: int = 2) -> list[Clip]:
    """The clips of concepts; those whose file does not move are left out.

    Raises:
        ValueError: a file cannot be decoded; the message names it.
    """
    paths = [files[concept.hexcode] for concept in concepts]
    with multiprocessing.Pool(processes, end_with_parent) as pool:
        read = track(pool.imap(_read_named, paths, chunksize=8), description="clips       ", total=len(paths))
        return [Clip(concept, *found) for concept, found in zip(concepts, read, strict=True) if found is not None]


def _read_named(path: Path) -> tuple[tuple[bytes, ...], str] | None:
    try:
        return read_clip(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot decode the clip {path}: {error}") from error


def pixels(clips: Sequence[Clip]) -> NDArray[np.float32]:
    """The frames of clips as values 0..255, `[clips, frames * side * side * 3]`."""
    rows = [[np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")) for frame in clip.frames] for clip in clips]
    return np.array(rows, dtype=np.float32).reshape(len(clips), -1)


def twins(clips: Sequence[Clip]) -> list[list[int]]:
    """For each clip the numbers of those that show the same, itself included, ascending.

    The same are clips with one label and clips that look the same, which need not be equal in their bytes: files are
    compressed one by one. Only clips of one family are compared.
    """
    members: dict[str, list[int]] = {}
    for number, clip in enumerate(clips):
        members.setdefault(clip.concept.family, []).append(number)
    same: list[set[int]] = [{number} for number in range(len(clips))]
    for numbers in members.values():
        values = pixels([clips[number] for number in numbers])
        for a, b in combinations(range(len(numbers)), 2):
            is_one = clips[numbers[a]].concept.label == clips[numbers[b]].concept.label
            if is_one or np.abs(values[a] - values[b]).mean() < LEAST_DIFFERENCE:
                same[numbers[a]].add(numbers[b])
                same[numbers[b]].add(numbers[a])
    return [sorted(numbers) for numbers in same]


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()
