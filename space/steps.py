"""What the latent steps are worth for one query: other numbers of steps, and latents that were tampered with."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import BatchFeature

from plume_embed.encode.encoder import Encoder
from space.trace import Change, Trace, finish, trace_query

NOISE_SEED = 0


@dataclass(frozen=True)
class Intervention:
    """The same query with something done to its latents.

    Args:
        name (`str`): For people.
        note (`str`): What was done.
        vector (`np.ndarray` of shape [D]): The embedding that comes of it, unit norm.
    """

    name: str
    note: str
    vector: np.ndarray


def interventions(
    encoder: Encoder, batch: BatchFeature, original: Trace, other: Trace
) -> Generator[Intervention, None, None]:
    """The latents as they are, as noise of their norm, and as those of another query, one after another.

    Args:
        encoder ([`Encoder`])
        batch (`BatchFeature`): One row from PlumeProcessor.
        original ([`Trace`]): Of that row, K >= 1.
        other ([`Trace`]): Of another query, with the same K.

    Raises:
        ValueError: there are no latents, or not the same number of them.
    """
    steps = original.num_latent_steps
    if not steps or other.num_latent_steps != steps:
        raise ValueError(
            f"Both queries need the same number of latent steps, got {steps} and {other.num_latent_steps}."
        )
    yield Intervention("As computed", f"K = {steps}, nothing was changed.", original.embedding)
    for name, note, change in (
        ("Noise", "Every latent is replaced by Gaussian noise of its norm.", _noise()),
        ("Another query's latents", "Every latent is replaced by that of another prepared query.", _swap(other)),
    ):
        yield Intervention(name, note, finish(trace_query(encoder, batch, steps, change)).embedding)


def _noise() -> Change:
    generator = torch.Generator().manual_seed(NOISE_SEED)

    def change(z: torch.Tensor, step: int) -> torch.Tensor:
        noise = torch.randn(z.shape, generator=generator).to(z)
        return noise * (z.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))

    return change


def _swap(other: Trace) -> Change:
    states = torch.from_numpy(other.states)
    return lambda z, step: states[step : step + 1].to(z)
