"""Build the miniature benchmark: `python -m evaluation.miniature.build --out DIR`.

Writes one or more parquet shards of stills per style, then what each part composes from them (see `schema.py` for the
files), and `build.json` with versions and counts. Two builds of one version are equal.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer
from datasets import Dataset, Features, Image, List, Value, disable_progress_bars
from rich.console import Console
from rich.table import Table

from evaluation.miniature.check import check
from evaluation.miniature.documents import documents
from evaluation.miniature.films import videos
from evaluation.miniature.pack import training_bytes
from evaluation.miniature.parts import Context, Part, Still
from evaluation.miniature.scenes import tasks as scene_tasks
from evaluation.miniature.sources.concepts import Concept, match_pictures, read_concepts
from evaluation.miniature.sources.packages import CONCEPT_PACKAGE, DEFAULT_CACHE, STYLE_PACKAGES, FetchError, fetch
from evaluation.miniature.sources.render import render_all
from evaluation.miniature.stills import tasks as stills_tasks
from plume_embed.atomic import write_json
from plume_embed.command import run_command
from plume_embed.evaluation.miniature.schema import SUMMARY, Built, file_stem, write_media, write_pairs, write_tasks

# What is built from the stills, in this order: a name and a function `(Context) -> Built`, see `parts.py`.
PARTS: dict[str, Part] = {
    "stills": stills_tasks.build,
    "scenes": scene_tasks.build,
    "videos": videos.build,
    "documents": documents.build,
}

SHARD_ROWS = 2000

FEATURES = Features(
    {
        "image": Image(),
        "hexcode": Value("string"),
        "label": Value("string"),
        "tags": List(Value("string")),
        "group": Value("string"),
        "subgroup": Value("string"),
        "skin_tone": Value("string"),
        "gender": Value("string"),
        "family": Value("string"),
        "split_family": Value("string"),
        "style": Value("string"),
        "picture_hash": Value("string"),
    }
)


def record(concept: Concept, style: str, data: bytes, digest: str) -> dict[str, object]:
    """One row of the data set."""
    return {
        "image": {"bytes": data, "path": None},
        "hexcode": concept.hexcode,
        "label": concept.label,
        "tags": list(concept.tags),
        "group": concept.group,
        "subgroup": concept.subgroup,
        "skin_tone": concept.skin_tone,
        "gender": concept.gender,
        "family": concept.family,
        "split_family": concept.split_family,
        "style": style,
        "picture_hash": digest,
    }


def write_shards(records: Sequence[dict[str, object]], out: Path, style: str) -> None:
    """Write one style's rows as `STYLE-00000-of-00002.parquet` and so on, replacing an earlier build's."""
    for old in out.glob(f"{style}-?????-of-?????.parquet"):
        old.unlink()
    shards = -(-len(records) // SHARD_ROWS)
    for number in range(shards):
        rows = records[number * SHARD_ROWS : (number + 1) * SHARD_ROWS]
        columns = {name: [row[name] for row in rows] for name in FEATURES}
        shard = Dataset.from_dict(columns, features=FEATURES)
        shard.to_parquet(out / f"{style}-{number:05d}-of-{shards:05d}.parquet")


def read_stills(out: Path, style: str, concepts: Sequence[Concept]) -> dict[str, Still]:
    """The pictures that an earlier build wrote, by hexcode."""
    by_hexcode = {concept.hexcode: concept for concept in concepts}
    stills = {}
    for file in sorted(out.glob(f"{style}-?????-of-?????.parquet")):
        for row in pq.read_table(file, columns=["image", "hexcode", "picture_hash"]).to_pylist():
            concept = by_hexcode[row["hexcode"]]
            stills[concept.hexcode] = Still(concept, style, row["image"]["bytes"], row["picture_hash"])
    return stills


def make_context(out: Path, size: int, cache: Path, processes: int, options: Mapping[str, str]) -> Context:
    """Fetch the packages, render the stills and write them; an earlier build's are read instead where they fit."""
    folders = fetch([CONCEPT_PACKAGE, *STYLE_PACKAGES.values()], cache)
    concepts = read_concepts(folders[CONCEPT_PACKAGE.name])
    sources = {s: match_pictures(concepts, s, folders[package.name]) for s, package in STYLE_PACKAGES.items()}
    version = {
        "size": size,
        "concepts": CONCEPT_PACKAGE.spec,
        "styles": {style: package.spec for style, package in STYLE_PACKAGES.items()},
        "encoding": "smaller of PNG and lossless WebP; files: WebP, quality 90",
    }
    summary = read_summary(out)
    fits = all(summary.get(key) == value for key, value in version.items())
    if not fits:
        write_summary(out, {})  # a build that is killed from here on must not pass for the one before
        for name, counts in summary.get("parts", {}).items():
            remove_part(name, counts, out)
    stills: dict[str, dict[str, Still]] = {}
    for style, found in sources.items():
        drawn = [concept for concept in concepts if concept.hexcode in found]
        if fits:
            stills[style] = read_stills(out, style, concepts)
            if stills[style].keys() == found.keys():
                continue
        rendered = render_all([found[concept.hexcode] for concept in drawn], size, style, processes)
        stills[style] = {c.hexcode: Still(c, style, *picture) for c, picture in zip(drawn, rendered, strict=True)}
        write_shards([record(s.concept, style, s.data, s.digest) for s in stills[style].values()], out, style)
    rows = {style: _row_counts(stills[style]) for style in STYLE_PACKAGES}
    parts = summary.get("parts", {}) if fits else {}
    write_summary(out, {**version, "rows": rows, "parts": parts})
    return Context(tuple(concepts), stills, sources, cache, size, 0, processes, options)


