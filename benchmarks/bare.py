"""The wheel in an environment with nothing but the core dependencies, whatever is installed beside them here."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
# Runs each command line of its input in one process, since importing torch once takes seconds.
_DRIVER = """
import contextlib, io, json, sys

def outcome(arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            return stop.code, out.getvalue(), err.getvalue()
        except BaseException as error:
            return -1, out.getvalue(), f"{err.getvalue()}{type(error).__name__}: {error}"

if __name__ == "__main__":
    from plume_embed.cli.main import main
    found = [outcome(arguments) for arguments in json.load(sys.stdin)]
    print(json.dumps(found))
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (-1 for an error that was not foreseen) and what it printed."""

    code: int
    out: str
    err: str


def build(target: str, out: Path, source: Path = ROOT) -> Path:
    """Builds the wheel or the sdist.

    Args:
        target (`str`): "wheel" or "sdist".
        out (`Path`): Folder for the file.
        source (`Path`): The checkout, or an unpacked sdist.
    """
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"hatchling build --target {target} failed:\n{done.stderr[-2000:]}")
    (built,) = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def wheel_names(wheel: Path) -> list[str]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if not name.endswith("/"))


class BareEnvironment:
    """A fresh virtual environment with a wheel, and of what is installed here only its core dependencies.

    Args:
        folder (`Path`): Where to make it.
        wheel (`Path`): Is installed with `--no-deps`.
    """

    def __init__(self, folder: Path, wheel: Path):
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        self.script = folder / "venv" / "bin" / "plume-embed"
        self._driver = folder / "driver.py"
        self._driver.write_text(_DRIVER)
        self.packages = _link_core(wheel, folder / "core")
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        (site / "core.pth").write_text(f"{folder / 'core'}\n")
        install = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet"]
        self._run([*install, "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)], check=True)

    def command(self, *arguments: str) -> Outcome:
        """The installed console script."""
        done = self._run([str(self.script), *arguments])
        return Outcome(done.returncode, done.stdout, done.stderr)

    def commands(self, argument_lists: list[list[str]]) -> list[Outcome]:
        """Several command lines in turn, in one process."""
        done = self._run([str(self.python), str(self._driver)], json.dumps(argument_lists), check=True)
        return [Outcome(*outcome) for outcome in json.loads(done.stdout.splitlines()[-1])]

    def has(self, module: str) -> bool:
        """Whether it can be found there."""
        program = f"import importlib.util; print(importlib.util.find_spec({module!r}) is not None)"
        return self._run([str(self.python), "-c", program], check=True).stdout.strip() == "True"

    def _run(self, command: list[str], stdin: str = "", check: bool = False) -> subprocess.CompletedProcess:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PLUME_MODEL")}
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        cwd = self._driver.parent
        done = subprocess.run(
            command, input=stdin, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{command[:4]} failed:\n{done.stderr[-2000:]}")
        return done


def core_requirements(wheel: Path) -> list[str]:
    """What a wheel needs without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist") or []
    return [text for text in found if _applies(Requirement(text))]


def _link_core(wheel: Path, folder: Path) -> set[str]:
    """Links what the wheel needs into a folder, with what that needs; names of the packages."""
    folder.mkdir()
    wanted, seen = [Requirement(text) for text in core_requirements(wheel)], set()
    while wanted:
        requirement = wanted.pop()
        key = (canonicalize_name(requirement.name), tuple(sorted(requirement.extras)))
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            raise RuntimeError(f"{requirement.name} is a core dependency and not installed here.") from None
        for text in found.requires or []:
            inner = Requirement(text)
            if _applies(inner, requirement.extras):
                wanted.append(inner)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = folder / top
            if not link.exists() and not top.endswith(".pth"):
                link.symlink_to(Path(str(found.locate_file(top))))
    return {name for name, _ in seen}


def _applies(requirement: Requirement, extras: set[str] | None = None) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})
