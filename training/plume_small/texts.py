"""The strings that plume-small's text side learns from: words, definitions, sentences, two things in one picture.

Everything is a function of the packages and of a seed. WordNet's files are read as `wndb(5WN)` describes them. No
caption and no sentence of the benchmark of photographs is read here.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEED = 17
# Lexicographer files of what a picture can show: animal, artifact, body, food, object, person, plant, substance,
# phenomenon, shape; then those of which it may show a trace: act, communication, event, group, location, time.
SHOWN = (5, 6, 8, 13, 17, 18, 20, 27, 19, 25)
THINGS = (5, 6, 8, 13, 17, 20)  # of them animal, artifact, body, food, object, plant
TRACED = (4, 10, 11, 14, 15, 28)
COUNTS = {"names": 26_000, "glosses": 18_000, "examples": 16_000, "scenes": 26_000, "packages": 8_000}

# How a person names one thing, and puts things together: plain, adjectives, relations, places, doings.
PHRASES: dict[str, list[str]] = json.loads(Path(__file__).with_name("phrases.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Synset:
    """One sense of WordNet: its words, its lexicographer file, definition, examples, and how often it is used."""

    words: tuple[str, ...]
    file: int
    gloss: str
    examples: tuple[str, ...]
    count: int


def read_synsets(folder: Path) -> list[Synset]:
    """All nouns, verbs, adjectives and adverbs of the unpacked package wordnet-base."""
    data = folder / "usr" / "share" / "wordnet"
    counts = _sense_counts(data / "cntlist.rev")
    synsets = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (data / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):  # the licence
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            keys = [fields[4 + 2 * n].split("(")[0] for n in range(int(fields[3], 16))]
            definition, *examples = re.split(r';\s*(?=")', gloss.strip())
            words = tuple(key.replace("_", " ") for key in keys)
            count = max((counts.get((key.lower(), int(fields[1])), 0) for key in keys), default=0)
            quoted = tuple(match[1] for example in examples if (match := re.match(r'"([^"]+)"', example)))
            synsets.append(Synset(words, int(fields[1]), _plain(definition), quoted, count))
    return synsets


def _sense_counts(path: Path) -> dict[tuple[str, int], int]:
    """Word and lexicographer file -> how often the sense occurs in WordNet's own tagged texts."""
    counts: dict[tuple[str, int], int] = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        key, _, count = line.split()
        word, _, sense = key.partition("%")
        place = (word, int(sense.split(":")[1]))
        counts[place] = max(counts.get(place, 0), int(count))
    return counts


def _plain(gloss: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\([^()]*\)", " ", gloss)).strip(" ;,:.")


def with_article(word: str) -> str:
    """A noun with the indefinite article that its spelling asks for."""
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"


def common_nouns(synsets: list[Synset]) -> list[str]:
    """Nouns for what a picture can show, at most two words each, the frequent ones several times."""
    nouns = []
    for synset in synsets:
        word = synset.words[0]
        if synset.file in SHOWN and word.islower() and word.count(" ") <= 1 and not any(c.isdigit() for c in word):
            nouns += [word] * min(6, 1 + synset.count.bit_length())
    return nouns


def scene(random_: random.Random, nouns: list[str]) -> str:
    """One or two things, with a property, a place, a doing or a relation: what a person would type."""
    x, y = random_.choice(nouns), random_.choice(nouns)
    if random_.random() < 0.3:
        x = " ".join((random_.choice(PHRASES["adjectives"]), x))
    a, b = with_article(x), with_article(y)
    kind = random_.random()
    if kind < 0.5:
        return random_.choice(PHRASES["relations"]).format(a=a, b=b)
    if kind < 0.75:
        return " ".join((a, random_.choice(PHRASES["places"])))
    if kind < 0.9:
        return random_.choice(PHRASES["doings"]).format(a=a)
    return f"{a}"


def make_texts(wordnet: Path, emoji: Path, classes: list[str]) -> list[str]:
    """The strings, each once, in an order that the seed decides.

    Args:
        wordnet, emoji (`Path`): The unpacked packages wordnet-base and emojibase-data.
        classes (`list[str]`): "names: gloss" of the tower's 1000 classes.
    """
    random_ = random.Random(SEED)
    synsets = read_synsets(wordnet)
    nouns = common_nouns(synsets)
    texts = list(_names(random_, synsets))
    glosses = [s for s in synsets if s.file in SHOWN] * 2 + [s for s in synsets if s.file in TRACED]
    for synset in random_.sample(glosses, COUNTS["glosses"]):
        texts.append(f"{synset.words[0]}: {synset.gloss}" if random_.random() < 0.4 else synset.gloss)
    examples = [example for synset in synsets for example in synset.examples if 10 < len(example) < 120]
    texts += random_.sample(examples, COUNTS["examples"])
    texts += [scene(random_, nouns) for _ in range(COUNTS["scenes"])]
    packages = sorted(set(_package_descriptions()))
    texts += random_.sample(packages, min(len(packages), COUNTS["packages"]))
    texts += list(_emoji(emoji))
    for described in classes:
        names = described.partition(": ")[0].split(", ")
        texts += [described, *names, with_article(names[0]), f"a photo of {with_article(names[0])}"]
    texts = sorted({text.strip() for text in texts if text.strip()})
    random_.shuffle(texts)
    return texts


def make_names(wordnet: Path) -> list[str]:
    """Every noun for a thing, once, in a form in which a person might type it, in a random order; no proper names."""
    random_ = random.Random(SEED + 1)
    words = {word for s in read_synsets(wordnet) if s.file in THINGS for word in s.words if word.islower()}
    forms = ("{a}.", "{a}", "{x}", "a photo of {a}")
    named = [random_.choice(forms).format(x=word, a=with_article(word)) for word in sorted(words)]
    random_.shuffle(named)
    return named


def _names(random_: random.Random, synsets: list[Synset]) -> Iterator[str]:
    """Names of things: all that WordNet's own texts use, and others up to the number wanted."""
    shown = [(word, synset.count) for synset in synsets if synset.file in SHOWN for word in synset.words]
    traced = [(word, synset.count) for synset in synsets if synset.file in TRACED for word in synset.words[:1]]
    used = [word for word, count in shown + traced if count]
    rare = [word for word, count in shown if not count]
    for word in used + random_.sample(rare, max(0, COUNTS["names"] - len(used))):
        yield random_.choice(PHRASES["plain"]).format(x=word, a=with_article(word))


def _package_descriptions() -> Iterator[str]:
    """The short descriptions of Debian's packages, as apt knows them on this machine."""
    dump = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    for line in dump.splitlines():
        if line.startswith("Description: ") and len(line) > 30:
            yield line.removeprefix("Description: ")


def _emoji(folder: Path) -> Iterator[str]:
    for entry in json.loads((folder / "en" / "data.json").read_text(encoding="utf-8")):
        yield entry["label"]
        if entry.get("tags"):
            yield ", ".join(entry["tags"])
