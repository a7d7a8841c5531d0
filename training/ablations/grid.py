"""Ablations with paired seeds: every row of the paper's tables 3 to 6 and the baselines, trained and collected.

    python -m training.ablations.grid --task hops --seeds 0,1,2,3,4 --jobs 2 --json training/ablations/results/hops.json

One run is one process with one thread. A run whose results.json exists is left alone, so the command can be killed and
started again: at most the runs that were in work are lost. Rows that differ only after stage 0 share it (`fork.py`).
The JSON is written anew after every run, and beside it an archive of the runs, from which another machine goes on.
"""

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from plume_embed.command import run_command
from plume_embed.index.place import lock_file
from plume_embed.pools import end_with_parent
from plume_embed.quiet import quiet_libraries
from plume_embed.training.recipe import Recipe
from training.ablations.archive import archive_of, check_is_of, is_of, read_archive, write_archive
from training.ablations.rows import (
    TRUNK_ROW,
    TUNED_RATES,
    TUNING_SEED,
    recipe_of,
    row_named,
    row_names,
    rows_called,
    with_rate,
)

RESULTS = "results.json"
# One thread a run. glibc keeps the memory of a step for the next one, in huge pages: a step of `tiny` fills some
# gigabytes, and a page fault for each 4 KiB of them takes time. Elsewhere the last four mean nothing.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


@dataclass(frozen=True)
class Grid:
    """What is to be run.

    Args:
        task (`str`): A recipe. Results are summed up for those with an evaluation: "hops", "hops_mixed", "scene_hops".
        rows (`tuple[str]`): Names of rows.
        seeds (`tuple[int]`): The same for every row.
        out (`Path`): Folder of the runs: out/TASK/ROW-SEED.
        settings (`tuple[str]`): Changes to every row's recipe, as behind `--set`.
        archive (`Path`, *optional*): Runs that ended elsewhere (`ablation_archive.py`).
        settings_of (`dict`): More changes by row.
    """

    task: str
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    settings: tuple[str, ...] = ()
    archive: Path | None = None
    settings_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def folder_of_task(self) -> Path:
        return self.out / self.task

    def folder(self, row: str, seed: int) -> Path:
        return self.folder_of_task / f"{row}-{seed}"

    def recipe(self, row: str, seed: int) -> Recipe:
        settings = [*self.settings, *self.settings_of.get(row, ())]
        return recipe_of(row_named(row), self.task, seed, str(self.folder(row, seed)), settings)

    def needs_trunk(self, row: str) -> bool:
        return row_named(row).forks

    def tuning(self) -> dict[float, Recipe]:
        """The runs on validation that choose the learning rate of the tuned single pass."""
        recipe = replace(self.recipe("single_pass_tuned", TUNING_SEED), split="validation")
        return {
            rate: replace(with_rate(recipe, rate), output_dir=str(self.folder(f"tuning_{rate:g}", TUNING_SEED)))
            for rate in TUNED_RATES
        }


def run_one(recipe: Recipe, trunk: Recipe | None, is_trunk: bool = False) -> str:
    """One run in this process with one thread; returns a line that says how it ended. What lies in its folder and has
    not ended is removed, so the caller holds the lock of [`run_grid`]."""
    import torch

    from plume_embed.training.run import run
    from training.ablations.fork import fork, fork_step
    from training.ablations.tables import counted

    torch.set_num_threads(1)
    out = Path(recipe.output_dir)
    if (out / RESULTS).is_file():
        check_is_of(out, recipe)
        return f"{out.name}: there already"
    shutil.rmtree(out, ignore_errors=True)  # what a killed run left
    if trunk is not None:
        fork(recipe, trunk)
    results = run(recipe, resume=trunk is not None, stop_after=fork_step(recipe) if is_trunk else None)
    took = f"{results['train_cpu_minutes']} CPU min"
    if "hit_at_1" not in results:  # a corpus
        return f"{out.name}: {took}"
    by_count = " ".join(f"{100 * hit:.0f}" for hit in results[counted(results)].values())
    return f"{out.name}: Hit@1 {100 * results['hit_at_1']:.1f} % ({by_count}), {took}"


