"""Descriptions of boards, field by field in any order: each look-up of an instruction by itself.

A line of a description has for each of `LOOK_UPS` what is looked up of a field, and where that leads, in the form of a
rationale: "BrKB2DBzGB1F" says of field B that it is red, the other red picture on K; its row has two large pictures, so
on to D; it is a circle, the other one on G; its column has one small picture, so on to F. Without hops it is "Br2z1".
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from training.scene_hops import pictures, scenes
from training.scene_hops.pictures import LETTERS
from training.scene_hops.scenes import BOARDS, NUM_SLOTS, OPENINGS, STAY, WORDS, Query, Scene

LOOK_UPS = ("colour", "large", "shape", "small")  # what is looked up of a field, in the order of a line
NUM_LINES = {False: 6, True: 3}  # of a description, by whether it has the hops
# Of the tokens of a line with hops. Which field comes next is free, and a line end is always the same.
KINDS = (*(kind for word in LOOK_UPS for kind in (None, word, f"hop by {word}")), None)


@dataclass(frozen=True)
class Reading(Query):
    """A board to be described, which has no answer.

    Args:
        order (`tuple[int]`): The fields that are described.
        with_hops (`bool`): Whether it says where the look-ups lead.
    """

    opening: ClassVar[str] = OPENINGS[1]

    order: tuple[int, ...] = ()
    with_hops: bool = True

    @property
    def final(self) -> int:
        """The same for every description. Among equal targets there is nothing to contrast, and that loss is zero; it
        disturbs what the decoder learns of words and fields, for it pulls at the embeddings of the words."""
        return 0

    @property
    def rationale(self) -> str:
        """The description."""
        return "".join(line(self.scene, field, self.with_hops) for field in self.order)


def line(scene: Scene, field: int, with_hops: bool = True) -> str:
    """One field of a description, a token for each character."""
    own, signs = LETTERS[field], [WORDS.index(word) for word in LOOK_UPS]
    marks = [scene.mark(field, sign) for sign in signs]
    if not with_hops:
        return f"{own}{''.join(marks)}\n"
    ends = [LETTERS[scene.after(field, sign)] for sign in signs]
    return "".join(f"{own}{mark}{end}" for mark, end in zip(marks, ends, strict=True)) + "\n"


def draw_reading(
    rng: random.Random,
    is_test: bool = False,
    boards: Sequence[tuple[int, int]] = BOARDS,
    with_hops: bool = True,
) -> Reading:
    """A random board with the fields to be described; the text has no hops."""
    scene = scenes.draw_scene(rng, boards)
    start, order = rng.choice(scene.fields), tuple(rng.sample(scene.fields, NUM_LINES[with_hops]))
    renderings = pictures.draw_renderings(rng, is_test)
    return Reading(scene, start, (STAY,) * NUM_SLOTS, renderings, order, with_hops)
