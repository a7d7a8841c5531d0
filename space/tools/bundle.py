"""Gathers the repository of the Hub Space: `python -m space.tools.bundle FOLDER [MODEL_ID ...]`.

It runs as `python space/app.py`. The card and the requirements stand at its root, everything else where it stands in
the checkout; links become files. The index of every collection is built in, so that the first visitor finds it ready.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from space.content.corpora import load_corpora, read_specs
from space.settings import Settings

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("plume_embed", "space", "examples", "evaluation/results")
INDEX = "space/index"
# Larger files than the Hub takes without LFS, and all that is binary.
ATTRIBUTES = "".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n"
    for suffix in ("safetensors", "png", "webp", "jpg", "mp4", "pdf", "lance", "parquet", "txn", "manifest")
)
_NOT_THERE = shutil.ignore_patterns("__pycache__", "*.pyi", ".*")


def bundle(folder: Path, models: Sequence[str] = ()) -> None:
    """Writes the Space into a new folder.

    Args:
        folder (`Path`): Made if it is not there.
        models: Hub ids that the card names.

    Raises:
        ValueError: something is there already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; pass a new folder.")
    specs = read_specs()
    for name in dict.fromkeys([*FOLDERS, *(spec.model for spec in specs)]):
        shutil.copytree(ROOT / name, folder / name, ignore=_NOT_THERE, dirs_exist_ok=True)
    for file in (*ROOT.glob("*_plume.py"), ROOT / "LICENSE", ROOT / "CITATION.cff"):
        shutil.copyfile(file, folder / file.name)
    for name in ("README.md", "requirements.txt"):
        shutil.move(folder / "space" / name, folder / name)
    if models:
        card = (folder / "README.md").read_text()
        listed = "".join(f"  - {model}\n" for model in models)
        (folder / "README.md").write_text(card.replace("tags:\n", f"models:\n{listed}tags:\n", 1))
    (folder / ".gitattributes").write_text(ATTRIBUTES)
    for corpus in load_corpora(Settings(data=folder / INDEX), None, specs):
        corpus.collection.build()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", nargs="*", help="ids of models on the Hub, for the card")
    arguments = parser.parse_args()
    try:
        bundle(arguments.folder, arguments.model)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
