"""Who still needs an uploaded file: Gradio names files by their content, so visitors with the same file share one."""

import shutil
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNUSED_SECONDS = 900  # after which an upload that nothing has asked for is deleted


class Holders:
    """Counts who holds each file, and deletes a file when nobody does.

    An upload comes without a session: the file is awaited until the call that it was made for holds it, or until
    `UNUSED_SECONDS` have gone by.

    Args:
        folder (`Path`): Only files in folders of it are ever deleted, and in itself what Gradio leaves of an upload
            that broke off.
        kept (`Path`): A folder in there whose files stay.
    """

    def __init__(self, folder: Path, kept: Path):
        self.folder, self.kept = folder, kept
        self._holds: Counter[Path] = Counter()
        self._awaited: defaultdict[Path, list[float]] = defaultdict(list)  # when it arrived, once for each upload
        self._arriving: list[float] = []  # when each upload that is under way began
        self._left: set[Path] = set()  # nobody's, as far as is known, and not looked at yet
        self._lock = threading.Lock()

    @contextmanager
    def arriving(self) -> Iterator[Callable[[Path], None]]:
        """While an upload arrives nothing is deleted, for it may be about to name the same file, unless it takes longer
        than `UNUSED_SECONDS`; gives what to call with the path of each of its files."""
        began = time.monotonic()
        with self._lock:
            self._arriving.append(began)
            self._forget_overdue()
        try:
            yield self._arrived
        finally:
            with self._lock:
                self._arriving.remove(began)
                self._delete_unneeded()

    def hold(self, path: Path) -> None:
        """One more needs the file; one upload of it is not awaited any more."""
        path = path.resolve()
        with self._lock:
            self._holds[path] += 1
            if path in self._awaited:
                self._awaited[path].pop(0)
                self._forget_overdue()

    def release(self, path: Path) -> None:
        """One less needs the file."""
        path = path.resolve()
        with self._lock:
            self._holds[path] -= 1
            self._left.add(path)
            self._delete_unneeded()

    def tidy(self) -> None:
        """Deletes what nothing has asked for in time, and what is left of broken uploads; to be called now and then."""
        with self._lock:
            self._delete_unneeded()
        before = time.time() - UNUSED_SECONDS
        for part in self.folder.glob("tmp*"):  # Gradio gives a file its folder when all of it is there
            with suppress(FileNotFoundError):
                if part.is_file() and part.stat().st_mtime < before:
                    part.unlink()

    def _arrived(self, path: Path) -> None:
        with self._lock:
            self._awaited[path.resolve()].append(time.monotonic())

    def _delete_unneeded(self) -> None:
        self._forget_overdue()
        if any(began > time.monotonic() - UNUSED_SECONDS for began in self._arriving):
            return
        for path in self._left:
            if self._holds[path] <= 0 and path not in self._awaited:
                del self._holds[path]
                self._delete(path)
        self._left.clear()

    def _forget_overdue(self) -> None:
        before = time.monotonic() - UNUSED_SECONDS
        for path in list(self._awaited):
            self._awaited[path] = [arrived for arrived in self._awaited[path] if arrived > before]
            if not self._awaited[path]:
                del self._awaited[path]
                self._left.add(path)

    def _delete(self, path: Path) -> None:
        folder = path.parent
        if self.folder not in folder.parents or self.kept in folder.parents:
            return
        path.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
