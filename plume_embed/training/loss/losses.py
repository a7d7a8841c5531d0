"""The losses. The one place that knows them."""

import torch
import torch.distributed as dist
import torch.nn.functional as F

# A logit that takes no part in a softmax; finite, so that a row of nothing else still has a gradient of zero.
_NEVER = -1e9


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, [B, ...] -> [W * B, ...], in the order of the ranks; the gradient reaches our own rows.

    Every process computes the loss of the whole batch, and the gradients of all processes are then *summed*: each
    process contributes what flows through its own rows.
    """
    if not dist.is_initialized():
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[dist.get_rank()] = rows
    return torch.cat(parts)


def info_nce(
    queries: torch.Tensor,
    targets: torch.Tensor,
    positives: torch.Tensor,
    temperature: float,
    ignored: torch.Tensor | None = None,
) -> torch.Tensor:
    """Bidirectional InfoNCE with in-batch negatives (paper, section 2), over embeddings of unit norm.

    Where a row has several positives, the loss is their mean log-probability, and none of them is a negative of
    another: each is compared with the true negatives and itself only. A target without a positive query, which is a
    negative that was given, counts from queries to targets and asks for no query of its own.

    Args:
        queries (`torch.Tensor` of shape [N, D]), targets (`torch.Tensor` of shape [M, D]): Embeddings.
        positives (`torch.Tensor` of shape [N, M]): Boolean, at least one true value in each row.
        temperature (`float`): 0.02 in the paper, that is a logit scale of 50.
        ignored (`torch.Tensor` of shape [N, M], *optional*): Boolean, pairs that are neither positive nor negative.
    """
    # In float32 whatever the rest runs in: a cosine in bfloat16 is off by up to 0.004, and so its logit by 0.2.
    with torch.autocast(queries.device.type, enabled=False):
        logits = queries.float() @ targets.float().T / temperature  # [N, M]
        if ignored is not None:
            logits = logits.masked_fill(ignored & ~positives, _NEVER)
        asked = positives.any(dim=0)  # [M], targets that some query should find
        return (_one_way(logits, positives) + _one_way(logits.T[asked], positives.T[asked])) / 2


def _one_way(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    negatives = logits.masked_fill(positives, -torch.inf).logsumexp(dim=1, keepdim=True)  # [N, 1]
    losses = F.softplus(negatives - logits)  # -log(e^pos / (e^pos + sum of e^neg)), at every position
    return ((losses * positives).sum(dim=1) / positives.sum(dim=1)).mean()


def balance_loss(router_probs: torch.Tensor) -> torch.Tensor:
    """L_bal = mean over the experts m of (pibar_m - 1/Me)^2, pibar averaged over batch and steps (paper, section 2).

    Args:
        router_probs (`torch.Tensor` of shape [B, K, Me]): Routing probabilities of the rollout. Each process counts
            alike, however many rows it has.
    """
    mass = gather_rows(router_probs.mean(dim=(0, 1), keepdim=True)).mean(dim=(0, 1))  # [Me], over all processes
    return (mass - 1 / len(mass)).square().mean()
