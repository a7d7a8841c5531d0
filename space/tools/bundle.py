"""Gathers the repository of the Hub Space: `python -m space.tools.bundle FOLDER`. It runs as `python space/app.py`.

The card and the requirements stand at its root, everything else where it stands in the checkout; links become files.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("plume_embed", "space", "examples", "checkpoints/plume-tiny", "evaluation/results")
_NOT_THERE = shutil.ignore_patterns("__pycache__", "*.pyi", ".*")


def bundle(folder: Path) -> None:
    """Writes the Space into a new folder.

    Raises:
        ValueError: something is there already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; pass a new folder.")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=_NOT_THERE, dirs_exist_ok=True)
    for file in (*ROOT.glob("*_plume.py"), ROOT / "LICENSE", ROOT / "CITATION.cff"):
        shutil.copyfile(file, folder / file.name)
    for name in ("README.md", "requirements.txt"):
        shutil.move(folder / "space" / name, folder / name)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m space.tools.bundle FOLDER")
    try:
        bundle(Path(sys.argv[1]))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
