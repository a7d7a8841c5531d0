"""The loss of a batch: L = L_CE + lambda_gen L_NCE(e_gen) + lambda_anc L_NCE(e_anc) + lambda_bal L_bal (paper)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F

from plume_embed.training.latents.traces import TraceLosses
from plume_embed.training.loss.losses import balance_loss, gather_rows, info_nce
from plume_embed.training.objective import SideBatch, SideOutput


@dataclass(frozen=True)
class LossWeights:
    """Weights and temperature of the loss, the paper's by default.

    Args:
        temperature (`float`): Of InfoNCE.
        cross_entropy, gen, anchor, balance (`float`): lambda of each term.
        dimensions (`tuple[int]`): Matryoshka (arXiv 2205.13147): InfoNCE is the mean over the whole embedding and its
            first so many dimensions, each of unit norm; () is the whole embedding alone.
        false_negative_margin (`float`, *optional*): A target that is nearer to a query than the query's own positive
            by more than this difference of cosines (0 to 2), as the model sees it now, is no negative of it. `None`:
            all are.
        distil (`float`): Of the distance between latent steps and the explicit trace (`latents/traces.py`).
        distil_to (`str`): What that distance is of: "all", the "steps" or the "embedding" alone.
        rehearse (`bool`): Where `distil` is above 0, whether the explicit trace is trained as text in every stage with
            steps, so that it stays a skill.
        decode (`float`): Of reading each part of the replaced text from its latent step alone (`latents/traces.py`).
    """

    temperature: float = 0.02
    cross_entropy: float = 1.0
    gen: float = 1.0
    anchor: float = 1.0
    balance: float = 0.1
    dimensions: tuple[int, ...] = ()
    false_negative_margin: float | None = None
    distil: float = 0.0
    distil_to: Literal["all", "steps", "embedding"] = "all"
    rehearse: bool = True
    decode: float = 0.0

    def __post_init__(self):
        if self.distil_to not in ("all", "steps", "embedding"):
            raise ValueError(f"loss.distil_to is all, steps or embedding, got {self.distil_to!r}.")
        if self.distil == 0 and (self.distil_to != "all" or not self.rehearse):
            raise ValueError(
                "loss.distil_to and loss.rehearse are parts of loss.distil, which is 0; set it, such as 1.0."
            )

    @property
    def of_traces(self) -> TraceLosses:
        """What these weights ask of the explicit traces."""
        return TraceLosses(self.distil > 0, self.decode > 0, self.rehearse, self.distil_to)


@dataclass
class TrainingBatch:
    """One optimiser step on one process.

    Args:
        queries, targets (`list[SideBatch]`): The rows of each side, in chunks that run one after the other; with one
            chunk a side the gradient is computed directly, with more through the cache of `grad_cache.py`.
        target_of_query (`torch.Tensor` of shape [N]): Index into the rows of `targets`; equal targets are encoded once.
        target_keys (`torch.Tensor` of shape [N]): int64, equal where two queries have equal targets, on any process.
        num_latent_steps (`int`): K of this step.
        early_steps (`tuple[int]`): Smaller numbers of steps, behind which the contrastive loss is read as well.
        query_keys (`torch.Tensor` of shape [N], *optional*): int64, the keys of the queries themselves: a target that
            equals a query is no negative of it.
        question_keys (`torch.Tensor` of shape [N], *optional*): int64, the keys of the queries with their instructions:
            what answers a question answers all that equal it.
        negatives (`torch.Tensor` of shape [N, G], *optional*): Indices into the rows of `targets`: what each query
            should not find. G is the same on every process; -1 is not there.
        negative_keys (`torch.Tensor` of shape [N, G], *optional*): Keys of the negatives.
    """

    queries: list[SideBatch]
    targets: list[SideBatch]
    target_of_query: torch.Tensor
    target_keys: torch.Tensor
    num_latent_steps: int
    query_keys: torch.Tensor | None = None
    negatives: torch.Tensor | None = None
    negative_keys: torch.Tensor | None = None
    question_keys: torch.Tensor | None = None
    early_steps: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The same batch on another device."""
        keys = (self.query_keys, self.negatives, self.negative_keys, self.question_keys)
        return TrainingBatch(
            [side.to(device) for side in self.queries],
            [side.to(device) for side in self.targets],
            self.target_of_query.to(device),
            self.target_keys.to(device),
            self.num_latent_steps,
            *(None if t is None else t.to(device) for t in keys),
            early_steps=self.early_steps,
        )

    @property
    def suffix_tokens(self) -> int:
        """Supervised tokens on both sides of this process, padding left out."""
        return int(sum(side.supervised_tokens.sum() for side in self.queries + self.targets))


def join(outputs: list[SideOutput]) -> SideOutput:
    """The rows of several chunks as one."""
    joined = []
    for parts in zip(*(output.tensors() for output in outputs), strict=True):
        there = [part for part in parts if part is not None]
        joined.append(torch.cat(there) if there else None)
    return SideOutput(*joined)


