"""A corpus of query-target pairs as a task for the trainer."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.training.curriculum import CurriculumState
from plume_embed.training.data.augment import augment_side
from plume_embed.training.data.corpus import Corpus, Pair, SubsetBalancedBatches, check_shares
from plume_embed.training.data.folder_corpus import read_folder
from plume_embed.training.data.keys import item_key
from plume_embed.training.data.start import model_of_folder
from plume_embed.training.diagnostics import Sample, evenly_spaced
from plume_embed.training.latents.traces import traces_of
from plume_embed.training.loss.batch_loss import TrainingBatch
from plume_embed.training.objective import SideBatch, make_side
from plume_embed.training.recipe import Recipe
from plume_embed.training.small_model import make_model, make_processor

_ITEM = re.compile(r"Item (\d+): ")


class CorpusTask:
    """Batches of a corpus, a function of the seed and the step.

    Args:
        recipe ([`Recipe`]): Of the run: `data`, `model`, `curriculum`.
        rank, world_size (`int`): This process's share of the batch.
        report: Called with a message for each bad row of the data.

    Raises:
        ValueError: data or settings that cannot be trained on, with the remedy.
    """

    def __init__(
        self,
        recipe: Recipe,
        rank: int = 0,
        world_size: int = 1,
        report: Callable[[str], None] = lambda message: None,
    ):
        check_shares(recipe.batch_size, world_size)
        if sum(map(bool, (recipe.data.files, recipe.data.folder, recipe.data.dataset))) != 1:
            raise ValueError(
                "data.files, data.folder and data.dataset: one of them must be given, as in --set data.files=[a.jsonl] "
                "or --set data.folder=.data/miniature."
            )
        if not recipe.data.folder and recipe.data.augment_up_to:
            raise ValueError("data.augment_up_to is for data.folder, whose pictures are in memory; set it to 0.")
        if recipe.gates.explicit_hit_at_1 is not None:
            raise ValueError("gates.explicit_hit_at_1 needs a task with an evaluation, such as hops; set it to null.")
        self.recipe, self.curriculum = recipe, recipe.curriculum
        checks = recipe.data.max_bad_lines, report if rank == 0 else lambda message: None
        if recipe.data.folder:
            self.corpus = read_folder(Path(recipe.data.folder))
        elif recipe.data.dataset:
            from plume_embed.local_datasets import open_dataset

            dataset = open_dataset(recipe.data.dataset)
            self.corpus = Corpus.from_dataset(dataset, Path(recipe.data.media_root), *checks)
        else:
            files = [Path(name) for name in recipe.data.files]
            self.corpus = Corpus.from_jsonl(files, Path(recipe.data.media_root), *checks)
        self.batches = SubsetBalancedBatches(self.corpus.subsets, recipe.batch_size, recipe.seed, recipe.data.repeat)
        self.rows = slice(rank, None, world_size)
        self.processor = self._processor()

    def _processor(self) -> PlumeProcessor:
        settings = self.recipe.model
        if settings.path is not None:
            return PlumeProcessor.from_pretrained(settings.path)
        return make_processor(
            self.corpus.texts(2000), settings.vocab_size, settings.side, backbone_type=settings.backbone
        )

    def make_model(self) -> PlumeModel:
        """The model of the recipe: from its folder, or small and with random weights from the recipe's seed."""
        settings = self.recipe.model
        if settings.path is not None:
            return model_of_folder(self.recipe)
        model = make_model(self.processor, seed=self.recipe.seed, **self.recipe.step_fields | settings.fresh())
        if settings.freeze_vision:
            model.freeze_vision()
        return model

    def batch(self, step: int, state: CurriculumState) -> TrainingBatch:
        """The rows of this process in a step.

        Raises:
            ValueError: a medium that is missing or cannot be read, naming it and the line of the data.
        """
        indices = self.batches[step][self.rows]
        pairs = [self.corpus[index] for index in indices]
        keys = torch.tensor([_keys(pair) for pair in pairs])  # [N, 2], of what is the same before it is changed
        if self.recipe.data.augment_up_to:
            seeds = [f"{self.recipe.seed} {step} {index}" for index in indices]
            pairs = [self._augmented(pair, seed) for pair, seed in zip(pairs, seeds, strict=True)]
        return TrainingBatch(
            queries=self._chunks(pairs, "query", state, self.curriculum.has_suffix),
            targets=self._chunks(pairs, "target", state, self.curriculum.has_suffix and self.recipe.target_rollout),
            target_of_query=torch.arange(len(pairs)),
            target_keys=keys[:, 1],
            num_latent_steps=state.num_latent_steps,
            early_steps=state.early_steps,
            query_keys=keys[:, 0],
            question_keys=keys[:, 0],  # an instruction is part of the query's text
        )

    def _augmented(self, pair: Pair, seed: str) -> Pair:
        data = self.recipe.data
        change = partial(
            augment_side,
            max_side=data.augment_up_to,
            enlarge_to=data.enlarge_to,
            keeps_look=pair.subset in data.never_augmented,
            videos=data.augment_videos,
        )
        return replace(pair, query=change(pair.query, f"query {seed}"), target=change(pair.target, f"target {seed}"))

    def _chunks(self, pairs: list[Pair], name: str, state: CurriculumState, has_rollout: bool) -> list[SideBatch]:
        size, chunks, asked = self.recipe.chunk_size or len(pairs), [], self.recipe.loss.of_traces
        for start in range(0, len(pairs), size):
            chunk = pairs[start : start + size]
            sides = [pair.query if name == "query" else pair.target for pair in chunk]
            suffixes = [self.curriculum.suffix(side.rationale, side.answer, state) for side in sides]
            items, reads_prefix = [side.item for side in sides], self.curriculum.num_latent_steps == 0
            rationales = [side.rationale for side in sides]
            try:
                made = make_side(self.processor, items, suffixes if has_rollout else None, reads_prefix)
                trace = traces_of(self.processor, self.curriculum, state, rationales, asked) if has_rollout else None
                chunks.append(replace(made, trace=trace))
            except ValueError as error:
                match = _ITEM.match(str(error))
                if match is None:
                    raise
                message = str(error).removeprefix(match[0])
                raise ValueError(f"{chunk[int(match[1])].where}: {name}: {message}") from error
        return chunks

    def samples(self, count: int) -> list[Sample]:
        """Pairs of the corpus itself, evenly spaced through it, for diagnostics; a sub-dataset is a task."""
        pairs = [self.corpus[index] for index in evenly_spaced(len(self.corpus), count)]
        return [Sample(pair.query.item, pair.target.item, pair.subset) for pair in pairs]

    def evaluate(self, model: PlumeModel, stage: int | None = None, count: int = 0) -> dict:
        """Nothing: a corpus has no test of its own, use `plume-embed evaluate` on the model."""
        return {}


def _keys(pair: Pair) -> tuple[int, int]:
    """Of the query and the target.

    Raises:
        ValueError: a medium that cannot be read, naming it and the row.
    """
    found = []
    for name, side in (("query", pair.query), ("target", pair.target)):
        try:
            found.append(item_key(side.item))
        except ValueError as error:
            raise ValueError(f"{pair.where}: {name}: {error}") from error
    return found[0], found[1]
