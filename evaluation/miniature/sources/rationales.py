"""Rationales composed from annotations: four to seven sentences on what a text or a picture means.

Each function says only what its side of a pair can know: a text does not know how its picture is drawn, nor
which of its tones or genders it has. Choices are stable hashes of what they are about, so that two builds are equal.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from evaluation.miniature.sources.concepts import Concept
from evaluation.miniature.sources.phrases import (
    and_list,
    is_plural,
    noun_phrase,
    plain_label,
    sentence,
    with_article,
)
from evaluation.miniature.sources.wordnet import Meaning, WordNet

MOST, LEAST = 7, 4
GROUPS = {
    "smileys-emotion": "smileys and emotion",
    "people-body": "people and body",
    "animals-nature": "animals and nature",
    "food-drink": "food and drink",
    "travel-places": "travel and places",
    "activities": "activities",
    "objects": "objects",
    "symbols": "symbols",
    "flags": "flags",
}
STYLES = {"noto": "Noto", "fluent-flat": "flat Fluent", "fluent-3d": "three-dimensional Fluent", "twemoji": "Twemoji"}
GENDERS = {"man": "male", "woman": "female"}


def pick(key: str, count: int) -> int:
    """A stable choice of 0 to count - 1."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % count


def stable_order(items: Iterable[str], key: str) -> list[str]:
    """Items in a shuffled order that depends on themselves and the key only."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{key} {item}".encode()).digest())


def subgroup_text(subgroup: str) -> str:
    """A subgroup as words: `animal-bird` becomes "animal bird"."""
    return subgroup.replace("-", " ")


class Rationales:
    """Writes rationales.

    Args:
        concepts: All concepts: for examples of a group, which are taken from train families only.
        wordnet: The dictionary; None to do without glosses.
    """

    def __init__(self, concepts: Sequence[Concept], wordnet: WordNet | None) -> None:
        self._wordnet = wordnet
        self._meanings: dict[str, Meaning | None] = {}
        self._members: dict[str, list[str]] = defaultdict(list)
        for concept in concepts:
            if concept.split_family == "train" and not concept.skin_tone:
                self._members[concept.subgroup].append(concept.label)

    def meaning(self, concept: Concept) -> Meaning | None:
        """What the dictionary says of a concept."""
        if self._wordnet is None:
            return None
        if concept.label not in self._meanings:
            self._meanings[concept.label] = self._wordnet.meaning(concept)
        return self._meanings[concept.label]

    def examples(self, subgroup: str, count: int) -> list[str]:
        """Some members of a subgroup, as noun phrases."""
        return [noun_phrase(label) for label in stable_order(self._members[subgroup], "examples")[:count]]

    def of_picture(self, concept: Concept, style: str, last: Sequence[str] = ()) -> str:
        """What a still tells.

        Args:
            concept: What it shows.
            style: How it is drawn.
            last: Sentences to end with.
        """
        first = f"The picture shows {noun_phrase(concept.label)} drawn in the {STYLES[style]} style"
        return self._compose(concept, [first, *self._seen(concept)], last)

    def of_part(self, concept: Concept, style: str) -> str:
        """What a crop of a scene tells."""
        shown = f"It shows {noun_phrase(concept.label)} drawn in the {STYLES[style]} style"
        return self._compose(concept, ["The picture is a part of a larger one", shown], [])

    def of_clip(self, concept: Concept, last: Sequence[str] = ()) -> str:
        """What a moving clip tells."""
        first = f"The clip shows {noun_phrase(concept.label)} in motion"
        return self._compose(concept, [first, *self._seen(concept)], last)

    def of_text(self, concept: Concept, last: Sequence[str] = ()) -> str:
        """What a label tells, or any text that names the concept."""
        return self._compose(concept, [f"The text names {noun_phrase(concept.label)}", *_named_traits(concept)], last)

    def of_subgroup(self, concept: Concept) -> str:
        """What the label of a concept's subgroup tells; nothing about the concept itself."""
        name = subgroup_text(concept.subgroup)
        members = self.examples(concept.subgroup, 3)
        return join(
            f"The text names a kind of picture, {name}",
            f"It is part of {GROUPS[concept.group]}",
            f"Pictures of this kind show, for example, {and_list(members)}" if members else "Its members are few",
            "Any picture of this kind fits",
        )

    def of_kind(self, kind: str) -> str:
        """What the answer to "a kind of what" tells."""
        senses = self._wordnet.senses(kind) if self._wordnet is not None else []
        gloss = next((sense.gloss for sense in senses if sense.gloss), "")
        return join(
            f"The text names what something is a kind of, {kind}",
            f"A dictionary describes it as “{gloss}”" if gloss else "It is a general word",
            "Many things can be of this kind",
            "Any of them fits",
        )

    def gloss_sentence(self, concept: Concept) -> str:
        """What the dictionary says, as one sentence; "" where it says nothing."""
        meaning = self.meaning(concept)
        if meaning is None or not meaning.gloss:
            return ""
        # The flag's meaning is the country's; a country's name is a name.
        name = with_article(meaning.word)
        if re.match(r"(?:an?|the|any|one) ", meaning.gloss) and name.startswith(("a ", "an ")):
            return f"In general, {name} is {meaning.gloss}"
        return f"A dictionary describes {name} as “{meaning.gloss}”"

    def _compose(self, concept: Concept, first: Sequence[str], last: Sequence[str]) -> str:
        meaning = self.meaning(concept)
        gloss = [self.gloss_sentence(concept)] if self.gloss_sentence(concept) else []
        kinds = [_kind_sentence(meaning.kinds)] if meaning is not None and meaning.kinds else []
        related = _related(concept)
        tags = [f"Related words are {and_list(related)}"] if len(related) > 1 else []
        group, subgroup = GROUPS[concept.group], subgroup_text(concept.subgroup)
        if len(first) + len(gloss) + len(kinds) + len(tags) + len(last) >= LEAST - 1:
            where = [f"It belongs to {group}, more precisely to {subgroup}"]
        else:
            where = [f"It belongs to {group}", f"Within them, its kind is {subgroup}"]
        sentences = [*first, *gloss, *kinds, *tags, *where, *last]
        if len(sentences) < LEAST:
            others = [f"Other things of this kind are {and_list(self.examples(concept.subgroup, 2))}"]
            sentences = [*first, *gloss, *kinds, *tags, *where, *others, *last]
        for optional in (tags, kinds, gloss):
            if len(sentences) > MOST and optional:
                sentences.remove(optional[0])
        return join(*sentences)

    def _seen(self, concept: Concept) -> list[str]:
        tones = concept.skin_tone.split("/") if concept.skin_tone else []
        seen = [f"The skin tone{'s are' if len(tones) > 1 else ' is'} {and_list(tones)}"] if tones else []
        if concept.gender:
            seen.append(_gender_sentence(concept))
        return seen


def _named_traits(concept: Concept) -> list[str]:
    """Tone and gender where the label names them."""
    named = []
    if concept.skin_tone and "skin tone" in concept.label:
        named.append(f"The skin tone is {and_list(concept.skin_tone.split('/'))}")
    if concept.gender and re.search(rf"\b{concept.gender}\b", concept.label):
        named.append(_gender_sentence(concept))
    return named


def _gender_sentence(concept: Concept) -> str:
    several = is_plural(plain_label(concept.label))
    return f"The {'people are' if several else 'person is'} {GENDERS[concept.gender]}"


def _kind_sentence(kinds: Sequence[str]) -> str:
    return f"It is a kind of {', which is a kind of '.join(kinds)}"


def _related(concept: Concept) -> list[str]:
    """Up to three keywords that the label does not hold already."""
    label = plain_label(concept.label).lower()
    words = [tag for tag in concept.tags if re.fullmatch(r"[a-z][a-z -]{2,}", tag) and tag not in label]
    return stable_order(words, concept.label)[:3]


def join(*sentences: str) -> str:
    """Sentences as one text."""
    return " ".join(sentence(text) for text in sentences)
