"""Visits: what one visitor has uploaded and asked, in memory only, and gone with the visit."""

import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from space.content.items import Hit, Item
from space.settings import Settings
from space.trace import Trace


@dataclass(frozen=True)
class Asked:
    """The last query of a visit.

    Args:
        content (`dict`): What the processor takes, decoded.
        description (`str`): In words, plain text.
        trace ([`Trace`])
        hits (`list[Hit]`): What was found, best first.
    """

    content: dict
    description: str
    trace: Trace
    hits: list[Hit]


@dataclass
class Visit:
    """One visitor, from loading the page to leaving it.

    Args:
        items: The private collection.
        asked ([`Asked`], *optional*): The last query.
        uploads: Files in the upload folder that were put into the query's fields, for the page to show.
        seen (`float`): When it last did something, in seconds of the monotonic clock.
    """

    items: list[Item] = field(default_factory=list)
    asked: Asked | None = None
    uploads: set[Path] = field(default_factory=set)
    seen: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Visits:
    """All visits by their session.

    Args:
        settings ([`Settings`])
        upload_folder (`Path`): Only files in there are ever deleted.
    """

    def __init__(self, settings: Settings, upload_folder: Path):
        self.settings, self.upload_folder = settings, upload_folder.resolve()
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, session: str | None) -> Visit:
        """The visit of a session, a new one if it is not known.

        Raises:
            ValueError: no session: without one there is nobody whom a private collection could belong to.
        """
        if not session:
            raise ValueError("This call belongs to no session; reload the page.")
        with self._lock:
            visit = self._visits.setdefault(session, Visit())
            visit.seen = time.monotonic()
            self._visits.move_to_end(session)
            forgotten = self._overdue()
        for old in forgotten:
            self._clear(old)
        return visit

    def end(self, session: str | None) -> None:
        """Forgets a visit and deletes its uploads."""
        with self._lock:
            visit = self._visits.pop(session, None)
        if visit is not None:
            self._clear(visit)

    def delete_upload(self, path: Path) -> None:
        """Deletes an uploaded file and its folder, unless another visit shows the same file in its query."""
        with self._lock:
            in_use = any(path in visit.uploads for visit in self._visits.values())
        folder = path.resolve().parent
        if in_use or self.upload_folder not in folder.parents:
            return
        path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)

    def _overdue(self) -> list[Visit]:
        before = time.monotonic() - self.settings.visit_seconds
        count = len(self._visits) - self.settings.visits
        others = list(self._visits.items())[:-1]  # the last one has just been seen
        names = [name for place, (name, visit) in enumerate(others) if place < count or visit.seen < before]
        return [self._visits.pop(name) for name in names]

    def _clear(self, visit: Visit) -> None:
        uploads, visit.uploads = visit.uploads, set()
        visit.items, visit.asked = [], None
        for path in uploads:
            self.delete_upload(path)
