"""What a dictionary says of a concept: WordNet's noun senses, restricted to those that fit the emoji's group.

The first sense is often the wrong one (a raccoon is, first of all, its fur), so a sense counts only if it comes from a
lexicographer file that the concept's group can mean, see `wndb(5WN)` and `lexnames(5WN)` for the formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evaluation.miniature.sources.concepts import Concept

_DATA = Path("usr/share/wordnet")
_FILES = {  # numbers of lexicographer files
    "act": 4, "animal": 5, "artifact": 6, "attribute": 7, "body": 8, "cognition": 9, "communication": 10, "event": 11,
    "feeling": 12, "food": 13, "group": 14, "location": 15, "object": 17, "person": 18, "phenomenon": 19, "plant": 20,
    "possession": 21, "quantity": 23, "shape": 25, "state": 26, "substance": 27, "time": 28,
}  # fmt: skip
# The files that a subgroup, or else a group, can mean; the first that has a sense decides.
_MEANT = {
    "animal-": "animal",
    "plant-": "plant",
    "food-fruit": "food plant",
    "food-vegetable": "food plant",
    "food-": "food plant substance",
    "drink": "food artifact",
    "dishware": "artifact",
    "sky-weather": "object phenomenon state artifact",
    "hotel": "artifact",
    "time": "artifact time",
    "transport-": "artifact",
    "place-geographic": "object location",
    "place-": "artifact object",
    "hotel-": "artifact",
    "event": "artifact plant act event time communication",
    "sport": "artifact act",
    "game": "artifact act communication",
    "award-medal": "artifact communication",
    "arts-crafts": "artifact cognition communication",
    "clothing": "artifact",
    "money": "possession artifact communication",
    "book-paper": "communication artifact",
    "writing": "artifact communication",
    "mail": "communication artifact",
    "science": "artifact object body cognition",
    "medical": "artifact substance body",
    "objects": "artifact communication object body substance",
    "person-fantasy": "person cognition",
    "person-activity": "person",
    "person-sport": "person",
    "person-role": "person",
    "person": "person",
    "family": "",
    "body-parts": "body",
    "hand-": "body communication",
    "face-": "feeling",
    "cat-face": "animal",
    "monkey-face": "animal",
    "emotion": "phenomenon event feeling act",
    "heart": "shape",
    "zodiac": "location",
    "country-flag": "location",
    "subdivision-flag": "location",
    "geometric": "shape",
    "religion": "communication artifact",
    "transport-sign": "communication artifact",
    "currency": "possession",
}
# Where even the fitting sense is a wrong one: the word to look up instead, "" for none.
_INSTEAD = {
    "black cat": "cat",
    "peacock": "peafowl",
    "dragon": "",
    "dragon face": "",
    "spider web": "",
    "lady beetle": "ladybug",
    "thumbs down": "",
    "nail polish": "",
    "raised back of hand": "",
    "drop of blood": "blood",
    "hammer": "",
    "hammer and pick": "",
    "hammer and wrench": "",
    "film frames": "",
    "speaker high volume": "loudspeaker",
    "speaker medium volume": "loudspeaker",
    "speaker low volume": "loudspeaker",
    "horse racing": "",
    "front-facing baby chick": "chick",
    "toilet": "",
    "dotted six-pointed star": "",
    "men’s room": "",
    "women’s room": "",
    "pill": "",
    "love-you gesture": "",
    "crown": "",
    "pool 8 ball": "",
}
# Head nouns that tell nothing.
_UNKNOWN = frozenset(
    {"person", "man", "woman", "people", "button", "symbol", "sign", "mark", "face", "with", "tone", "side", "hand"}
)


@dataclass(frozen=True)
class Sense:
    """One noun sense.

    Attributes:
        words: Its synonyms as WordNet lists them, with spaces.
        file: Number of its lexicographer file.
        gloss: The definition, without examples and remarks.
        parents: Offsets of the senses it is a kind of; empty for an instance (a country is no kind of country).
    """

    words: tuple[str, ...]
    file: int
    gloss: str
    parents: tuple[int, ...]


@dataclass(frozen=True)
class Meaning:
    """What is known of a concept.

    Attributes:
        word: The word that was looked up: the label, or its head noun.
        exact: Whether it is the whole label.
        gloss: Its definition.
        kinds: What it is a kind of, nearest first.
        ancestors: All words for anything it is a kind of, over all its senses: none of them is a wrong answer.
    """

    word: str
    exact: bool
    gloss: str
    kinds: tuple[str, ...]
    ancestors: frozenset[str]


class WordNet:
    """WordNet's nouns, read on demand.

    Args:
        folder: The unpacked Debian package wordnet-base.

    Raises:
        ValueError: the files are not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _DATA
        if not (self._folder / "data.noun").is_file():
            raise ValueError(f"{self._folder} holds no data.noun: fetch sources.WORDNET_PACKAGE first.")
        self._known: dict[int, Sense] = {}

    @cached_property
    def _data(self) -> bytes:
        return (self._folder / "data.noun").read_bytes()

    @cached_property
    def _index(self) -> dict[str, list[int]]:
        index = {}
        for line in (self._folder / "index.noun").read_text(encoding="ascii").splitlines():
            if not line.startswith(" "):
                fields = line.split()
                index[fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
        return index

    @cached_property
    def _irregular(self) -> dict[str, str]:
        lines = (self._folder / "noun.exc").read_text(encoding="ascii").splitlines()
        return {plural: singular for plural, singular, *_ in map(str.split, lines)}

    def sense(self, offset: int) -> Sense:
        """The sense at a byte offset of data.noun."""
        if offset not in self._known:
            line = self._data[offset : self._data.index(b"\n", offset)].decode("ascii")
            fields, _, gloss = line.partition(" | ")
            parts = fields.split()
            count = int(parts[3], 16)
            words = tuple(parts[4 + 2 * n].replace("_", " ") for n in range(count))
            pointers = parts[5 + 2 * count :]
            parents = tuple(int(pointers[n + 1]) for n in range(0, len(pointers) - 3, 4) if pointers[n] == "@")
            self._known[offset] = Sense(words, int(parts[1]), plain_gloss(gloss), parents)
        return self._known[offset]

    def senses(self, word: str) -> list[Sense]:
        """The senses of a noun, the most frequent first; of its singular where it is a plural."""
        key = word.lower().replace(" ", "_")
        forms = [key, self._irregular.get(key, ""), key[:-1] if key.endswith("s") else ""]
        forms.append(f"{key[:-3]}y" if key.endswith("ies") else "")
        forms.append(key[:-2] if key.endswith(("shes", "ches", "xes", "sses")) else "")
        found = next((self._index[form] for form in forms if form in self._index), [])
        return [self.sense(offset) for offset in found]

    def meaning(self, concept: Concept) -> Meaning | None:
        """What the dictionary says of a concept; None where no sense fits its group."""
        label = _INSTEAD.get(concept.label, concept.label)
        for word, exact in _candidates(label):
            if word.lower() in _UNKNOWN:
                continue
            senses = self.senses(word)
            for file in _files_meant(concept):
                fitting = [sense for sense in senses if sense.file == file]
                if fitting:
                    ancestors = {w.lower() for sense in senses for above in self._above(sense) for w in above.words}
                    return Meaning(word, exact, fitting[0].gloss, self._kinds(fitting[0]), frozenset(ancestors))
        return None

    def _kinds(self, sense: Sense) -> tuple[str, ...]:
        kinds: list[str] = []
        while sense.parents and len(kinds) < 2:
            sense = self.sense(sense.parents[0])
            kinds.append(sense.words[0])
        return tuple(kinds)

    def _above(self, sense: Sense) -> Iterator[Sense]:
        for offset in sense.parents:
            parent = self.sense(offset)
            yield parent
            yield from self._above(parent)


def plain_gloss(gloss: str) -> str:
    """A definition without examples, remarks in brackets and abbreviations that end in a full stop."""
    text = re.sub(r"\([^()]*\)", " ", gloss.split('; "')[0]).split(";")[0]
    for short, long in (("e.g.", "for example"), ("i.e.", "that is"), ("etc.", "and so on"), ("U.S.", "US")):
        text = text.replace(short, long)
    text = re.sub(r"\b(?:St|Mt|Dr|Mr|Mrs|ca|c|cf|no|vs|approx|especially|esp|A\.D|B\.C|ft|lb)\.", r" ", text)
    return re.sub(r"\s+", " ", text.replace("`", "").replace("''", "").replace('"', "")).strip(" ,:.")


def _candidates(label: str) -> Iterator[tuple[str, bool]]:
    """The words to look a label up under: whole, without "face", what stands before a preposition, the head noun."""
    if label.startswith("flag:"):
        yield label.removeprefix("flag:").strip().replace("&", "and"), True
        return
    text = label.split(":")[0]
    yield text, True
    if text.endswith(" face"):
        yield text.removesuffix(" face"), True
    text = re.split(r" (?:with|without|in|of|on|and|over|behind|at|from) ", text)[0]
    yield text, True
    words = text.split()
    if len(words) == 3:
        yield " ".join(words[1:]), False
    if 2 <= len(words) <= 3:
        yield words[-1], False


def _files_meant(concept: Concept) -> list[int]:
    """The files a concept can mean: the longest entry that its subgroup starts with, or its group's."""
    for name in (concept.subgroup, concept.group):
        fitting = [key for key in _MEANT if name == key or (key.endswith("-") and name.startswith(key))]
        if fitting:
            return [_FILES[file] for file in _MEANT[max(fitting, key=len)].split()]
    return []
