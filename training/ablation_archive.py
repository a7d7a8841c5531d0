"""Finished runs of an ablation in one small file beside its results, so that a grid goes on on another machine.

A line is {"row", "seed", "results"}, the last being the run's results.json. A run counts for as long as its recipe is
what the grid would run today; folders and numbers of worker processes aside, which change nothing.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from plume_embed.training.recipe import Recipe

_WITHOUT_EFFECT = ("output_dir", "workers")


def archive_of(results_file: Path) -> Path:
    """`ablations_hops.json` -> `ablations_hops.runs.jsonl`."""
    return results_file.with_suffix(".runs.jsonl")


def read_archive(path: Path) -> dict[tuple[str, int], dict]:
    """Results by row and seed; none where there is no file."""
    if not path.is_file():
        return {}
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return {(entry["row"], entry["seed"]): entry["results"] for entry in entries}


def write_archive(path: Path, finished: Iterable[tuple[str, int, dict]]) -> None:
    """Writes the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    lines = (json.dumps({"row": row, "seed": seed, "results": results}) for row, seed, results in finished)
    partial.write_text("".join(f"{line}\n" for line in lines))
    partial.replace(path)


def is_of(results: dict, recipe: Recipe) -> bool:
    """Whether a run was made by this recipe."""
    return _comparable(results["recipe"]) == _comparable(json.loads(json.dumps(dataclasses.asdict(recipe))))


def _comparable(recipe: dict) -> dict:
    return {name: value for name, value in recipe.items() if name not in _WITHOUT_EFFECT}
