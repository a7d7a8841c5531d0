"""Leases: which worker is at which shard, in files, so that no two are at one, on any machine that sees the folder."""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path

LEASE_SECONDS = 60.0  # without a sign of life, of a worker on another machine
_RENEW_SECONDS = 10.0


class Leases:
    """The leases that one worker holds.

    A lease is no safety: shards are equal whoever makes them, and appear whole. It saves work.

    Args:
        folder (`Path`): Where they are.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._me = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())})
        folder.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._renew, name="plume-leases", daemon=True).start()

    def claim(self, name: str) -> bool:
        """Takes a lease; False while a living worker has it."""
        path = self._folder / name
        for _ in range(2):
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                if not _is_free(path, self._me):
                    return False
                path.unlink(missing_ok=True)
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(self._me)
            with self._lock:
                self._held.add(name)
            return True
        return False  # another worker was quicker

    def release(self, name: str) -> None:
        """Gives a lease back."""
        with self._lock:
            self._held.discard(name)
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Gives all of them back."""
        self._ended.set()
        for name in list(self._held):
            self.release(name)

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_SECONDS):
            with self._lock:
                held = list(self._held)
            for name in held:
                with contextlib.suppress(OSError):
                    os.utime(self._folder / name)


def _is_free(path: Path, me: str) -> bool:
    """Whether who has a lease is gone: its process on this machine, or for too long without a sign of life."""
    try:
        age, text = time.time() - path.stat().st_mtime, path.read_text()
    except FileNotFoundError:
        return True
    if text == me or age > LEASE_SECONDS:
        return True
    try:
        holder = json.loads(text)
    except ValueError:
        return False  # it is being written
    return holder["host"] == socket.gethostname() and _started(holder["pid"]) != holder["started"]


def _started(pid: int) -> str:
    """When a process of this machine started; "" where it is gone or the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
