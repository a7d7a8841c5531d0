"""Where everything comes from: public npm and Debian packages, fetched into a cache folder.

`npm pack` and `apt-get download` fetch a package's archive and run nothing from it; nothing gets installed. Versions
and checksums are pinned, so that two people who build the benchmark score the same pictures.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

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

    def with_members(self, *members: str) -> Self:
        """The same package with other files of it."""
        return replace(self, members=members)


@dataclass(frozen=True)
class DebianPackage(Package):
    """One pinned Debian package.

    Here `version` has its epoch, as `apt-get download NAME=VERSION` wants it, and `members` are prefixes of the files
    we need, as installed but without the leading "/".
    """

    @property
    def spec(self) -> str:
        """The name apt-get understands, e.g. `wordnet-base=1:3.0-37`."""
        return f"{self.name}={self.version}"

    @property
    def folder(self) -> str:
        """The name of this package's folder in the cache."""
        return f"debian-{self.name}-{self.version.replace(':', '_')}"


@dataclass(frozen=True)
class PyPIPackage(Package):
    """One pinned wheel of PyPI; `members` are prefixes of the wheel's members.

    Attributes:
        platform: Tag of the wheel's platform, where it has code: the same wheel is then fetched on every machine.
        python: The Python version of such a wheel.
    """

    platform: str = ""
    python: str = "3.11"

    @property
    def spec(self) -> str:
        """The name pip understands, e.g. `efficientnet-lite-pytorch==0.1.0`."""
        return f"{self.name}=={self.version}"

    @property
    def folder(self) -> str:
        """The name of this package's folder in the cache."""
        return f"pypi-{self.name}-{self.version}"


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

# The same drawings in motion, in four packages by their names; of some the "animation" is a still.
CLIP_PACKAGES: dict[str, Package] = {
    number: Package(
        f"@lobehub/fluent-emoji-anim-{number}",
        "1.0.0",
        sha256,
        "MIT",
        "Microsoft Corporation, packaged by LobeHub",
        "https://github.com/lobehub/fluent-emoji",
        ("assets/",),
    )
    for number, sha256 in {
        "1": "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
        "2": "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
        "3": "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43",
        "4": "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3",
    }.items()
}

WORDNET_PACKAGE = DebianPackage(
    "wordnet-base",
    "1:3.0-37",
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    "WordNet",
    "Princeton University",
    "https://wordnet.princeton.edu",
    ("usr/share/wordnet/data.noun", "usr/share/wordnet/index.noun", "usr/share/wordnet/noun.exc"),
)


class FetchError(RuntimeError):
    """A package could not be fetched; the message says what to do."""


def fetch(packages: Sequence[Package], cache: Path = DEFAULT_CACHE) -> dict[str, Path]:
    """Fetch and unpack packages, skipping those already in the cache.

    Args:
        packages: What to fetch.
        cache: The cache folder; made if missing.

    Returns:
        The folder of each package, by package name. An npm archive's member `package/x` lies at `x` below it, a Debian
        package's file `/usr/x` at `usr/x`.

    Raises:
        FetchError: If npm, apt-get or dpkg-deb is missing or fails, or an archive is not the pinned one.
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
        if isinstance(package, DebianPackage):
            archive, unpack = _apt_download(package, Path(temporary)), _unpack_debian
        elif isinstance(package, PyPIPackage):
            archive, unpack = _pip_download(package, Path(temporary)), _unpack_wheel
        else:
            archive, unpack = _npm_pack(package, Path(temporary)), _extract
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise FetchError(
                f"{package.spec}: the archive's sha256 is {digest}, expected {package.sha256}. Try again; if it stays, "
                "the package was republished: check it and update its pin in evaluation/miniature/sources/packages.py."
            )
        unpacked = Path(temporary) / "unpacked"
        unpack(archive, package.members, unpacked)
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


def _apt_download(package: DebianPackage, into: Path) -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise FetchError(
            f"{package.spec}: apt-get or dpkg-deb was not found: build on Debian or in a Debian container."
        )
    result = subprocess.run(
        ["apt-get", "download", package.spec], cwd=into, capture_output=True, text=True, check=False
    )
    archives = list(into.glob("*.deb"))
    if result.returncode != 0 or len(archives) != 1:
        reason = result.stderr.strip() or f"exit status {result.returncode}"
        raise FetchError(
            f"`apt-get download {package.spec}` failed: {reason}\nRun `apt-get update`; where this version is gone "
            "from your release, check the newer one and update its pin in evaluation/miniature/sources/packages.py."
        )
    return archives[0]


def _pip_download(package: PyPIPackage, into: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into), package.spec]
    if package.platform:
        command += ["--only-binary", ":all:", "--platform", package.platform, "--python-version", package.python]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(into.glob("*.whl"))
    if result.returncode != 0 or len(archives) != 1:
        reason = result.stderr.strip() or f"exit status {result.returncode}"
        raise FetchError(
            f"`pip download {package.spec}` failed: {reason}\nCheck the connection and run this again: packages "
            "fetched so far are kept."
        )
    return archives[0]


def _unpack_wheel(archive: Path, prefixes: tuple[str, ...], folder: Path) -> None:
    """Unpack the files whose path in the wheel starts with one of the prefixes."""
    with zipfile.ZipFile(archive) as wheel:
        for name in wheel.namelist():
            if name.startswith(prefixes) and not name.endswith("/") and ".." not in Path(name).parts:
                wheel.extract(name, folder)


def _unpack_debian(archive: Path, prefixes: tuple[str, ...], folder: Path) -> None:
    """Unpack the regular files whose installed path starts with one of the prefixes."""
    everything = folder.with_name("everything")
    result = subprocess.run(
        ["dpkg-deb", "-x", str(archive), str(everything)], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise FetchError(f"dpkg-deb cannot unpack {archive.name}: {result.stderr.strip()}")
    for path in sorted(everything.rglob("*")):
        name = path.relative_to(everything)
        if path.is_file() and not path.is_symlink() and name.as_posix().startswith(prefixes):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            path.rename(folder / name)


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