def run_grid(grid: Grid, jobs: int, on_done: Callable[[str], None]) -> list[str]:
    """Runs what is missing; trunks and the tuning first.

    Args:
        jobs (`int`): Processes at once.
        on_done: Called with a line after every run.

    Returns:
        A line for every run that failed.

    Raises:
        ValueError: another call trains in the folder of the task, or what a folder of the grid holds is of another
            recipe.
    """
    with _alone_in(grid.folder_of_task):
        return _run_missing(grid, jobs, on_done)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps other calls off a folder of runs: a run that has not ended is removed as what a killed one left. The system
    lifts the lock of a killed process."""
    lock = FileLock(lock_file(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder} is being trained in by another call; wait until it is done, or give another --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _run_missing(grid: Grid, jobs: int, on_done: Callable[[str], None]) -> list[str]:
    ended = {(row, seed) for row, seed, _ in finished(grid)}
    missing = [(row, seed) for seed in grid.seeds for row in grid.rows if (row, seed) not in ended]
    trunks = {seed: grid.recipe(TRUNK_ROW, seed) for row, seed in missing if grid.needs_trunk(row)}
    is_tuned = any(row == "single_pass_tuned" for row, _ in missing)
    rate = chosen_rate(grid) if is_tuned else None
    tunes = is_tuned and rate is None
    failed: list[str] = []
    os.environ.update(ENVIRONMENT)  # of the workers, which are started afresh
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        first = {pool.submit(run_one, trunk, None, True): trunk.output_dir for trunk in trunks.values()}
        if tunes:
            first |= {pool.submit(run_one, recipe, None): recipe.output_dir for recipe in grid.tuning().values()}
        _wait(first, on_done, failed)
        second = {}
        if tunes:
            try:
                rate = best_rate(grid)
            except ValueError as error:
                failed.append(str(error))
        for row, seed in missing:
            if row == TRUNK_ROW or (row == "single_pass_tuned" and rate is None):
                continue
            recipe, trunk = grid.recipe(row, seed), trunks.get(seed) if grid.needs_trunk(row) else None
            if row == "single_pass_tuned":
                recipe = with_rate(recipe, rate)
            second[pool.submit(run_one, recipe, trunk)] = recipe.output_dir
        _wait(second, on_done, failed)
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _start_worker() -> None:
    end_with_parent()
    quiet_libraries()


def _wait(futures: dict[Future, str], on_done: Callable[[str], None], failed: list[str]) -> None:
    for future in as_completed(futures):
        error = future.exception()
        if error is not None:
            failed.append(f"{futures[future]}: {type(error).__name__}: {error}")
        on_done(future.result() if error is None else f"FAILED {failed[-1]}")


def chosen_rate(grid: Grid) -> float | None:
    """The learning rate of the tuned single passes that have ended: here those of the grid's seeds, in the archive
    whatever their seed; `None` without any. It is chosen once."""
    own = replace(grid, rows=("single_pass_tuned",))
    runs = [*finished(own), *(run for run in archived(grid) if run[0] == "single_pass_tuned")]
    return next((results["recipe"]["curriculum"]["learning_rates"][0] for _, _, results in runs), None)


def best_rate(grid: Grid) -> float:
    """The learning rate with the highest Hit@1 on validation.

    Raises:
        ValueError: one of the tuning runs has not ended.
    """
    found = {}
    for rate, recipe in grid.tuning().items():
        path = Path(recipe.output_dir) / RESULTS
        if not path.is_file():
            raise ValueError(f"No {path}: the tuning has not ended; start the command again.")
        found[rate] = check_is_of(path.parent, recipe)["hit_at_1"]
    return max(found, key=found.get)


def finished(grid: Grid) -> Iterator[tuple[str, int, dict]]:
    """Row, seed and results of every run of the grid that has ended, here or as the archive has it.

    Raises:
        ValueError: a folder holds a run of another recipe.
    """
    elsewhere = {(row, seed): results for row, seed, results in archived(grid)}
    for row in grid.rows:
        for seed in grid.seeds:
            folder = grid.folder(row, seed)
            if (folder / RESULTS).is_file():
                results = json.loads((folder / RESULTS).read_text())
                check_is_of(folder, _recipe_behind(grid, row, seed, results))
                yield row, seed, results
            elif (row, seed) in elsewhere:
                yield row, seed, elsewhere[row, seed]


def archived(grid: Grid) -> Iterator[tuple[str, int, dict]]:
    """Row, seed and results of every run that the archive has of today's recipes, in the order of the tables, whatever
    rows and seeds the grid is about. Folders are not looked at: of other rows they may hold trials of other settings.
    """
    entries = {} if grid.archive is None else read_archive(grid.archive)
    for row in row_names():
        for seed in sorted(seed for name, seed in entries if name == row):
            results = entries[row, seed]
            if is_of(results, _recipe_behind(grid, row, seed, results)):
                yield row, seed, results


def _recipe_behind(grid: Grid, row: str, seed: int, results: dict) -> Recipe:
    """What the grid would run, where its rate was chosen when it ran at that rate."""
    recipe = grid.recipe(row, seed)
    is_tuned = row == "single_pass_tuned"
    return with_rate(recipe, results["recipe"]["curriculum"]["learning_rates"][0]) if is_tuned else recipe


def check_results_file(path: Path, grid: Grid) -> None:
    """Refuses a results file of other runs, which would be written anew without them.

    Raises:
        ValueError: it is of another task, or of rows with other settings.
    """
    if not path.is_file():
        return
    held = json.loads(path.read_text())
    if (held["task"], held["settings"]) != (grid.task, list(grid.settings)):
        said = " ".join(["--task", held["task"], *(f"--set {setting}" for setting in held["settings"])])
        raise ValueError(f"{path} holds results of {said}; ask with these, or give another --json.")


def main(
    task: Annotated[str, typer.Option(help="The recipe that all rows change: hops, hops_mixed, scene_hops.")] = "hops",
    seeds: Annotated[str, typer.Option(help="Seeds, the same for every row.")] = "0,1,2,3,4",
    rows: Annotated[str, typer.Option(help="Names of rows; or paper: its tables and baselines; or all.")] = "paper",
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/ablations"),
    to: Annotated[Path | None, typer.Option("--json", help="Results file. Default: none.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, one thread each.")] = 1,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Changes to every row.")] = None,
    collect_only: Annotated[bool, typer.Option("--collect-only", help="Train nothing, write the JSON.")] = False,
) -> None:
    """Train the rows that are missing, one process and one thread each, and collect all of them."""
    from rich.console import Console

    from plume_embed.atomic import write_json
    from plume_embed.cli.console import progress_bar
    from training.ablations.tables import markdown, summarise

    names = rows_called(rows)
    numbers = tuple(int(seed) for seed in seeds.split(","))
    grid = Grid(task, tuple(names), numbers, out, tuple(settings or ()), None if to is None else archive_of(to))
    if to is not None:
        check_results_file(to, grid)
    console, failed = Console(markup=False, highlight=False, soft_wrap=True), []

    def collect() -> dict:
        """With --json, rows and seeds of earlier calls as well: all that the archive has of today's recipes."""
        runs = list(finished(grid))
        if to is None:
            return summarise(task, runs, grid.settings)
        write_archive(archive_of(to), runs)
        results = summarise(task, list(archived(grid)), grid.settings)
        write_json(to, results)
        return results

    if not collect_only:
        # What is there already does not count as work, but for the trunks, which are looked at again.
        ended = {(row, seed) for row, seed, _ in finished(grid)}
        todo = [(row, seed) for row in names for seed in grid.seeds if (row, seed) not in ended]
        trunks = len({seed for row, seed in todo if grid.needs_trunk(row)})
        tunes = any(row == "single_pass_tuned" for row, _ in todo) and chosen_rate(grid) is None
        tuning = len(TUNED_RATES) * tunes
        total, done = trunks + tuning + sum(row != TRUNK_ROW for row, _ in todo), 0
        with progress_bar("training", "runs") as on_progress:

            def on_done(line: str) -> None:
                nonlocal done
                done += 1
                console.print(line)
                on_progress(done, total)
                collect()

            failed = run_grid(grid, jobs, on_done)
    console.print(markdown(collect()))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_command(main)
