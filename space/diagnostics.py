"""The numbers of the tab "Diagnostics", without any drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from space.trace import normalized


@dataclass(frozen=True)
class Choice:
    """An expert that a latent step chose, and its routing weight, which is not renormalised (paper, section 3.3)."""

    expert: int
    weight: float


@dataclass(frozen=True)
class RankChange:
    """A candidate's place by the anchor and by the embedding.

    Args:
        index (`int`): Of the candidate.
        anchor_rank, final_rank (`int`): From 1.
        anchor_score, final_score (`float`): Cosines.
    """

    index: int
    anchor_rank: int
    final_rank: int
    anchor_score: float
    final_score: float


def trajectories(states: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Cosines of each state to each candidate.

    Args:
        states (`np.ndarray` of shape [K, D]): Of any length but zero.
        candidates (`np.ndarray` of shape [C, D]): Likewise.

    Returns:
        `np.ndarray` of shape [C, K].
    """
    return normalized(candidates) @ normalized(states).T


def chosen_experts(router_probs: np.ndarray, num_experts_per_tok: int) -> list[list[Choice]]:
    """The top Kr routed experts of each step, heaviest first; experts count from 0.

    Args:
        router_probs (`np.ndarray` of shape [K, Me])
        num_experts_per_tok (`int`): Kr.
    """
    order = np.argsort(-router_probs, axis=1, kind="stable")[:, :num_experts_per_tok]
    return [
        [Choice(int(expert), float(router_probs[step, expert])) for expert in experts]
        for step, experts in enumerate(order)
    ]


def rank_changes(anchor: np.ndarray, embedding: np.ndarray, candidates: np.ndarray, top: int) -> list[RankChange]:
    """Both rankings over the same candidates: every one that is among the first `top` of either, by its final rank.

    Args:
        anchor, embedding (`np.ndarray` of shape [D]): Unit norm.
        candidates (`np.ndarray` of shape [C, D]): Unit norm; all of them, for ranks that are true.
        top (`int`)
    """
    anchor_scores, final_scores = candidates @ anchor, candidates @ embedding
    anchor_ranks, final_ranks = ranks(anchor_scores), ranks(final_scores)
    shown = [index for index in range(len(candidates)) if min(anchor_ranks[index], final_ranks[index]) <= top]
    shown.sort(key=lambda index: final_ranks[index])
    return [
        RankChange(
            index,
            int(anchor_ranks[index]),
            int(final_ranks[index]),
            float(anchor_scores[index]),
            float(final_scores[index]),
        )
        for index in shown
    ]


def ranks(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """Places from 1, the highest score first; ties in their order."""
    places = np.empty(len(scores), dtype=int)
    places[np.argsort(-np.asarray(scores), kind="stable")] = np.arange(1, len(scores) + 1)
    return places


def changed_among_first(before: Sequence[int], after: Sequence[int], top: int) -> int:
    """How many of the first `top` of one ranking are not among the first `top` of another; entries are indices."""
    return len(set(after[:top]) - set(before[:top]))


def summary(changes: Sequence[RankChange], top: int) -> str:
    """One sentence about what the steps did to the ranking; `changes` are of [`rank_changes`] for the same `top`."""
    final = [change for change in changes if change.final_rank <= top]
    new = sum(change.anchor_rank > top for change in final)
    best = min(changes, key=lambda change: change.final_rank)
    effect = f"The steps changed {new} of the first {len(final)} results"
    if new == 0:
        same_order = all(change.anchor_rank == change.final_rank for change in final)
        effect = (
            f"The steps changed {'nothing' if same_order else 'only the order'} among the first {len(final)} results"
        )
    if best.anchor_rank == 1:
        return f"{effect}; the anchor alone already ranked the best one first."
    return f"{effect}; by the anchor alone the best one was at rank {best.anchor_rank:,}."
