"""Where a search from cold spends its CPU seconds: `python -m benchmarks.cold_start [--json FILE]`.

Each round is a process of its own that does what `plume-embed search` does on a ready index, one stage after another.
The last rows are the command itself, which also draws its table and ends its process: with a model of its own, with
Python's garbage collector at work from the start, and by a running server.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.imports import ROOT
from benchmarks.start import measure_start
from plume_embed.atomic import write_json
from plume_embed.bench.report import device_name

FOLDER = ROOT / "examples" / "photographs"
QUERY = "a cup of coffee"
# Stage -> what it runs; a stage's imports are those that no stage before it has made.
STAGES = {
    "Python and the command line": "import typer, rich, plume_embed.cli.main; plume_embed.cli.collector.wait()",
    "import torch": "import torch",
    "import torchvision": "import torchvision",
    "import the rest of transformers": "import transformers.modeling_utils, transformers.processing_utils",
    "import plume_embed": "import plume_embed.encode.encoder, plume_embed.index.search, plume_embed.index.update",
    "load plume-small and its processor": "encoder = plume_embed.encode.encoder.Encoder(device='cpu')",
    "embed the query": f"encoder.encode([{QUERY!r}])",
}
_PROGRAM = """
import json, sys, time
stages, used = json.loads(sys.argv[1]), {}
before = 0.0
for name, code in stages.items():
    exec(code)
    now = time.process_time()
    used[name], before = now - before, now
print("\\n" + json.dumps(used))
"""
COMMAND, BY_SERVER = "plume-embed search, whole", "plume-embed search --server, whole"
COLLECTING = "plume-embed search, whole, garbage collected from the start"
_COLLECT = "import gc; gc.disable = gc.freeze = lambda: None"


def measure(rounds: int) -> dict[str, Any]:
    """CPU seconds of every stage: the median, the least and the most of `rounds` processes."""
    found: dict[str, list[float]] = {name: [] for name in (*STAGES, COMMAND, COLLECTING, BY_SERVER)}
    clock: dict[str, list[float]] = {COMMAND: [], COLLECTING: [], BY_SERVER: []}
    with tempfile.TemporaryDirectory() as folder, running_server() as address:
        search = ["search", str(FOLDER), QUERY, "--to", f"{folder}/index", "--top", "3"]
        measure_start(search)  # makes the index
        for _ in range(rounds):
            command = [sys.executable, "-c", _PROGRAM, json.dumps(STAGES)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            for name, seconds in json.loads(done.stdout.rstrip("\n").rpartition("\n")[2]).items():
                found[name].append(seconds)
            for name, more in ((COMMAND, []), (COLLECTING, []), (BY_SERVER, ["--server", address])):
                start = measure_start([*search, *more], before=_COLLECT if name == COLLECTING else "")
                if start.code != 0 or "lancedb" in start.heavy:
                    raise RuntimeError(f"{name}: exit code {start.code}, {start.heavy}: {start.out}")
                found[name].append(start.cpu_seconds)
                clock[name].append(start.seconds)
    import torch

    return {
        "device": device_name(torch.device("cpu")),
        "rounds": rounds,
        "cpu_seconds": {name: _spread(each) for name, each in found.items()},
        "seconds": {name: _spread(each) for name, each in clock.items()},
    }


@contextmanager
def running_server() -> Iterator[str]:
    """The address of `plume-embed serve` with the default model, ready to answer."""
    command = [sys.executable, "-m", "plume_embed", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[2].removesuffix("/v1")
        server.terminate()


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def markdown(report: dict[str, Any]) -> str:
    """The table of the documents."""
    lines = ["| stage | CPU seconds | least to most |", "|---|---:|---|"]
    for name, found in report["cpu_seconds"].items():
        lines.append(f"| {name} | {found['median']:.2f} | {found['least']:.2f} to {found['most']:.2f} |")
    for name, found in report["seconds"].items():
        spread = f"{found['least']:.2f} to {found['most']:.2f}"
        lines.append(f"| {name}, by the clock | {found['median']:.2f} s | {spread} |")
    return "\n".join(lines)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Processes; the table has their medians.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the result there.")] = None,
) -> None:
    """Measure a search from cold."""
    report = measure(rounds)
    typer.echo(markdown(report))
    if json_file is not None:
        write_json(json_file, report)


if __name__ == "__main__":
    typer.run(main)
