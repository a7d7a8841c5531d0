"""The preflight: what data and media of each task are missing, before anything is embedded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from plume_embed.evaluation.distributed import reason_of
from plume_embed.evaluation.mmeb_v2.candidates import make_pool
from plume_embed.evaluation.mmeb_v2.media import Media
from plume_embed.evaluation.mmeb_v2.parsers import parse
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant


@dataclass(frozen=True)
class Checked:
    """What the preflight found of one task.

    Attributes:
        task: The task.
        num_queries, num_candidates: What its rows hold; None where they cannot be read.
        failure: Why the task cannot run at all; None if its rows are in order.
        missing: Media that are missing, one line each.
        to_write: Page images that would be written from the corpus column.
    """

    task: Task
    num_queries: int | None = None
    num_candidates: int | None = None
    failure: str | None = None
    missing: list[str] = field(default_factory=list)
    to_write: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether the task can run."""
        return self.failure is None and not self.missing


def check_tasks(
    tasks: Iterable[Task], variant: Variant, hub_dir: Path | None, media_dir: Path, cache_dir: Path | None = None
) -> Iterator[Checked]:
    """Reads the rows of each task and looks for every file they name; opens no picture and writes nothing."""
    for task in tasks:
        missing: list[str] = []
        try:
            media = Media(media_dir, task, missing)
            pool = make_pool(
                task, variant, *parse(task, variant, Rows(task, variant, hub_dir, media_dir, cache_dir), media)
            )
        except Exception as error:
            yield Checked(task, failure=reason_of(error), missing=missing)
        else:
            yield Checked(task, len(pool.queries), len(pool.candidates), None, missing, media.to_write)
