"""What plume-tiny starts from, once its first edition: the simplest honest loop, on the miniature's emoji stills.

    python -m evaluation.miniature.build --out .data/miniature
    python -m training.stills --data .data/miniature --out checkpoints/plume-tiny-stills

For each concept of a batch: one text and two pictures in two styles, all three contrasted with each other by symmetric
InfoNCE, and the pictures with the names of the subgroups. A single pass first, the whole K = 8 rollout for the last
quarter of the steps. Two data-parallel processes of one thread each: a second thread gives 1.1x, a second process 2x.
Never seen in training: the test style, and the concept families held out for the test.
"""

import json
import math
import os
import random
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from plume_embed.evaluation.miniature.sources import TRAIN_STYLES
from plume_embed.evaluation.miniature.tasks import Row, label_text, load
from plume_embed.modeling_plume import PlumeModel
from plume_embed.processing_plume import PlumeProcessor
from plume_embed.training.augment import augment
from plume_embed.training.grad_cache import average_gradients
from plume_embed.training.losses import balance_loss, gather_rows, info_nce
from plume_embed.training.tiny_model import make_model, make_processor


@dataclass(frozen=True)
class Settings:
    """One run. Steps, not seconds, bound it, so that a run is the same on any machine."""

    steps: int = 1400
    rollout_share: float = 0.25
    batch_size: int = 64  # concepts a process and step: one text and two pictures each
    learning_rate: float = 2e-3
    rollout_learning_rate: float = 8e-4
    weight_decay: float = 0.05
    temperature: float = 0.04
    balance_weight: float = 0.1
    toned_share: float = 0.1
    side: int = 84
    vocab_size: int = 3072
    hidden_size: int = 128
    layers: int = 3
    intermediate_size: int = 384
    vision_size: int = 128
    vision_depth: int = 4
    initializer_range: float = 0.04
    seed: int = 0
    start: str = ""  # folder of a model to go on from, whose sizes and tokenizer then count


class Stills:
    """The training pictures by concept, as uint8 in memory."""

    def __init__(self, data: Path):
        pictures, rows = load(data)
        chosen = [i for i, row in enumerate(rows) if row.style in TRAIN_STYLES and row.split_family == "train"]
        self.rows: list[Row] = [rows[i] for i in chosen]
        images = [np.asarray(image.convert("RGB")) for image in pictures.select(chosen)["image"]]
        self.pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # [N, 3, side, side]
        by_concept = defaultdict(list)
        for index, row in enumerate(self.rows):
            by_concept[row.hexcode].append(index)
        self.plain = [c for c in by_concept.values() if not self.rows[c[0]].skin_tone]
        self.toned = [c for c in by_concept.values() if self.rows[c[0]].skin_tone]
        self.label_texts = sorted({label_text(row.subgroup) for row in self.rows})

    def batches(self, size: int, toned_share: float, rng: random.Random):
        """Endless batches of concepts, each a pair of picture numbers (twice the same where there is one style)."""
        plain = []
        while True:
            num_toned = round(size * toned_share)
            if len(plain) < size:
                plain = rng.sample(self.plain, len(self.plain))
            concepts = [plain.pop() for _ in range(size - num_toned)] + rng.sample(self.toned, num_toned)
            yield [tuple(rng.sample(c, 2)) if len(c) > 1 else (c[0], c[0]) for c in concepts]

    def text(self, index: int, rng: random.Random) -> str:
        """What a person might call the picture: its label, with or without some of its tags."""
        row = self.rows[index]
        if rng.random() < 0.6 or not row.tags:
            return row.label
        tags = rng.sample(list(row.tags), min(len(row.tags), rng.randint(1, 3)))
        return ", ".join([row.label, *tags] if rng.random() < 0.6 else tags)


def make(stills: Stills, settings: Settings) -> tuple[PlumeProcessor, PlumeModel]:
    """A fresh model and its processor, or those to go on from."""
    if settings.start:
        return PlumeProcessor.from_pretrained(settings.start), PlumeModel.from_pretrained(settings.start).train()
    texts = [f"{row.label} {' '.join(row.tags)}" for row in stills.rows] + stills.label_texts
    processor = make_processor(texts, settings.vocab_size, settings.side)
    sizes = ("hidden_size", "layers", "intermediate_size", "vision_size", "vision_depth", "initializer_range", "seed")
    return processor, make_model(processor, **{name: getattr(settings, name) for name in sizes}).train()


def learning_rate(step: int, settings: Settings, switch: int) -> float:
    """Linear warm-up and cosine decay, once for the single pass and once more for the rollout."""
    if step < switch:
        done, total, peak, floor = step, switch, settings.learning_rate, 0.15 * settings.learning_rate
    else:
        done, total, peak, floor = step - switch, settings.steps - switch, settings.rollout_learning_rate, 0.0
    warmup = max(1, round(0.04 * total))
    if done < warmup:
        return peak * (done + 1) / warmup
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (total - warmup)))


