"""plume-small from packages alone: words, then pictures and PLUME's prompt, then the latent steps.

    python -m training.plume_small.train --seed 0

Every stage goes on where a kill left it. Nothing here reads the benchmark of photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from training.plume_small.data import Data, prepare
from training.plume_small.fast_forward import Prompt, embed
from training.plume_small.pictures import PseudoPictures
from training.plume_small.sources import teacher_folder
from training.plume_small.stages import Stage, load_finished, run_stage
from training.plume_small.student import make_model, make_processor, make_tokenizer, take_over
from training.plume_small.tower import load_state
from training.plume_small.words import BATCH, PICTURES, Words, class_mixtures

WORK = Path(".data/plume-small")
PICTURES_APART = {"mixture": 0.3, "pseudo": 0.3, "drawing": 0.3}  # weight of the contrast
START = {"text": 0.55, "mixture": 0.15, "pseudo": 0.15, "drawing": 0.15}
ALL = {"text": 0.22, "name": 0.24, "mixture": 0.1, "pseudo": 0.17, "drawing": 0.17, "joined": 0.1}

SHORT = Stage("short", 1400, 1.5e-3, {"text": 0.95, "mixture": 0.05}, prompt=False)
PROMPT = Stage("prompt", 500, 1e-3, START, contrast=PICTURES_APART)
BASE = Stage("base", 1800, 1e-3, ALL, contrast=PICTURES_APART, data_from=10_000)
GROWING = ((0, 1), (40, 2), (80, 4), (120, 8))
STEPS = Stage("steps", 400, 7e-4, ALL, num_latent_steps=GROWING, contrast=PICTURES_APART, data_from=20_000)
SINGLE = replace(STEPS, name="single", num_latent_steps=((0, 0),))  # the same budget without latent steps
CHAINS = {"steps": (SHORT, PROMPT, BASE, STEPS), "single": (SHORT, PROMPT, BASE, SINGLE), "base": (SHORT, PROMPT, BASE)}


class Batches:
    """Batches by kind and step, embedded by a model.

    Args:
        data ([`Data`]): Of [`data.prepare`].
        model ([`PlumeModel`]), processor ([`PlumeProcessor`]): That is trained.
        seed (`int`): Of the run.
    """

    def __init__(self, data: Data, model: PlumeModel, processor: PlumeProcessor, seed: int):
        self.data, self.model, self.processor, self.seed = data, model, processor, seed
        self.words = Words(data.texts, data.vectors, processor.tokenizer)
        self.names = Words(data.names, data.name_vectors, processor.tokenizer)
        projector = model.backbone.multi_modal_projector
        self.pseudo = PseudoPictures(projector.classifier.weight.detach(), data.table)
        self.prompt = Prompt.of(processor)
        self.bare = Prompt.bare(processor)

    def make(self, stage: Stage) -> Callable[[str, int, int], tuple[torch.Tensor, torch.Tensor]]:
        """(kind, step, K) -> vectors with gradients and targets, as [`run_stage`] wants it."""

        def vectors(kind: str, step: int, num_latent_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
            content, wanted = self.content(kind, step)
            return embed(self.model, self.prompt if stage.prompt else self.bare, content, num_latent_steps), wanted

        return vectors

    def content(self, kind: str, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Input embeddings [B, n, D] of a batch of a kind, and their targets [B, S]."""
        projector = self.model.backbone.multi_modal_projector
        if kind in ("text", "name"):
            ids, wanted = (self.words if kind == "text" else self.names).batch(self.seed, step, BATCH)
            return self.model.get_input_embeddings()(ids), wanted
        if kind == "mixture":
            meanings, wanted = class_mixtures(self.data.table, self.seed, step)
            return projector.projection(meanings), wanted
        if kind == "pseudo":
            meanings, wanted = self.pseudo.batch(self.seed, step, PICTURES)
            return projector.projection(meanings), wanted
        if kind == "joined":  # a picture with a text lies between the two
            pictures, of_picture = self.content("pseudo", step)
            ids, of_text = self.words.batch(self.seed, step, PICTURES)
            count = min(len(pictures), len(ids))
            texts = self.model.get_input_embeddings()(ids[:count])
            wanted = F.normalize(of_picture[:count] + of_text[:count], dim=-1)
            return torch.cat((pictures[:count], texts), 1), wanted
        features = self.data.train.batch(self.seed, step, PICTURES)
        with torch.no_grad():
            meanings = projector.class_probs(features) @ projector.table.weight  # [B, 49, S]
        return projector(features), F.normalize(meanings.mean(1), dim=-1)

    @torch.no_grad()
    def validate(self, num_latent_steps: int) -> dict[str, float]:
        """How well held-out scenes are found by their captions, in percent, and the cosine to the teacher on these."""
        test = self.data.test
        pictures = []
        for start in range(0, len(test.scenes), 64):
            features = torch.from_numpy(np.stack(test.maps[start : start + 64])).float()
            pictures.append(
                embed(self.model, self.prompt, self.model.backbone.multi_modal_projector(features), num_latent_steps)
            )
        texts = sorted({scene.texts[0] for scene in test.scenes})
        vectors = self.texts(texts, num_latent_steps)
        cosine = (vectors * torch.stack([test.vectors[text] for text in texts])).sum(-1).mean().item()
        similarities = vectors @ torch.cat(pictures).T
        ranks = []
        for row, text in enumerate(texts):
            gold = torch.tensor([scene.texts[0] == text for scene in test.scenes])
            ranks.append(1 + (similarities[row][~gold] >= similarities[row][gold].max()).sum().item())
        found = {f"R@{k}": round(100 * sum(rank <= k for rank in ranks) / len(ranks), 1) for k in (1, 5, 10)}
        return found | {"cosine": round(cosine, 4)}

    def texts(self, texts: list[str], num_latent_steps: int) -> torch.Tensor:
        """Embeddings of texts, those of one length together."""
        ids = self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
        vectors = torch.zeros(len(texts), self.model.config.hidden_size)
        for length in sorted(set(map(len, ids))):
            rows = [row for row, found in enumerate(ids) if len(found) == length]
            content = self.model.get_input_embeddings()(torch.tensor([ids[row] for row in rows]))
            vectors[rows] = embed(self.model, self.prompt, content, num_latent_steps)
        return vectors


def train(seed: int, chain: str = "steps", work: Path = WORK) -> tuple[PlumeModel, PlumeProcessor]:
    """Runs the stages of a chain that are not done yet, in `work/seed-N/STAGE`.

    Returns:
        The trained model and its processor.
    """
    teacher, folder, stages = teacher_folder(), work / f"seed-{seed}", CHAINS[chain]
    processor = make_processor(make_tokenizer(teacher))
    model = make_model(processor, seed, num_latent_steps=stages[-1].latent_steps(stages[-1].steps))
    if not load_finished(stages[-1], {"model": model}, folder / stages[-1].name):
        data = prepare(work)
        take_over(model, processor, teacher, load_state(), data.table)
        batches = Batches(data, model, processor, seed)
        for stage in stages:
            validate = batches.validate if stage.prompt else lambda num_latent_steps: {}
            run_stage(stage, {"model": model}, batches.make(stage), folder / stage.name, seed, validate)
    return model.eval(), processor


def main(
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    chain: Annotated[str, typer.Option(help=f"One of {', '.join(CHAINS)}.")] = "steps",
    work: Annotated[Path, typer.Option(help="Where data and states are kept.")] = WORK,
) -> None:
    """Train plume-small."""
    torch.set_num_threads(1)
    train(seed, chain, work)


if __name__ == "__main__":
    typer.run(main)
