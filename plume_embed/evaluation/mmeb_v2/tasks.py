"""The 78 tasks as data: tasks.json, the three benchmark versions, the published rows.

`fixed` is the benchmark as upstream has it since November 2025: page labels of ViDoSeek-page and MMLongBench-page put
right. `original` has the old page labels. `plume` is what the released PLUME evaluation names: old page ids, no
instruction on the tasks of the vidore parser, its own MomentSeeker rule, three row files beside the media. Numbers of
two versions never share a column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Variant = Literal["fixed", "original", "plume"]
VARIANTS: tuple[Variant, ...] = ("fixed", "original", "plume")
MODALITIES = ("image", "video", "visdoc")
# In the order of the paper's table.
META_TASKS = {
    "image": ("I-CLS", "I-QA", "I-RET", "I-GD"),
    "video": ("V-CLS", "V-QA", "V-RET", "V-MRET"),
    "visdoc": ("VDRv1", "VDRv2", "VR", "OOD"),
}
RELABELLED = ("ViDoSeek-page", "MMLongBench-page")
# Their scores mean different things in different versions; the 75 others compare across all.
VERSION_DEPENDENT = (*RELABELLED, "MomentSeeker")
PAPER_OVERALL = {"PLUME": 61.6}

_DATA = Path(__file__).parent
_NOT_A_COLUMN_NAME = re.compile(r"\s*\(.*")


@dataclass(frozen=True)
class Source:
    """Where a task's rows come from.

    Attributes:
        hub_id: Data set on the Hub.
        config: Its configuration, if it has several.
        split: Its split.
        media_file: A JSONL file below the media folder instead, if not None.
    """

    hub_id: str
    config: str | None
    split: str
    media_file: str | None = None


@dataclass(frozen=True)
class Task:
    """One object of tasks.json.

    Attributes:
        name, modality, meta_task: Of the paper's table: "image", "video" or "visdoc"; "I-CLS", "V-MRET", "OOD", ...
        parser: How its rows are read: a key of `parsers.PARSERS`.
        dataset_name: The key of the label lists for video classification.
        is_global: Whether the pool is the whole corpus, and not the list of the row.
        score_key: The headline: "hit@1" or "ndcg_linear@5".
        num_frames: Frames of a video; None elsewhere.
        num_queries: How many the benchmark has.
        media_roots: Folders below the media folder, the two known layouts.
        columns: What its rows must have, by table ("" for a task with one table).
        published: Scores in percent by model, as the PLUME paper prints them; None where it prints none.
        official: The same of upstream's score files, version 2.0.1 (old page labels).
        official_fixed: Upstream's scores on the corrected page labels, for the two relabelled tasks.
        raw: The object itself.
    """

    name: str
    modality: str
    meta_task: str
    parser: str
    dataset_name: str
    is_global: bool
    score_key: str
    num_frames: int | None
    num_queries: int
    media_roots: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    published: Mapping[str, float | None]
    official: Mapping[str, float | None]
    official_fixed: Mapping[str, float]
    raw: Mapping[str, Any]

    def source(self, variant: Variant) -> Source:
        """The rows of one benchmark version.

        Raises:
            ValueError: there is no such version.
        """
        variant_named(variant)
        if variant == "plume" and "data_path_plume" in self.raw:
            return Source(self.raw["hub_upstream_now"]["id"], None, "train", self.raw["data_path_plume"])
        old = variant == "plume" or (variant == "original" and self.name in RELABELLED)
        hub = self.raw["hub" if old else "hub_upstream_now"]
        return Source(hub["id"], hub["config"], hub["split"])

    def frame_root(self, variant: Variant) -> str:
        """The folder of its media below the media folder, as that version's engine names it."""
        variant_named(variant)
        return self.raw["media_root"]["plume" if variant == "plume" else "upstream"].rstrip("/")

    def instruction(self, variant: Variant) -> Any:
        """The instruction of the queries: a string, or one for each kind of query (MomentSeeker)."""
        variant_named(variant)
        return self._instruction("qry_inst", variant)

    def target_instruction(self, variant: Variant) -> str | None:
        """The instruction of the candidates; None where they are plain texts."""
        variant_named(variant)
        return self._instruction("tgt_inst", variant)

    def _instruction(self, name: str, variant: Variant) -> Any:
        upstream = f"{name}_upstream_now"
        return self.raw[upstream if variant != "plume" and upstream in self.raw else name]


