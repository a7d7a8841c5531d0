"""What is asked about a scene: how many, left or right of, largest (I-QA), and phrases for one thing (I-GD).

Whatever is asked has exactly one right answer in the scene: neighbours share a row or a column of the grid, and what is
called leftmost, largest or smallest is so by a clear margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evaluation.miniature.scenes.scenes import NOUNS, ROWS, Scene, Thing
from evaluation.miniature.sources.phrases import and_list, is_plural
from evaluation.miniature.sources.rationales import stable_order

TYPES = ("how many", "left or right of", "largest")
_SMALL = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty")
NUMBERS = (*_SMALL, *(f"{ten}-{one}" if one else ten for ten in _TENS for one in ("", *_SMALL[:9])))[:64]
PLURALS = dict(NOUNS.values())

_CLEAR = 12  # pixels between what is leftmost and what comes next
_RATIO = 1.2  # between sizes
_PLACES = ("leftmost", "rightmost", "largest", "smallest")
_SIDES = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
_WORDS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


@dataclass(frozen=True)
class Asked:
    """A question or a phrase about a scene.

    Attributes:
        kind: One of TYPES, or "phrase".
        text: What is asked.
        thing: What the answer is about: the thing itself, or one of those counted.
        answer: A number or a name.
        reasons: How the scene gives the answer, sentence by sentence.
    """

    kind: str
    text: str
    thing: Thing
    answer: str
    reasons: tuple[str, ...]


def _are(thing: Thing) -> str:
    return "are" if is_plural(thing.name) else "is"


def what_is_where(scene: Scene) -> list[str]:
    """The things of a scene, row by row, as sentences."""
    rows = []
    for row, where in zip(range(ROWS), ("upper", "lower"), strict=True):
        names = [f"the {thing.name}" for thing in scene.things if thing.row == row]
        if names:
            start = f"The {where} row shows" if len(names) == 1 else f"From left to right, the {where} row shows"
            rows.append(f"{start} {and_list(names)}")
    return [f"The picture is a scene of {NUMBERS[len(scene.things) - 1]} things", *rows]


def how_many(scene: Scene) -> Asked:
    """How many things of the scene's sort there are."""
    counted, plural = scene.of_the_sort, PLURALS[scene.sort]
    names = and_list([f"the {thing.name}" for thing in counted])
    are = f"The {plural} are {names}" if len(counted) > 1 else f"The only {scene.sort} is {names}"
    reasons = (f"The question is how many {plural} there are", are, f"Counted, that is {NUMBERS[scene.count - 1]}")
    return Asked("how many", f"How many {plural} are there?", counted[0], NUMBERS[scene.count - 1], reasons)


def largest(scene: Scene) -> Asked:
    """What the largest thing is."""
    thing = max(scene.things, key=lambda one: one.side)
    reasons = ("The question is what is largest", f"Nothing else is as large as the {thing.name}")
    return Asked("largest", "What is the largest thing?", thing, thing.name, reasons)


def beside(scene: Scene) -> Asked | None:
    """What is next to a thing, on its left or right; None where no two things are neighbours in a row."""
    found = [(side, thing, other) for side in ("left", "right") for thing, other in neighbours(scene, side)]
    if not found:
        return None
    names = {f"{side} {thing.name}": (side, thing, other) for side, thing, other in found}
    side, thing, other = names[stable_order(names, f"beside {scene.id}")[0]]
    text = f"What is directly {_WORDS[side]} the {thing.name}?"
    reasons = (f"The question is what is {_WORDS[side]} the {thing.name}", f"There {_are(other)} the {other.name}")
    return Asked("left or right of", text, other, other.name, reasons)


def neighbours(scene: Scene, side: str) -> list[tuple[Thing, Thing]]:
    """Pairs of a thing and what is in the next cell on a side of it."""
    rows, columns = _SIDES[side]
    pairs = ((thing, scene.at(thing.row + rows, thing.column + columns)) for thing in scene.things)
    return [(thing, other) for thing, other in pairs if other is not None]


def phrases(scene: Scene) -> list[Asked]:
    """All phrases that name one of the counted things, where at least two others could be meant.

    In a stable order in which places among all ("the leftmost animal") and neighbours ("the animal above the clock")
    take turns as long as there are both: neighbours are many more.
    """
    counted = scene.of_the_sort
    if len(counted) < 3:
        return []
    found: dict[str, Asked] = {}

    def add(text: str, thing: Thing, reason: str) -> None:
        names = and_list([f"the {one.name}" for one in counted])
        reasons = (f"The phrase is about {PLURALS[scene.sort]}, which are {names}", reason)
        found[text] = Asked("phrase", text, thing, thing.name, reasons)

    def extreme(word: str, value: Callable[[Thing], float], enough: Callable[[float, float], bool]) -> None:
        first, second = sorted(counted, key=value)[:2]
        if enough(value(first), value(second)):
            add(f"the {word} {scene.sort}", first, f"The {word} of them is the {first.name}")

    leftmost, rightmost, greatest, smallest = _PLACES
    extreme(leftmost, lambda t: t.centre[0], lambda a, b: b - a >= _CLEAR)
    extreme(rightmost, lambda t: -t.centre[0], lambda a, b: b - a >= _CLEAR)
    extreme(greatest, lambda t: -t.side, lambda a, b: a / b >= _RATIO)
    extreme(smallest, lambda t: t.side, lambda a, b: b / a >= _RATIO)
    for side in _SIDES:
        for thing, other in neighbours(scene, side):
            if other in counted:
                words = _WORDS[side]
                add(
                    f"the {scene.sort} directly {words} the {thing.name}",
                    other,
                    f"The {other.name} is {words} the {thing.name}",
                )
    order = stable_order(found, f"phrases {scene.id}")
    turns = {True: 0, False: 0}
    ranked = []
    for text in order:
        is_place = text.split()[1] in _PLACES
        ranked.append((turns[is_place], len(ranked), text))
        turns[is_place] += 1
    return [found[text] for *_, text in sorted(ranked)]
