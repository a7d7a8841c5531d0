"""Which files of a folder are left out: rules in the syntax of gitignore.

The defaults count least, then `.plumeignore` files, the deeper ones more, then the patterns of the command line. As
with git, the last rule that matches decides, "!" takes back, and nothing below an excluded folder can come back. What
an index of this package is made of, and what `embed` writes, is left out whatever the rules say: it is nobody's
document.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from plume_embed.index.table import PARTS, holds_index
from plume_embed.outputs import holds_output

IGNORE_FILE = ".plumeignore"
# What systems and tools keep beside people's own files. Hidden files and folders are left out anyway.
DEFAULT_PATTERNS = (
    "@eaDir/",
    "\\#recycle/",
    "$RECYCLE.BIN/",
    "System Volume Information/",
    "lost+found/",
    "__MACOSX/",
    "node_modules/",
    "__pycache__/",
    ".git/",
)


class Exclusions:
    """The rules of one folder.

    Args:
        root (`Path`): The folder; the patterns count from there.
        patterns: Of the command line.

    Raises:
        ValueError: a pattern is not valid.
    """

    def __init__(self, root: Path, patterns: Sequence[str] = ()):
        self.root = root
        self._defaults = GitIgnoreSpec.from_lines(DEFAULT_PATTERNS)
        self._patterns = _spec(patterns, "--exclude")
        self._of_folder: dict[str, GitIgnoreSpec | None] = {}

    def covers(self, path: str) -> bool:
        """Whether a file or folder, or a folder above it, is left out.

        Args:
            path (`str`): From the root, with forward slashes; a folder's ends in one.
        """
        parts = path.rstrip("/").split("/")
        above = ["/".join(parts[:count]) + "/" for count in range(1, len(parts))]
        return any(self.matches(folder) for folder in above) or self.matches(path)

    def matches(self, path: str) -> bool:
        """As [`covers`], for a path of which no folder above is left out."""
        return self.rule(path) is not None

    def rule(self, path: str) -> str | None:
        """What leaves a path out of which no folder above is left out, or `None`.

        Returns:
            The pattern of the command line, as it was given; "" for any other rule.
        """
        if self._is_part_of_an_index(path) or (path.endswith("/") and holds_output(self.root / path)):
            return ""
        found = self._patterns.check_file(path)
        if found.index is not None:
            return str(self._patterns.patterns[found.index].pattern) if found.include else None
        decision = self._decision_of_files(path)
        if decision is None:
            decision = self._defaults.check_file(path).include
        return "" if decision else None

    def _is_part_of_an_index(self, path: str) -> bool:
        folder, _, name = path.rstrip("/").rpartition("/")
        return name in PARTS and holds_index(self.root / folder)

    def _decision_of_files(self, path: str) -> bool | None:
        folder = path.rstrip("/")
        while folder:
            folder = folder.rpartition("/")[0]
            spec = self._read(folder)
            if spec is not None:
                inside = path[len(folder) + 1 :] if folder else path
                decision = spec.check_file(inside).include
                if decision is not None:
                    return decision
        return None

    def _read(self, folder: str) -> GitIgnoreSpec | None:
        if folder not in self._of_folder:
            path = self.root / folder / IGNORE_FILE
            try:
                lines = path.read_text("utf-8-sig").splitlines()
            except (FileNotFoundError, NotADirectoryError):
                lines = None
            except (OSError, UnicodeDecodeError) as error:
                if isinstance(error, UnicodeDecodeError) or not _is_out_of_reach(path):
                    raise ValueError(f"Cannot read the rules in {path}: {error}") from error
                lines = None
            self._of_folder[folder] = None if lines is None else _spec(lines, str(path))
        return self._of_folder[folder]


def _is_out_of_reach(file: Path) -> bool:
    """Whether a file that cannot be read is not there, or in a folder that cannot be looked into.

    Nothing else in such a folder can be read either, so that its rules decide on nothing.
    """
    try:
        file.lstat()
        return False
    except PermissionError:  # of the folder: a file without permission can still be looked at
        return True
    except OSError:  # a path that is too long, or a disk that fails: the folder may say what is in it
        try:
            return file.name not in os.listdir(file.parent)
        except OSError:
            return True


def _spec(lines: Sequence[str], source: str) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise ValueError(f"{source}: no valid pattern: {error}") from error
