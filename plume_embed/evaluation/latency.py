"""How long one item takes: several models in turn over the same items, in one process, warm."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from plume_embed.evaluation.embedders import Embedder

ROUNDS = 3
NUM_ITEMS = 32


def ms_per_item(
    embedders: Sequence[Embedder], items: Sequence[dict[str, Any]], batch_sizes: Sequence[int], rounds: int = ROUNDS
) -> list[dict[int, float]]:
    """Milliseconds by the clock, processing and model, for each model and batch size: the median over the rounds.

    Each round measures every model once, so that a machine that is busy for a while slows all of them. The first batch
    of each is not counted. Batches are embedded one after the other as they stand: nothing runs ahead.

    Args:
        embedders: The models; they must take the items.
        items: What is embedded, media decoded.
        batch_sizes: Items of a batch, e.g. 1 and 32.
        rounds: How often everything is measured.
    """
    times: list[dict[int, list[float]]] = [{size: [] for size in batch_sizes} for _ in embedders]
    for embedder in embedders:
        for size in batch_sizes:
            embedder.embed(items[:size], size)
    for _ in range(rounds):
        for embedder, of_model in zip(embedders, times, strict=True):
            for size in batch_sizes:
                begun = time.perf_counter()
                for start in range(0, len(items), size):
                    embedder.embed(items[start : start + size], size)
                of_model[size].append(1000 * (time.perf_counter() - begun) / len(items))
    return [{size: statistics.median(found) for size, found in of_model.items()} for of_model in times]
