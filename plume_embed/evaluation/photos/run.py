"""Ranks of models, and of peers whose vectors are stored, on the benchmark of photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.embedders import Embedder, InputError, check_names
from plume_embed.evaluation.photos.benchmark import RankingTask
from plume_embed.evaluation.photos.report import Contestant
from plume_embed.evaluation.similarity import unfit
from plume_embed.stored import naming, read_arrays

PEERS = "peers"


def evaluate(
    tasks: Sequence[RankingTask],
    embedders: Sequence[Embedder],
    batch_size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Contestant]:
    """Ranks of embedders; a task of a kind that a model does not take (pictures, for a text model) is left out of its.

    Raises:
        InputError: an input that cannot be embedded.
        ValueError: two models that a table could not tell apart.
    """
    check_names(embedders)
    chosen = [[task for task in tasks if _takes(embedder, task)] for embedder in embedders]
    sides = [_sides(embedder, of_model) for embedder, of_model in zip(embedders, chosen, strict=True)]
    done, total = 0, sum(len(inputs) for of_model in sides for _, inputs in of_model)

    def embed(embedder: Embedder, inputs: dict[str, dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
        nonlocal done
        keys, vectors = list(inputs), {}
        for start in range(0, len(keys), 4 * batch_size):
            part = keys[start : start + 4 * batch_size]
            try:
                found = embedder.embed([inputs[key] for key in part], batch_size)
            except InputError as error:
                raise InputError(start + error.index, f"{part[error.index]}: {error.reason}") from error
            vectors |= dict(zip(part, found, strict=True))
            done += len(part)
            on_progress(done, total)
        return vectors

    contestants = []
    for embedder, of_model, to_embed in zip(embedders, chosen, sides, strict=True):
        vectors = [embed(one, inputs) for one, inputs in to_embed]
        ranks = _all_ranks(of_model, vectors[0], vectors[-1])
        facts = (embedder.num_latent_steps, ranks, embedder.paradigm, embedder.fingerprint)
        contestants.append(Contestant(embedder.name, *facts))
    return contestants


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
            if rows.ndim != 2 or rows.dtype.kind != "f":
                raise ValueError("vectors must be [N, D] and real")
            for place, reason in unfit(rows).items():
                raise ValueError(f"the vector of {str(keys[place])!r} {reason}")
            vectors = dict(zip(keys.tolist(), rows, strict=True))
            vectors = {_key_in(data, key): vector for key, vector in vectors.items()}
        found.append(Contestant(file.stem, None, _all_ranks(tasks, vectors, vectors)))
    return found


def _takes(embedder: Embedder, task: RankingTask) -> bool:
    return all(embedder.supports(kinds) for kinds in {tuple(item) for item in (*task.queries, *task.candidates)})


def _sides(embedder: Embedder, tasks: Sequence[RankingTask]) -> list[tuple[Embedder, dict[str, dict[str, Any]]]]:
    """What a model embeds as queries and as candidates; one part where it embeds both alike."""
    queries, candidates = (
        {_key(item): item for task in tasks for item in items(task)}
        for items in (lambda task: task.queries, lambda task: task.candidates)
    )
    documents = embedder.documents
    return (
        [(embedder, queries | candidates)] if documents is embedder else [(embedder, queries), (documents, candidates)]
    )


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
