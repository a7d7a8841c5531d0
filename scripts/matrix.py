"""The core tests with the oldest and the newest releases of what the model stands on, each in its own environment.

python -m scripts.matrix                             # all columns, one after the other; some need 6 GB of disk
python -m scripts.matrix --only oldest --keep .data/matrix
python -m scripts.matrix --only transformers         # the oldest transformers under the installed torch: quick

A column's environment is a folder of `pip install --target`, which stands before the installed packages.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent
VARIED = ("torch", "torchvision", "transformers", "sentence-transformers")
# What a release of one of the others can break: loading in every way, values, families, rollout, commands.
CORE = (
    *("tests/model", "tests/encode", "tests/hub", "tests/index"),
    *("tests/cli/test_cli.py", "tests/training/test_training_objective.py"),
)


def columns() -> dict[str, list[str]]:
    """Name of a column -> what pip installs in it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = dict(line.split(">=") for line in declared)
    return {
        "installed": [],
        "transformers": [f"transformers~={lowest['transformers']}.0"],
        "oldest": [f"{name}~={lowest[name]}.0" for name in VARIED],
        "newest": list(VARIED),
    }


def run(
    only: Annotated[list[str] | None, typer.Option(help="Names of columns; repeatable. Default: all.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for the environments; used again if there.")] = None,
    tests: Annotated[list[str] | None, typer.Option(help="Tests to run instead of the core.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the results.")] = None,
) -> None:
    """Prints a line a column; exits with 1 if a test failed in one."""
    known = columns()
    if unknown := sorted(set(only or ()) - known.keys()):
        raise typer.BadParameter(f"no column {', '.join(unknown)}; there are {', '.join(known)}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in only or known:
            row = run_column(name, known[name], (keep or Path(temporary)) / name, tests or list(CORE))
            rows.append(row)
            print(f"{name}: {' '.join(f'{k} {v}' for k, v in row['versions'].items())}: {row['outcome']}", flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")
    raise typer.Exit(1 if any(row["code"] for row in rows) else 0)


def run_column(name: str, wanted: list[str], folder: Path, tests: list[str]) -> dict:
    """Installs what a column varies, runs the tests there, and says what came of them."""
    begun = time.monotonic()
    if wanted and not folder.is_dir():
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "--upgrade", *wanted],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1]
            return {"column": name, "versions": {}, "code": 1, "outcome": f"pip: {last}"}
    path = os.pathsep.join([str(folder), str(ROOT)] if wanted else [str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {
        "column": name,
        "versions": versions(folder if wanted else None),
        "code": done.returncode,
        "outcome": lines[-1] if lines else "no output",
        "failed": failed,
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }


def markdown(rows: list[dict]) -> str:
    """The table of the documents: a row for each column of the matrix, without its time."""
    varied = list(rows[0]["versions"])
    lines = [f"| | {' | '.join(varied)} | core tests |", "|---|" + "---|" * len(varied) + "---|"]
    for row in rows:
        counts = [part for part in row["outcome"].split(" in ")[0].split(", ") if "warning" not in part]
        lines.append(f"| {row['column']} | {' | '.join(row['versions'].values())} | {', '.join(counts)} |")
    return "\n".join(lines)


def versions(folder: Path | None) -> dict[str, str]:
    """Of what is varied, as a column sees it."""
    found = {name: importlib.metadata.version(name) for name in VARIED}
    for one in importlib.metadata.distributions(path=[str(folder)]) if folder else ():
        if one.name in found:
            found[one.name] = one.version
    return found


if __name__ == "__main__":
    typer.run(run)
