"""Do the latent steps carry anything? Causal tests: their inputs are replaced, and the embedding is read again.

A latent step is an input embedding z~(k-1) at one more position. The K inputs of a rollout are recorded, exchanged for
others, and fed in one pass; with the inputs as they were, this gives the states and the embedding of the rollout
itself. What survives the exchange was not in the latents: the prefix, the positions or the suffix have it.

Beside that: what is read off at the anchor, at z(0), at z(k) instead of the embedding, and how alike the states are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from plume_embed.model.modeling_plume import PlumeModel, PlumePrefix
from plume_embed.model.positions_plume import latent_positions
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.training.latents.branches import behind

BATCH = 64
SEED = 0
# What the inputs of the steps are exchanged for, in the order of the tables.
REPLACEMENTS = {
    "as they are": "the rollout's own inputs, in one pass",
    "other order": "each query's own inputs, dealt anew to the steps, none to its own",
    "noise": "Gaussian noise of each input's norm",
    "another query": "the inputs of another query",
    "mean of the step": "at each step the mean over all queries",
    "position only": "at all steps one vector, the mean over queries and steps",
}


@dataclass(frozen=True)
class Rollouts:
    """The rollouts of N queries, on the CPU in float32.

    Args:
        inputs (`torch.Tensor` of shape [N, K, D]): z~(0) to z~(K-1), what the backbone was given at each step.
        states (`torch.Tensor` of shape [N, K + 1, D]): z(0) to z(K).
        anchors (`torch.Tensor` of shape [N, D]): e_anc, of unit norm.
        embeddings (`torch.Tensor` of shape [N, D]): e_gen, of unit norm.
        after_step (`torch.Tensor` of shape [N, K + 1, D]): What the model gives with 0 to K steps: z(0), then the
            state at `<gen_emb>`; of unit norm.
    """

    inputs: torch.Tensor
    states: torch.Tensor
    anchors: torch.Tensor
    embeddings: torch.Tensor
    after_step: torch.Tensor

    def read_outs(self) -> dict[str, torch.Tensor]:
        """The embedding and what could be read instead, [N, D] of unit norm by name, in the order of the rollout."""
        states = F.normalize(self.states, dim=-1)
        steps = {f"z({k})": states[:, k] for k in range(states.shape[1])}
        return {"anchor": self.anchors, **steps, "embedding": self.embeddings}


def _batches(items: Sequence[Any], model: PlumeModel, processor: PlumeProcessor) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(items), BATCH):
        yield processor(list(items[start : start + BATCH])).to(model.device)


@torch.inference_mode()
def record(model: PlumeModel, processor: PlumeProcessor, items: Sequence[Any], num_latent_steps: int) -> Rollouts:
    """Runs the rollouts of items and keeps what happened.

    Args:
        model ([`PlumeModel`]): In eval mode.
        items: Anything that the processor takes.
        num_latent_steps (`int`): K; with 0 the embedding is z(0).
    """
    found: list[tuple[torch.Tensor, ...]] = []
    for batch in _batches(items, model, processor):
        prefix = model.prefix(**batch)
        states = [prefix.z0, *model.latents(prefix, num_latent_steps)[0]]  # K + 1 times [B, D]
        inputs = [
            model.adapter(z, prefix.anchor, prefix.z0, step)[0] for step, z in enumerate(states[:num_latent_steps], 1)
        ]
        read = [model.suffix(behind(prefix, k), k)[:, -1] for k in range(1, num_latent_steps + 1)]
        after_step = F.normalize(torch.stack([prefix.z0, *read], dim=1).float(), dim=-1)  # [B, K + 1, D]
        z = torch.stack(states, dim=1).float()
        kept = torch.stack(inputs, dim=1).float() if inputs else z[:, :0]
        parts = (kept, z, F.normalize(prefix.anchor.float(), dim=-1), after_step[:, -1], after_step)
        found.append(tuple(part.cpu() for part in parts))
    return Rollouts(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def run_inputs(model: PlumeModel, prefix: PlumePrefix, inputs: torch.Tensor) -> torch.Tensor:
    """States [B, K, D] at K positions behind a prefix, all given their inputs at once; the cache then holds all K.

    Args:
        prefix ([`PlumePrefix`]): Its cache holds the prefix and nothing else.
        inputs (`torch.Tensor` of shape [B, K, D]): What stands there instead of z~(0) to z~(K-1).
    """
    where = (model.config.position_mode, prefix.start_position, prefix.length)
    positions = torch.cat([latent_positions(*where, step) for step in range(1, inputs.shape[1] + 1)], dim=-1)
    return model.extend(prefix, inputs.to(prefix.z0.dtype), positions, num_cached_steps=0)


def replaced(inputs: torch.Tensor, others: torch.Tensor) -> dict[str, torch.Tensor]:
    """The inputs of all queries by [`REPLACEMENTS`], [N, K, D] each; what is random is drawn by `SEED`.

    Args:
        inputs (`torch.Tensor` of shape [N, K, D]): As recorded.
        others (`torch.Tensor` of shape [N]): For each query the place of another one, from [`other_queries`].

    Raises:
        ValueError: a single step, which has no other order.
    """
    count, steps = inputs.shape[:2]
    if steps < 2:
        raise ValueError("The causal tests need at least two latent steps.")
    generator = torch.Generator().manual_seed(SEED)
    order = torch.stack([_derangement(steps, generator) for _ in range(count)])  # [N, K]
    noise = torch.randn(inputs.shape, generator=generator)
    return {
        "as they are": inputs,
        "other order": inputs.gather(1, order.unsqueeze(-1).expand_as(inputs)),
        "noise": noise * inputs.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True),
        "another query": inputs[others],
        "mean of the step": inputs.mean(dim=0, keepdim=True).expand_as(inputs),
        "position only": inputs.mean(dim=(0, 1), keepdim=True).expand_as(inputs),
    }


def other_queries(gold: Sequence[Sequence[int]], pools: Sequence[Sequence[int]] | None = None) -> torch.Tensor:
    """For each query the place of the next one, cyclically, whose first right candidate is a wrong one of its own.

    Args:
        gold: For each query its right candidates.
        pools (*optional*): For each query the candidates that it is ranked against. The other's answer is among them,
            so that it can move along, where there is such a query.

    Raises:
        ValueError: a query has no other with another answer.
    """
    count, found = len(gold), []
    for place, own in enumerate(gold):
        behind = [(place + step) % count for step in range(1, count)]
        different = [other for other in behind if gold[other][0] not in own]
        if not different:
            raise ValueError(
                "A query has no other with another answer to borrow from; where all have one gold candidate, none has."
            )
        pool = None if pools is None else {*pools[place]}
        inside = (other for other in different if pool is None or gold[other][0] in pool)
        found.append(next(inside, different[0]))
    return torch.tensor(found)


def _derangement(count: int, generator: torch.Generator) -> torch.Tensor:
    while True:
        order = torch.randperm(count, generator=generator)
        if not (order == torch.arange(count)).any():
            return order


@torch.inference_mode()
def embed_with(
    model: PlumeModel, processor: PlumeProcessor, items: Sequence[Any], inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Embeddings [N, D] of items whose steps are given these inputs, by the name of the inputs; a prefix runs once.

    Args:
        model ([`PlumeModel`]): In eval mode.
        inputs (`Mapping[str, torch.Tensor]`): [N, K, D] each, from [`replaced`].
    """
    found: dict[str, list[torch.Tensor]] = {name: [] for name in inputs}
    for number, batch in enumerate(_batches(items, model, processor)):
        prefix = model.prefix(**batch)
        rows = slice(number * BATCH, number * BATCH + len(prefix.z0))
        for name, given in inputs.items():
            own = behind(prefix, 0)
            run_inputs(model, own, given[rows].to(model.device))
            gen = model.suffix(own, given.shape[1])[:, -1]
            found[name].append(F.normalize(gen.float(), dim=-1).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def similarities(states: torch.Tensor) -> dict[str, list]:
    """How alike the states of a rollout are, as cosines: have they collapsed into one?

    Args:
        states (`torch.Tensor` of shape [N, K + 1, D]): z(0) to z(K).

    Returns:
        `between_steps` [K + 1, K + 1], means over the queries; `between_steps_centred`, the same less what all queries
        have in common at each step; `between_queries` [K + 1], means over pairs of queries at each step.
    """
    count = len(states)
    unit = F.normalize(states, dim=-1)
    centred = F.normalize(states - states.mean(dim=0, keepdim=True), dim=-1)
    pairs = (unit.sum(dim=0).square().sum(dim=-1) - count) / (count * (count - 1))  # [K + 1], all pairs at once
    return {
        "between_steps": torch.einsum("njd,nkd->jk", unit, unit).div(count).tolist(),
        "between_steps_centred": torch.einsum("njd,nkd->jk", centred, centred).div(count).tolist(),
        "between_queries": pairs.tolist(),
    }
