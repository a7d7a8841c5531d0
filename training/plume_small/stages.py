"""The loop of every stage: batches by step, one loss, a log of curves, and a state that survives a kill."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from plume_embed.atomic import replacing
from plume_embed.training.log import append_log, cut_log
from training.plume_small.words import distillation_loss

BETAS, WEIGHT_DECAY, CLIP, WARM_UP = (0.9, 0.98), 0.01, 1.0, 100
CONTRAST_TEMPERATURE = 0.07


@dataclass(frozen=True)
class Stage:
    """One run of the optimizer.

    Attributes:
        name: Of its folder.
        steps: Of the optimizer.
        learning_rate: The highest one, after the warm-up; it falls to zero.
        shares: Kind of batch -> share of the steps.
        prompt: Whether the content stands in PLUME's prompt; otherwise one token follows it.
        num_latent_steps: The K to draw from by step: the last entry whose step has come.
        data_from: Number of the first batch, so that a later stage does not meet an earlier one's.
        contrast: Kinds whose batches are also told apart: weight of a symmetric InfoNCE of vectors and targets.
    """

    name: str
    steps: int
    learning_rate: float
    shares: dict[str, float]
    prompt: bool = True
    num_latent_steps: tuple[tuple[int, tuple[int, ...]], ...] = ((0, (0,)),)
    data_from: int = 0
    contrast: dict[str, float] = field(default_factory=dict)

    def kind(self, seed: int, step: int) -> str:
        """What the batch of a step holds."""
        return random.Random(f"kind {seed} {step + self.data_from}").choices(
            list(self.shares), list(self.shares.values())
        )[0]

    def latent_steps(self, seed: int, step: int) -> int:
        """K of a step."""
        numbers = [numbers for start, numbers in self.num_latent_steps if start <= step][-1]
        return random.Random(f"k {seed} {step + self.data_from}").choice(numbers)

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear up, linear down."""
        up, down = (step + 1) / WARM_UP, (self.steps - step) / max(1, self.steps - WARM_UP)
        return self.learning_rate * min(up, down, 1.0)


def contrast_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE of vectors and targets, unit norm [B, S], no two rows of which say the same."""
    logits, rows = made @ wanted.T / CONTRAST_TEMPERATURE, torch.arange(len(made), device=made.device)
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2


def origin_of(data: str, earlier: Sequence[Stage]) -> str:
    """What a stage's weights hang on beside its own settings: the data, and the stages before it.

    Args:
        data: Digest of what is trained on.
        earlier: The stages before it, in their order.
    """
    facts = (data, [asdict(stage) for stage in earlier])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def run_stage(
    stage: Stage,
    modules: dict[str, nn.Module],
    make: Callable[[str, int, int], tuple[torch.Tensor, torch.Tensor]],
    folder: Path,
    seed: int,
    validate: Callable[[int], dict[str, float]] = lambda num_latent_steps: {},
    save_every: int = 100,
    origin: str = "",
) -> None:
    """Trains the modules in place, or loads what an earlier run of the stage has left, and goes on from there.

    Writes `state.pt` and `log.jsonl` (a line every ten steps, one more at each validation).

    Args:
        modules: Whose parameters are trained where they want gradients; all are saved.
        make: (kind, step, K) -> vectors of a batch with gradients, and their targets, unit norm [B, S].
        validate: K -> figures for the log, taken whenever the state is saved.
        origin: See [`origin_of`].

    Raises:
        ValueError: the state is of other settings of the stage, of another origin, or older than that entry.
    """
    state_file = folder / "state.pt"
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=stage.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    start, spent = _resume(state_file, modules, optimizer, stage, origin)
    cut_log(folder, start)
    began, cosines = time.monotonic() - spent, defaultdict(list)
    for step in range(start, stage.steps):
        kind, num_latent_steps = stage.kind(seed, step), stage.latent_steps(seed, step)
        made, wanted = make(kind, step + stage.data_from, num_latent_steps)
        loss = distillation_loss(made, wanted)
        if kind in stage.contrast:
            loss = loss + stage.contrast[kind] * contrast_loss(made, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        for group in optimizer.param_groups:
            group["lr"] = stage.rate(step)
        optimizer.step()
        cosines[kind].append((made * wanted).sum(-1).mean().detach())
        done, seconds = step + 1, round(time.monotonic() - began, 1)
        if done % 10 == 0:
            means = {f"cosine_{name}": round(torch.stack(found).mean().item(), 4) for name, found in cosines.items()}
            entry = {"step": done, "seconds": seconds, "k": num_latent_steps, "loss": round(loss.item(), 4)}
            append_log(folder, entry | means)
            cosines.clear()
        if done % save_every == 0 or done == stage.steps:
            # In front of the state: what a kill leaves in the log without one is cut off, and both are made again.
            for number in stage.num_latent_steps[-1][1]:
                if figures := validate(number):
                    append_log(folder, {"step": done, "k": number, "validation": figures})
            entry = {"step": done, "seconds": seconds, "stage": asdict(stage), "origin": origin}
            _save(state_file, entry, modules, optimizer)


def load_finished(stage: Stage, modules: dict[str, nn.Module], folder: Path, origin: str = "") -> bool:
    """Loads what a stage has left, where it has ended; otherwise nothing is loaded.

    Args:
        origin: See [`origin_of`].

    Returns:
        Whether it has ended.

    Raises:
        ValueError: what is there is of other settings, of another origin, or older than that entry.
    """
    if not (folder / "state.pt").exists():
        return False
    state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
    if state["step"] != stage.steps:
        return False
    _check_stage(state, stage, origin, folder / "state.pt")
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    return True


def _resume(
    file: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, stage: Stage, origin: str
) -> tuple[int, float]:
    """Loads the state where there is one: the steps done and the seconds spent."""
    if not file.exists():
        return 0, 0.0
    state = torch.load(file, weights_only=True, map_location="cpu")
    _check_stage(state, stage, origin, file)
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    if state["step"] < stage.steps:
        optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]


def _check_stage(state: dict, stage: Stage, origin: str, file: Path) -> None:
    if "origin" not in state:
        reason = "is older than the note of what a stage was trained on"
    elif state["stage"] != asdict(stage):
        reason = "is of a stage with other settings"
    elif state["origin"] != origin:
        reason = "is of other data, or comes behind stages with other settings"
    else:
        return
    raise ValueError(f"{file} {reason}; remove its folder to train the stage anew.")


def _save(file: Path, entry: dict, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    states = {name: module.state_dict() for name, module in modules.items()}
    with replacing(file) as partial:
        torch.save(entry | {"modules": states, "optimizer": optimizer.state_dict()}, partial)