def _row_counts(stills: Mapping[str, Still]) -> dict[str, int]:
    counts = Counter(still.concept.split_family for still in stills.values())
    untoned = sum(not still.concept.skin_tone for still in stills.values())
    return {"all": len(stills), "untoned": untoned, "train": counts["train"], "test": counts["test"]}


def read_summary(out: Path) -> dict:
    """What an earlier build wrote about itself; {} where there was none."""
    file = out / SUMMARY
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_summary(out: Path, summary: dict) -> None:
    """Write `build.json`."""
    write_json(out / SUMMARY, summary, indent=2)


def remove_part(name: str, counts: dict, out: Path) -> None:
    """Remove what a part wrote; `counts` as [`write_part`] returned it."""
    for stem in counts["tasks"]:
        for file in (out / "tasks").glob(f"{stem}.*.parquet"):
            file.unlink()
    for subset in counts["subsets"]:
        (out / "train" / f"{subset}.parquet").unlink(missing_ok=True)
    for file in (out / "media").glob(f"{name}-*.parquet"):
        file.unlink()


def write_part(name: str, built: Built, out: Path) -> dict:
    """Write what a part built, in the place of what an earlier run of it wrote.

    Returns:
        Its counts: `tasks` (name, concepts, queries, candidates, mean pool), `subsets` (pairs), `media`, `media_bytes`,
        `packages` (sha256 by name and version).
    """
    summary = read_summary(out)
    parts = summary.get("parts", {})
    if name in parts:  # first it is said to be gone: a build may be killed at any moment
        others = {part: own for part, own in parts.items() if part != name}
        write_summary(out, {**summary, "parts": others})
        remove_part(name, parts[name], out)
    write_media(built.media, out, name)
    write_tasks(built.tasks, out)
    write_pairs(built.pairs, out)
    counts = {
        "tasks": {
            file_stem(task): {
                "queries": len(task.queries),
                "candidates": len(task.candidates),
                "pool": round(sum(len(q.pool) or len(task.candidates) for q in task.queries) / len(task.queries), 1),
            }
            for task in built.tasks
        },
        "subsets": dict(sorted(Counter(pair.subset for pair in built.pairs).items())),
        "packages": built.packages,
        "media": len(built.media),
        "media_bytes": sum(len(frame) for frames in built.media.values() for frame in frames),
    }
    write_summary(out, {**summary, "parts": {**parts, name: counts}})
    return counts