@cache
def load_tasks() -> tuple[Task, ...]:
    """All tasks in the order of tasks.json: 36 image, 18 video, 24 visual documents."""
    return tuple(_task(entry) for entry in json.loads((_DATA / "tasks.json").read_text()))


@cache
def _configurations() -> Mapping[str, frozenset[str | None]]:
    """What the benchmark reads of each data set; visual documents read three tables of one."""
    read: dict[str, set[str | None]] = {}
    for task in load_tasks():
        tables = [name for name in task.columns if name]
        for hub in ("hub", "hub_upstream_now"):
            read.setdefault(task.raw[hub]["id"], set()).update(tables or [task.raw[hub]["config"]])
    return {name: frozenset(configs) for name, configs in read.items()}


def is_one_table(source: Source) -> bool:
    """Whether the benchmark reads no other table of that data set."""
    return _configurations().get(source.hub_id) == {source.config}


@cache
def video_labels() -> Mapping[str, tuple[str, ...]]:
    """The label lists of the video classification tasks, by `Task.dataset_name`, sorted."""
    lists = json.loads((_DATA / "video_labels.json").read_text())
    return {name: tuple(labels) for name, labels in lists.items()}


def select_tasks(names: Iterable[str] | None = None, modalities: Iterable[str] | None = None) -> list[Task]:
    """The tasks of these names or modalities, in the order of tasks.json; all if neither is given.

    Raises:
        ValueError: an unknown name, naming the nearest; an unknown modality; nothing left.
    """
    tasks = load_tasks()
    known = {task.name.lower(): task.name for task in tasks}
    chosen = list(tasks)
    if names is not None:
        unknown = [name for name in (wanted.strip() for wanted in names) if name.lower() not in known]
        if unknown:
            raise ValueError(f"No task named {', '.join(unknown)}; the tasks are {', '.join(known.values())}.")
        wanted_names = {known[name.strip().lower()] for name in names}
        chosen = [task for task in chosen if task.name in wanted_names]
    if modalities is not None:
        unknown = [modality for modality in modalities if modality not in MODALITIES]
        if unknown:
            raise ValueError(f"No modality {', '.join(unknown)}; the modalities are {', '.join(MODALITIES)}.")
        chosen = [task for task in chosen if task.modality in set(modalities)]
    if not chosen:
        raise ValueError("No task is of that name and that modality.")
    return chosen


def variant_named(name: str) -> Variant:
    """The benchmark version of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in VARIANTS:
        raise ValueError(f"The benchmark versions are {', '.join(VARIANTS)}, got {name!r}.")
    return name  # type: ignore[return-value]


def published_models() -> tuple[str, ...]:
    """The seven models of the published rows."""
    return tuple(load_tasks()[0].published)


def published_variant(model: str) -> str:
    """The benchmark version that the published row of a model belongs to.

    PLUME's row is a version of its own, "paper": its scores on the two relabelled tasks are only reachable on the
    corrected labels, though the release names the old sets, and its MomentSeeker follows its own rule. The six others
    were scored on the old labels.
    """
    return "paper" if model == "PLUME" else "original"


def _task(entry: dict[str, Any]) -> Task:
    columns = entry["columns"] if isinstance(entry["columns"], dict) else {"": entry["columns"]}
    return Task(
        name=entry["name"],
        modality=entry["modality"],
        meta_task=entry["meta_task"],
        parser=entry["parser"],
        dataset_name=entry["dataset_name_arg"],
        is_global=entry["eval_type"] == "global",
        score_key=entry["score_key"],
        num_frames=entry["num_frames"],
        num_queries=entry["num_queries"],
        media_roots=tuple(dict.fromkeys(root.rstrip("/") for root in entry["media_root"].values())),
        columns={
            table: tuple(_column(name) for name in names if "not used" not in name) for table, names in columns.items()
        },
        published=entry["published_plume_paper"],
        official=entry["official_scores_v2_0_1"],
        official_fixed=entry.get("official_scores_page_fixed", {}),
        raw=entry,
    )


def _column(description: str) -> str:
    return _NOT_A_COLUMN_NAME.sub("", description)
