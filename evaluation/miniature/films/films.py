"""Films of six to eight clips, four frames each, and what can be cut from them.

A film has 24 to 32 frames, 12 to 16 temporal pairs of 2 x 2 visual tokens: 48 to 64 tokens. Every other frame of a
clip is its segment, the same in all films. A window starts in the middle of a segment and ends in the middle of the
next: it shows half of two clips and is never a right answer.

Clips of a film are of different families and have no skin tone, and where the split has them three are of one subgroup,
so that knowing roughly what is looked for is not enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.miniature.films.clips import Clip
from evaluation.miniature.sources.phrases import noun_phrase
from evaluation.miniature.sources.rationales import pick, stable_order

SEGMENT_FRAMES = 4
LEAST_CLIPS, MOST_CLIPS = 6, 8
_OF_ONE_SUBGROUP = 3


@dataclass(frozen=True)
class Film:
    """One film.

    Attributes:
        name: Unique among films.
        clips: What it shows, one after the other.
    """

    name: str
    clips: tuple[Clip, ...]

    @property
    def id(self) -> str:
        """Its id as a medium."""
        return f"videos/film/{self.name}"

    @property
    def frames(self) -> list[bytes]:
        """All frames, SEGMENT_FRAMES for each clip."""
        return [frame for clip in self.clips for frame in segment_frames(clip)]

    def windows(self) -> dict[str, list[bytes]]:
        """Windows over each boundary between two clips, by id."""
        frames, half = self.frames, SEGMENT_FRAMES // 2
        starts = [SEGMENT_FRAMES * number - half for number in range(1, len(self.clips))]
        return {f"videos/window/{self.name}-{start}": frames[start : start + SEGMENT_FRAMES] for start in starts}


def segment_id(clip: Clip) -> str:
    """The id of a clip's segment as a medium."""
    return f"videos/segment/{clip.concept.hexcode}"


def segment_frames(clip: Clip) -> list[bytes]:
    """The frames that a film shows of a clip: half of them, evenly spaced."""
    return list(clip.frames[:: len(clip.frames) // SEGMENT_FRAMES])


def phrase(clip: Clip) -> str:
    """What a clip shows, as it is named in queries about a film."""
    return noun_phrase(clip.concept.label)


def compose_films(clips: Sequence[Clip], count: int, name: str) -> list[Film]:
    """Films in which each clip is shown about equally often.

    Args:
        clips: To choose from; those with a skin tone are left out.
        count: How many films.
        name: What their names start with.

    Raises:
        ValueError: there are fewer families than a film has clips.
    """
    by_hexcode = {clip.concept.hexcode: clip for clip in clips if not clip.concept.skin_tone}
    families = {clip.concept.family for clip in by_hexcode.values()}
    if len(families) < MOST_CLIPS:
        raise ValueError(
            f"{len(families)} families of clips make no film {name!r}, which takes {MOST_CLIPS}: use more packs."
        )
    shown: Counter[str] = Counter()
    films = []
    for number in range(count):
        key = f"film {name} {number}"
        hexcodes = sorted(stable_order(by_hexcode, key), key=shown.__getitem__)
        ordered = [by_hexcode[hexcode] for hexcode in hexcodes]
        chosen = _choose(ordered, LEAST_CLIPS + pick(key, MOST_CLIPS - LEAST_CLIPS + 1))
        shown.update(clip.concept.hexcode for clip in chosen)
        order = stable_order([clip.concept.hexcode for clip in chosen], f"order of {key}")
        films.append(Film(f"{name}-{number:03d}", tuple(by_hexcode[hexcode] for hexcode in order)))
    return films


def _choose(ordered: Sequence[Clip], count: int) -> list[Clip]:
    """The first clips that go together: of different families and under different phrases, some of one subgroup."""
    first = ordered[0]
    siblings = [clip for clip in ordered if clip.concept.subgroup == first.concept.subgroup]
    chosen: list[Clip] = []
    for candidates, most in ((siblings, _OF_ONE_SUBGROUP), (ordered, count)):
        for clip in candidates:
            families = {other.concept.family for other in chosen}
            phrases = {phrase(other) for other in chosen}
            if len(chosen) < most and clip.concept.family not in families and phrase(clip) not in phrases:
                chosen.append(clip)
    return chosen