def build(
    out: Path,
    size: int = 84,
    cache: Path = DEFAULT_CACHE,
    processes: int = 2,
    parts: Sequence[str] | None = None,
    options: Mapping[str, str] | None = None,
    console: Console | None = None,
) -> dict:
    """Fetch, render and write the stills and all that the parts compose from them.

    Args:
        out: Folder for the parquet shards.
        size: Side of the pictures in pixels, a multiple of 28.
        cache: Folder for the fetched packages.
        processes: Number of rendering processes.
        parts: Keys of PARTS; all if left out. What other parts wrote earlier stays.
        options: Choices of single parts.

    Returns:
        What is written to `build.json`.

    Raises:
        ValueError: an unknown part, a size that is no multiple of 28, or a part that built something inconsistent.
        FetchError: a package that cannot be had.
    """
    console = console or Console(quiet=True)
    unknown = sorted(set(parts or ()) - set(PARTS))
    if unknown:
        raise ValueError(f"there is no part {', '.join(unknown)}; choose from {', '.join(PARTS)}.")
    out.mkdir(parents=True, exist_ok=True)
    context = make_context(out, size, cache, processes, options or {})
    for name, part in PARTS.items():
        if parts is None or name in parts:
            started = time.time()
            built = part(context)
            check(built, context)
            write_part(name, built, out)
            console.print(f"{name}: {time.time() - started:.0f} s", highlight=False)
    return read_summary(out)


def print_tables(summary: dict, out: Path, console: Console) -> None:
    """Print the counts of a build."""
    pictures = Table("style", "pictures", "untoned", "in train families", "in test families", title="Pictures")
    for style, count in summary["rows"].items():
        pictures.add_row(style, *(f"{count[name]:,}" for name in ("all", "untoned", "train", "test")))
    tasks = Table(title="Evaluation tasks")
    subsets = Table(title="Training pairs")
    for table, columns in ((tasks, "part task queries candidates pool"), (subsets, "part subset pairs")):
        for column in columns.split():
            table.add_column(column, justify="left" if column in ("part", "task", "subset") else "right")
    for name, part in summary["parts"].items():
        for stem, count in part["tasks"].items():
            tasks.add_row(name, stem, *(f"{count[key]:,}" for key in ("queries", "candidates", "pool")))
        for subset, pairs in part["subsets"].items():
            subsets.add_row(name, subset, f"{pairs:,}")
        megabytes = f"{part['media_bytes'] / 1e6:.1f} MB"
        tasks.add_row(name, f"{part['media']:,} composed media, {megabytes}", end_section=True)
        subsets.add_section()
    pairs = sum(sum(part["subsets"].values()) for part in summary["parts"].values())
    subsets.add_row("all", f"{training_bytes(out) / 1e6:.1f} MB with their media", f"{pairs:,}")
    for table in (pictures, tasks, subsets):
        console.print(table)


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the parquet shards to.")],
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels: a multiple of 28.")] = 84,
    cache: Annotated[Path, typer.Option(help="Where fetched packages are kept.")] = DEFAULT_CACHE,
    processes: Annotated[int, typer.Option(help="Rendering processes: one for each core to spare.")] = 2,
    parts: Annotated[str, typer.Option(help="Names with commas between; what is not named stays as it is.")] = "all",
    option: Annotated[list[str] | None, typer.Option(help="A choice of one part, as NAME=VALUE.")] = None,
) -> None:
    """Build the benchmark, e.g. `python -m evaluation.miniature.build --out .data/miniature`."""
    console = Console()
    disable_progress_bars()  # ours tell enough
    chosen = None if parts == "all" else parts.split(",")
    options = dict(choice.split("=", 1) for choice in option or ())
    try:
        summary = build(out, size, cache, processes, chosen, options, console)
    except (FetchError, ValueError) as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        raise typer.Exit(1) from None
    print_tables(summary, out, console)


if __name__ == "__main__":
    run_command(main)
