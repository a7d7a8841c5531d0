"""The passage of a text that matches a query's words best, for the line below a result."""

import re

PASSAGE_WORDS = 28
_WORD = re.compile(r"\w+")
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

    Args:
        text (`str`): Any length.
        query (`str`): What was searched; without a common word the text's beginning is given.
        num_words (`int`)
    """
    words = text.split()
    wanted = query_words(query)
    hits = [frozenset(found.lower() for found in _WORD.findall(word)) & wanted for word in words]
    best, most = 0, 0
    for start in (index for index, found in enumerate(hits) if found):
        here = len(frozenset().union(*hits[start : start + num_words]))
        if here > most:
            best, most = start, here
    if best + num_words > len(words):
        best = max(0, len(words) - num_words)
    elif most:
        best = max(0, best - 4)  # a few words before the first match are read with it
    passage = " ".join(words[best : best + num_words])
    return ("… " if best else "") + passage + (" …" if best + num_words < len(words) else "")


def matching_spans(passage: str, query: str) -> list[tuple[int, int]]:
    """Where the query's words stand in a passage, as (start, end)."""
    wanted = query_words(query)
    return [found.span() for found in _WORD.finditer(passage) if found[0].lower() in wanted]
