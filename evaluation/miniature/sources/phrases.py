"""English for concepts: from a label to a noun phrase that stands in a sentence, and lists of words."""

from __future__ import annotations

import re
from collections.abc import Sequence

_AN = re.compile(r"[aeio]|u(?!n[it]|se|til|k|ra)|hour|honest|x-ray|8|11", re.IGNORECASE)
_A = re.compile(r"one\b|once|eu|uni", re.IGNORECASE)
_SPELLED = re.compile(r"(?:SOS|ATM|NG|AB|A|O)\b")  # letters whose names begin with a vowel
_AFTER_HEAD = re.compile(
    r" (?:with|without|in|of|on|over|behind|at|from|and|facing|pointing|holding|showing|feeding|wearing|getting|taking"
    r"|fluttering|tilted|curving|blowing|screaming|giving) "
)
# Not counted, or a name: no article.
_NO_ARTICLE = frozenset(
    (
        "broccoli", "garlic", "bread", "bacon", "butter", "salt", "popcorn", "sake", "fog", "fire", "money",
        "lacrosse", "badminton", "sushi", "spaghetti", "oden", "tennis", "bowling", "soap", "dna", "mail", "e-mail",
        "yarn", "thread", "coral", "rice", "lightning", "luggage", "lipstick", "camping", "wood", "cooking", "racing",
        "hockey", "pong", "arts", "infinity", "customs",
    )
)  # fmt: skip
_NO_ARTICLE_WHOLE = frozenset(
    ("shaved ice", "ice cream", "soft ice cream", "canned food", "fried shrimp", "bubble tea", "building construction")
)
_THE = frozenset(("kaaba", "milky way", "Statue of Liberty", "Tokyo tower"))
_PLURAL = re.compile(r"(?:people|\bmen|women|children|fireworks|skis|teeth|feet)$")
_SINGULAR_IN_S = re.compile(r"(?:ss|us|is|compass|lens|news|canvas|rhinoceros|gas)$")
# Labels that are no noun phrases.
_INSTEAD = {
    "rolling on the floor laughing": "a face that rolls on the floor laughing",
    "star-struck": "a star-struck face",
    "hundred points": "a hundred points",
    "dashing away": "a puff of air",
    "dizzy": "a dizzy symbol",
    "ZZZ": "the letters ZZZ",
    "thumbs up": "a thumbs-up",
    "thumbs down": "a thumbs-down",
    "palms up together": "two palms up together",
    "breast-feeding": "a woman who breast-feeds",
    "Mrs. Claus": "Mrs Claus",
    "mount fuji": "Mount Fuji",
    "foggy": "a foggy city",
    "construction": "a construction barrier",
    "pouring liquid": "a glass with a poured liquid",
    "mate": "a mate drink",
    "ice": "an ice cube",
    "high voltage": "a sign for high voltage",
    "hourglass done": "a finished hourglass",
    "hourglass not done": "a running hourglass",
    "T-Rex": "a T-Rex",
    "locked": "a closed lock",
    "unlocked": "an open lock",
    "locked with pen": "a lock with a pen",
    "locked with key": "a closed lock with a key",
    "warning": "a warning sign",
    "radioactive": "a radioactivity sign",
    "biohazard": "a biohazard sign",
    "prohibited": "a prohibition sign",
    "no entry": "a no-entry sign",
    "no bicycles": "a no-bicycles sign",
    "no smoking": "a no-smoking sign",
    "no littering": "a no-littering sign",
    "no pedestrians": "a no-pedestrians sign",
    "no mobile phones": "a no-mobile-phones sign",
    "no one under eighteen": "a sign that admits no one under eighteen",
    "non-potable water": "a sign for non-potable water",
    "potable water": "a sign for potable water",
    "left luggage": "a sign for left luggage",
    "children crossing": "a sign for children crossing",
    "multiply": "a multiplication sign",
    "plus": "a plus sign",
    "minus": "a minus sign",
    "divide": "a division sign",
    "copyright": "a copyright sign",
    "registered": "a sign for registered",
    "trade mark": "a trade mark sign",
    "information": "an information sign",
    "wireless": "a wireless sign",
    "input latin uppercase": "an input sign for upper case",
    "input latin lowercase": "an input sign for lower case",
    "skull and crossbones": "a skull and crossbones",
}


def article(words: str) -> str:
    """ "a" or "an", as the first sound of the words wants it."""
    if _SPELLED.match(words):
        return "an"
    return "an" if _AN.match(words) and not _A.match(words) else "a"


def head_of(words: str) -> str:
    """A noun phrase up to and with its head noun: "glass of milk" -> "glass"."""
    return _AFTER_HEAD.split(words)[0]


def is_plural(words: str) -> bool:
    """Whether a noun phrase's head is a plural."""
    head = head_of(words).split()[-1]
    return bool(_PLURAL.search(head)) or (head.endswith("s") and not _SINGULAR_IN_S.search(head))


def plain_label(label: str) -> str:
    """A label without skin tones and full stops: `person: red hair, dark skin tone` becomes "person: red hair"."""
    base, _, details = label.partition(":")
    kept = [part.strip() for part in details.split(",") if part.strip() and not part.strip().endswith("skin tone")]
    text = f"{base}: {', '.join(kept)}" if kept else base
    text = text.replace("Mrs. ", "Mrs ").replace("St. ", "Saint ").replace("U.S. ", "US ")
    return text.replace("!", "").replace("?", "")


def noun_phrase(label: str) -> str:
    """A label as it stands in a sentence: "an astronaut", "the flag of Germany", "grapes", "a bald woman"."""
    if label in _INSTEAD:
        return _INSTEAD[label]
    text = plain_label(label)
    base, _, details = text.partition(": ")
    if base == "flag":
        return f"the flag of {details}"
    if base == "keycap":
        return f"a key with the sign {details}"
    if base in ("family", "kiss", "couple with heart") and details:
        return f"{article(base)} {base} of {and_list([with_article(part) for part in details.split(', ')])}"
    if details == "bald":
        return f"a bald {base}"
    if details.startswith("facing"):
        return with_article(f"{base} {details}")
    if details:
        return f"{with_article(base)} with {'a ' if details == 'beard' else ''}{details}"
    return with_article(text)


def with_article(words: str) -> str:
    """ "a" or "an" before words that are counted and singular, "the" before what there is once, else nothing."""
    if words in _THE:
        return f"the {words}"
    if words in _NO_ARTICLE_WHOLE or head_of(words).split()[-1] in _NO_ARTICLE or is_plural(words):
        return words
    if words.split()[-1][0].isupper() and words[0].isupper() and not words.isupper():
        return words  # a name
    if re.fullmatch(r".+ o’clock|\w+-thirty", words):
        return f"a clock at {words}"
    return f"{article(words)} {words}"


def and_list(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def sentence(text: str) -> str:
    """A text with a capital letter at its start and one full stop at its end, and none inside."""
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
