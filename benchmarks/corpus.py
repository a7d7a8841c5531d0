"""Throughput of `plume-embed embed --engine ray` with one worker and with two: `python -m benchmarks.corpus`.

Only the ratio says something of a machine with few cores. The start of the cluster and the models is left out: rows a
second are counted from the first shard of a run to its last one.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.atomic import write_json
from plume_embed.corpus.embed import EmbedOptions, embed_corpus
from plume_embed.corpus.ray_engine import RayEngine, RayOptions
from plume_embed.corpus.sources import open_source
from plume_embed.encode.encoder import Encoder

RESULTS = Path(__file__).parent / "results" / "corpus.json"


def rows_a_second(source: Path, out: Path, encoder: Encoder, workers: int, shard_rows: int) -> float:
    """Of one run, between its first shard and its last."""
    seen: list[tuple[float, int]] = []
    embed_corpus(
        open_source(str(source)),
        out,
        encoder,
        EmbedOptions(shard_rows=shard_rows),
        RayEngine(encoder.folder, RayOptions(workers, device="cpu")),
        on_progress=lambda done, total: seen.append((time.perf_counter(), done)),
    )
    (begin, first), (end, last) = seen[1], seen[-1]  # seen[0] is before the start of the cluster
    return (last - first) / (end - begin)


def main(
    model: Annotated[Path, typer.Option(help="A model.")] = Path("checkpoints/plume-tiny"),
    pictures: Annotated[Path, typer.Option(help="The corpus is made of these.")] = Path("examples/pictures"),
    rows: Annotated[int, typer.Option(help="Of the corpus.")] = 1280,
    rounds: Annotated[int, typer.Option(help="Runs with each number of workers, in turns.")] = 2,
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard.")] = 32,
    to: Annotated[Path, typer.Option("--json", help="Results file.")] = RESULTS,
) -> None:
    """Measure, and write the ratio."""
    encoder, files = Encoder(model, device="cpu"), sorted(pictures.resolve().glob("*.png"))
    speeds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "in.jsonl"
        lines = (json.dumps({"image": str(files[n % len(files)]), "text": f"number {n}"}) for n in range(rows))
        source.write_text("\n".join(lines) + "\n")
        for number in range(rounds):
            for workers in speeds:
                out = Path(work) / f"{number}-{workers}.parquet"
                speeds[workers].append(rows_a_second(source, out, encoder, workers, shard_rows))
    found: dict[str, Any] = {
        "model": model.name,
        "rows": rows,
        "shard_rows": shard_rows,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[2], 1),
        "rows_a_second": {str(workers): [round(speed, 2) for speed in of] for workers, of in speeds.items()},
        "ratio": round(max(speeds[2]) / max(speeds[1]), 2),
    }
    write_json(to, found)
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
