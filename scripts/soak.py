"""Rounds of updating an index, searching it and encoding, in one process: what grows with time would show.

    python -m scripts.soak --minutes 30 --json docs/results/soak.json

In each round a few files of a folder are written anew, one of them damaged; the index is updated and searched, items of
every kind are encoded, and one stored vector is compared with that of the item alone. Linux only.
"""

import gc
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from plume_embed.atomic import write_json
from scripts.faults.commands import SAME, index_rows
from scripts.faults.inputs import sentence, write_film, write_folder, write_pdf, write_picture

ROOT = Path(__file__).resolve().parent.parent
_CHANGES = 6  # files a round
_GROWTH = 0.1  # of the memory in the middle, that the end may have more


def main(
    minutes: Annotated[float, typer.Option(help="By the clock.")] = 30,
    size: Annotated[int, typer.Option(help="Items in the folder, about.")] = 40,
    model: Annotated[Path, typer.Option(help="Model folder.")] = ROOT / "checkpoints" / "plume-tiny",
    seed: Annotated[int, typer.Option(help="Of the changes.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the result.")] = None,
) -> None:
    """Prints memory, files and threads a minute; exits with 1 if memory has grown, or a vector moved."""
    result = soak(60 * minutes, size, model, seed)
    if json_file is not None:
        write_json(json_file, result)
    raise typer.Exit(0 if is_right(result) else 1)


def soak(seconds: float, size: int, model: Path, seed: int) -> dict[str, Any]:
    """The rounds.

    Returns:
        `points`, about one a minute: `minute`, `mib` resident, open `files`, `threads`, `index_mib` on the disk; and
        counts over all rounds.
    """
    begun, points, counts = time.monotonic(), [], {"rounds": 0, "embedded": 0, "searches": 0, "moved": 0}
    with tempfile.TemporaryDirectory() as temporary:
        rounds = _rounds(Path(temporary), size, model, random.Random(seed), counts)
        every = min(60.0, seconds / 10)
        next(rounds)  # what is loaded once is loaded now
        while True:
            elapsed = time.monotonic() - begun
            if not points or elapsed >= every * len(points) or elapsed >= seconds:
                points.append({"minute": round(elapsed / 60, 1), **_state(Path(temporary, "index"))})
                print(points[-1], counts, flush=True)
            if elapsed >= seconds:
                return {"points": points, **counts}
            next(rounds)


def is_right(result: dict[str, Any]) -> bool:
    """Whether no vector moved and memory, files and threads are as they were in the middle."""
    middle, end = result["points"][len(result["points"]) // 2], result["points"][-1]
    has_grown = end["mib"] > middle["mib"] * (1 + _GROWTH) or end["files"] > middle["files"] + 8
    return result["moved"] == 0 and not has_grown and end["threads"] <= middle["threads"] + 4


def markdown(result: dict[str, Any]) -> str:
    """Start, middle and end as a table."""
    points = result["points"]
    lines = ["| minute | memory | open files | threads | index on the disk |", "|---:|---:|---:|---:|---:|"]
    for point in (points[0], points[len(points) // 2], points[-1]):
        cells = (f"{point['mib']} MiB", point["files"], point["threads"], f"{point['index_mib']} MiB")
        lines.append(f"| {point['minute']:.0f} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _rounds(work: Path, size: int, model: Path, rng: random.Random, counts: dict[str, int]) -> Iterator[None]:
    from plume_embed import Encoder
    from plume_embed.index.search import open_index
    from plume_embed.index.update import update_index
    from plume_embed.quiet import quiet_libraries

    quiet_libraries()
    encoder = Encoder(model)
    folder, db = write_folder(work / "folder", size), work / "index"
    while True:
        counts["rounds"] += 1
        changed = _change(folder, rng, counts["rounds"])
        counts["embedded"] += update_index(folder, db, encoder, batch_size=8).embedded
        opened = open_index(folder, db, encoder)
        alone = encoder.encode([{"image": changed}])[0]
        counts["moved"] += bool(np.abs(alone - index_rows(db)[changed.name, ""]["vector"]).max() > SAME)
        queries = encoder.encode([sentence(rng.randrange(10_000)), {"image": changed, "text": "and this"}])
        queries = [*queries, *encoder.encode([{"video": folder / "film.mp4"}, {"image": _picture(rng)}])]
        for query in queries:
            counts["searches"] += bool(opened.search(query))
        yield


def _change(folder: Path, rng: random.Random, number: int) -> Path:
    """Writes some files anew; returns a picture among them that can be read."""
    for _ in range(_CHANGES):
        file = folder / f"soak-{rng.randrange(20):02}{rng.choice(('.txt', '.png', '.pdf'))}"
        if file.suffix == ".txt":
            file.write_text(sentence(rng.randrange(100_000)) * rng.randint(1, 60))
        elif file.suffix == ".pdf":
            write_pdf(file, num_pages=rng.randint(1, 3))
        else:
            write_picture(file, rng.randrange(100_000))
    if number % 10 == 0:
        write_film(folder / "film.mp4")
    (folder / "damaged.png").write_bytes((folder / "picture-000.png").read_bytes()[: rng.randint(20, 500)])
    good = folder / "picture-001.png"
    write_picture(good, number)
    return good


def _picture(rng: random.Random) -> Image.Image:
    return Image.new("RGB", (rng.randint(20, 300), rng.randint(20, 300)), (rng.randrange(256), 90, 60))


def _state(db: Path) -> dict[str, Any]:
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    size = sum(file.stat().st_size for file in db.rglob("*") if file.is_file())
    return {
        "mib": round(resident / 1024),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "index_mib": round(size / 2**20, 1),
    }


if __name__ == "__main__":
    typer.run(main)
