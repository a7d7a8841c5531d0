"""VisDoc's evaluation tasks, from what was read of the test manuals.

A path of headings -> the page or the half page on which the last one starts. The pool is all pages, tables of contents
included, or the half pages of all queries; the hard one is the same manual within ten pages of the right one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from evaluation.miniature.documents.manuals import Heading
from plume_embed.evaluation.miniature.schema import Query, Side, Task

NEAR = 10  # pages, of the hard pool


@dataclass
class Shown:
    """What was read of one manual.

    Attributes:
        headings: All that can be asked for.
        num_pages: How many pages it has.
        pages: Rendered pages, WebP, by number.
        crops: Rendered half pages, WebP, by the number of their heading.
        page_words: Content words of pages, in order, by number.
        crop_words: Content words of half pages, by the number of their heading.
    """

    headings: list[Heading]
    num_pages: int
    pages: dict[int, bytes] = field(default_factory=dict)
    crops: dict[int, bytes] = field(default_factory=dict)
    page_words: dict[int, list[str]] = field(default_factory=dict)
    crop_words: dict[int, list[str]] = field(default_factory=dict)


def page_id(manual: str, page: int) -> str:
    """The id of a page as a medium; pages count from 1 there."""
    return f"documents/page/{manual}-{page + 1:04d}"


def crop_id(manual: str, place: int) -> str:
    """The id of a half page as a medium, by the number of its heading."""
    return f"documents/crop/{manual}-{place:03d}"


def tasks(shown: Mapping[str, Shown]) -> list[Task]:
    """The four evaluation tasks: pages and half pages, each in the whole pool and in the hard one."""
    asked = [(name, place, heading) for name, manual in shown.items() for place, heading in enumerate(manual.headings)]
    places = {
        "page": [(name, page, page_id(name, page)) for name, manual in shown.items() for page in sorted(manual.pages)],
        "half page": [(name, heading.page, crop_id(name, place)) for name, place, heading in asked],
    }
    found = []
    for kind, candidates in places.items():
        number = {medium: n for n, (*_, medium) in enumerate(candidates)}
        # A path that stands in two places is one query with two right answers.
        right: dict[str, dict[int, tuple[str, int]]] = defaultdict(dict)
        for name, place, heading in asked:
            medium = page_id(name, heading.page) if kind == "page" else crop_id(name, place)
            right[heading.text][number[medium]] = (name, heading.page)
        easy, hard = [], []
        for text, answers in right.items():
            near = {
                n
                for n, (name, page, _) in enumerate(candidates)
                if any(name == other and abs(page - where) <= NEAR for other, where in answers.values())
            }
            easy.append(Query(Side(text=text), tuple(sorted(answers))))
            hard.append(Query(Side(text=text), tuple(sorted(answers)), tuple(sorted(near))))
        sides = tuple(Side(image=medium) for *_, medium in candidates)
        found.append(Task(f"VisDoc/heading to {kind}", "unseen", tuple(easy), sides))
        found.append(Task(f"VisDoc/heading to {kind} hard", "unseen", tuple(q for q in hard if len(q.pool) > 1), sides))
    return found
