"""Peak memory of indexing a folder of photographs of 12 megapixels, and how it grows with their number. Linux only.

    python -m benchmarks.photographs_memory --count 40 --count 1000 --json FILE

The command `plume-embed index` runs as it stands, at its default batch. What is stated is the largest sum, over the
program and the process that decodes for it, of their proportional set sizes (memory that two share counts once).
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

WIDTH, HEIGHT = 4000, 3000


def main(
    count: Annotated[list[int], typer.Option(help="Photographs in the folder; once for each run.")],
    model: Annotated[Path, typer.Option(help="Model folder.")] = Path("checkpoints/plume-tiny"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the result.")] = None,
) -> None:
    """Makes the folders and indexes them, one after the other."""
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "photographs")
        folder.mkdir()
        for number in sorted(count):
            for index in range(len(list(folder.iterdir())), number):
                photograph(index).save(folder / f"{index:05}.jpg", quality=90)
            rows.append({"photographs": number, **measure(folder, Path(work, f"index-{number}"), model)})
            print(rows[-1], flush=True)
    if json_file:
        json_file.write_text(json.dumps({"size": [WIDTH, HEIGHT], "model": model.name, "runs": rows}, indent=2) + "\n")


@cache
def shapes() -> np.ndarray:
    """Shapes of every size in every colour: [H, W, 3]."""
    random, picture = np.random.default_rng(0), np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for side in (3, 12, 50, 200):
        layer = Image.fromarray(random.integers(0, 256, (side, side * 4 // 3, 3), dtype=np.uint8))
        picture += np.asarray(layer.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32) / 4
    return picture.astype(np.uint8)


def photograph(number: int) -> Image.Image:
    """The shapes, moved by another distance for each number."""
    return Image.fromarray(np.roll(shapes(), (97 * number, 31 * number), axis=(0, 1)))


def measure(folder: Path, index: Path, model: Path) -> dict[str, float]:
    """Indexes a folder.

    Returns:
        `peak_mib` of memory, `decoder_mib` the part of the decoding process in it, `seconds` by the clock.
    """
    command = [sys.executable, "-m", "plume_embed", "index", folder, "--to", index, "--model", model]
    start, peak, decoder = time.monotonic(), 0.0, 0.0
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = {pid: proportional_mib(pid) for pid in (process.pid, *descendants(process.pid))}
            if sum(sizes.values()) > peak:
                peak, decoder = sum(sizes.values()), sum(sizes.values()) - sizes[process.pid]
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"plume-embed index ended with {process.returncode}")
    seconds = time.monotonic() - start
    return {"peak_mib": round(peak), "decoder_mib": round(decoder), "seconds": round(seconds)}


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
