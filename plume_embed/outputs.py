"""Where a command will write, looked at before its work: hours of it must not end in a name that cannot be. And what
`embed` has written, which no command reads as somebody's documents."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

STAMP_FILE = "_plume.json"  # of a folder; readers of Parquet folders pass over names that begin with _
PARTIAL = ".partial"  # of the folder that a run has beside its output
LOCK_NAME = ".lock"  # in a folder that a command writes to


def check_output(path: Path | None, option: str, inputs: Iterable[Path] = (), suffix: str | None = None) -> None:
    """Refuses a file that cannot be written, or that must not be. Nothing is made.

    Args:
        path (`Path`, *optional*): The file; folders above it that are not there yet are those that the writer makes.
            `None`: nothing will be written.
        option (`str`): What gave it, such as "--json", for messages.
        inputs (`Iterable[Path]`): Files that are read, which it would replace.
        suffix (`str`, *optional*): The only one that it may have, such as ".jsonl": by it the file is read again.

    Raises:
        ValueError: it is a folder or a device, an input, of another suffix, or in a folder that nobody can write to.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise ValueError(f"{option} {path} is {'a folder' if path.is_dir() else 'no ordinary file'}; name a file.")
    if path.exists() and any(given.exists() and given.samefile(path) for given in inputs):
        raise ValueError(f"{option} {path} is a file that is read, and would be replaced; give it another name.")
    if suffix is not None and path.suffix.lower() != suffix:
        raise ValueError(
            f"{option} {path} must end in {suffix}: that is what is written, and a file is read by its suffix."
        )
    _try_to_write(path.parent, f"{option} {path}")


def check_output_folder(path: Path | None, option: str) -> None:
    """Refuses a folder that nobody can write to, or whose place a file has. Nothing is made.

    Args:
        path (`Path`, *optional*): The folder; one that is not there yet is made by the writer. `None`: nothing will be
            written.
        option (`str`): What gave it, such as "--keep", for messages.

    Raises:
        ValueError: it is a file or a link to nowhere, or cannot be made or written to.
    """
    if path is None:
        return
    if not path.is_dir() and (path.exists() or path.is_symlink()):
        raise ValueError(f"{option} {path} is no folder; name a folder.")
    _try_to_write(path, f"{option} {path}")


def _try_to_write(folder: Path, named: str) -> None:
    """Into the folder, or the next one above it that is there."""
    try:
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{named} cannot be written: {error.strerror or error}. Name another.") from error


def holds_output(folder: Path) -> bool:
    """Whether `embed` has made a folder, or LanceDB for it: it is an output, or what a run has beside one."""
    if folder.suffix == ".lance":
        return os.path.isdir(folder / "_versions")  # of pathlib, it would raise where a folder may not be entered
    return os.path.isfile(folder / STAMP_FILE) or (folder.suffix == PARTIAL and os.path.isfile(folder / LOCK_NAME))
