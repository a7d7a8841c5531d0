"""plume-tiny four times: latent steps, explicit chain of thought, a single pass, and without the curriculum.

    python -m training.plume_tiny.paradigms --jobs 2 --json training/plume_tiny/results/paradigms.json
    plume-embed evaluate miniature --model .data/runs/tiny/single_pass-0 ...   # the command prints it whole

Same data, same start, same batches; what differs after stage 0 goes on from one stage 0. Three take as many steps, the
explicit rationale a share of them, because its steps cost more (by CPU time 1.5 times those of the latent steps). A
corpus has no test of its own, so the scores are `plume-embed evaluate`'s; the JSON holds what training took and ended
with.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.atomic import write_json
from plume_embed.command import run_command
from plume_embed.training.log import read_log
from plume_embed.training.recipe import load_recipe
from training.ablations.archive import is_of
from training.ablations.fork import fork_step
from training.ablations.grid import RESULTS, Grid, run_grid
from training.ablations.rows import TRUNK_ROW, row_named
from training.plume_tiny import TINY

# Row of the ablations: how its model is read in `evaluate miniature`, "" for as it was trained.
PARADIGMS = {"single_pass": "", "explicit_cot": "@cot", "no_curriculum": "", "full": ""}
EXPLICIT_SHARE = 0.55  # of the steps
LABELS = {"explicit_cot": f"explicit chain of thought, {EXPLICIT_SHARE:.0%} of the steps"}
_ENDED_WITH = ("nce_gen", "nce_anchor", "ce", "balance", "router_entropy")


def grid_of(out: Path, seed: int, settings: tuple[str, ...] = (), rows: tuple[str, ...] = tuple(PARADIGMS)) -> Grid:
    """The runs below a folder.

    Args:
        settings (`tuple[str]`): Changes to every run, as behind `--set`.
    """
    steps = round(EXPLICIT_SHARE * load_recipe(TINY, list(settings)).curriculum.max_steps)
    explicit = {"explicit_cot": (f"curriculum.max_steps={steps}",)}
    return Grid("tiny", rows, (seed,), out, settings, settings_of=explicit)


def collected(grid: Grid, seed: int) -> dict[str, dict[str, Any]]:
    """What each run of the grid that has ended took and ended with, by row."""
    trunk = grid.folder(TRUNK_ROW, seed)
    found = {}
    for row in grid.rows:
        folder = grid.folder(row, seed)
        if not (folder / RESULTS).is_file():
            continue
        results = json.loads((folder / RESULTS).read_text())
        shared = results["resumed_from"] is not None
        stage_0 = json.loads((trunk / RESULTS).read_text()) if shared else {"train_minutes": 0, "train_cpu_minutes": 0}
        last = read_log(folder, having="loss")[-1]
        results["recipe"].pop("output_dir")
        found[row] = {
            "label": LABELS.get(row, row_named(row).label),
            "steps_shared": fork_step(grid.recipe(TRUNK_ROW, seed)) if shared else 0,
            **{f"{name}_shared": stage_0[name] for name in ("train_minutes", "train_cpu_minutes")},
            **{name: results[name] for name in ("train_minutes", "train_cpu_minutes", "parameters", "device", "torch")},
            "ended_with": {name: last[name] for name in _ENDED_WITH if name in last},
            "recipe": results["recipe"],
            **{name: results[name] for name in ("began_with",) if name in results},
        }
    return found


def kept(file: Path, grid: Grid, seed: int) -> dict[str, dict[str, Any]]:
    """What a results file has of the paradigms that the grid is not about.

    Raises:
        ValueError: of another seed or other settings, which do not belong into one table.
    """
    held = json.loads(file.read_text()) if file.is_file() else {}
    others = {row: run for row, run in held.items() if row not in grid.rows}
    for row, run in others.items():
        recipe = grid.recipe(row, seed)
        made_by = run["recipe"] | {"output_dir": recipe.output_dir}
        if not is_of(run | {"recipe": made_by}, recipe):
            raise ValueError(
                f"{file} holds {row} of another seed or other settings; run all rows anew, or give another --json."
            )
    return others


def markdown(runs: dict[str, dict[str, Any]]) -> str:
    """A line a run: steps, pairs, CPU minutes in all, and the losses at the end."""
    lines = [
        "| run | steps x pairs | CPU minutes | of them shared | generative InfoNCE | suffix CE |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs.values():
        recipe, ended, shared = run["recipe"], run["ended_with"], run["train_cpu_minutes_shared"]
        ce = f"{ended['ce']:.2f}" if "ce" in ended else "-"
        cells = [
            f"{recipe['curriculum']['max_steps']:,} x {recipe['batch_size']}",
            f"{shared + run['train_cpu_minutes']:.0f}",
            f"{shared:.0f}",
            f"{ended['nce_gen']:.2f}",
            ce,
        ]
        lines.append(f"| {run['label']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path(".data/runs"),
    to: Annotated[Path | None, typer.Option("--json", help="Results file. Default: none.")] = None,
    seed: Annotated[int, typer.Option(help="Of all runs.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, one thread each.")] = 2,
    rows: Annotated[str, typer.Option(help="Which of the four.")] = ",".join(PARADIGMS),
    settings: Annotated[list[str] | None, typer.Option("--set", help="Changes to every run.")] = None,
) -> None:
    """Train plume-tiny in the paradigms of the paper's figure 2, and say how to evaluate them."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, soft_wrap=True)
    chosen = tuple(rows.split(","))
    for row in chosen:
        if row not in PARADIGMS:
            raise typer.BadParameter(f"no paradigm {row!r}; there are {', '.join(PARADIGMS)}")
    grid = grid_of(out, seed, tuple(settings or ()), chosen)
    others = {} if to is None else kept(to, grid, seed)
    failed = run_grid(grid, jobs, console.print)
    found = others | collected(grid, seed)
    runs = {row: found[row] for row in PARADIGMS if row in found}
    if to is not None:
        write_json(to, runs)
    console.print(markdown(runs))
    models = " ".join(f"--model {grid.folder(row, seed)}/model{PARADIGMS[row]}" for row in chosen)
    console.print(f"plume-embed evaluate miniature {models}")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_command(main)
