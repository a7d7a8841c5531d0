"""Build the stills of the miniature benchmark: `python -m evaluation.miniature.build --out DIR`.

Writes one or more parquet shards per style, readable with `datasets`, and `build.json` with versions and counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from datasets import Dataset, Features, Image, List, Value, disable_progress_bars
from rich.console import Console
from rich.table import Table

from plume_embed.evaluation.miniature.concepts import Concept, match_pictures, read_concepts
from plume_embed.evaluation.miniature.render import render_all
from plume_embed.evaluation.miniature.sources import CONCEPT_PACKAGE, DEFAULT_CACHE, STYLE_PACKAGES, FetchError, fetch

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


def record(concept: Concept, style: str, png: bytes, digest: str) -> dict[str, object]:
    """One row of the data set."""
    return {
        "image": {"bytes": png, "path": None},
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
    for old in out.glob(f"{style}-*.parquet"):
        old.unlink()
    shards = -(-len(records) // SHARD_ROWS)
    for number in range(shards):
        rows = records[number * SHARD_ROWS : (number + 1) * SHARD_ROWS]
        columns = {name: [row[name] for row in rows] for name in FEATURES}
        shard = Dataset.from_dict(columns, features=FEATURES)
        shard.to_parquet(out / f"{style}-{number:05d}-of-{shards:05d}.parquet")


def build(out: Path, size: int = 84, cache: Path = DEFAULT_CACHE, processes: int = 2) -> dict[str, Counter[str]]:
    """Fetch, render and write all styles.

    Args:
        out: Folder for the parquet shards.
        size: Side of the pictures in pixels, a multiple of 28.
        cache: Folder for the fetched packages.
        processes: Number of rendering processes.

    Returns:
        For each style, the number of rows: "all", "untoned", and "train" and "test" by family.
    """
    folders = fetch([CONCEPT_PACKAGE, *STYLE_PACKAGES.values()], cache)
    concepts = read_concepts(folders[CONCEPT_PACKAGE.name])
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, Counter[str]] = {}
    for style, package in STYLE_PACKAGES.items():
        sources = match_pictures(concepts, style, folders[package.name])
        drawn = [concept for concept in concepts if concept.hexcode in sources]
        rendered = render_all([sources[concept.hexcode] for concept in drawn], size, style, processes)
        records = [record(concept, style, *picture) for concept, picture in zip(drawn, rendered, strict=True)]
        write_shards(records, out, style)
        counts[style] = Counter(concept.split_family for concept in drawn)
        counts[style]["all"] = len(drawn)
        counts[style]["untoned"] = sum(not concept.skin_tone for concept in drawn)
    packages = {style: package.spec for style, package in STYLE_PACKAGES.items()}
    summary = {"size": size, "concepts": CONCEPT_PACKAGE.spec, "styles": packages, "rows": counts}
    (out / "build.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return counts


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the parquet shards to.")],
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels: a multiple of 28.")] = 84,
    cache: Annotated[Path, typer.Option(help="Where fetched packages are kept.")] = DEFAULT_CACHE,
    processes: Annotated[int, typer.Option(help="Rendering processes: one for each core to spare.")] = 2,
) -> None:
    """Build the benchmark's stills, e.g. `python -m evaluation.miniature.build --out .data/miniature`."""
    console = Console()
    disable_progress_bars()  # ours tell enough
    try:
        counts = build(out, size, cache, processes)
    except (FetchError, ValueError) as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        raise typer.Exit(1) from None
    table = Table("style", "pictures", "untoned", "in train families", "in test families", title="Pictures")
    for style, count in counts.items():
        table.add_row(style, *(f"{count[name]:,}" for name in ("all", "untoned", "train", "test")))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
