"""Pictures and frames on disk: the two layouts of the media folder, and which frames of a video are used."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from plume_embed.atomic import replacing
from plume_embed.evaluation.mmeb_v2.tasks import Task

FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_DIGITS = re.compile(r"(\d+)")


class Media:
    """The media of one task.

    Args:
        folder: The media folder ("data_basedir"), with image-tasks, video-tasks and visdoc-tasks in it; None if there
            is none and what is missing is only noted.
        task: The task.
        missing: If given, what is missing is noted here and an empty result returned, instead of raising: for the
            preflight, which wants the whole list. Nothing is written then either.

    Raises:
        ValueError: the folder does not exist, or is needed and not given.
    """

    def __init__(self, folder: Path | None, task: Task, missing: list[str] | None = None) -> None:
        if folder is None and missing is None:
            raise ValueError("The media folder is missing: pass --media-dir.")
        if folder is not None and not folder.is_dir():
            raise ValueError(f"No such media folder: {folder}. Pass the folder with image-tasks etc. to --media-dir.")
        self.folder = folder or Path()
        self.roots = [folder / root for root in task.media_roots] if folder is not None else []
        self.missing = missing
        self.to_write = 0
        self._found: dict[str, Path] = {}

    def image(self, relative: str) -> tuple[Path, ...]:
        """The path of a picture below one of the task's roots, as a tuple of one; of none if missing and noted."""
        return self._existing(relative, Path.is_file, "picture")

    def frames(self, relative: str, num_frames: int | None) -> tuple[Path, ...]:
        """Evenly spaced frames of a folder, in natural order; all of them if `num_frames` is None or more.

        Raises:
            ValueError: no such folder, or no frame in it.
        """
        found = self._existing(relative, Path.is_dir, "frame folder")
        if not found:
            return ()
        names = [name for name in os.listdir(found[0]) if os.path.splitext(name)[1].lower() in FRAME_SUFFIXES]
        if not names:
            return self.lacking(f"the frame folder {found[0]} holds no jpg, jpeg or png")
        paths = [found[0] / name for name in sorted(names, key=natural_order)]
        return tuple(paths[index] for index in evenly_spaced(len(paths), num_frames))

    def subfolders(self, relative: str) -> list[str]:
        """Names of the folders in a folder, in natural order."""
        found = self._existing(relative, Path.is_dir, "frame folder")
        return (
            sorted((entry.name for entry in found[0].iterdir() if entry.is_dir()), key=natural_order) if found else []
        )

    def page(self, name: str, content: Callable[[], dict | Image.Image | None]) -> tuple[Path, ...]:
        """The picture of a page; written from the corpus column if it is not there.

        Args:
            name: File name below the task's root.
            content: Gives the column's value: a dict with bytes, or a picture.

        Raises:
            ValueError: it is not there and the column holds nothing, or the folder cannot be written.
        """
        if name in self._found:
            return (self._found[name],)
        for root in self.roots:
            if (root / name).is_file():
                self._found[name] = root / name
                return (root / name,)
        if self.missing is not None:
            self.to_write += 1
            return ()
        existing = [root for root in self.roots if root.is_dir()]
        path = (existing or self.roots[-1:])[0] / name
        _write_page(path, content())
        self._found[name] = path
        return (path,)

    def _existing(self, relative: str, exists: Callable[[Path], bool], kind: str) -> tuple[Path, ...]:
        if not isinstance(relative, str) or not relative:
            raise ValueError(f"the path of a {kind} must be a text, got {relative!r}")
        path = self._found.get(relative)
        if path is not None:
            return (path,)
        for root in self.roots:
            path = root / relative
            if exists(path):
                self._found[relative] = path
                self.roots.sort(key=lambda known, best=root: known != best)  # ask the right layout first
                return (path,)
        places = " or ".join(str(root.relative_to(self.folder)) for root in self.roots)
        return self.lacking(f"no {kind} {relative} below {places} of {self.folder}")

    def lacking(self, what: str) -> tuple[Path, ...]:
        """Raises, or notes what is missing and gives nothing."""
        if self.missing is None:
            raise ValueError(what)
        if what not in self.missing:
            self.missing.append(what)
        return ()


def evenly_spaced(total: int, num_frames: int | None) -> list[int]:
    """Which of `total` frames are used: np.linspace(0, total - 1, num_frames) cut to whole numbers; all if fewer."""
    if num_frames is None or total < num_frames:
        return list(range(total))
    return np.linspace(0, total - 1, num_frames, dtype=int).tolist()


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A sort key under which frame_2 comes before frame_10."""
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in _DIGITS.split(name) if part]


def _write_page(path: Path, content: dict | Image.Image | None) -> None:
    raw = content.get("bytes") if isinstance(content, dict) else None
    if raw is None and not isinstance(content, Image.Image):
        raise ValueError(f"no page image {path}, and the corpus column holds no picture to write it from")
    try:
        image = Image.open(BytesIO(raw)) if raw is not None else content
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            if raw is not None and Image.registered_extensions().get(path.suffix.lower()) == image.format:
                partial.write_bytes(raw)  # a JPEG stays what it was
            else:
                image.save(partial)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot write the page image {path}: {error}") from error
