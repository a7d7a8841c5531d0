"""`hops` and `hops_mixed` as tasks for the trainer: batches of a step, and Hit@1 on the test queries."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import torch

from plume_embed.encode.rationale import generate_rationale
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.training.curriculum import CurriculumState
from plume_embed.training.data.corpus import check_shares
from plume_embed.training.diagnostics import Sample
from plume_embed.training.latents.traces import Trace, traces_of
from plume_embed.training.loss.batch_loss import TrainingBatch
from plume_embed.training.objective import SideBatch, make_side, with_suffixes
from plume_embed.training.recipe import Recipe
from plume_embed.training.small_model import make_model, make_processor
from training.hops import hops, mixed
from training.hops.rivals import RivalModel
from training.hops.sign_tables import FilmTable, SignTable


class HopsTask:
    """Batches that are a function of the seed and the step, so that a run can go on at any step.

    Args:
        recipe ([`Recipe`]): Of the run.
        rank, world_size (`int`): This process's share of the batch.

    Attributes:
        data: The module that draws the queries.
        table: What puts a batch of them together.
        side (`int`): Of its pictures and frames, in pixels.
        vocab_size (`int`): Of the tokenizer, which has a token for each word of the task.
    """

    data: ModuleType = hops
    table: type = FilmTable
    side = hops.SIDE
    vocab_size = 420

    def __init__(self, recipe: Recipe, rank: int = 0, world_size: int = 1):
        check_shares(recipe.batch_size, world_size)
        self.recipe, self.curriculum = recipe, recipe.curriculum
        self.rows = range(rank, recipe.batch_size, world_size)
        self.processor = make_processor(self.data.tokenizer_texts(), self.vocab_size, self.side, temporal_patch_size=1)
        self._all_names: dict[str | None, SideBatch] = {}

    def make_model(self) -> PlumeModel:
        """Random weights from the recipe's seed; a [`RivalModel`] where `model.plume` has a `rollout`."""
        return make_model(
            self.processor,
            seed=self.recipe.seed,
            temporal_patch_size=1,
            model_class=RivalModel if "rollout" in self.recipe.model.plume else PlumeModel,
            **self.recipe.step_fields | self.recipe.model.fresh(),
        )

    @property
    def target_latent_steps(self) -> int:
        """K of the names, as the last stage trains them."""
        return self.curriculum.num_latent_steps if self.recipe.target_rollout else 0

    def queries(self, step: int) -> list[Any]:
        """All queries of a step, over all processes."""
        rng = random.Random(f"hops {self.recipe.seed} {step}")
        return [self.data.draw(rng) for _ in range(self.recipe.batch_size)]

    def batch(self, step: int, state: CurriculumState) -> TrainingBatch:
        """The rows of this process in a step."""
        queries = self.queries(step)
        queries = [queries[row] for row in self.rows]
        finals = sorted({query.final for query in queries})
        suffixes = None
        if self.curriculum.has_suffix:
            suffixes = [self.curriculum.suffix(query.rationale, None, state) for query in queries]
        reads_prefix = self.curriculum.num_latent_steps == 0
        size = self.recipe.chunk_size or len(queries)
        chunks = [slice(start, start + size) for start in range(0, len(queries), size)]
        return TrainingBatch(
            queries=[
                replace(
                    with_suffixes(
                        self.processor,
                        self.prefix(queries[chunk]),
                        None if suffixes is None else suffixes[chunk],
                        reads_prefix,
                    ),
                    trace=self._trace(queries[chunk], state),
                )
                for chunk in chunks
            ],
            targets=[self._names(tuple(finals), state)],
            target_of_query=torch.tensor([finals.index(query.final) for query in queries]),
            target_keys=torch.tensor([query.final for query in queries]),
            num_latent_steps=state.num_latent_steps,
            early_steps=state.early_steps,
        )

    def _trace(self, queries: list[hops.Hop], state: CurriculumState) -> Trace | None:
        rationales = [query.rationale for query in queries]
        return traces_of(self.processor, self.curriculum, state, rationales, self.recipe.loss.of_traces)

    def _names(self, finals: tuple[int, ...], state: CurriculumState) -> SideBatch:
        """The targets that name these states, which have no rationale: rows of what is made once for all of them."""
        suffix = None
        if self.recipe.target_rollout and self.curriculum.has_suffix:
            suffix = self.curriculum.suffix("", None, state)
        if suffix not in self._all_names:
            suffixes = None if suffix is None else [suffix] * len(self.data.NAMES)
            self._all_names[suffix] = make_side(self.processor, list(self.data.NAMES), suffixes)
        every, rows = self._all_names[suffix], torch.tensor(finals)
        prefix = {name: tensor[rows] for name, tensor in every.prefix.items()}
        if every.suffix_ids is None or every.suffix_lengths is None:
            return SideBatch(prefix)
        return SideBatch(prefix, every.suffix_ids[rows], every.suffix_lengths[rows])

    def prefix(self, queries: list[hops.Hop]) -> dict[str, torch.Tensor]:
        """The processor's output for these queries, put together from what it gave for their parts."""
        return _table(type(self)).prefix(queries)

    def samples(self, count: int) -> list[Sample]:
        """The first queries of the split with their targets, for diagnostics; a query's machine is its task."""
        queries = self.data.held_out_queries(count, self.recipe.split)
        return [Sample(query.item(), self.data.NAMES[query.final], query.family) for query in queries]

    def evaluate(self, model: PlumeModel, stage: int | None = None, count: int = hops.NUM_TEST_QUERIES) -> dict:
        """Hit@1 as at inference: free running, nothing teacher-forced.

        A model that was trained up to a stage below the last segment still writes: it decodes the rest of its rationale
        behind the latent steps of that stage.

        Args:
            stage (`int`, *optional*): What the model was trained up to, by default the curriculum's last stage.
            count (`int`): Queries of the recipe's split.

        Returns:
            `hit_at_1`, `hit_at_1_by_presses`, and for a model that writes `finished`, the share that ended by itself.
        """
        stage = self.curriculum.stages[-1] if stage is None else stage
        is_single_pass = self.curriculum.num_latent_steps == 0
        return self._evaluate(model, None if is_single_pass or stage == self.curriculum.num_segments else stage, count)

    @torch.inference_mode()
    def _evaluate(self, model: PlumeModel, writing_stage: int | None, count: int) -> dict:
        was_training = model.training
        model.eval()
        device = model.device
        steps = self.target_latent_steps if writing_stage is None else 0
        names = model(**self.processor(list(self.data.NAMES)).to(device), num_latent_steps=steps).embeddings  # [N, D]
        queries, hits, finished = self.data.held_out_queries(count, self.recipe.split), [], []
        for start in range(0, count, 256):
            chunk = queries[start : start + 256]
            batch = {name: tensor.to(device) for name, tensor in self.prefix(chunk).items()}
            if writing_stage is None:
                embeddings = model(**batch).embeddings
            else:
                steps = self.curriculum.latent_steps(writing_stage)
                written = generate_rationale(model, batch, steps, max_new_tokens=40)
                embeddings = written.embeddings
                finished += written.finished.tolist()
            best = (embeddings @ names.T).argmax(dim=1).tolist()
            hits += [index == query.final for index, query in zip(best, chunk, strict=True)]
        model.train(was_training)
        hits_of = list(zip(queries, hits, strict=True))
        results = {"hit_at_1": sum(hits) / len(hits), **self.breakdown(hits_of)}
        return results | ({"finished": sum(finished) / len(finished)} if finished else {})

    def breakdown(self, hits_of: list[tuple[Any, bool]]) -> dict:
        """Hit@1 of parts of the queries."""
        presses = range(1, hops.NUM_FRAMES + 1)
        return {"hit_at_1_by_presses": {n: share(hits_of, lambda q, n=n: q.num_presses == n) for n in presses}}


@cache
def _table(task: type[HopsTask]) -> Any:
    """`task.table` of its processor, made once a process: it depends on the class alone and takes up to ten seconds."""
    processor = make_processor(task.data.tokenizer_texts(), task.vocab_size, task.side, temporal_patch_size=1)
    return task.table(processor)


def share(hits_of: list[tuple[Any, bool]], chosen: Callable[[Any], bool]) -> float | None:
    """Share of hits among the chosen queries, `None` without any."""
    own = [hit for query, hit in hits_of if chosen(query)]
    return sum(own) / len(own) if own else None


class MixedTask(HopsTask):
    """`hops_mixed`: four families of queries in one batch; Hit@1 also by family."""

    data = mixed
    table = SignTable

    def breakdown(self, hits_of: list[tuple[mixed.Query, bool]]) -> dict:
        by_family = {name: share(hits_of, lambda q, name=name: q.family == name) for name in mixed.FAMILIES}
        return super().breakdown(hits_of) | {"hit_at_1_by_family": by_family, "chance_by_family": mixed.chance()}
