"""A run goes on with the settings it began with: they lie in its folder, and other ones are refused."""

import dataclasses
import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from plume_embed.atomic import write_text
from plume_embed.stored import naming
from plume_embed.training import checkpoints
from plume_embed.training.gates import GateSettings
from plume_embed.training.log import LOG_FILE, MERGED_FOLDER, MODEL_FOLDER, RESULTS_FILE
from plume_embed.training.recipe import Recipe, recipe_from

RECIPE_FILE = "recipe.json"
BEGINNING_FILE = "beginning.json"
# What a run may find changed when it goes on: where things lie (what lies there is compared in beginning.py), and what
# it writes and when.
_MAY_CHANGE = ("output_dir", "workers", "save_steps", "report_to", "model.path", "data.files", "data.folder")
_MAY_CHANGE += ("data.media_root", "pairs.held_out_files")
# Thresholds of warnings, which change nothing that is computed.
GATES = tuple(f"gates.{field.name}" for field in dataclasses.fields(GateSettings))


def holds_run(folder: Path) -> bool:
    """Whether a run has left something there, however short it was: a log and checkpoints come only after some steps,
    and a recipe alone is of a run that failed in front of them."""
    made = (folder / RECIPE_FILE).exists() and (folder / MODEL_FOLDER).exists()
    is_logged = any((folder / name).exists() for name in (LOG_FILE, RESULTS_FILE))
    return made or is_logged or checkpoints.last_checkpoint(folder) is not None


def results_of(folder: Path) -> dict[str, Any] | None:
    """What a run that has come to its end left there; `None` where none has, or where it was told to stop earlier.

    Raises:
        ValueError: its results cannot be read.
    """
    file = folder / RESULTS_FILE
    if not file.is_file() or not (folder / MODEL_FOLDER).is_dir():
        return None
    with naming(file, "Remove it: the run then goes on behind its last checkpoint."):
        results = dict(json.loads(file.read_text(encoding="utf-8")))
    return None if results.get("stopped_after") is not None else results


def remove_run(folder: Path) -> None:
    """Removes what a run has left there, its settings last: they say whose it was."""
    checkpoints.remove_old(folder, keep=0)
    for name in (MODEL_FOLDER, MERGED_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (LOG_FILE, RESULTS_FILE, BEGINNING_FILE, RECIPE_FILE):
        (folder / name).unlink(missing_ok=True)


def keep_recipe(recipe: Recipe) -> None:
    """Writes the settings into the run's folder, which is made if it is not there."""
    out = Path(recipe.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / RECIPE_FILE, json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")


def check_recipe(recipe: Recipe) -> None:
    """Refuses to go on with a run that began with other settings.

    Raises:
        ValueError: a setting that changes what is computed differs, or the folder's settings cannot be read.
    """
    file = Path(recipe.output_dir) / RECIPE_FILE
    if not file.is_file():
        raise ValueError(
            f"{recipe.output_dir} holds a run and no {RECIPE_FILE}: nobody can say how it was made. "
            "Give another output_dir to begin anew."
        )
    with naming(file):
        begun = recipe_from(json.loads(file.read_text(encoding="utf-8")))
    changed = changed_settings(begun, recipe, (*_MAY_CHANGE, *GATES))
    if changed:
        raise ValueError(
            f"{recipe.output_dir} holds a run of other settings: {'; '.join(changed)}. Give the same settings to go "
            "on, or another output_dir to begin anew."
        )


def changed_settings(before: Recipe, now: Recipe, without: Collection[str]) -> list[str]:
    """What differs between two recipes, as "name was A and is B"; settings named in `without` are left out."""
    old, new = settings_by_name(before), settings_by_name(now)
    return [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in without
    ]


def settings_by_name(recipe: Recipe) -> dict[str, Any]:
    """Every setting under its dotted name; groups one level deep, as `--set` names them."""
    found: dict[str, Any] = {}
    for name, value in vars(recipe).items():
        if dataclasses.is_dataclass(value):
            found |= {f"{name}.{inner}": each for inner, each in vars(value).items()}
        else:
            found[name] = value
    return found
