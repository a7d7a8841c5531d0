"""Ranks of models, and of peers whose vectors are stored, on the benchmark of photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.embedders import Embedder, check_names
from plume_embed.evaluation.photos.benchmark import RankingTask
from plume_embed.evaluation.photos.report import Contestant
from plume_embed.stored import naming, read_arrays

PEERS = "peers"


def evaluate(
    tasks: Sequence[RankingTask],
    embedders: Sequence[Embedder],
    batch_size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Contestant]:
    """Ranks of embedders; one that does not take pictures ranks nothing.

    Raises:
        InputError: an input that cannot be embedded.
        ValueError: two models that a table could not tell apart.
    """
    check_names(embedders)
    queries, candidates = (
        {_key(item): item for task in tasks for item in items(task)}
        for items in (lambda task: task.queries, lambda task: task.candidates)
    )
    both, done, found = queries | candidates, 0, []
    is_one_way = [embedder.documents is embedder for embedder in embedders]
    total = sum(len(both) if alike else len(queries) + len(candidates) for alike in is_one_way)

    def embed(embedder: Embedder, inputs: dict[str, dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
        nonlocal done
        keys, vectors = list(inputs), {}
        for start in range(0, len(keys), 4 * batch_size):
            part = keys[start : start + 4 * batch_size]
            vectors |= dict(zip(part, embedder.embed([inputs[key] for key in part], batch_size), strict=True))
            done += len(part)
            on_progress(done, total)
        return vectors

    for embedder, alike in zip(embedders, is_one_way, strict=True):
        of_queries = embed(embedder, both if alike else queries)
        of_candidates = of_queries if alike else embed(embedder.documents, candidates)
        ranks = _all_ranks(tasks, of_queries, of_candidates)
        facts = (embedder.num_latent_steps, ranks, embedder.paradigm, embedder.fingerprint)
        found.append(Contestant(embedder.name, *facts))
    return found


def stored_peers(tasks: Sequence[RankingTask], data: Path) -> list[Contestant]:
    """Peers whose vectors lie in `data/peers/NAME.npz`: `keys`, [N] strings, and `vectors`, [N, D] of unit norm.

    A key is "text: ..." or "image: FILE", the file as `photos.json` names it. A task for which a peer lacks a vector is
    left out of its scores.

    Raises:
        ValueError: a file that is damaged or of another form.
    """
    found = []
    for file in sorted((data / PEERS).glob("*.npz")):
        keys, rows = read_arrays(file, "keys", "vectors")
        with naming(file):
            if rows.ndim != 2 or rows.dtype.kind != "f" or not np.isfinite(rows).all():
                raise ValueError("vectors must be [N, D], real and finite")
            vectors = dict(zip(keys.tolist(), rows, strict=True))
            vectors = {_key_in(data, key): vector for key, vector in vectors.items()}
        found.append(Contestant(file.stem, None, _all_ranks(tasks, vectors, vectors)))
    return found


def _all_ranks(
    tasks: Sequence[RankingTask], queries: dict[str, NDArray[np.float32]], candidates: dict[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.int64]]:
    ranks = {}
    for task in tasks:
        keys = ([_key(item) for item in items] for items in (task.queries, task.candidates))
        sides = list(zip(keys, (queries, candidates), strict=True))
        if all(key in vectors for keys, vectors in sides for key in keys):
            ranks[task.name] = task.ranks(*(np.stack([vectors[key] for key in keys]) for keys, vectors in sides))
    return ranks


def _key_in(data: Path, stored: str) -> str:
    """A stored key as [`_key`] has it of a task that was read from `data`."""
    kind, _, value = stored.partition(": ")
    return f"{kind}: {data / value}" if kind == "image" else stored


def _key(item: dict[str, Any]) -> str:
    kind, value = next(iter(item.items()))
    return f"{kind}: {value}"
