"""Generated MMEB-v2 rows, mirrors and media for tests, and the fixture tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from PIL import Image

from plume_embed.evaluation.mmeb_v2.items import Candidate, Item, Query
from plume_embed.evaluation.mmeb_v2.media import Media
from plume_embed.evaluation.mmeb_v2.parsers import parse
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant, select_tasks

FIXTURES = Path(__file__).parent / "fixtures" / "mmeb_v2"


class MemoryRows(Rows):
    """The tables of a task from lists of dicts, by configuration; columns are checked as for real files."""

    def __init__(self, task: Task, variant: Variant, tables: Mapping[str | None, Sequence[dict[str, Any]]]) -> None:
        super().__init__(task, variant)
        self._tables = tables

    def _load(self, source) -> Dataset:
        return Dataset.from_list(list(self._tables[source.config if source.config in self._tables else None]))


def task_named(name: str) -> Task:
    return select_tasks([name])[0]


def parse_rows(
    name: str, rows: Sequence[dict] | Mapping[str, Sequence[dict]], media_dir: Path, variant: Variant = "fixed"
) -> tuple[list[Query], list[Candidate]]:
    """A task's queries and corpus from rows in memory."""
    task = task_named(name)
    tables = dict(rows) if isinstance(rows, Mapping) else {None: rows}
    queries, corpus = parse(task, variant, MemoryRows(task, variant, tables), Media(media_dir, task))
    return list(queries), corpus


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path)
    return path


def write_frames(folder: Path, count: int = 3, seed: int = 0, suffix: str = "jpg") -> Path:
    for number in range(count):
        write_picture(folder / f"frame_{number}.{suffix}", seed + number)
    return folder


def write_table(hub: Path, hub_id: str, config: str | None, split: str, rows: Sequence[dict]) -> None:
    """One table of a mirror, as the Hub lays it out."""
    file = hub / hub_id / (config or "data") / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def as_upstream_row(query: Query, media_dir: Path, as_one_label: bool) -> dict[str, Any]:
    """A query in the form of the fixtures' parsed rows; media paths below the media folder."""
    infos: dict[str, Any] = {"cand_names": [candidate.key for candidate in query.candidates]}
    infos["label_name"] = query.labels[0] if as_one_label else list(query.labels)
    if query.grades is not None:
        infos["rel_scores"] = list(query.grades)
    return {
        "query_text": [query.item.text],
        "query_image": [as_upstream_media(query.item, media_dir)],
        "cand_text": [candidate.item.text for candidate in query.candidates],
        "cand_image": [as_upstream_media(candidate.item, media_dir) for candidate in query.candidates],
        "dataset_infos": infos,
    }


def as_upstream_candidate(candidate: Candidate, media_dir: Path) -> dict[str, Any]:
    return {
        "cand_text": [candidate.item.text],
        "cand_image": [as_upstream_media(candidate.item, media_dir)],
        "dataset_infos": {"cand_name": candidate.key},
    }


def as_upstream_media(item: Item, media_dir: Path) -> dict[str, Any] | None:
    if not item.media:
        return None
    nothing = [None] * len(item.media)
    paths = [path.relative_to(media_dir).as_posix() for path in item.media]
    return {"bytes": nothing, "paths": paths, "resolutions": nothing}
