"""Every variant of the latent steps on the three tasks, and on scene_hops with steps held to states, in one table.

python -m training.steps.summary
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from training.ablations.rows import ROWS

ROOT = Path(__file__).parent.parent.parent
# The first file of a task that has a row counts.
FILES = {
    "hops": ("training/steps/results/hops_variants.json", "training/ablations/results/hops.json"),
    "hops_mixed": ("training/steps/results/mixed_variants.json", "training/ablations/results/hops_mixed.json"),
    "scene_hops": ("training/ablations/results/scene_hops.json",),
    "scene_hops, `loss.distil`": ("training/ablations/results/scene_hops_held.json",),
}
USUAL_SEEDS = 5
OF_THE_PAPER = (
    *("no_curriculum", "k_2", "k_4", "k_6", "stages_2", "stages_6", "stages_8"),
    *("explicit_cot_stage_0", "single_pass", "single_pass_tuned"),
)


def markdown(tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A line a row: the mean Hit@1 on each task in percent, behind it the interval of the difference to `full`, seed by
    seed in the same file, and how many seeds where these are not `USUAL_SEEDS`.

    Args:
        tasks: Results of the ablations by task, the first of a task first.
    """
    names = list(tasks)
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for row in ROWS:
        if row.name == "full" or row.table == "steps" or row.name in OF_THE_PAPER:
            cells = [_cell(row.name, results) for results in tasks.values()]
            if any(cells):
                lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read_all() -> dict[str, list[dict[str, Any]]]:
    """The committed results."""
    return {task: [json.loads((ROOT / file).read_text()) for file in files] for task, files in FILES.items()}


def _cell(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    found = next((each["rows"][name] for each in results if name in each["rows"]), None)
    if found is None:
        return ""
    seeds, difference = len(found["runs"]), found["difference_to_full"]
    shown = f"{100 * found['mean']:.1f}"
    if name != "full" and difference is not None and difference["low"] is not None:
        shown += f" ({100 * difference['low']:+.1f} to {100 * difference['high']:+.1f})"
    return shown if seeds == USUAL_SEEDS else f"{shown}, {seeds} seed{'s' if seeds > 1 else ''}"


if __name__ == "__main__":
    typer.echo(markdown(read_all()))