def train(rank: int, world_size: int, data: Path, out: Path, settings: Settings) -> None:
    """One of the data-parallel processes; the first one prints and saves."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    console = Console(quiet=rank > 0)
    stills = Stills(data)
    processor, model = make(stills, settings)
    console.print(
        f"{len(stills.rows)} pictures of {len(stills.plain)} + {len(stills.toned)} concepts, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {world_size} processes"
    )
    parameters = list(model.parameters())
    decayed = [p for p in parameters if p.ndim > 1]
    groups = [{"params": decayed}, {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=settings.weight_decay)
    rng = random.Random(settings.seed * world_size + rank)
    generator = torch.Generator().manual_seed(settings.seed * world_size + rank)
    # All processes draw the same global batch and take their share, so that no concept is twice in one batch.
    batches = stills.batches(settings.batch_size * world_size, settings.toned_share, random.Random(settings.seed))
    switch = round(settings.steps * (1 - settings.rollout_share))
    log, started, cpu_started = [], time.time(), time.process_time()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=rank > 0) as progress:
        bar = progress.add_task("training", total=settings.steps)
        for step in range(settings.steps):
            num_latent_steps = 0 if step < switch else model.config.num_latent_steps
            pairs = next(batches)
            local = pairs[rank * settings.batch_size : (rank + 1) * settings.batch_size]
            rate = learning_rate(step, settings, switch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses = step_losses(model, processor, stills, pairs, local, num_latent_steps, settings, rng, generator)
            loss = sum(losses.values())
            if not math.isfinite(loss.item()):
                raise RuntimeError(f"The loss of step {step} is {loss.item()}.")
            optimizer.zero_grad(set_to_none=False)
            (world_size * loss).backward()  # see `gather_rows`
            average_gradients(parameters)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            log.append({"step": step, "latent_steps": num_latent_steps, "lr": rate} | item_values(losses))
            progress.update(bar, advance=1)
            if step % 50 == 49:
                recent = {k: np.mean([entry[k] for entry in log[-50:] if k in entry]) for k in losses}
                speed = (step + 1) * settings.batch_size * world_size / (time.time() - started)
                text = "  ".join(f"{name} {value:.3f}" for name, value in recent.items())
                console.print(f"step {step + 1:5d}  K {num_latent_steps}  {text}  {speed:.0f} concepts/s")
    if rank == 0:
        model.eval().save_pretrained(out)
        processor.save_pretrained(out)
        run = {
            "settings": asdict(settings),
            "world_size": world_size,
            "wall_minutes": (time.time() - started) / 60,
            "cpu_minutes_per_process": (time.process_time() - cpu_started) / 60,
            "torch": torch.__version__,
            "losses": log[:: max(1, len(log) // 200)],
        }
        (out / "training.json").write_text(json.dumps(run, indent=1) + "\n")
        console.print(f"saved to {out} after {run['wall_minutes']:.1f} minutes")
    dist.barrier()
    dist.destroy_process_group()


def step_losses(
    model, processor, stills, pairs, local, num_latent_steps: int, settings: Settings, rng, generator
) -> dict[str, torch.Tensor]:
    """The contrastive losses between text, first and second picture, and between pictures and subgroup names."""
    pixels = augment(stills.pixels[torch.tensor(local).T.flatten()], generator)  # [2B, 3, H, W]
    names = rng.sample(stills.label_texts, 24)
    texts = [stills.text(first, rng) for first, _ in local]
    picture_output = model(
        **processor([{"image": p} for p in pixels]),
        num_latent_steps=num_latent_steps,
        output_router_probs=True,
    )
    text_output = model(**processor(texts + names), num_latent_steps=num_latent_steps, output_router_probs=True)
    first, second = (gather_rows(half) for half in picture_output.embeddings.chunk(2))  # [W * B, D]
    text = gather_rows(text_output.embeddings[: len(texts)])  # [W * B, D]
    name = gather_rows(text_output.embeddings[len(texts) :])  # [W * 24, D]
    all_names = gather_rows(torch.tensor([stills.label_texts.index(n) for n in names])).tolist()
    rows = [stills.rows[index] for index, _ in pairs]
    twins = [
        (row.label, stills.rows[i].picture_hash, stills.rows[j].picture_hash)
        for row, (i, j) in zip(rows, pairs, strict=True)
    ]
    positives = torch.tensor([[bool(set(a) & set(b)) for b in twins] for a in twins])
    losses = {
        "text_picture": info_nce(text, first, positives, settings.temperature),
        "text_other": info_nce(text, second, positives, settings.temperature),
        "picture_picture": info_nce(first, second, positives, settings.temperature),
    }
    in_group = torch.tensor([[label_text(row.subgroup) == stills.label_texts[n] for n in all_names] for row in rows])
    has_name, has_picture = in_group.any(dim=1), in_group.any(dim=0)
    if has_name.any():
        similarity_to_names = in_group[has_name][:, has_picture]
        losses["picture_name"] = 0.5 * info_nce(
            first[has_name], name[has_picture], similarity_to_names, settings.temperature
        )
    if num_latent_steps > 0:
        router_probs = torch.cat((picture_output.router_probs, text_output.router_probs))
        losses["balance"] = settings.balance_weight * balance_loss(router_probs)
    return losses


def item_values(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    """Plain numbers for the log."""
    return {name: round(value.item(), 4) for name, value in losses.items()}


def parse_settings(assignments: list[str]) -> Settings:
    """`["steps=100", "seed=1"]` -> Settings, each value of the type of its default.

    Raises:
        typer.BadParameter: no such setting, or a value of another type.
    """
    changes = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in asdict(Settings()):
            raise typer.BadParameter(f"no setting {name!r}; there are {', '.join(asdict(Settings()))}")
        try:
            changes[name] = type(getattr(Settings, name))(value)
        except ValueError as error:
            raise typer.BadParameter(f"{assignment}: {error}") from error
    return replace(Settings(), **changes)


def main(
    data: Annotated[Path, typer.Option(help="Folder that `python -m evaluation.miniature.build` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. --set steps=100 --set seed=1")
    ] = None,
    processes: Annotated[int, typer.Option(help="Data-parallel processes, one thread each.")] = 2,
) -> None:
    """Train it, e.g. `python -m training.stills --data .data/miniature --out checkpoints/plume-tiny-stills`."""
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(random.SystemRandom().randint(20000, 40000)))
    settings = parse_settings(set_ or [])
    torch.multiprocessing.spawn(train, args=(processes, data, out, settings), nprocs=processes)


if __name__ == "__main__":
    typer.run(main)
