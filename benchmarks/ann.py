"""Recall, latency, build time and memory of the indices of approximate neighbours: `python -m benchmarks.ann`.

The vectors are made here, in chunks, on the disk: clusters within clusters, spread along 64 directions and a little
along all. Queries come from the same clusters and are not in the table. What is nearest to them by an exact scan is
known from the making; LanceDB's own exact scan is compared with it. Each variant is built by one process and searched
by another, so that the peak of memory is its own. Files are in the system's cache as far as they fit. What the results
file has is not measured again, and with --folder the table stays: so a long run can be cut into pieces. To measure
anew, give another --json; for other vectors, another --folder.
"""

import contextlib
import json
import multiprocessing
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import lancedb
import numpy as np
import pyarrow as pa
import typer

from plume_embed.atomic import write_bytes, write_json
from plume_embed.index.neighbours import AnnKind, AnnSettings, approximate, build_ann, exact, read_ann
from plume_embed.pools import end_with_parent

RESULTS = Path(__file__).parent / "results" / "ann.json"
TOP = 10
_CHUNK, _COMMIT = 10_000, 100_000  # rows
_DIRECTIONS = 64
_RARE = 100  # one row of so many has the kind that is filtered for
# By name: what the index is made of, and for which refine factors it is searched.
VARIANTS: dict[str, tuple[AnnSettings, tuple[int, ...]]] = {
    "binary": (AnnSettings(AnnKind.BINARY), (0, 5, 20, 50)),
    "int8": (AnnSettings(AnnKind.INT8), (0, 4)),
    "binary, 256 dimensions": (AnnSettings(AnnKind.BINARY, 256), (20, 100)),
    "int8, 256 dimensions": (AnnSettings(AnnKind.INT8, 256), (4, 20)),
    "pq": (AnnSettings(AnnKind.PQ), (0, 20)),
    "hnsw": (AnnSettings(AnnKind.HNSW), (0, 4)),
}


