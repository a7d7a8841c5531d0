"""`hops` as a task for the trainer: batches of a step, and Hit@1 on the test queries."""

import random

import torch

from plume_embed.modeling_plume import PlumeModel
from plume_embed.training import hops
from plume_embed.training.batch_loss import TrainingBatch
from plume_embed.training.curriculum import CurriculumState
from plume_embed.training.objective import make_side
from plume_embed.training.rationale import generate_rationale
from plume_embed.training.recipe import Recipe
from plume_embed.training.tiny_model import make_model, make_processor

VOCAB_SIZE = 420


class HopsTask:
    """Batches that are a function of the seed and the step, so that a run can go on at any step.

    Args:
        recipe ([`Recipe`]): Of the run.
        rank, world_size (`int`): This process's share of the batch.
    """

    def __init__(self, recipe: Recipe, rank: int = 0, world_size: int = 1):
        self.recipe, self.curriculum = recipe, recipe.curriculum
        self.rows = range(rank, recipe.batch_size, world_size)
        self.processor = make_processor(hops.tokenizer_texts(), VOCAB_SIZE, hops.SIDE, temporal_patch_size=1)
        if recipe.target_rollout:
            raise ValueError("The targets of hops have no rationale; set target_rollout to false.")

    def make_model(self) -> PlumeModel:
        """Random weights from the recipe's seed."""
        settings = self.recipe.model
        steps = self.curriculum.num_latent_steps
        return make_model(
            self.processor,
            hidden_size=settings.hidden_size,
            layers=settings.layers,
            intermediate_size=settings.intermediate_size,
            vision_size=settings.vision_size,
            vision_depth=settings.vision_depth,
            initializer_range=settings.initializer_range,
            seed=self.recipe.seed,
            temporal_patch_size=1,
            num_latent_steps=steps,
            **settings.plume,
        )

    def batch(self, step: int, state: CurriculumState) -> TrainingBatch:
        """The rows of this process in a step."""
        rng = random.Random(f"hops {self.recipe.seed} {step}")
        queries = [hops.draw(rng) for _ in range(self.recipe.batch_size)]
        queries = [queries[row] for row in self.rows]
        finals = sorted({query.final for query in queries})
        suffixes = None
        if self.curriculum.num_latent_steps > 0:
            suffixes = [self.curriculum.suffix(query.rationale, None, state) for query in queries]
        size = self.recipe.chunk_size or len(queries)
        chunks = [slice(start, start + size) for start in range(0, len(queries), size)]
        return TrainingBatch(
            queries=[
                make_side(
                    self.processor, [q.item() for q in queries[chunk]], None if suffixes is None else suffixes[chunk]
                )
                for chunk in chunks
            ],
            targets=[make_side(self.processor, [hops.STATES[final] for final in finals], None)],
            target_of_query=torch.tensor([finals.index(query.final) for query in queries]),
            target_keys=torch.tensor([query.final for query in queries]),
            num_latent_steps=state.num_latent_steps,
        )

    @torch.inference_mode()
    def evaluate(self, model: PlumeModel, count: int = hops.NUM_TEST_QUERIES) -> dict:
        """Hit@1 as at inference: free running, nothing teacher-forced.

        A model whose last stage is below the last segment still writes: it decodes its rationale behind the latent
        steps that it was trained with.

        Returns:
            `hit_at_1`, `hit_at_1_by_presses`, and for a model that writes `finished`, the share that ended by itself.
        """
        stage = self.curriculum.stages[-1]
        is_single_pass = self.curriculum.num_latent_steps == 0
        return self._evaluate(model, None if is_single_pass or stage == self.curriculum.num_segments else stage, count)

    def evaluate_explicit(self, model: PlumeModel, count: int) -> dict:
        """[`evaluate`] of a model after stage 0."""
        return self._evaluate(model, 0, count)

    @torch.inference_mode()
    def _evaluate(self, model: PlumeModel, writing_stage: int | None, count: int) -> dict:
        was_training = model.training
        model.eval()
        device = model.device
        names = model(**self.processor(list(hops.STATES)).to(device), num_latent_steps=0).embeddings  # [N, D]
        queries, hits, finished = hops.held_out_queries(count), [], []
        for start in range(0, count, 256):
            chunk = queries[start : start + 256]
            batch = self.processor([query.item() for query in chunk]).to(device)
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
        by_presses = {}
        for presses in range(1, hops.NUM_FRAMES + 1):
            own = [hit for hit, query in zip(hits, queries, strict=True) if query.num_presses == presses]
            by_presses[presses] = sum(own) / len(own) if own else None
        results = {"hit_at_1": sum(hits) / len(hits), "hit_at_1_by_presses": by_presses}
        return results | ({"finished": sum(finished) / len(finished)} if finished else {})
