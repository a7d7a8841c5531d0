"""The code that a result was made by: what is kept of other code is not put into one table with new results."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def digest_of_code(*places: Path) -> str:
    """SHA-256 over the Python sources of files and of folders with all below them, wherever the package lies, as hex.

    Raises:
        ValueError: a place without Python sources.
    """
    digest = hashlib.sha256()
    for place in places:
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place] * place.is_file()
        if not files:
            raise ValueError(f"{place} holds no Python sources; install the package with them.")
        for file in files:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(place.parent).as_posix()}\n{content}\n".encode())
    return digest.hexdigest()
