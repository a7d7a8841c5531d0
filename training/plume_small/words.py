"""Texts in batches of one length, mixtures of class vectors that stand for pictures, and the loss of both."""

from __future__ import annotations

import random
from collections import defaultdict

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

BATCH, PICTURES = 128, 48
PLACES = 49
MAX_TOKENS = 40


class Words:
    """Texts by their number of tokens, and their vectors.

    Args:
        texts (`list[str]`), targets (`torch.Tensor` of shape [N, S]): Unit norm.
    """

    def __init__(self, texts: list[str], targets: torch.Tensor, tokenizer: PreTrainedTokenizerFast):
        self.ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        self.targets = targets
        by_length = defaultdict(list)
        for index, ids in enumerate(self.ids):
            if 1 <= len(ids) <= MAX_TOKENS:
                by_length[len(ids)].append(index)
        self.by_length = {length: rows for length, rows in by_length.items() if len(rows) >= 64}
        self.weights = [len(rows) for rows in self.by_length.values()]

    def batch(self, seed: int, step: int, size: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [B, n] of texts of one length, and their vectors [B, S]."""
        random_ = random.Random(f"words {seed} {step}")
        rows = random_.choices(list(self.by_length.values()), self.weights)[0]
        rows = random_.sample(rows, min(size, len(rows)))
        return torch.tensor([self.ids[row] for row in rows]), self.targets[rows].float()


def class_mixtures(table: torch.Tensor, seed: int, step: int, size: int = PICTURES) -> tuple[torch.Tensor, ...]:
    """Maps [B, 49, S] that one to four classes might leave, and the mean of each, unit norm [B, S].

    Each place is a mix of one class and of noise from three others: a tower is never sure.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    classes = torch.randint(len(table), (size, 4), generator=generator)
    kinds = torch.randint(1, 5, (size, 1), generator=generator)
    which = (torch.rand(size, PLACES, generator=generator) * kinds).long()  # [B, 49]
    main = classes.gather(1, which)
    noise = torch.randint(len(table), (size, PLACES, 3), generator=generator)
    share = torch.rand(size, PLACES, 1, generator=generator) ** 0.5 * torch.rand(size, 1, 1, generator=generator) ** 0.3
    weights = torch.rand(size, PLACES, 3, generator=generator) ** 2
    weights = weights / weights.sum(-1, keepdim=True)
    meanings = share * table[main] + (1 - share) * (weights.unsqueeze(-1) * table[noise]).sum(2)
    return meanings, F.normalize(meanings.mean(1), dim=-1)


def distillation_loss(made: torch.Tensor, wanted: torch.Tensor, temperature: float = 0.07) -> torch.Tensor:
    """2 (1 - cosine) + half the divergence of the batch's similarities, both unit norm [B, S]."""
    cosine = (made * wanted).sum(-1).mean()
    log_made = F.log_softmax(_off_diagonal(made @ made.T) / temperature, -1)
    log_wanted = F.log_softmax(_off_diagonal(wanted @ wanted.T) / temperature, -1)
    return 2 * (1 - cosine) + 0.5 * F.kl_div(log_made, log_wanted, log_target=True, reduction="batchmean")


def _off_diagonal(similarities: torch.Tensor) -> torch.Tensor:
    size = len(similarities)
    return similarities.flatten()[:-1].view(size - 1, size + 1)[:, 1:].reshape(size, size - 1)
