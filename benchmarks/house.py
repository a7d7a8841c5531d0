"""The state of the repository in figures: `python -m benchmarks.house`.

How the command line starts, imports that do not resolve, circles, crowded folders, what a wheel holds, and how many
commands answer where only the core dependencies are installed. `docs/design.md` has the table.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.bare import BareEnvironment, build, wheel_names
from benchmarks.imports import ROOT, files_by_folder, import_circle, import_graph, unresolved_imports
from benchmarks.start import measure_start
from plume_embed.atomic import write_json

RESULTS = ROOT / "benchmarks" / "results" / "house.json"
STARTS = {"--help": ["--help"], "--version": ["--version"], "a typo": ["serch"], "a wrong option": ["search", "--tpo"]}
_ROUNDS = 5


def starts() -> dict[str, dict[str, Any]]:
    """CPU seconds of each start, the median of some, and the heavy modules it imports."""
    found = {}
    for name, arguments in STARTS.items():
        rounds = [measure_start(arguments) for _ in range(_ROUNDS)]
        seconds = statistics.median(start.cpu_seconds for start in rounds)
        found[name] = {"cpu_seconds": round(seconds, 2), "heavy_modules": rounds[0].heavy}
    return found


def pyright() -> dict[str, int]:
    """Errors as `make lint` counts them, and imports that do not resolve: in the package, and of ours anywhere."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    report = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout)
    errors = [each for each in report["generalDiagnostics"] if each["severity"] == "error"]
    unresolved = [each for each in errors if each.get("rule") == "reportMissingImports"]
    return {"unresolved_imports": len(unresolved) + len(unresolved_imports()), "errors": len(errors)}


def wheel_and_commands() -> tuple[dict[str, Any], dict[str, int]]:
    """What a wheel holds, and how many of its commands answer `--help` in a bare environment."""
    from plume_embed.cli.main import command_names

    with tempfile.TemporaryDirectory() as folder:
        wheel = build("wheel", Path(folder))
        names = wheel_names(wheel)
        contents = {
            "files": len(names),
            "kilobytes": wheel.stat().st_size // 1000,
            "python_files": sum(name.endswith(".py") for name in names),
            "result_files": sum("results" in name for name in names),
        }
        commands = command_names()
        outcomes = BareEnvironment(Path(folder), wheel).commands([[*name, "--help"] for name in commands])
    return contents, {"commands": len(commands), "answer": sum(outcome.code == 0 for outcome in outcomes)}


def measure() -> dict[str, Any]:
    """Everything."""
    graph = import_graph()
    wheel, commands = wheel_and_commands()
    return {
        "start": starts(),
        "pyright": pyright(),
        "imports": {
            "modules": len(graph),
            "imports": sum(map(len, graph.values())),
            "modules_in_a_circle": len(import_circle()),
        },
        "python_files_by_folder": dict(list(files_by_folder().items())[:8]),
        "readme_lines": len((ROOT / "README.md").read_text().splitlines()),
        "wheel": wheel,
        "bare_environment": commands,
    }


def markdown(found: dict[str, Any]) -> str:
    """The table of docs/design.md."""
    starts = found["start"].values()
    heavy = sorted({name for start in starts for name in start["heavy_modules"]})
    seconds = [start["cpu_seconds"] for start in starts]
    crowded = ", ".join(f"{count} in `{folder}`" for folder, count in list(found["python_files_by_folder"].items())[:4])
    imports, wheel, bare = found["imports"], found["wheel"], found["bare_environment"]
    rows = {
        "CPU seconds of --help, --version, a typo, a wrong option": f"{min(seconds):.2f} to {max(seconds):.2f}",
        "heavy modules that these import": ", ".join(heavy) or "none",
        "modules in a circle of imports": f"{imports['modules_in_a_circle']} of {imports['modules']}",
        "Python files in the fullest folders": crowded,
        "lines of the README": f"{found['readme_lines']}",
        "the wheel": f"{wheel['files']} files, {wheel['kilobytes']} kB, {wheel['result_files']} files of results",
        "commands that answer with core dependencies alone": f"{bare['answer']} of {bare['commands']}",
        "imports that pyright cannot resolve": f"{found['pyright']['unresolved_imports']}",
        "errors of pyright (basic) as `make lint` runs it": f"{found['pyright']['errors']}",
    }
    return "\n".join(["| what | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def main(
    write: Annotated[bool, typer.Option("--write", help=f"Also write {RESULTS.relative_to(ROOT)}.")] = False,
) -> None:
    """Measure the repository and print the table of docs/design.md."""
    found = measure()
    typer.echo(markdown(found))
    if write:
        write_json(RESULTS, found)


if __name__ == "__main__":
    typer.run(main)
