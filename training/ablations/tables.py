"""What an ablation came to: means, paired differences to the full model with intervals, a table in Markdown."""

import math
import os
from collections.abc import Sequence

from scipy import stats

from training.ablations.rows import TRUNK_ROW, changes_of, row_named

Finished = tuple[str, int, dict]
# Hit@1 by what a query asks for, and what it is called in a table; a task has one of them.
COUNTED = {"hit_at_1_by_presses": "presses 1 .. 8", "hit_at_1_by_hops": "hops 0 .. 6"}
_BY_PART = (*COUNTED, "hit_at_1_by_family", "hit_at_1_by_last_hop")


def counted(results: dict) -> str:
    """Which of `COUNTED` these results of a run or of a row have.

    Raises:
        ValueError: none of them.
    """
    found = [key for key in COUNTED if key in results]
    if not found:
        raise ValueError(f"These results have none of {', '.join(COUNTED)}; only runs of a task of hops are summed up.")
    return found[0]


def paired_difference(row: dict[int, float], full: dict[int, float]) -> dict | None:
    """Mean of row - full over the seeds that both have, with Student's 95 % interval over those seeds.

    Args:
        row, full (`dict[int, float]`): A figure by seed.

    Returns:
        `mean`, `low`, `high` (the last two `None` with a single seed) and `seeds`; `None` without a common seed.
    """
    seeds = sorted(row.keys() & full.keys())
    if not seeds:
        return None
    differences = [row[seed] - full[seed] for seed in seeds]
    mean, low, high = interval(differences)
    return {"mean": mean, "low": low, "high": high, "seeds": seeds}


def interval(values: list[float]) -> tuple[float, float | None, float | None]:
    """Mean and Student's 95 % interval, `None` for a single value."""
    count, mean = len(values), sum(values) / len(values)
    if count == 1:
        return mean, None, None
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stats.t.ppf(0.975, count - 1)) * spread / math.sqrt(count)
    return mean, mean - half, mean + half


def summarise(task: str, finished: list[Finished], settings: Sequence[str] = ()) -> dict:
    """All rows of a task as they go into the results file.

    Args:
        finished: Row, seed and `results.json` of every run that has ended.
        settings: Changes to every row.

    Returns:
        `settings`, the changes to every row, and others. Per row `label`, `table`, `settings` (all that it changes in
        the recipe of the task), `paper`, `parameters`, `runs` by seed, `mean`, `difference_to_full` (Hit@1, 0..1),
        `hit_at_1_by_presses` or `hit_at_1_by_hops`, and for tasks of several families `hit_at_1_by_family` or
        `hit_at_1_by_last_hop`: means over the seeds.
    """
    by_row: dict[str, dict[int, dict]] = {}
    for row, seed, results in finished:
        by_row.setdefault(row, {})[seed] = results
    hits = {row: {seed: run["hit_at_1"] for seed, run in runs.items()} for row, runs in by_row.items()}
    rows = {}
    for name, runs in by_row.items():
        row = row_named(name)
        rows[name] = {
            "label": row.label,
            "table": row.table,
            "settings": changes_of(row, task, settings),
            "paper": row.paper,
            "parameters": sorted({run["parameters"] for run in runs.values()}),
            "runs": {seed: _of_run(run) for seed, run in sorted(runs.items())},
            "mean": sum(hits[name].values()) / len(hits[name]),
            "difference_to_full": paired_difference(hits[name], hits["full"]) if "full" in hits else None,
        }
        for key in _BY_PART:
            if all(key in run for run in runs.values()):
                rows[name][key] = _mean_by_key([run[key] for run in runs.values()])
    some = [run for runs in by_row.values() for run in runs.values()]
    return {
        "task": task,
        "settings": list(settings),
        "device": sorted({run["device"] for run in some}),
        "torch": sorted({run["torch"] for run in some}),
        "cores": os.cpu_count(),
        "interval": "Student's t, 95 %, over paired seeds; wall and CPU minutes of a run that goes on from a shared "
        f"stage 0 leave that out ({TRUNK_ROW} has them)",
        "cpu_minutes": round(sum(run["train_cpu_minutes"] for run in some), 1),
        "rows": rows,
    }


def _of_run(run: dict) -> dict:
    kept = ("hit_at_1", *_BY_PART, "chance_by_hops", "finished", "train_minutes", "train_cpu_minutes", "resumed_from")
    curriculum = run["recipe"]["curriculum"]
    return {name: run[name] for name in kept if name in run} | {
        "steps": curriculum["max_steps"],
        "learning_rates": curriculum["learning_rates"],
    }


def _mean_by_key(runs: list[dict]) -> dict:
    return {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}


def markdown(results: dict) -> str:
    """A table of the rows: mean Hit@1 in %, the paired difference to the full model with its interval, every seed, then
    by family where there are several and by presses or hops otherwise, and last what the paper has for the change."""
    parts = shown_parts(results)
    lines = [
        f"| table | row | Hit@1 % | difference to full (95 % interval) | by seed | by {parts[1]} | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"].values():
        difference = row["difference_to_full"]
        if difference is None or row["label"] == "full":
            shown = ""
        elif difference["low"] is None:
            shown = f"{100 * difference['mean']:+.1f}"
        else:
            shown = " ".join(f"{100 * difference[name]:+.1f}" for name in ("mean", "low", "high"))
            shown = "{} ({} to {})".format(*shown.split())
        seeds = " ".join(f"{100 * run['hit_at_1']:.1f}" for run in row["runs"].values())
        by_part = " ".join(f"{100 * hit:.0f}" for hit in row.get(parts[0], {}).values())
        cells = (row["table"], row["label"], f"{100 * row['mean']:.1f}", shown, seeds, by_part, row["paper"] or "")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def shown_parts(results: dict) -> tuple[str, str]:
    """Which parts of the queries a table shows: the key in its rows, and what the column is called."""
    families = [family for row in results["rows"].values() for family in row.get("hit_at_1_by_family", {})]
    if families:
        return "hit_at_1_by_family", f"family: {', '.join(dict.fromkeys(families))}"
    key = counted(next(iter(results["rows"].values()), dict.fromkeys(COUNTED)))
    return key, COUNTED[key]
