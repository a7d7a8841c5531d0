"""Every row of the ablations on the three tasks, and on scene_hops with steps held to states, in one table.

python -m training.steps.summary
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from training.ablations.rows import ROWS, TRUNK_ROW, Row, changes_of
from training.ablations.tables import paired_difference

ROOT = Path(__file__).parent.parent.parent
# The first file of a task that has a row counts.
FILES = {
    "hops": ("training/steps/results/hops_variants.json", "training/ablations/results/hops.json"),
    "hops_mixed": ("training/steps/results/mixed_variants.json", "training/ablations/results/hops_mixed.json"),
    "scene_hops": ("training/ablations/results/scene_hops.json",),
    "scene_hops, `loss.distil`": ("training/ablations/results/scene_hops_held.json",),
}
USUAL_SEEDS = 5


def markdown(tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A line a row: the mean Hit@1 on each task in percent, behind it the interval of the difference to `full`, seed by
    seed in the same file, and how many seeds where these are not `USUAL_SEEDS`. A row that stands under another name or
    in another column with the very same settings is that run. What is empty then has not been run.

    Args:
        tasks: Results of the ablations by column, the first of a column first.
    """
    names = list(tasks)
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    everything = [results for own in tasks.values() for results in own]
    for row in ROWS:
        cells = [_cell(row, own, everything) for own in tasks.values()]
        if any(cells):
            lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read_all() -> dict[str, list[dict[str, Any]]]:
    """The committed results."""
    return {task: [json.loads((ROOT / file).read_text()) for file in files] for task, files in FILES.items()}


def _cell(row: Row, results: Sequence[Mapping[str, Any]], everything: Sequence[Mapping[str, Any]]) -> str:
    found = next((each["rows"][row.name] for each in results if row.name in each["rows"]), None)
    if found is None and row.name != TRUNK_ROW:
        found = _same_run(row, results[0], [*results, *everything])
    if found is None:
        return ""
    seeds, difference = len(found["runs"]), found["difference_to_full"]
    shown = f"{100 * found['mean']:.1f}"
    if found["label"] != "full" and difference is not None and difference["low"] is not None:
        shown += f" ({100 * difference['low']:+.1f} to {100 * difference['high']:+.1f})"
    return shown if seeds == USUAL_SEEDS else f"{shown}, {seeds} seed{'s' if seeds > 1 else ''}"


def _same_run(
    row: Row, results: Mapping[str, Any], everything: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """A run of the task with the settings that a row has in these results, beside the `full` of these results."""
    task, full = results["task"], results["rows"].get("full")
    wanted = _that_count(changes_of(row, task, results["settings"]))
    for other in everything:
        for name, found in other["rows"].items() if other["task"] == task else ():
            # The trunk is the beginning of `full`, evaluated: its settings are those of `full`.
            if name != TRUNK_ROW and _that_count(found["settings"]) == wanted:
                own, whole = (
                    {} if one is None else {seed: run["hit_at_1"] for seed, run in one["runs"].items()}
                    for one in (found, full)
                )
                return {**found, "difference_to_full": paired_difference(own, whole)}
    return None


def _that_count(settings: Sequence[str]) -> list[str]:
    """Settings without `loss.distil` where there are no steps that it could hold."""
    has_steps = "curriculum.num_latent_steps=0" not in settings
    return [setting for setting in settings if has_steps or not setting.startswith("loss.distil=")]


if __name__ == "__main__":
    typer.echo(markdown(read_all()))
