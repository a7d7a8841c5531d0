"""What can be found: one thing of the bundled collection or of a visitor's own, and how it is named and shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

KIND_NAMES = {"image": "picture", "video": "film", "page": "page", "text": "text"}


@dataclass(frozen=True)
class Item:
    """One thing that can be found.

    Args:
        label (`str`): Its name for a person; plain text that may come from a stranger: escape it for HTML.
        kind (`str`): "image", "video", "page" or "text".
        vector (`np.ndarray` of shape [D]): Unit norm.
        make_thumbnail (`Callable`): Gives the data address of its small picture; called once.
        make_preview (`Callable`): Gives the data address of what is shown enlarged: a large picture, or a film that
            browsers play; `None` where there is only the thumbnail.
        text (`str`): The text of a page or a passage, as far as it is known.
        is_own (`bool`): Whether it is the visitor's.
    """

    label: str
    kind: str
    vector: np.ndarray
    make_thumbnail: Callable[[], str]
    make_preview: Callable[[], str | None] = lambda: None
    text: str = ""
    is_own: bool = False

    @cached_property
    def thumbnail(self) -> str:
        """A data address."""
        return self.make_thumbnail()

    @property
    def name(self) -> str:
        """Label, kind and whose it is."""
        return f"{self.label} · {'your ' if self.is_own else ''}{KIND_NAMES[self.kind]}"


@dataclass(frozen=True)
class Hit:
    """An item and its cosine to a query."""

    item: Item
    score: float


def ranked(items: Sequence[Item], vector: np.ndarray, top: int) -> list[Hit]:
    """The items nearest to a vector [D], by an exact scan; ties in their order."""
    if not items:
        return []
    scores = np.stack([item.vector for item in items]) @ vector
    order = np.argsort(-scores, kind="stable")[:top]
    return [Hit(items[place], float(scores[place])) for place in order]


def merged(first: Sequence[Hit], second: Sequence[Hit], top: int) -> list[Hit]:
    """The best of two rankings of the same query."""
    return sorted([*first, *second], key=lambda hit: -hit.score)[:top]
