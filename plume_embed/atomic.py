"""Files that are written whole or not at all: a reader never meets half of one, and a killed run leaves the old one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, partial: Path | None = None) -> Iterator[Path]:
    """Yields where to write; that file takes the name of `path` when the block ends, and goes away when it raises.

    It lies beside `path`, with the same suffix, since some writers choose their format by it. It is on the disk before
    it takes the name, so that a power cut leaves the old file or the new one.

    Args:
        path (`Path`): In a folder that exists.
        partial (`Path`, *optional*): Where to write instead, on the same file system, for a writer that keeps others
            off by a lock. A killed run leaves it, and the next one writes over it; one beside `path` has the number of
            its process in its name and stays.
    """
    partial = partial_beside(path) if partial is None else partial
    try:
        yield partial
        to_disk(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def partial_beside(path: Path) -> Path:
    """Where a file is until it is whole."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file whole or not at all, with a line break at its end."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def to_disk(path: Path) -> None:
    """Waits until a file is on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
