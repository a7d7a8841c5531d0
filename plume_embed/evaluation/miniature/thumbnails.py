"""What pixels alone achieve on a task: nearest 16 x 16 thumbnails, where that means something.

Defined for three kinds of task: picture -> picture; text -> picture, where a text is the label of a still, which is
looked up; picture -> label, where a label is as near as the nearest still that training shows. A model that does not
beat these has learned nothing worth a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plume_embed.evaluation.miniature.media import MediaStore, kinds
from plume_embed.evaluation.miniature.schema import Side, Task
from plume_embed.evaluation.miniature.stills import SPLITS, TRAIN_STYLES, label_text
from plume_embed.evaluation.similarity import similarities

NAME = "16x16 thumbnails"
SIDE = 16
NOTHING_FOUND = -np.inf
_PICTURE, _TEXT = ("image",), ("text",)


def thumbnail(picture: Image.Image) -> NDArray[np.float32]:
    """A picture as a unit vector: 16 x 16 RGB values less their mean, `[768]`."""
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(small, dtype=np.float32).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


class Thumbnails:
    """The pixel baseline over one store; thumbnails are made once.

    Args:
        store: The media.
    """

    def __init__(self, store: MediaStore) -> None:
        self._store = store
        self._thumbnails: dict[str, NDArray[np.float32]] = {}

    def similarity(self, task: Task) -> NDArray[np.float32] | None:
        """`[Q, N]`; None for a task on which the baseline is not defined.

        Raises:
            MediaError: a picture that cannot be decoded.
        """
        measure = self._measure(task)
        return None if measure is None else measure(task)

    def _measure(self, task: Task) -> Callable[[Task], NDArray[np.float32]] | None:
        of_queries = {kinds(query.side) for query in task.queries}
        of_candidates = {kinds(side) for side in task.candidates}
        if of_queries == of_candidates == {_PICTURE}:
            return self._picture_to_picture
        if of_queries == {_TEXT} and of_candidates == {_PICTURE}:
            is_of_stills = all(side.image in self._store.stills for side in task.candidates)
            asks_labels = any(query.side.text in self._still_of_label for query in task.queries)
            return self._text_to_picture if is_of_stills and asks_labels else None
        if of_queries == {_PICTURE} and of_candidates == {_TEXT}:
            labels = {label_text(row.subgroup) for row in self._store.stills.values()}
            return self._picture_to_label if all(side.text in labels for side in task.candidates) else None
        return None

    def _picture_to_picture(self, task: Task) -> NDArray[np.float32]:
        return similarities(self._of_sides([query.side for query in task.queries]), self._of_sides(task.candidates))

    def _text_to_picture(self, task: Task) -> NDArray[np.float32]:
        """The text is looked up among the labels of the training styles, held-out ones too: a generous baseline."""
        found = self._still_of_label
        result = np.full((len(task.queries), len(task.candidates)), NOTHING_FOUND, dtype=np.float32)
        candidates = self._of_sides(task.candidates)
        for number, query in enumerate(task.queries):
            if query.side.text in found:
                result[number] = similarities(self._of(found[query.side.text])[None], candidates)[0]
        return result

    def _picture_to_label(self, task: Task) -> NDArray[np.float32]:
        """A label is as similar as the nearest picture that training shows under it."""
        shown: dict[str, list[str]] = {}
        for name, row in self._store.stills.items():
            if row.style in TRAIN_STYLES and row.split_family == SPLITS["known"] and not row.skin_tone:
                shown.setdefault(label_text(row.subgroup), []).append(name)
        result = np.full((len(task.queries), len(task.candidates)), NOTHING_FOUND, dtype=np.float32)
        queries = self._of_sides([query.side for query in task.queries])
        for column, side in enumerate(task.candidates):
            if side.text in shown:
                result[:, column] = (queries @ np.stack([self._of(name) for name in shown[side.text]]).T).max(axis=1)
        return result

    @cached_property
    def _still_of_label(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for style in reversed(TRAIN_STYLES):  # so that the first style wins
            found |= {row.label: name for name, row in self._store.stills.items() if row.style == style}
        return found

    def _of_sides(self, sides: list[Side] | tuple[Side, ...]) -> NDArray[np.float32]:
        return np.stack([self._of(side.image) for side in sides])

    def _of(self, name: str) -> NDArray[np.float32]:
        if name not in self._thumbnails:
            self._thumbnails[name] = thumbnail(self._store.image(name))
        return self._thumbnails[name]