class Clusters:
    """Unit vectors in clusters within clusters.

    Args:
        rows (`int`): Of the table; 250 make a cluster.
        dimension (`int`): D.
    """

    def __init__(self, rows: int, dimension: int, seed: int = 0):
        random = np.random.default_rng(seed)
        above = random.standard_normal((max(2, rows // 25_000), dimension), np.float32)
        count = max(10, rows // 250)
        own = random.standard_normal((count, dimension), np.float32)
        self._centres = above[random.integers(0, len(above), count)] + own  # [C, D]
        self._directions = random.standard_normal((_DIRECTIONS, dimension), np.float32) / np.sqrt(_DIRECTIONS)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Vectors [count, D]."""
        random = np.random.default_rng([1, seed])
        vectors = self._centres[random.integers(0, len(self._centres), count)]
        vectors += random.standard_normal((count, _DIRECTIONS), np.float32) @ self._directions
        vectors += 0.3 * random.standard_normal(vectors.shape, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Truth:
    """Queries with the rows nearest to them, of all and of the rare kind, of all that came by.

    Args:
        queries (`np.ndarray` of shape [Q, D])

    Attributes:
        num_rows (`int`): That came by.
        nearest, rare (`np.ndarray` of shape [Q, 10]): Numbers of rows, the nearest first.
    """

    def __init__(self, queries: np.ndarray):
        self.queries, self.num_rows = queries, 0
        self.nearest, self.rare = (np.full((len(queries), 0), 0, np.int64) for _ in range(2))
        self._scores = {name: np.full((len(queries), 0), 0, np.float32) for name in ("nearest", "rare")}

    def see(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        """Takes note of rows."""
        self.num_rows += len(vectors)
        is_rare = numbers % _RARE == 0
        for name, chosen in (("nearest", slice(None)), ("rare", is_rare)):
            new = np.broadcast_to(numbers[chosen], (len(self.queries), len(numbers[chosen])))
            known = np.concatenate([vars(self)[name], new], axis=1)
            scores = np.concatenate([self._scores[name], self.queries @ vectors[chosen].T], axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
            setattr(self, name, np.take_along_axis(known, best, axis=1))
            self._scores[name] = np.take_along_axis(scores, best, axis=1)


def make_table(db: Path, rows: int, dimension: int, num_queries: int) -> Truth:
    """Writes the table and finds what is nearest to the queries; goes on where an earlier piece of the run ended.

    Raises:
        BadParameter: the table is of other settings, or of a version that did not note them.
    """
    clusters, noted = Clusters(rows, dimension), db / "truth.pickle"
    settings = {"rows": rows, "dimension": dimension, "queries": num_queries}
    truth = _noted(noted, settings) if noted.exists() else Truth(clusters.draw(num_queries, seed=rows))
    schema = pa.schema({"vector": pa.list_(pa.float32(), dimension), "number": pa.int64(), "kind": pa.string()}.items())
    connection = lancedb.connect(str(db))
    if truth.num_rows:
        table = connection.open_table("items")  # perhaps with the column of an index
    else:
        table = connection.create_table("items", schema=schema, exist_ok=True)
    table.delete(f"number >= {truth.num_rows}")  # written, and not noted any more

    def batches(start: int, end: int) -> Iterator[pa.RecordBatch]:
        for first in range(start, end, _CHUNK):
            numbers = np.arange(first, min(first + _CHUNK, end))
            vectors = clusters.draw(len(numbers), seed=first)
            truth.see(vectors, numbers)
            kinds = ["page" if number % _RARE == 0 else "image" for number in numbers]
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension)
            yield pa.record_batch([lists, pa.array(numbers), pa.array(kinds)], schema=schema)

    while truth.num_rows < rows:
        end = min(truth.num_rows + _COMMIT, rows)
        table.add(pa.RecordBatchReader.from_batches(schema, batches(truth.num_rows, end)))
        write_bytes(noted, pickle.dumps((settings, truth)))
    return truth


def _noted(file: Path, settings: dict[str, int]) -> Truth:
    """What an earlier piece of the same run has noted."""
    found = pickle.loads(file.read_bytes())
    made_for, truth = found if isinstance(found, tuple) else ({}, found)  # an older version noted no settings
    for name, value in settings.items():
        if made_for.get(name) != value:
            has = made_for.get(name, "an unknown number of")
            raise typer.BadParameter(f"{file.parent} holds a table of {has} {name}, not {value}; give another --folder")
    return truth


def build(db: Path, settings: AnnSettings, is_measured: bool) -> dict[str, Any]:
    """Makes an index; seconds by the clock and of the processor, its size, and the peak of memory.

    One that an earlier piece of the run has made and measured is left as it is.
    """
    table = lancedb.connect(str(db)).open_table("items")
    there = read_ann(table)
    if is_measured and there is not None and there.settings == settings:
        return {}
    begin, cpu = time.perf_counter(), time.process_time()
    made = build_ann(table, settings)
    return {
        "build_seconds": round(time.perf_counter() - begin),
        "build_cpu_seconds": round(time.process_time() - cpu),
        "index_mb": round(made.num_bytes / 1e6),
        "build_peak_mb": peak_mb(),
    }


def search_exact(db: Path, truth: Truth, count: int) -> dict[str, Any]:
    """LanceDB's exact scan for some of the queries."""
    table = lancedb.connect(str(db)).open_table("items")
    return _measured(lambda query: exact(table, query, TOP, columns=["number"]), truth.queries[:count], truth.nearest)


def search(db: Path, truth: Truth, refine: int) -> dict[str, Any]:
    """All queries through the index; and once more with a filter that leaves a hundredth of the rows."""
    table = lancedb.connect(str(db)).open_table("items")
    ann = read_ann(table)
    assert ann is not None

    def ask(query: np.ndarray, where: str = "") -> list[dict]:
        return approximate(table, ann, query, TOP, where, ["number"], refine)

    found = {"refine": refine, **_measured(ask, truth.queries, truth.nearest)}
    filtered = _measured(lambda query: ask(query, "kind = 'page'"), truth.queries, truth.rare)
    return {**found, "filtered": {name: filtered[name] for name in ("recall", "median_ms", "cpu_ms")}}


def _measured(ask: Callable[[np.ndarray], list[dict]], queries: np.ndarray, nearest: np.ndarray) -> dict[str, Any]:
    """Recall and latencies; the first query, which reads the index, is timed apart and asked again."""
    begin = time.perf_counter()
    ask(queries[0])
    first, seconds, hits = time.perf_counter() - begin, [], 0
    cpu = time.process_time()
    for query, wanted in zip(queries, nearest, strict=False):
        begin = time.perf_counter()
        rows = ask(query)
        seconds.append(time.perf_counter() - begin)
        hits += len({row["number"] for row in rows} & set(wanted.tolist()))
    return {
        "queries": len(queries),
        "recall": round(hits / (TOP * len(queries)), 4),
        "first_ms": round(1000 * first, 1),
        "median_ms": round(1000 * statistics.median(seconds), 1),
        "p95_ms": round(1000 * sorted(seconds)[int(0.95 * len(seconds))], 1),
        "cpu_ms": round(1000 * (time.process_time() - cpu) / len(queries), 1),
        "peak_mb": peak_mb(),
    }


def peak_mb() -> int:
    """The most memory that this process has held, in megabytes. `getrusage` would count its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function's result from a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        return pool.submit(function, *arguments).result()


def markdown(result: dict[str, Any]) -> str:
    """The table of docs/scale.md."""
    scan = result["exact"]
    lines = [
        f"| {result['rows']:,} vectors of {result['dimension']:,} dimensions | index | CPU minutes to build "
        "| memory to build | candidates | recall@10 | CPU a query | by the clock | memory | 1 row of 100 left |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        f"| exact scan of float32 | | | | | {scan['recall']:.3f} | {_times(scan)} | |",
    ]
    for name, row in result["variants"].items():
        minutes = f"{row['build_cpu_seconds'] / 60:.1f}"
        made = [name, f"{row['index_mb']:,} MB", minutes, f"{row['build_peak_mb']:,} MB"]
        for place, one in enumerate(row["searches"]):
            candidates = f"{TOP * one['refine']:,}" if one["refine"] else "10, not rescored"
            filtered = f"{one['filtered']['recall']:.3f} in {one['filtered']['cpu_ms']:,.0f} ms"
            cells = [*(made if place == 0 else [""] * 4), candidates, f"{one['recall']:.3f}", _times(one), filtered]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(row: dict[str, Any]) -> str:
    return f"{row['cpu_ms']:,.0f} ms | {row['median_ms']:,.0f} ms | {row['peak_mb']:,} MB"


def main(
    rows: Annotated[int, typer.Option(help="Vectors.")] = 1_000_000,
    dimension: Annotated[int, typer.Option(help="Of a vector.")] = 1536,
    queries: Annotated[int, typer.Option(help="For the indices.")] = 100,
    scans: Annotated[int, typer.Option(help="Queries for the exact scan, which is slow.")] = 10,
    variant: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keep the table here: 4 x rows x D bytes, and the indices.")
    ] = None,
    to: Annotated[Path, typer.Option("--json", help="Results file.")] = RESULTS,
) -> None:
    """Makes the table and measures one variant after the other; the file is written after each step."""
    chosen = {name: _variant(name) for name in variant or VARIANTS}
    result = _begun(to, rows, dimension)
    if "exact" in result and not any(_missing(result, name) for name in chosen):
        typer.echo(markdown(result))
        return
    keep = contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory()
    with keep as work:
        db = Path(work) / "db"

        def note(where: dict[str, Any], name: str, value: Any) -> None:
            where[name] = value
            write_json(to, result)
            typer.echo(json.dumps({name: value}))

        begin, cpu = time.perf_counter(), time.process_time()
        truth = make_table(db, rows, dimension, queries)
        if "make" not in result:
            seconds = {"seconds": round(time.perf_counter() - begin), "cpu_seconds": round(time.process_time() - cpu)}
            note(result, "make", {**seconds, "peak_mb": peak_mb()})
        if "exact" not in result:
            note(result, "exact", apart(search_exact, db, truth, scans))
        for name, (settings, _) in chosen.items():
            missing = _missing(result, name)
            row = result["variants"].setdefault(name, {"searches": []})
            if missing:
                row.update(apart(build, db, settings, "index_mb" in row))
                write_json(to, result)
            for refine in missing:
                found = apart(search, db, truth, refine)
                note(row, "searches", [*row["searches"], found])
    typer.echo(markdown(result))


def _variant(name: str) -> tuple[AnnSettings, tuple[int, ...]]:
    if name not in VARIANTS:
        raise typer.BadParameter(f"no variant {name!r}; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]


def _missing(result: dict[str, Any], name: str) -> list[int]:
    """Refine factors of a variant that have not been searched with."""
    there = {one["refine"] for one in result["variants"].get(name, {"searches": []})["searches"]}
    return [refine for refine in VARIANTS[name][1] if refine not in there]


def _begun(to: Path, rows: int, dimension: int) -> dict[str, Any]:
    """The results of earlier pieces of the same run, or none where there is no file.

    Raises:
        BadParameter: the file is of another run, and would be replaced.
    """
    new = {"rows": rows, "dimension": dimension, "lancedb": lancedb.__version__, "cores": os.cpu_count()}
    if not to.exists():
        return {**new, "variants": {}}
    found = json.loads(to.read_text())
    for name, value in new.items():
        if found[name] != value:
            raise typer.BadParameter(f"{to} has results with {name} {found[name]}, not {value}; give another --json")
    return found


if __name__ == "__main__":
    typer.run(main)
