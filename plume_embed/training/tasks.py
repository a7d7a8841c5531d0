"""Tasks: where a run gets its batches from, and how it is evaluated.

A recipe names one: `corpus`, pairs with rationales; `pairs`, pairs of one's own without; or `MODULE:CLASS`, a class of
one's own.
"""

import re
from importlib import import_module
from typing import Protocol

from rich.console import Console

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.training.curriculum import CurriculumState
from plume_embed.training.diagnostics import Sample
from plume_embed.training.loss.batch_loss import TrainingBatch
from plume_embed.training.recipe import Recipe

_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Task(Protocol):
    """What a run needs of its data. A class of one's own is made as `CLASS(recipe, rank, world_size)`."""

    processor: PlumeProcessor

    def make_model(self) -> PlumeModel:
        """The model that the run begins with."""
        ...

    def batch(self, step: int, state: CurriculumState) -> TrainingBatch:
        """The rows of this process in a step: the same for the same step, whenever it is asked."""
        ...

    def samples(self, count: int) -> list[Sample]:
        """Pairs for the diagnostics of `plume-embed report`."""
        ...

    def evaluate(self, model: PlumeModel, stage: int | None = None, count: int = ...) -> dict:
        """`hit_at_1` and more, of a model that was trained up to a stage; {} where there is nothing to evaluate."""
        ...


def make_task(recipe: Recipe, rank: int = 0, world_size: int = 1, console: Console | None = None) -> Task:
    """The task that a recipe names.

    Args:
        recipe ([`Recipe`]): Of the run.
        rank, world_size (`int`): Which of how many processes this one is.
        console (`Console`, *optional*): Where bad lines of a corpus are reported.

    Raises:
        ValueError: there is no such task.
    """
    if recipe.task == "corpus":
        from plume_embed.training.data.corpus_task import CorpusTask

        return CorpusTask(recipe, rank, world_size, report=(console or Console(quiet=True)).print)
    if recipe.task == "pairs":
        from plume_embed.training.data.pairs_task import PairsTask

        return PairsTask(recipe, rank, world_size, report=(console or Console(quiet=True)).print)
    if not _CLASS.fullmatch(recipe.task):
        raise ValueError(f"task must be corpus, pairs, or MODULE:CLASS for a task of your own, got {recipe.task!r}.")
    module, name = recipe.task.split(":")
    try:
        task_class = vars(import_module(module))[name]
    except (ModuleNotFoundError, KeyError) as error:
        raise ValueError(
            f"task {recipe.task}: {module} has no such class or cannot be found; run `python -m plume_embed train ...` "
            "in the folder that holds it."
        ) from error
    return task_class(recipe, rank, world_size)
