"""Where an index is: a folder of this machine, or an address in an object store."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from plume_embed.outputs import LOCK_NAME

_SCHEMES = ("s3", "gs", "az")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.")


@dataclass(frozen=True)
class ObjectStore:
    """An address such as s3://bucket/photographs.index. LanceDB takes keys and endpoint from the environment."""

    url: str

    def __str__(self) -> str:
        return self.url


Place = Path | ObjectStore


def check_folder(folder: Path) -> None:
    """Refuses what is no folder.

    Raises:
        ValueError: it is not there, or a file.
    """
    if not folder.is_dir():
        is_there = os.path.lexists(folder)
        raise ValueError(f"{folder} is a file, not a folder." if is_there else f"No such folder: {folder}")


def place_of(text: str) -> Place:
    """A place as it is written on the command line.

    Raises:
        ValueError: an address of a kind that LanceDB does not store at.
    """
    found = _ADDRESS.match(text)
    if found is None:
        return Path(text)
    if found[1] not in _SCHEMES:
        raise ValueError(
            f"An index is a folder or an address with {', '.join(f'{one}://' for one in _SCHEMES)}: {text}"
        )
    return ObjectStore(text.rstrip("/"))


def resolved_folder(place: Place) -> Path | None:
    """The folder on this machine, or `None`."""
    return place.resolve() if isinstance(place, Path) else None


def lock_file(place: Place) -> Path:
    """The file whose lock keeps other writers out: in the folder, or, of a store, in the cache of this machine alone.

    Raises:
        OSError: its folder cannot be made.
    """
    if isinstance(place, Path):
        file = place / LOCK_NAME
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        file = cache / "plume-embed" / f"{hashlib.sha256(place.url.encode()).hexdigest()[:32]}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
