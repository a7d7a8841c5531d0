"""What the parsers make of rows: queries, candidates, and their inputs to a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# How the specification writes a medium inside a text; it always stands first. A model never sees these: its processor
# places the media itself.
IMAGE = "<|image_pad|>"
VIDEO = "<|video_pad|>"

Key = str | int


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to embed.

    Attributes:
        text: As the specification writes it, with `IMAGE` or `VIDEO` in front of it where there is a medium.
        media: The picture, or the frames of the video in their order.
        kind: What the media are.
    """

    text: str
    media: tuple[Path, ...] = ()
    kind: Literal["text", "image", "video"] = "text"

    def model_input(self) -> dict[str, Any]:
        """The item as PlumeProcessor and sentence-transformers take it: {"text", "image", "video"}.

        The text is stripped, as in the released evaluation; an item with a medium and no text has no key "text".
        """
        text = self.text.removeprefix(IMAGE).removeprefix(VIDEO).strip()
        if self.kind == "text":
            return {"text": text}
        media = {"image": self.media[0]} if self.kind == "image" else {"video": list(self.media)}
        return {**media, "text": text} if text else media


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate and the key that it is known by: two of one key are one candidate."""

    key: Key
    item: Item


@dataclass(frozen=True, slots=True)
class Query:
    """A query with what its row says.

    Attributes:
        item: The query itself.
        candidates: The row's own candidates in their order, duplicates kept.
        labels: Keys of all correct candidates.
        grades: How relevant each label is; None where relevance is yes or no.
    """

    item: Item
    candidates: tuple[Candidate, ...]
    labels: tuple[Key, ...]
    grades: tuple[int, ...] | None = None
