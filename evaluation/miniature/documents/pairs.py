"""VisDoc's training pairs and their rationales: what a path of headings tells, and what a page tells.

A path tells its titles. A page tells the headings that are printed on it, what its manual is about, and words that are
frequent on it and rare on others.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from evaluation.miniature.documents.manuals import Heading, Manual
from evaluation.miniature.documents.tasks import Shown, crop_id, page_id
from evaluation.miniature.sources.phrases import and_list
from evaluation.miniature.sources.rationales import join
from plume_embed.evaluation.miniature.schema import Pair, Side, Taught

SUBSETS = ("VisDoc-page", "VisDoc-crop")
# Marks at which a sentence would end.
_ENDS = re.compile(r"[.!?;…]+(?=[\s)”’\"']|$)")
_COMMON = frozenset(
    (
        "about", "above", "after", "also", "another", "because", "been", "before", "below", "between", "both", "could",
        "does", "each", "following", "from", "given", "have", "here", "into", "just", "like", "many", "more", "most",
        "must", "need", "next", "note", "only", "other", "over", "same", "section", "should", "since", "some", "such",
        "than", "that", "their", "them", "then", "there", "these", "they", "this", "thus", "used", "uses", "using",
        "very", "want", "when", "where", "which", "while", "will", "with", "without", "would", "your", "example",
        "chapter", "page", "see", "what", "are", "can", "for", "the", "and", "you", "not", "but", "has", "its",
    )
)  # fmt: skip


def pairs(manual: Manual, shown: Shown) -> list[Pair]:
    """The training pairs of one manual."""
    on_page: dict[int, list[Heading]] = defaultdict(list)
    for heading in shown.headings:
        on_page[heading.page].append(heading)
    rarity = _rarity(list(shown.page_words.values()))
    found = []
    for place, heading in enumerate(shown.headings):
        asked_rationale, page = _of_path(heading), heading.page
        titles = [quoted(other.path[-1]) for other in on_page[page]]
        seen = f"Among the headings on it {'is' if len(titles) == 1 else 'are'} {and_list(titles)}"
        media = [(SUBSETS[0], page_id(manual.name, page), "page", seen, shown.page_words[page])]
        if place in shown.crops:
            seen = f"It starts with the heading {quoted(heading.path[-1])}"
            media.append((SUBSETS[1], crop_id(manual.name, place), "half page", seen, shown.crop_words[place]))
        for subset, medium, kind, seen, words in media:
            query = Taught(Side(text=heading.text), asked_rationale, "a search in a manual")
            rationale = _of_document(manual, kind, seen, _typical(words, rarity))
            found.append(Pair(query, Taught(Side(image=medium), rationale, f"a {kind} of a manual"), subset))
    return found


def quoted(title: str) -> str:
    """A title in quotes, without the marks at which a sentence would end."""
    return f"“{_ENDS.sub('', title).strip()}”"


def _of_path(heading: Heading) -> str:
    """What a path of headings tells."""
    above = [quoted(title) for title in heading.path[:-1]]
    words = list(dict.fromkeys(word for title in heading.path[::-1] for word in content_words(title)))[:4]
    return join(
        "The text is a path of headings in a manual",
        f"From the outermost it leads through {and_list(above)}" if above else "It names a heading of the first level",
        f"The heading that is looked for is {quoted(heading.path[-1])}",
        *([f"Words to look for are {and_list(words)}"] if words else []),
        "The place where it is printed is wanted",
    )


def _of_document(manual: Manual, kind: str, seen: str, words: Sequence[str]) -> str:
    """What a page tells: no path, only what is printed on it and what the manual is about."""
    return join(
        f"The picture is a {kind} of a printed manual",
        f"The manual is about {manual.title}",
        seen,
        *([f"Words that are typical of it are {and_list(list(words))}"] if words else ["It holds few words"]),
    )


def content_words(text: str) -> list[str]:
    """The words of a text that tell what it is about, in order and lower case."""
    words = (word.lower() for word in re.findall(r"[A-Za-z]{3,}", text))
    return [word for word in words if word not in _COMMON]


def _rarity(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    counts = Counter(word for words in texts for word in set(words))
    return {word: math.log((1 + len(texts)) / count) for word, count in counts.items()}


def _typical(words: Sequence[str], rarity: Mapping[str, float]) -> list[str]:
    """Up to four words that are frequent here and rare elsewhere."""
    counts = Counter(word for word in words if len(word) > 3)
    return sorted(counts, key=lambda word: (-counts[word] * rarity.get(word, 0.0), word))[:4]
