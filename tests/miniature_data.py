"""A made-up world of concepts and pictures for the miniature's tests: nothing is fetched."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

from evaluation.miniature.parts import Context, Still
from evaluation.miniature.sources.concepts import TONES, Concept, family_of, split_of
from evaluation.miniature.sources.packages import STYLE_PACKAGES
from evaluation.miniature.sources.render import encoded, picture_hash, render

SORTS = {"animal-bird": "animals-nature", "tool": "objects", "food-fruit": "food-drink"}
NAMES = ("alder", "birch", "cedar", "daisy", "elm", "fern", "gorse", "hazel", "iris", "jasmine", "kale", "larch")


def plain_concepts(per_split: int = 8) -> list[Concept]:
    """Things of three subgroups, as many of train as of test families in each."""
    codes = {"train": [], "test": []}
    for number in range(0x1F400, 0x1F900):
        key = f"{number:x}"
        if family_of(key) == key:
            codes[split_of(key)].append(key.upper())
    concepts = []
    for subgroup, group in SORTS.items():
        for split in ("train", "test"):
            for n in range(per_split):
                label = f"{NAMES[n]} {subgroup.split('-')[-1]}{' two' if split == 'test' else ''}"
                concepts.append(Concept(codes[split].pop(0), label, ("first", "second"), group, subgroup, "", "", 1.0))
    return concepts


def people(stem: str = "1F9D1-200D-1F680", name: str = "astronaut") -> list[Concept]:
    """A person, a man and a woman of one role, each in no and in five skin tones."""
    found = []
    for point, gender in (("1F9D1", ""), ("1F468", "man"), ("1F469", "woman")):
        code, label = stem.replace("1F9D1", point), f"{gender} {name}".strip()
        found.append(Concept(code, label, ("space", "rocket"), "people-body", "person-role", "", gender, 1.0))
        for tone, word in TONES.items():
            toned = code.replace(point, f"{point}-{tone.upper()}")
            text = f"{label}: {word} skin tone"
            found.append(Concept(toned, text, ("space", "rocket"), "people-body", "person-role", word, gender, 1.0))
    return found


def svg(number: int, style: str) -> str:
    """A square with a hole, of its own colour for each number; each style has a hole of its own."""
    shade = colorsys.hsv_to_rgb((number * 0.137) % 1, 0.9, 0.5 + 0.4 * (number % 2))
    fill = f"rgb({','.join(str(round(255 * value)) for value in shade)})"
    hole = 4 + 4 * sorted(STYLE_PACKAGES).index(style)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40">'
        f'<rect width="40" height="40" fill="{fill}"/>'
        f'<rect x="4" y="{number % 30}" width="{hole}" height="4" fill="white"/></svg>'
    )


def context(concepts: Sequence[Concept], same: dict[str, str] | None = None, size: int = 28) -> Context:
    """A context in which every style draws every concept.

    Args:
        same: Hexcodes that are drawn as another hexcode is.
    """
    numbers = {concept.hexcode: n for n, concept in enumerate(concepts)}
    drawn_as = {c.hexcode: numbers[(same or {}).get(c.hexcode, c.hexcode)] for c in concepts}
    sources = {style: {code: svg(n, style) for code, n in drawn_as.items()} for style in STYLE_PACKAGES}
    stills: dict[str, dict[str, Still]] = {}
    for style in STYLE_PACKAGES:
        stills[style] = {}
        for concept in concepts:
            picture = render(sources[style][concept.hexcode], size)
            stills[style][concept.hexcode] = Still(concept, style, encoded(picture), picture_hash(picture))
    return Context(tuple(concepts), stills, sources, Path("unused"), size, 0, 1)
