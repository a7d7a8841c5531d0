"""Whether each extra of pyproject.toml can be installed alone; asks the package index: `python -m scripts.extras`.

pip resolves the package with one extra as if nothing were installed (`--dry-run --ignore-installed`) and reports what
it would install. The packages are counted, beside those of the core alone.
"""

import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from plume_embed.atomic import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results" / "extras.json"
CORE = "the core"


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def resolve(extra: str) -> set[str]:
    """The packages that pip would install into an empty environment.

    Raises:
        RuntimeError: they do not go together.
    """
    with tempfile.TemporaryDirectory() as work:
        report, target = Path(work) / "report.json", "." if extra == CORE else f".[{extra}]"
        options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        command = [sys.executable, "-m", "pip", "install", *options, target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pip cannot install {target}: {done.stderr[-2000:]}")
        found = json.loads(report.read_text())["install"]
    return {canonicalize_name(one["metadata"]["name"]) for one in found} - {"plume-embed"}


def own_packages(extra: str) -> set[str]:
    """What an extra declares itself."""
    named = (Requirement(line) for line in project()["optional-dependencies"][extra])
    return {canonicalize_name(one.name) for one in named} - {"plume-embed"}


def markdown(result: dict[str, Any]) -> str:
    """The table of docs/scale.md."""
    lines = ["| installed alone | packages | beyond the core's |", "|---|---:|---:|"]
    core = result["packages"][CORE]
    for name, count in result["packages"].items():
        shown = name if name == CORE else f"`[{name}]`"
        lines.append(f"| {shown} | {count} | {count - core if name != CORE else ''} |")
    return "\n".join(lines)


def main(
    extra: Annotated[list[str] | None, typer.Option(help="Only these; repeatable. Default: all, and the core.")] = None,
    to: Annotated[Path, typer.Option("--json", help="Results file; what is in it for other extras stays.")] = RESULTS,
) -> None:
    """Resolves one after the other; ends with 1 where one cannot be installed."""
    known = json.loads(to.read_text()) if to.exists() else {"packages": {}}
    result = {"python": platform.python_version(), "packages": known["packages"]}
    extras, failed = project()["optional-dependencies"], False
    for name in extra or [CORE, *extras]:
        try:
            found = resolve(name)
        except RuntimeError as error:
            typer.echo(str(error), err=True)
            failed = True
            continue
        if name == CORE:
            core = {canonicalize_name(Requirement(line).name) for line in project()["dependencies"]}
            typer.echo(
                f"declared by extras, and needed by the core's own packages: {sorted(only_extras(core) & found)}"
            )
        result["packages"][name] = len(found)
        write_json(to, result)
        typer.echo(f"{name}: {len(found)} packages")
    if failed:
        raise typer.Exit(1)


def only_extras(core: set[str]) -> set[str]:
    """Packages that extras declare and the core does not."""
    return set().union(*(own_packages(extra) for extra in project()["optional-dependencies"])) - core


if __name__ == "__main__":
    typer.run(main)
