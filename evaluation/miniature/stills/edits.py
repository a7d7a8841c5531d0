"""Edits of a picture: two concepts that differ in one thing, and the words that say which.

Two pictures make an edit only if they differ: some styles draw a gender or a direction as they draw another.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evaluation.miniature.parts import Still
from evaluation.miniature.sources.concepts import TONES, Concept, without_tones
from evaluation.miniature.sources.rationales import pick, stable_order

KINDS = ("tone", "gender", "hair", "direction", "colour")

_HAIR = {"1f9b0": "red hair", "1f9b1": "curly hair", "1f9b2": "no hair", "1f9b3": "white hair"}
_COLOURS = "red orange yellow green blue purple brown black white grey pink"
_COLOUR = re.compile(rf"^((?:light )?(?:{'|'.join(_COLOURS.split())})) (.+)$")
# What a colour and a noun mean together; elsewhere ("black cat", "green salad") the colour is not what differs.
_COLOURED = frozenset(("heart", "circle", "square", "apple", "book", "large square", "medium square", "small square"))
_COLOURED_AFTER_SIZE = re.compile(r"^(large|small) (orange|blue) (diamond)$")


@dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
        kind: One of KINDS.
        source: What is shown.
        target: What is to be found.
        text: The change, as it is asked for.
        fact: The change as a sentence about the target.
    """

    kind: str
    source: Concept
    target: Concept
    text: str
    fact: str


def find_edits(concepts: Iterable[Concept]) -> list[Edit]:
    """All edits between concepts, in a stable order. Concepts with two skin tones take part in none."""
    groups: dict[tuple[str, str], list[Concept]] = defaultdict(list)
    for concept in concepts:
        for kind, rest in _kinds(concept):
            groups[kind, rest].append(concept)
    edits = []
    for (kind, _), members in groups.items():
        values = [_value(kind, concept) for concept in members]
        if len(set(values)) < len(values):
            continue  # not the only thing that differs
        for target, value in zip(members, values, strict=True):
            text, fact = _words(kind, value, target)
            edits += [Edit(kind, source, target, text, fact) for source in members if source is not target and text]
    return edits


def drawn(edits: Iterable[Edit], stills: Mapping[str, Still]) -> list[Edit]:
    """The edits whose two pictures a style draws, and draws differently."""
    return [
        edit
        for edit in edits
        if edit.source.hexcode in stills
        and edit.target.hexcode in stills
        and stills[edit.source.hexcode].digest != stills[edit.target.hexcode].digest
    ]


def sample(edits: Iterable[Edit], count: int, key: str, tone_share: float) -> list[Edit]:
    """A stable sample: no more than a share are of skin tone, and each family and change is in it about equally often.

    Args:
        edits: To draw from.
        count: How many at most.
        key: Of the draw.
        tone_share: Largest share of edits of skin tone, below 1.
    """
    by_name = {f"{edit.source.hexcode}>{edit.target.hexcode}": edit for edit in edits}
    turns: dict[str, int] = defaultdict(int)
    ranked = []
    for name in stable_order(by_name, key):
        edit = by_name[name]
        change = f"{edit.kind} {edit.target.family} {edit.text}"
        ranked.append((turns[change], len(ranked), edit))
        turns[change] += 1
    ordered = [edit for *_, edit in sorted(ranked, key=lambda entry: entry[:2])]
    tones = [edit for edit in ordered if edit.kind == "tone"]
    others = [edit for edit in ordered if edit.kind != "tone"]
    num_tones = min(len(tones), int(count * tone_share), int(len(others) * tone_share / (1 - tone_share)))
    return tones[:num_tones] + others[: count - num_tones]


def asked_in_words(edit: Edit, key: str) -> str:
    """The edit as one of several ways to ask for it."""
    forms = ("the same, but {text}", "{text}", "this picture, but {text}", "now {text}")
    return forms[pick(f"{key} {edit.source.hexcode} {edit.target.hexcode}", len(forms))].format(text=edit.text)


def _kinds(concept: Concept) -> list[tuple[str, str]]:
    """For each kind of edit that a concept takes part in, what has to be equal on both sides."""
    if "/" in concept.skin_tone:
        return []
    points = concept.key.split("-")
    kinds = [("colour", rest)] if (rest := _colour(concept)[1]) else []
    if concept.group != "people-body":
        return kinds
    if len([p for p in points if p in TONES]) <= 1:
        kinds.append(("tone", without_tones(concept.key)))
    if set(points) & {"1f9d1", "1f468", "1f469", "2640", "2642"} or concept.gender:
        stripped = [p for p in points if p not in ("2640", "2642", "200d", "27a1", *_HAIR)]
        facing, hair = "27a1" in points[1:], "-".join(p for p in points if p in _HAIR)
        neutral = "-".join({"1f468": "1f9d1", "1f469": "1f9d1"}.get(p, p) for p in stripped)
        kinds.append(("gender", f"{neutral} {hair} {facing}"))
    if points[0] in ("1f9d1", "1f468", "1f469") and len(without_tones(concept.key).split("-")) in (1, 3):
        rest = [p for p in points if p not in _HAIR and p != "200d"]
        if len(rest) == 1 + bool(concept.skin_tone):
            kinds.append(("hair", "-".join(rest)))
    kinds.append(("direction", "-".join(p for p in points if p not in ("27a1", "200d"))))
    return kinds


def _colour(concept: Concept) -> tuple[str, str]:
    """A label's colour and what is left of it; "" twice where it has none that could be another."""
    sized = _COLOURED_AFTER_SIZE.match(concept.label)
    if sized:
        return sized[2], f"{concept.subgroup} {sized[1]} {sized[3]}"
    match = _COLOUR.match(concept.label)
    if match and match[2] in _COLOURED:
        return match[1], f"{concept.subgroup} {match[2]}"
    return "", ""


def _value(kind: str, concept: Concept) -> str:
    points = concept.key.split("-")
    if kind == "tone":
        return concept.skin_tone
    if kind == "gender":
        return concept.gender
    if kind == "hair":
        return next((name for point, name in _HAIR.items() if point in points), "")
    if kind == "direction":
        return "right" if "27a1" in points[1:] else "left"
    return _colour(concept)[0]


def _words(kind: str, value: str, target: Concept) -> tuple[str, str]:
    """The words of an edit; "" for a value that is not asked for (the default tone, plain hair)."""
    if kind == "tone":
        if not value:
            return "with no skin tone", "The skin becomes yellow, which is no skin tone"
        return f"with {value} skin tone", f"The skin tone becomes {value}"
    if kind == "gender":
        return (f"as a {value}", f"The person becomes a {value}") if value else ("", "")
    if kind == "hair":
        return (f"with {value}", f"The person gets {value}") if value else ("", "")
    if kind == "direction":
        return f"facing {value}", f"The person turns to face {value}"
    return value, f"The colour becomes {value}"
