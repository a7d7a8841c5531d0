"""What the decoder of `scene_hops` learns before the task: to describe boards, field by field in any order.

A line of a description says what a field shows and where else its colour and its shape are: "B red K circle G large" is
a large red circle on field B; the other red picture is on K, the other circle on G. So each look-up that an instruction
asks for is read off a board by itself before several of them have to follow each other. The model that comes out is
what every row and seed of `scene_hops` begins with.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.training.objective import with_suffixes
from training.scene_hops import scenes
from training.scene_hops.pictures import LETTERS, NAMES, SIZES
from training.scene_hops.scenes import NUM_SLOTS, OPENINGS, STAY, WORDS, Query, Scene
from training.scene_hops.task import SceneTask
from training.scene_hops.tower import teach

NUM_LINES = 6  # all fields of the smallest boards
# Of the tokens of a line. Which field comes next is free, and a line end is always the same.
KINDS = (None, "colour", "other of the colour", "shape", "other of the shape", "size", None)


@dataclass(frozen=True)
class Reading(Query):
    """A board to be described; its answer is the picture of the field that the text names.

    Args:
        order (`tuple[int]`): The fields that are described.
    """

    opening: ClassVar[str] = OPENINGS[1]

    order: tuple[int, ...] = ()

    @property
    def rationale(self) -> str:
        """The description."""
        return "".join(line(self.scene, field) for field in self.order)


def line(scene: Scene, field: int) -> str:
    """One field of a description."""
    colour, shape = NAMES[scene.shown[field]].split()
    other = {word: LETTERS[scene.after(field, WORDS.index(word))] for word in ("colour", "shape")}
    return f"{LETTERS[field]} {colour} {other['colour']} {shape} {other['shape']} {SIZES[scene.sizes[field]]}\n"


def draw_reading(rng: random.Random, is_test: bool = False) -> Reading:
    """A random board with the fields to be described; the text has no hops."""
    query = scenes.draw(rng, is_test)
    order = tuple(rng.sample(query.scene.fields, NUM_LINES))
    return Reading(query.scene, query.start, (STAY,) * NUM_SLOTS, query.renderings, order)


class ReadingTask(SceneTask):
    """Batches of descriptions for a model whose tower sees already."""

    def queries(self, step: int) -> list[Query]:
        rng = random.Random(f"scene_hops reading {self.recipe.seed} {step}")
        return [draw_reading(rng) for _ in range(self.recipe.batch_size)]

    def make_model(self) -> PlumeModel:
        """Random weights but for the tower."""
        model = super().make_model()
        teach(model, self.prefix, self.recipe.seed)
        return model

    @torch.inference_mode()
    def evaluate(self, model: PlumeModel, stage: int | None = None, count: int = 1024) -> dict:
        """What is read off boards of the recipe's split; those of the test show renderings that training has not.

        Returns:
            `read`: for each kind of word of a line the share of right ones, each after the right words before it;
            `hit_at_1` of the field that the text names, behind a description of six fields.
        """
        was_training = model.training
        model.eval()
        split, right, hits = self.recipe.split, [], []
        rng = random.Random(f"scene_hops reading {split}")
        names = model(**self.processor(list(NAMES)).to(model.device), num_latent_steps=0).embeddings  # [64, D]
        for start in range(0, count, 128):
            queries = [draw_reading(rng, is_test=split == "test") for _ in range(min(128, count - start))]
            suffixes = [self.curriculum.suffix(query.rationale, None, self.curriculum.at(0)) for query in queries]
            side = with_suffixes(self.processor, self.prefix(queries), suffixes).to(model.device)
            prefix = model.prefix(**side.prefix)
            model.latents(prefix, 0)
            hidden = model.suffix(prefix, 0, side.suffix_ids)  # [B, S, D]
            states = torch.cat((prefix.z0.unsqueeze(1), hidden[:, :-1]), dim=1)
            is_right = model.next_token_logits(states).argmax(dim=-1) == side.suffix_ids  # [B, S]
            right.append(is_right[:, : NUM_LINES * len(KINDS)].reshape(-1, len(KINDS)))
            best = (F.normalize(hidden[:, -1].float(), dim=-1) @ names.T).argmax(dim=1).tolist()
            hits += [index == query.final for index, query in zip(best, queries, strict=True)]
        model.train(was_training)
        shares = torch.cat(right).float().mean(dim=0).tolist()
        read = {kind: share for kind, share in zip(KINDS, shares, strict=True) if kind is not None}
        return {"hit_at_1": sum(hits) / len(hits), "read": read}
