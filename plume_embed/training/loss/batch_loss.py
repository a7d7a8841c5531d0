"""The loss of a batch: L = L_CE + lambda_gen L_NCE(e_gen) + lambda_anc L_NCE(e_anc) + lambda_bal L_bal (paper)."""

from dataclasses import dataclass

import torch
import torch.distributed as dist

from plume_embed.training.loss.losses import balance_loss, gather_rows, info_nce
from plume_embed.training.objective import SideBatch, SideOutput


@dataclass(frozen=True)
class LossWeights:
    """Weights and temperature of the loss, the paper's by default.

    Args:
        temperature (`float`): Of InfoNCE.
        cross_entropy, gen, anchor, balance (`float`): lambda of each term.
    """

    temperature: float = 0.02
    cross_entropy: float = 1.0
    gen: float = 1.0
    anchor: float = 1.0
    balance: float = 0.1


@dataclass
class TrainingBatch:
    """One optimiser step on one process.

    Args:
        queries, targets (`list[SideBatch]`): The rows of each side, in chunks that run one after the other; with one
            chunk a side the gradient is computed directly, with more through the cache of `grad_cache.py`.
        target_of_query (`torch.Tensor` of shape [N]): Index into the rows of `targets`; equal targets are encoded once.
        target_keys (`torch.Tensor` of shape [N]): int64, equal where two queries have equal targets, on any process.
        num_latent_steps (`int`): K of this step.
    """

    queries: list[SideBatch]
    targets: list[SideBatch]
    target_of_query: torch.Tensor
    target_keys: torch.Tensor
    num_latent_steps: int

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The same batch on another device."""
        return TrainingBatch(
            [side.to(device) for side in self.queries],
            [side.to(device) for side in self.targets],
            self.target_of_query.to(device),
            self.target_keys.to(device),
            self.num_latent_steps,
        )

    @property
    def suffix_tokens(self) -> int:
        """Supervised tokens on both sides of this process, padding left out."""
        lengths = [side.suffix_lengths for side in self.queries + self.targets if side.suffix_lengths is not None]
        return int(sum(length.sum() for length in lengths))


def join(outputs: list[SideOutput]) -> SideOutput:
    """The rows of several chunks as one."""
    probs = [output.router_probs for output in outputs if output.router_probs is not None]
    return SideOutput(
        gen=torch.cat([output.gen for output in outputs]),
        anchor=torch.cat([output.anchor for output in outputs]),
        token_losses=torch.cat([output.token_losses for output in outputs]),
        router_probs=torch.cat(probs) if probs else None,
    )


def batch_losses(
    queries: SideOutput, targets: SideOutput, batch: TrainingBatch, weights: LossWeights
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss to call backward on, and its terms by name (without their weights), detached.

    Queries with equal targets are positives of each other's targets, never negatives. Cross-entropy is the mean over
    all supervised tokens of both sides, balance is taken over the routing mass of all rows; both on all W processes.
    Each process holds the loss of the whole batch, but only the gradient through its own rows, and DDP averages the
    gradients: what backward is called on is therefore W times the loss.

    Args:
        queries, targets ([`SideOutput`]): All rows of this process, from [`join`].
        batch ([`TrainingBatch`]): Which rows belong together.

    Returns:
        W times the loss, the same number on every process; and the terms.
    """
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    keys = gather_rows(batch.target_keys)  # [W * N]
    positives = keys.unsqueeze(1) == keys.unsqueeze(0)  # [W * N, W * N]
    terms = {
        f"nce_{name}": info_nce(
            gather_rows(query), gather_rows(target[batch.target_of_query]), positives, weights.temperature
        )
        for name, query, target in (
            ("gen", queries.gen, targets.gen),
            ("anchor", queries.anchor, targets.anchor),
        )
    }
    loss = weights.gen * terms["nce_gen"] + weights.anchor * terms["nce_anchor"]
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
    return world_size * loss, {name: term.detach() for name, term in terms.items()}
