"""The summary: this run beside the published rows, each column of one benchmark version, no average over a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from plume_embed.evaluation.mmeb_v2.run import Outcome
from plume_embed.evaluation.mmeb_v2.tasks import (
    META_TASKS,
    MODALITIES,
    PAPER_OVERALL,
    VERSION_DEPENDENT,
    Task,
    load_tasks,
    published_models,
    published_variant,
)

SAME_IN_ALL_VERSIONS = "75 tasks of every version"
_REPORTED = {"image": "Image", "video": "Video", "visdoc": "VisDoc"}


@dataclass(frozen=True)
class Column:
    """The scores of one model in one benchmark version.

    Attributes:
        model, variant: What it is.
        scores: Percent by task name; a task that is missing has none.
    """

    model: str
    variant: str
    scores: Mapping[str, float]

    @property
    def title(self) -> str:
        """Model and version, for the head of the column."""
        return f"{self.model} [{self.variant}]"


@dataclass(frozen=True)
class Average:
    """A flat mean over tasks.

    Attributes:
        value: In percent; None unless every task has a score.
        have, of: How many tasks have one.
    """

    value: float | None
    have: int
    of: int

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.value is not None else f"({self.have}/{self.of})" if self.have else "-"


def average(column: Column, tasks: Sequence[Task]) -> Average:
    """The mean of a column over tasks; no value if any of them is missing."""
    scores = [column.scores[task.name] for task in tasks if task.name in column.scores]
    value = sum(scores) / len(scores) if len(scores) == len(tasks) else None
    return Average(value, len(scores), len(tasks))


def groups() -> dict[str, list[Task]]:
    """The rows of averages by name: meta-tasks, modalities, all 78, and the 75 that mean the same in every version."""
    tasks, rows = load_tasks(), {}
    for modality in MODALITIES:
        for meta_task in META_TASKS[modality]:
            rows[meta_task] = [task for task in tasks if task.meta_task == meta_task]
        rows[_REPORTED[modality]] = [task for task in tasks if task.modality == modality]
    rows["All 78"] = list(tasks)
    rows[SAME_IN_ALL_VERSIONS] = [task for task in tasks if task.name not in VERSION_DEPENDENT]
    return rows


def published_columns() -> list[Column]:
    """The seven models as the PLUME paper prints them, and VLM2Vec-V2.0 on the corrected page labels."""
    tasks = load_tasks()
    columns = [
        Column(model, published_variant(model), _given({task.name: task.published[model] for task in tasks}))
        for model in published_models()
    ]
    fixed = {t.name: t.official_fixed.get("VLM2Vec-V2.0", t.official["VLM2Vec-V2.0"]) for t in tasks}
    return [*columns, Column("VLM2Vec-V2.0", "fixed", _given(fixed))]


def run_column(outcomes: Sequence[Outcome], stamp: Mapping[str, Any]) -> Column:
    """The headline scores of these outcomes."""
    scores = {o.task.name: 100 * o.scores[o.task.score_key] for o in outcomes if o.scores is not None}
    return Column(stamp["model"], stamp["benchmark_version"], scores)


def notes(outcomes: Sequence[Outcome], column: Column) -> list[str]:
    """What a reader must know before quoting a number, one line each."""
    lines = [f"FAILED {o.task.name}: {o.failure}" for o in outcomes if o.failure is not None]
    partial = {name: average(column, tasks) for name, tasks in groups().items()}
    partial = {name: mean for name, mean in partial.items() if mean.value is None and mean.have}
    if partial:
        averages = ", ".join(f"{name} ({mean.have} of {mean.of})" for name, mean in partial.items())
        lines.append(f"Incomplete averages, not computed: {averages}.")
    for outcome in outcomes:
        scores = outcome.scores or {}
        if scores and scores["num_data"] != outcome.task.num_queries:
            lines.append(
                f"{outcome.task.name} has {scores['num_data']:,} queries here and {outcome.task.num_queries:,} in the "
                "benchmark: its score does not compare."
            )
        if scores.get("num_cut_rationales"):
            lines.append(
                f"{outcome.task.name}: {scores['num_cut_rationales']:,} rationales were cut at the token limit and "
                "read there."
            )
        if scores.get("num_ties"):
            lines.append(f"{outcome.task.name}: {scores['num_ties']:,} queries rank by a tie with a wrong candidate.")
    lines.append(
        "The column PLUME [paper] is a version of its own: its page tasks are only reachable on the corrected labels, "
        "while the six baselines were scored on the old ones, and its MomentSeeker follows its own rule."
    )
    lines.append(
        f"{', '.join(VERSION_DEPENDENT)} and the averages over them compare within one benchmark version only; "
        f'"{SAME_IN_ALL_VERSIONS}" leaves them out.'
    )
    return lines + paper_notes()


def paper_notes() -> list[str]:
    """Where the published rows do not average to what the paper states."""
    lines = []
    for column in published_columns():
        stated, mean = PAPER_OVERALL.get(column.model), average(column, load_tasks())
        if stated is not None and mean.value is not None:
            lines.append(
                f"{column.model}'s published rows average to {mean.value:.2f}; the paper states {stated}: "
                f"{stated - mean.value:+.2f}."
            )
    return lines


def summary_table(column: Column, tasks: Sequence[Task], title: str) -> Table:
    """Averages and the tasks that ran, this run first, then the published columns."""
    columns = [column, *published_columns()]
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for each in columns:
        table.add_column(Text(f"{each.model}\n[{each.variant}]"), justify="right", overflow="fold")
    for task in tasks:
        table.add_row(task.name, *(_cell(each, task) for each in columns))
    table.add_section()
    for name, members in groups().items():
        table.add_row(name, *(str(average(each, members)) for each in columns))
    return table


def summary_markdown(column: Column, lines: Sequence[str]) -> str:
    """All 78 tasks and all averages, for a file."""
    columns = [column, *published_columns()]
    text = [f"# {column.title}", "", "Percent: Hit@1 for images and videos, NDCG@5 for visual documents.", ""]
    text += ["| | " + " | ".join(each.title for each in columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    text += [f"| {task.name} | " + " | ".join(_cell(each, task) for each in columns) + " |" for task in load_tasks()]
    for name, members in groups().items():
        text.append(f"| **{name}** | " + " | ".join(str(average(each, members)) for each in columns) + " |")
    return "\n".join([*text, "", *(f"- {line}" for line in lines), ""])


def summary_json(outcomes: Sequence[Outcome], column: Column, stamp: Mapping[str, Any]) -> dict[str, Any]:
    """The outcomes for a program: the stamp, scores in percent, averages (null where incomplete), failures."""
    means = {name: average(column, tasks) for name, tasks in groups().items()}
    timed = [o.scores["ms_per_item"] for o in outcomes if o.scores and o.scores["ms_per_item"] is not None]
    return {
        **stamp,
        "scores": dict(column.scores),
        "averages": {name: mean.value for name, mean in means.items()},
        "incomplete": {n: {"have": m.have, "of": m.of} for n, m in means.items() if m.value is None},
        "failed": {o.task.name: o.failure for o in outcomes if o.failure is not None},
        "ms_per_item": sum(timed) / len(timed) if timed else None,
        "notes": notes(outcomes, column),
    }


def _cell(column: Column, task: Task) -> str:
    return f"{column.scores[task.name]:.1f}" if task.name in column.scores else "-"


def _given(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {name: score for name, score in scores.items() if score is not None}
