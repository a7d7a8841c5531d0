"""Sessions: what one visitor has uploaded and searched, in memory only, and gone with the session."""

import threading
import time
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from space.content.holders import Holders
from space.content.items import Hit, Item
from space.settings import Settings
from space.trace import Trace

if TYPE_CHECKING:
    from space.content.uploads import Upload

_SECONDS_FOR_A_TURN = 30  # a run that is gone without having been closed must not block its session for ever


@dataclass(frozen=True)
class QueryResult:
    """The last query of a session.

    Args:
        corpus (`str`): Id of the collection that was searched.
        model (`str`): Folder or Hub id of the model that it was searched with.
        content (`dict`): What the processor takes, decoded, with pictures no larger than the model looks at them.
        description (`str`): In words, plain text.
        trace ([`Trace`])
        hits (`list[Hit]`): What was found, best first.
        link (`str`): Query string of an address that repeats the search; "" where a private file is part of it.
    """

    corpus: str
    model: str
    content: dict
    description: str
    trace: Trace
    hits: list[Hit]
    link: str = ""


class Turns:
    """Lets the last of several runs of one kind win: an older run stops, and its messages never come after newer ones.

    A run is numbered by the page when its event happens, so that the order is the visitor's, not the network's.
    """

    def __init__(self) -> None:
        self._newest = 0
        self._running = threading.Lock()

    @property
    def is_running(self) -> bool:
        """Whether a run has not sent its last message yet."""
        return self._running.locked()

    def is_newest(self, number: int) -> bool:
        """Whether no later run has begun."""
        return number >= self._newest

    @contextmanager
    def take(self, number: int) -> Generator[bool, None, None]:
        """Waits until the run before has sent its last message; gives whether this run is still the newest."""
        self._newest = max(self._newest, number)
        has_lock = self._running.acquire(timeout=_SECONDS_FOR_A_TURN)
        try:
            yield self.is_newest(number)
        finally:
            if has_lock:
                self._running.release()


@dataclass
class Session:
    """One visitor, from loading the page to leaving it.

    Args:
        items: The private items, by the id of the collection that they were added to.
        shown (`str`, *optional*): Id of the collection whose examples and files the page shows, once that is known.
        last ([`QueryResult`], *optional*): The last query.
        compared: The query that was compared last, and its cards.
        uploads: Files in the upload folder that were put into the query's fields, for the page to show.
        originals: For a film that was transcoded for the page, by the path of the copy: what was uploaded.
        is_over (`bool`): Whether it has ended; what it still does holds no file.
        seen (`float`): When it last did something, in seconds of the monotonic clock.
        search, diagnostics, compare ([`Turns`])
    """

    items: dict[str, list[Item]] = field(default_factory=dict)
    shown: str | None = None
    last: QueryResult | None = None
    compared: tuple[QueryResult, list[Any]] | None = None
    uploads: set[Path] = field(default_factory=set)
    originals: dict[Path, "Upload"] = field(default_factory=dict)
    is_over: bool = False
    seen: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    search: Turns = field(default_factory=Turns)
    diagnostics: Turns = field(default_factory=Turns)
    compare: Turns = field(default_factory=Turns)

    def own(self, corpus: str) -> list[Item]:
        """The private items beside a collection."""
        return self.items.get(corpus, [])


class Sessions:
    """All sessions by their id.

    Args:
        settings ([`Settings`])
        upload_folder (`Path`): Only files in there are ever deleted.

    Attributes:
        holders ([`Holders`]): Of the files in there.
        examples_folder (`Path`): In there, with the media of prepared queries, which belong to nobody and stay.
    """

    def __init__(self, settings: Settings, upload_folder: Path):
        self.settings, self.upload_folder = settings, upload_folder.resolve()
        self.examples_folder = self.upload_folder / "examples"
        self.holders = Holders(self.upload_folder, kept=self.examples_folder)
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
            session.seen = now = time.monotonic()
            self._sessions.move_to_end(session_id)
            forgotten = self._overdue(now)
        for old in forgotten:
            self._clear(old)
        return session

    def end(self, session_id: str | None) -> None:
        """Forgets a session and deletes its uploads."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        if session is not None:
            self._clear(session)

    def tidy(self) -> None:
        """Ends sessions that have been silent for too long, and deletes uploads that nothing has asked for in time; to
        be called now and then, for no other visitor may come."""
        with self._lock:
            forgotten = self._overdue(time.monotonic())
        for old in forgotten:
            self._clear(old)
        self.holders.tidy()

    def hold(self, session: Session, *paths: Path) -> None:
        """Keeps uploaded files until the session ends, which it may have done meanwhile."""
        with self._lock:
            new = set(paths) - session.uploads
            session.uploads |= new
            for path in new:
                self.holders.hold(path)
        if session.is_over:
            self.release(session)

    def release(self, session: Session) -> None:
        """Lets a session's uploads go; those that nobody else holds are deleted."""
        with self._lock:
            uploads, session.uploads = session.uploads, set()
        for path in uploads:
            self.holders.release(path)

    def _overdue(self, now: float) -> list[Session]:
        before = now - self.settings.session_seconds
        count = len(self._sessions) - self.settings.sessions
        sessions = enumerate(self._sessions.items())
        names = [name for place, (name, session) in sessions if place < count or session.seen < before]
        return [self._sessions.pop(name) for name in names]

    def _clear(self, session: Session) -> None:
        session.is_over = True
        session.items, session.last, session.compared, session.originals = {}, None, None, {}
        self.release(session)
