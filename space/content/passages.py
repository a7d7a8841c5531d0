"""The passage of a text that matches a query's words best, for the line below a result."""

import re
from bisect import bisect_right
from collections import defaultdict

PASSAGE_WORDS = 28
# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana and Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff66-\uff9f"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
# What counts as a word of a passage: there two characters, elsewhere what stands between spaces, if it is not too long.
_UNIT = re.compile(rf"[{_UNSPACED}]{{1,2}}|[^\s{_UNSPACED}]{{1,60}}")
# Words that match everywhere and say nothing.
_COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "was",
        "with",
    ]
)


def query_words(query: str) -> frozenset[str]:
    """The words of a query that can match: lower case, without the commonest ones."""
    return frozenset(word for word in (found.lower() for found in _WORD.findall(query)) if word not in _COMMON)


def best_passage(text: str, query: str, num_words: int = PASSAGE_WORDS) -> str:
    """The stretch of at most `num_words` words with most of the query's words, the first one of several; in one line.

    Where a script puts no spaces between words, two characters count as a word.

    Args:
        text (`str`): Any length.
        query (`str`): What was searched; without a common word the text's beginning is given.
        num_words (`int`)
    """
    units = [unit.span() for unit in _UNIT.finditer(text)]
    starts = [start for start, _ in units]
    hits: dict[int, set[str]] = defaultdict(set)
    for start, end in matching_spans(text, query):
        hits[bisect_right(starts, start) - 1].add(text[start:end].lower())
    best, most = 0, 0
    for first in hits:
        here = len(set().union(*(hits[place] for place in range(first, first + num_words) if place in hits)))
        if here > most:
            best, most = first, here
    if best + num_words > len(units):
        best = max(0, len(units) - num_words)
    elif most:
        best = max(0, best - 4)  # a few words before the first match are read with it
    shown = units[best : best + num_words]
    passage = " ".join(text[shown[0][0] : shown[-1][1]].split()) if shown else ""
    return ("… " if best else "") + passage + (" …" if best + num_words < len(units) else "")


def matching_spans(passage: str, query: str) -> list[tuple[int, int]]:
    """Where the query's words stand in a passage, as (start, end)."""
    wanted = query_words(query)
    unspaced = sorted((word for word in wanted if _IS_UNSPACED.match(word)), key=len, reverse=True)
    parts = re.compile("|".join(unspaced) or r"(?!)")  # without words of such a script, nothing
    spans = []
    for found in _WORD.finditer(passage):
        if _IS_UNSPACED.match(found[0]):
            spans += [part.span() for part in parts.finditer(passage, *found.span())]
        elif found[0].lower() in wanted:
            spans.append(found.span())
    return spans
