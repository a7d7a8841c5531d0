"""What a query costs in each variant of the rollout: milliseconds beside passes over the layers.

    python -m training.steps.cost --task scene_hops

Weights do not matter to the time, so the models are new. All run by the loop of `modeling_plume.py`, as rivals have no
faster engine, in rounds that take turns; what counts is the ratio to a single pass of the same round.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track

from plume_embed.atomic import write_json
from plume_embed.command import run_command
from plume_embed.quiet import quiet_libraries
from plume_embed.training.tasks import make_task
from training.ablations.rows import ROWS, recipe_of, row_named
from training.steps.variants import COMPARED, passes

RESULTS = Path(__file__).parent / "results"
SINGLE = "single_pass"


def variants(task: str) -> list[str]:
    """Names of the rows whose queries take a known number of passes, one for each way to spend them.

    Args:
        task (`str`): A recipe of the ablations, such as "hops".
    """
    names = [*COMPARED, *(row.name for row in ROWS if row.table == "steps")]
    found: dict[Any, str] = {}
    for name in names:
        recipe = recipe_of(row_named(name), task, 0, "runs", [])
        found.setdefault((passes(recipe)[0], recipe.curriculum.num_latent_steps, str(recipe.model.plume)), name)
    return list(found.values())


def measure(task: str, names: list[str], batch_size: int, rounds: int) -> dict[str, Any]:
    """Process CPU time of a query in milliseconds, and its ratio to the single pass of the same round, by row."""
    runs = {name: _query(task, name, batch_size) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():
        run()
    for _ in track(range(rounds), f"batch {batch_size}", transient=True):
        for name, run in runs.items():
            started = time.process_time()
            run()
            times[name].append(1000 * (time.process_time() - started) / batch_size)
    found = {}
    for name, own in times.items():
        ratios = sorted(mine / single for mine, single in zip(own, times[SINGLE], strict=True))
        quarter = len(ratios) // 4
        found[name] = {
            "milliseconds": statistics.median(own),
            "ratio": statistics.median(ratios),
            "quartiles": [ratios[quarter], ratios[-1 - quarter]],
        }
    return found


def _query(task_name: str, name: str, batch_size: int) -> Callable[[], None]:
    task = make_task(recipe_of(row_named(name), task_name, 0, "runs", []))
    model = task.make_model().eval()
    model.rollout_implementation = "reference"
    batch = task.prefix(task.data.held_out_queries(batch_size))

    def run() -> None:
        with torch.inference_mode():
            model(**batch)

    return run


def main(
    task: Annotated[str, typer.Option(help="The recipe that all rows change: hops, hops_mixed, scene_hops.")] = "hops",
    to: Annotated[
        Path | None, typer.Option("--json", help="Results file. Default: results/TASK_cost.json here.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=4, help="Rounds of each batch size.")] = 40,
) -> None:
    """Measure what a query costs in each variant."""
    quiet_libraries()
    torch.set_num_threads(1)
    names = variants(task)
    results = {
        "task": task,
        "passes": {name: passes(recipe_of(row_named(name), task, 0, "runs", []))[0] for name in names},
        "batches": {str(size): measure(task, names, size, rounds) for size in (1, 64)},
        "torch": torch.__version__,
        "threads": 1,
    }
    write_json(to or RESULTS / f"{task}_cost.json", results)
    typer.echo(markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """A line a row: passes, and the time of a query over that of a single pass, with quartiles."""
    lines = ["| | passes | batch 1, times a single pass | batch 64 |", "|---|---:|---|---|"]
    for name, count in results["passes"].items():
        cells = []
        for measured in results["batches"].values():
            low, high = measured[name]["quartiles"]
            cells.append(f"{measured[name]['ratio']:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {row_named(name).label} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
