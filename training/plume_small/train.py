"""plume-small from packages alone: words, then pictures and PLUME's prompt, then the latent steps.

    python -m training.plume_small.train --seed 0

Every stage goes on where a kill left it. Nothing here reads the benchmark of photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer

from plume_embed.command import run_command
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from training.plume_small.data import Data, digest_of_data, prepare
from training.plume_small.fast_forward import Prompt, embed
from training.plume_small.pictures import PseudoPictures
from training.plume_small.sources import teacher_folder
from training.plume_small.stages import Stage, load_finished, origin_of, run_stage
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
FINAL = Stage("single", 400, 7e-4, ALL, contrast=PICTURES_APART, data_from=20_000)
GROWING = ((0, (1,)), (40, (2,)), (80, (4,)))
# The same budget without latent steps, with eight, and with any number of them.
FINALS = {
    "single": FINAL,
    "steps": replace(FINAL, name="steps", num_latent_steps=(*GROWING, (120, (8,)))),
    "anytime": replace(FINAL, name="anytime", num_latent_steps=(*GROWING, (120, (0, 1, 2, 4, 8)))),
}
CHAINS = {name: (SHORT, PROMPT, BASE, final) for name, final in FINALS.items()}
SHIPPED = "anytime"


class Batches:
    """Batches by kind and step, embedded by a model.

    Args:
        data ([`Data`]): Of [`data.prepare`].
        model ([`PlumeModel`]), processor ([`PlumeProcessor`]): That is trained.
        seed (`int`): Of the run.
    """

    def __init__(self, data: Data, model: PlumeModel, processor: PlumeProcessor, seed: int):
        self.data, self.model, self.processor, self.seed = data, model, processor, seed
        self.device = model.get_input_embeddings().weight.device
        self.words = Words(data.texts, data.vectors, processor.tokenizer)
        self.names = Words(data.names, data.name_vectors, processor.tokenizer)
        projector = model.backbone.multi_modal_projector
        self.pseudo = PseudoPictures(projector.classifier.weight.detach().cpu(), data.table)
        self.prompt = Prompt.of(processor)
        self.bare = Prompt.bare(processor)

    def make(self, stage: Stage) -> Callable[[str, int, int], tuple[torch.Tensor, torch.Tensor]]:
        """(kind, step, K) -> vectors with gradients and targets, as [`run_stage`] wants it."""

        def vectors(kind: str, step: int, num_latent_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
            content, wanted = self.content(kind, step)
            made = embed(self.model, self.prompt if stage.prompt else self.bare, content, num_latent_steps)
            return made, wanted.to(self.device)

        return vectors

    def content(self, kind: str, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Input embeddings [B, n, D] of a batch of a kind, and their targets [B, S]."""
        if kind in ("text", "name"):
            ids, wanted = (self.words if kind == "text" else self.names).batch(self.seed, step, BATCH)
            return self.of_ids(ids), wanted
        if kind == "mixture":
            meanings, wanted = class_mixtures(self.data.table, self.seed, step)
            return self.of_meanings(meanings), wanted
        if kind == "pseudo":
            meanings, wanted = self.pseudo.batch(self.seed, step, PICTURES)
            return self.of_meanings(meanings), wanted
        if kind == "joined":  # a picture with a text lies between the two
            pictures, of_picture = self.content("pseudo", step)
            ids, of_text = self.words.batch(self.seed, step, PICTURES)
            count = min(len(pictures), len(ids))
            wanted = F.normalize(of_picture[:count] + of_text[:count], dim=-1)
            return torch.cat((pictures[:count], self.of_ids(ids[:count])), 1), wanted
        meanings = self.data.train.batch(self.seed, step, PICTURES)
        return self.of_meanings(meanings), F.normalize(meanings.mean(1), dim=-1)

    def of_ids(self, ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings [B, n, D] of token ids [B, n]."""
        return self.model.get_input_embeddings()(ids.to(self.device))

    def of_meanings(self, meanings: torch.Tensor) -> torch.Tensor:
        """Input embeddings [B, 49, D] of pictures by their meanings [B, 49, S]."""
        return self.model.backbone.multi_modal_projector.projection(meanings.to(self.device))

    @torch.no_grad()
    def validate(self, num_latent_steps: int) -> dict[str, float]:
        """How well held-out scenes are found by their captions, in percent, and the cosine to the teacher on these."""
        test = self.data.test
        texts = sorted({scene.texts[0] for scene in test.scenes})
        vectors, pictures = self.texts(texts, num_latent_steps), self.pictures(test.meanings, num_latent_steps)
        cosine = (vectors * torch.stack([test.vectors[text] for text in texts])).sum(-1).mean().item()
        similarities = vectors @ pictures.T
        ranks = []
        for row, text in enumerate(texts):
            gold = torch.tensor([scene.texts[0] == text for scene in test.scenes])
            ranks.append(1 + (similarities[row][~gold] >= similarities[row][gold].max()).sum().item())
        found = {f"R@{k}": round(100 * sum(rank <= k for rank in ranks) / len(ranks), 1) for k in (1, 5, 10)}
        return found | {"cosine": round(cosine, 4)}

    @torch.no_grad()
    def pictures(
        self, meanings: torch.Tensor, num_latent_steps: int, dtype: torch.dtype = torch.bfloat16
    ) -> torch.Tensor:
        """Embeddings [N, D] on the CPU of pictures by their meanings [N, 49, S]."""
        parts = [self.of_meanings(part.float()) for part in meanings.split(64)]
        return torch.cat([embed(self.model, self.prompt, part, num_latent_steps, dtype).cpu() for part in parts])

    @torch.no_grad()
    def texts(self, texts: list[str], num_latent_steps: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Embeddings [N, D] on the CPU of texts, those of one length together."""
        ids = self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
        vectors = torch.zeros(len(texts), self.model.config.hidden_size)
        for length in sorted(set(map(len, ids))):
            rows = [row for row, found in enumerate(ids) if len(found) == length]
            content = self.of_ids(torch.tensor([ids[row] for row in rows]))
            vectors[rows] = embed(self.model, self.prompt, content, num_latent_steps, dtype).cpu()
        return vectors


def train(seed: int, chain: str = SHIPPED, work: Path = WORK, device: str = "cpu") -> tuple[PlumeModel, PlumeProcessor]:
    """Runs the stages of a chain that are not done yet, in `work/seed-N/STAGE`.

    Returns:
        The trained model, on the device, and its processor.

    Raises:
        ValueError: there is no such chain, or what `work` holds of a stage is of other data or other stages.
    """
    if chain not in CHAINS:
        raise ValueError(f"--chain is one of {', '.join(CHAINS)}, got {chain!r}.")
    folder, stages = work / f"seed-{seed}", CHAINS[chain]
    numbers = stages[-1].num_latent_steps[-1][1]
    settings: dict[str, Any] = {"num_latent_steps": max(numbers)}
    if len(numbers) > 1:
        settings |= {"anytime_steps": list(numbers), "document_latent_steps": min(numbers)}
    processor = make_processor(make_tokenizer(teacher_folder()))
    model = make_model(processor, seed, **settings)
    of_data = digest_of_data(work)
    origins = [origin_of(of_data, stages[:number]) for number in range(len(stages))]
    if not load_finished(stages[-1], {"model": model}, folder / stages[-1].name, origins[-1]):
        data = prepare(work)
        take_over(model, processor, data.words, load_state(), data.table)
        batches = Batches(data, model.to(device), processor, seed)
        for stage, origin in zip(stages, origins, strict=True):
            validate = batches.validate if stage.prompt else lambda num_latent_steps: {}
            make, where = batches.make(stage), folder / stage.name
            run_stage(stage, {"model": model}, make, where, seed, validate, origin=origin)
    return model.to(device).eval(), processor


def main(
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    chain: Annotated[str, typer.Option(help=f"One of {', '.join(CHAINS)}.")] = SHIPPED,
    device: Annotated[str, typer.Option(help="A device of torch.")] = "cpu",
    work: Annotated[Path, typer.Option(help="Where data and states are kept.")] = WORK,
) -> None:
    """Train plume-small."""
    torch.set_num_threads(1)
    train(seed, chain, work, device)


if __name__ == "__main__":
    run_command(main)
