"""Peak memory and time of indexing photographs of 12 megapixels, and of a search after it. Linux only.

    python -m benchmarks.photographs_memory --count 40 --count 1000 --json FILE

The commands `plume-embed index` and `plume-embed search` run as they stand, at their defaults. What is stated of memory
is the largest sum, over the program and the process that decodes for it, of their proportional set sizes (memory that
two share counts once); the CPU seconds are of both.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.large_photographs import HEIGHT, ROOT, WIDTH, write_photographs
from plume_embed.atomic import write_json

QUERY = "a cup of coffee"


def main(
    count: Annotated[list[int], typer.Option(help="Photographs in the folder; once for each run.")],
    model: Annotated[Path, typer.Option(help="Model folder.")] = ROOT / "checkpoints" / "plume-small",
    folder: Annotated[Path | None, typer.Option(help="Where the photographs are made and stay.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the result.")] = None,
) -> None:
    """Makes the photographs, indexes so many of them at a time, and searches."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder.parent if folder else None) as work:
        for number in count:
            files = write_photographs(folder or Path(work, "photographs"), number)
            chosen = Path(work, f"first-{number}")
            chosen.mkdir()
            for file in files:
                (chosen / file.name).hardlink_to(file)
            to = ["--to", work + f"/index-{number}", "--model", str(model)]
            index, first, again = (
                measure(command)
                for command in (["index", str(chosen), *to], *2 * [["search", str(chosen), QUERY, *to]])
            )
            num_bytes = sum(file.stat().st_size for file in files) // number
            rows.append(
                {"photographs": number, "bytes_each": num_bytes, "index": index, "search": first, "search_again": again}
            )
            print(json.dumps(rows[-1]), flush=True)
    if json_file:
        write_json(json_file, {"size": [WIDTH, HEIGHT], "model": model.name, "runs": rows})


def markdown(report: dict[str, Any]) -> str:
    """The table of the documents."""
    lines = [
        "| photographs | | peak of memory | of it decoding | CPU seconds | seconds |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for run in report["runs"]:
        for name in ("index", "search", "search_again"):
            found = run[name]
            cells = [f"{run['photographs']:,}", name.replace("_", " "), f"{found['peak_mib']:,} MiB"]
            cells += [f"{found['decoder_mib']:,} MiB", f"{found['cpu_seconds']:,.0f}", f"{found['seconds']:,.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(command: list[str]) -> dict[str, float]:
    """Runs a command of plume-embed.

    Returns:
        `peak_mib` of memory, `decoder_mib` the part of the decoding process in it, `seconds` by the clock, and
        `cpu_seconds`.
    """
    start, used, peak, decoder = time.monotonic(), _children_cpu(), 0.0, 0.0
    whole = [sys.executable, "-m", "plume_embed", *command]
    with subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = {pid: proportional_mib(pid) for pid in (process.pid, *descendants(process.pid))}
            if sum(sizes.values()) > peak:
                peak, decoder = sum(sizes.values()), sum(sizes.values()) - sizes[process.pid]
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"plume-embed {command[0]} ended with {process.returncode}")
    seconds, cpu_seconds = time.monotonic() - start, _children_cpu() - used
    return {
        "peak_mib": round(peak),
        "decoder_mib": round(decoder),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
    }


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def proportional_mib(pid: int) -> float:
    """The proportional set size of a process; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have started."""
    try:
        names = [
            name for task in Path(f"/proc/{pid}/task").iterdir() for name in (task / "children").read_text().split()
        ]
    except OSError:
        return []
    return [found for name in names for found in (int(name), *descendants(int(name)))]


if __name__ == "__main__":
    typer.run(main)
