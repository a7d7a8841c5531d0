"""Sessions: what one visitor has uploaded and searched, in memory only, and gone with the session."""

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
class QueryResult:
    """The last query of a session.

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
class Session:
    """One visitor, from loading the page to leaving it.

    Args:
        items: The private collection.
        last ([`QueryResult`], *optional*): The last query.
        uploads: Files in the upload folder that were put into the query's fields, for the page to show.
        seen (`float`): When it last did something, in seconds of the monotonic clock.
    """

    items: list[Item] = field(default_factory=list)
    last: QueryResult | None = None
    uploads: set[Path] = field(default_factory=set)
    seen: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """All sessions by their id.

    Args:
        settings ([`Settings`])
        upload_folder (`Path`): Only files in there are ever deleted.
    """

    def __init__(self, settings: Settings, upload_folder: Path):
        self.settings, self.upload_folder = settings, upload_folder.resolve()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, session_id: str | None) -> Session:
        """The session of an id, a new one if it is not known.

        Raises:
            ValueError: no session id: without one there is nobody whom a private collection could belong to.
        """
        if not session_id:
            raise ValueError("This call belongs to no session; reload the page.")
        with self._lock:
            session = self._sessions.setdefault(session_id, Session())
            session.seen = time.monotonic()
            self._sessions.move_to_end(session_id)
            forgotten = self._overdue()
        for old in forgotten:
            self._clear(old)
        return session

    def end(self, session_id: str | None) -> None:
        """Forgets a session and deletes its uploads."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        if session is not None:
            self._clear(session)

    def delete_upload(self, path: Path) -> None:
        """Deletes an uploaded file and its folder, unless another session shows the same file in its query."""
        with self._lock:
            in_use = any(path in session.uploads for session in self._sessions.values())
        folder = path.resolve().parent
        if in_use or self.upload_folder not in folder.parents:
            return
        path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)

    def _overdue(self) -> list[Session]:
        before = time.monotonic() - self.settings.session_seconds
        count = len(self._sessions) - self.settings.sessions
        others = list(self._sessions.items())[:-1]  # the last one has just been seen
        names = [name for place, (name, session) in enumerate(others) if place < count or session.seen < before]
        return [self._sessions.pop(name) for name in names]

    def _clear(self, session: Session) -> None:
        uploads, session.uploads = session.uploads, set()
        session.items, session.last = [], None
        for path in uploads:
            self.delete_upload(path)
