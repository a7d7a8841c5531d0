"""Finished runs of an ablation in one small file beside its results, so that a grid goes on on another machine.

A line is {"row", "seed", "results"}, the last being the run's results.json. A run counts for as long as its recipe is
what the grid would run today; what changes nothing aside, such as folders, and with settings that are newer than the
run at their defaults. Of a model that it began with the files count as well, not only the path.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from plume_embed.atomic import write_text
from plume_embed.encode.encoder import fingerprint
from plume_embed.training.recipe import Recipe, recipe_from
from plume_embed.training.resuming import GATES, changed_settings

_WITHOUT_EFFECT = ("output_dir", "workers", "save_steps", "report_to", *GATES)


def archive_of(results_file: Path) -> Path:
    """`hops.json` -> `hops.runs.jsonl`."""
    return results_file.with_suffix(".runs.jsonl")


def read_archive(path: Path) -> dict[tuple[str, int], dict]:
    """Results by row and seed; none where there is no file."""
    if not path.is_file():
        return {}
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return {(entry["row"], entry["seed"]): entry["results"] for entry in entries}


def write_archive(path: Path, finished: Iterable[tuple[str, int, dict]]) -> None:
    """Writes these runs over those of the same row and seed and keeps all others; the file is whole at any time."""
    entries = read_archive(path) | {(row, seed): results for row, seed, results in finished}
    lines = (json.dumps({"row": row, "seed": seed, "results": run}) for (row, seed), run in sorted(entries.items()))
    write_text(path, "".join(f"{line}\n" for line in lines))


def is_of(results: dict, recipe: Recipe) -> bool:
    """Whether a run was made by this recipe, and where it says so, from the files that lie at `model.path` now. It says
    nothing if it is older than the entry, and nothing can be compared where there is no such folder."""
    try:
        made_by = recipe_from(results["recipe"])
    except ValueError:  # of a time when recipes had other settings
        return False
    if changed_settings(made_by, recipe, _WITHOUT_EFFECT):
        return False
    began_with, path = results.get("began_with"), recipe.model.path
    return began_with is None or path is None or not Path(path).is_dir() or began_with == fingerprint(Path(path))


def check_is_of(folder: Path, recipe: Recipe) -> dict:
    """The results of a finished run.

    Raises:
        ValueError: another recipe made it, or it began with another model.
    """
    results = json.loads((folder / "results.json").read_text())
    if not is_of(results, recipe):
        raise ValueError(f"{folder} holds a run of another recipe; remove it, or give another --out.")
    return results
