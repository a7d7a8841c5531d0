"""What every row and seed of `scene_hops` begins with: a model that sees, reads boards and follows in text.

The paper's backbones come trained to do this; a fresh one is taught here. Its tower learns words first (`tower.py`),
the decoder descriptions (`reading.py`), then instructions with their whole rationale. Small boards come first: it is
easier to find one of 6 fields than one of 16.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.training.objective import with_suffixes
from training.scene_hops import pictures, scenes
from training.scene_hops.reading import KINDS, NUM_LINES, draw_reading
from training.scene_hops.scenes import BOARDS, NUM_SLOTS, Query
from training.scene_hops.task import SceneTask
from training.scene_hops.tower import begin_alike, teach


@dataclass(frozen=True)
class Lesson:
    """A part of the run.

    Args:
        share (`float`): Of the steps.
        boards (`tuple`): Sizes of the boards.
        reads (`float`): Share of the steps that describe boards; in the others instructions are followed.
        with_hops (`bool`): Whether a description says where its look-ups lead.
    """

    share: float
    boards: Sequence[tuple[int, int]]
    reads: float = 1.0
    with_hops: bool = True


LESSONS = (
    Lesson(0.03, BOARDS[:1], with_hops=False),
    Lesson(0.25, BOARDS[:1]),
    Lesson(0.27, BOARDS[:1], reads=0.3),
    Lesson(0.45, BOARDS, reads=0.3),
)
ALL_HOPS = 0.6  # share of the instructions that must have a hop in every slot


def lesson_at(share: float) -> Lesson:
    """The lesson after so large a share of the run, 0 to 1."""
    ends = accumulate(lesson.share for lesson in LESSONS)
    return next((lesson for lesson, end in zip(LESSONS, ends, strict=True) if share < end), LESSONS[-1])


class BaseTask(SceneTask):
    """Batches of the lessons, one after the other."""

    def queries(self, step: int) -> list[Query]:
        """All queries of a step: either descriptions or instructions."""
        rng = random.Random(f"scene_hops base {self.recipe.seed} {step}")
        lesson, rows = lesson_at(step / self.curriculum.max_steps), range(self.recipe.batch_size)
        if rng.random() < lesson.reads:
            return [draw_reading(rng, boards=lesson.boards, with_hops=lesson.with_hops) for _ in rows]
        return [_draw_instruction(rng, lesson.boards) for _ in rows]

    def make_model(self) -> PlumeModel:
        """Random weights but for the tower, and one embedding for all tokens of a word."""
        model = super().make_model()
        begin_alike(model, self.processor)
        teach(model, self.processor, self.prefix, self.recipe.seed)
        return model

    def evaluate(self, model: PlumeModel, stage: int | None = None, count: int = scenes.NUM_TEST_QUERIES) -> dict:
        """Beside Hit@1 with a rationale that the model writes itself, what it reads off boards.

        Returns:
            Those of [`SceneTask`], and `read`: for each kind of token of a description's line the share of right ones,
            each after the right tokens before it. The boards are of the recipe's split: those of the test show
            renderings that training has not.
        """
        return super().evaluate(model, stage, count) | {"read": self._read(model, min(count, 1024))}

    @torch.inference_mode()
    def _read(self, model: PlumeModel, count: int) -> dict[str, float]:
        was_training = model.training
        model.eval()
        rng, is_test = random.Random(f"scene_hops reading {self.recipe.split}"), self.recipe.split == "test"
        right = []
        for start in range(0, count, 128):
            queries = [draw_reading(rng, is_test) for _ in range(min(128, count - start))]
            suffixes = [self.curriculum.suffix(query.rationale, None, self.curriculum.at(0)) for query in queries]
            side = with_suffixes(self.processor, self.prefix(queries), suffixes).to(model.device)
            prefix = model.prefix(**side.prefix)
            model.latents(prefix, 0)
            hidden = model.suffix(prefix, 0, side.suffix_ids)  # [B, S, D]
            states = torch.cat((prefix.z0.unsqueeze(1), hidden[:, :-1]), dim=1)
            is_right = model.next_token_logits(states).argmax(dim=-1) == side.suffix_ids  # [B, S]
            right.append(is_right[:, : NUM_LINES[True] * len(KINDS)].reshape(-1, len(KINDS)))
        model.train(was_training)
        shares = torch.cat(right).float().mean(dim=0).tolist()
        return {kind: share for kind, share in zip(KINDS, shares, strict=True) if kind is not None}


def _draw_instruction(rng: random.Random, boards: Sequence[tuple[int, int]]) -> Query:
    scene = scenes.draw_scene(rng, boards)
    signs = scenes.draw_signs(rng, NUM_SLOTS if rng.random() < ALL_HOPS else None)
    return Query(scene, rng.choice(scene.fields), signs, pictures.draw_renderings(rng, is_test=False))