def batch_losses(
    queries: SideOutput, targets: SideOutput, batch: TrainingBatch, weights: LossWeights
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss to call backward on, and its terms by name (without their weights), detached.

    Queries with equal targets are positives of each other's targets, never negatives. Cross-entropy is the mean over
    all supervised tokens of both sides, balance is taken over the routing mass of all rows; both on all W processes.
    Where a task encodes equal targets once, it does so for each process on its own: those rows, and so these two terms,
    are then not quite those of a single process.
    Each process holds the loss of the whole batch, but only the gradient through its own rows, and DDP averages the
    gradients: what backward is called on is therefore W times the loss.

    Args:
        queries, targets ([`SideOutput`]): All rows of this process, from [`join`].
        batch ([`TrainingBatch`]): Which rows belong together.

    Returns:
        W times the loss, the same number on every process; and the terms.
    """
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    pool = _Pool(batch)
    terms = {
        f"nce_{name}": _contrastive(gather_rows(query), pool.rows(target), pool, weights)
        for name, query, target in (("gen", queries.gen, targets.gen), ("anchor", queries.anchor, targets.anchor))
    }
    gen_losses = [terms["nce_gen"], *_early_losses(queries, targets, pool, weights)]
    if len(gen_losses) > 1:
        terms["nce_early"] = torch.stack(gen_losses[1:]).mean()
    loss = weights.gen * torch.stack(gen_losses).mean() + weights.anchor * terms["nce_anchor"]
    token_losses = torch.cat((queries.token_losses, targets.token_losses)).sum()
    tokens = gather_rows(token_losses.new_tensor([batch.suffix_tokens])).sum()
    if tokens > 0:
        terms["ce"] = gather_rows(token_losses.unsqueeze(0)).sum() / tokens
        loss = loss + weights.cross_entropy * terms["ce"]
    probs = [side.router_probs for side in (queries, targets) if side.router_probs is not None]
    if probs:
        probs = torch.cat(probs)  # [rows, K, Me]
        terms["balance"] = balance_loss(probs)
        terms["router_entropy"] = -(probs * probs.clamp_min(1e-12).log()).sum(dim=-1).mean()  # of this process
        loss = loss + weights.balance * terms["balance"]
    for name, weight in (("distil", weights.distil), ("decode", weights.decode)):
        found = [rows for rows in (vars(queries)[name], vars(targets)[name]) if rows is not None]
        if found:
            rows = torch.cat(found)  # not equally many on every process
            sums = gather_rows(torch.stack((rows.sum(), rows.new_tensor(len(rows)))).unsqueeze(0)).sum(dim=0)  # [2]
            terms[name] = sums[0] / sums[1]
            loss = loss + weight * terms[name]
    return world_size * loss, {name: term.detach() for name, term in terms.items()}


def _early_losses(queries: SideOutput, targets: SideOutput, pool: "_Pool", weights: LossWeights) -> list[torch.Tensor]:
    """InfoNCE after each of the smaller numbers of steps: against targets after as many, or in a single pass."""
    if queries.early is None:
        return []
    steps = queries.early.unbind(dim=1)  # R times [N, D]
    others = [targets.gen] * len(steps) if targets.early is None else targets.early.unbind(dim=1)
    return [
        _contrastive(gather_rows(query), pool.rows(target), pool, weights)
        for query, target in zip(steps, others, strict=True)
    ]


class _Pool:
    """What the queries of all processes choose from: every query's target, then the negatives that were given.

    Args:
        batch ([`TrainingBatch`]): Of this process.
    """

    def __init__(self, batch: TrainingBatch):
        self._target_of_query, self._negatives = batch.target_of_query, batch.negatives
        own = gather_rows(batch.target_keys)  # [W * N]
        keys, there = own, torch.ones_like(own, dtype=torch.bool)
        if batch.negatives is not None:
            keys = torch.cat((keys, gather_rows(batch.negative_keys).flatten()))  # [W * N * (1 + G)]
            there = torch.cat((there, gather_rows(batch.negatives).flatten() >= 0))
        self.positives = (own.unsqueeze(1) == keys.unsqueeze(0)) & there  # [W * N, M]
        ignored = ~there.expand_as(self.positives)
        if batch.question_keys is not None:
            asked = gather_rows(batch.question_keys).unsqueeze(1)  # [W * N, 1]
            self.positives = (asked == asked.T).float() @ self.positives.float() > 0  # of all questions that are equal
        if batch.query_keys is not None:
            ignored = ignored | (gather_rows(batch.query_keys).unsqueeze(1) == keys.unsqueeze(0))
        self.ignored = ignored if ignored.any() else None

    def rows(self, targets: torch.Tensor) -> torch.Tensor:
        """The embeddings [M, D] of the pool, from those of this process's targets."""
        own = gather_rows(targets[self._target_of_query])
        if self._negatives is None:
            return own
        given = targets[self._negatives.clamp_min(0)]  # [N, G, D]
        return torch.cat((own, gather_rows(given).flatten(0, 1)))


def _contrastive(queries: torch.Tensor, targets: torch.Tensor, pool: _Pool, weights: LossWeights) -> torch.Tensor:
    """InfoNCE over the whole embedding and its first dimensions (Matryoshka), false negatives left out."""
    ignored = pool.ignored
    if weights.false_negative_margin is not None:
        # In float32 like the loss itself, in mixed precision too: those of bfloat16 are too coarse for the margin.
        with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
            cosines = queries.float() @ targets.float().T
            nearest = cosines.masked_fill(~pool.positives, -1.0).amax(dim=1, keepdim=True)
            false = cosines > nearest + weights.false_negative_margin
        ignored = false if ignored is None else ignored | false
    too_long = [size for size in weights.dimensions if not 0 < size < queries.shape[1]]
    if too_long:
        raise ValueError(f"loss.dimensions must lie in 1..{queries.shape[1] - 1}, got {too_long[0]}.")
    losses = [info_nce(queries, targets, pool.positives, weights.temperature, ignored)]
    for size in weights.dimensions:
        shorter = (F.normalize(rows[:, :size].float(), dim=-1) for rows in (queries, targets))
        losses.append(info_nce(*shorter, pool.positives, weights.temperature, ignored))
    return torch.stack(losses).mean()
