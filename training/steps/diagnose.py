"""What the latent steps of trained models carry, as JSON: read-outs, causal tests, likeness of the steps.

    python -m training.steps.diagnose --run .data/ablations/hops/full-0 --run .data/ablations/hops_mixed/full-0
    python -m training.steps.diagnose --checkpoint checkpoints/plume-tiny --miniature .data/miniature

What the JSON has already of the same weights and items is kept, an entry a model and set; a table of it is made by
`training.steps.tables`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from plume_embed.atomic import write_json
from plume_embed.command import run_command
from plume_embed.evaluation.bootstrap import RESAMPLES, interval, resampled_means
from plume_embed.quiet import quiet_libraries
from plume_embed.training.latents.causal import embed_with, other_queries, record, replaced, similarities
from training.steps.sets import DiagnosticSet, Loaded, of_checkpoint, of_run, sets_of_run

RESULTS = Path(__file__).parent / "results" / "diagnostics.json"


def diagnose(loaded: Loaded, asked: DiagnosticSet) -> dict[str, Any]:
    """All diagnostics of one model on one set.

    Returns:
        `read_outs`: Hit@1 by name, with the same read-out on both sides (`same`) and with the candidates' embeddings
        (`embedding`); `after_step`: Hit@1 with 0 to K steps, and where the set has depths by depth and, for each number
        of steps, of the queries that are no deeper (`within_depth`); `causal`: by name Hit@1, its difference to the
        rollout, how often the answer is that of the other query, and the mean cosine of the embedding to that of the
        rollout; `similarities`. Hits are [mean, low, high] over the queries.
    """
    model, processor = loaded.model, loaded.processor
    steps = model.config.num_latent_steps
    queries = record(model, processor, asked.queries, steps)
    candidates = record(model, processor, asked.candidates, asked.document_latent_steps)
    own = hits(queries.embeddings, candidates.embeddings, asked.gold, asked.pools)
    others = other_queries(asked.gold, asked.pools) if asked.others is None else torch.tensor(asked.others)
    embedded = embed_with(model, processor, asked.queries, replaced(queries.inputs, others))
    causal = {}
    for name, embeddings in embedded.items():
        found = hits(embeddings, candidates.embeddings, asked.gold, asked.pools)
        moved = [asked.gold[other] for other in others.tolist()]
        follows = hits(embeddings, candidates.embeddings, moved, asked.pools)
        causal[name] = {
            "hit": mean_of(found),
            "difference": mean_of(found - own),
            "follows": float(follows.mean()),
            "cosine": float((embeddings * queries.embeddings).sum(dim=1).mean()),
        }
    pools = asked.pools or [range(len(asked.candidates))] * len(asked.queries)
    return {
        "model": loaded.name,
        "weights": loaded.weights,
        "set": asked.name,
        "digest": asked.digest,
        "queries": len(asked.queries),
        "candidates": len(asked.candidates),
        "pool": [min(map(len, pools)), max(map(len, pools))],
        "chance": float(np.mean([len(gold) / len(pool) for gold, pool in zip(asked.gold, pools, strict=True)])),
        "num_latent_steps": steps,
        "document_latent_steps": asked.document_latent_steps,
        "read_outs": _read_outs(queries, candidates, asked),
        "after_step": _after_step(queries, candidates, asked),
        "causal": causal,
        "similarities": similarities(queries.states),
    }


def _read_outs(queries: Any, candidates: Any, asked: DiagnosticSet) -> dict[str, dict[str, Any]]:
    of_candidates, found = candidates.read_outs(), {}
    for name, read in queries.read_outs().items():
        found[name] = {"embedding": mean_of(hits(read, candidates.embeddings, asked.gold, asked.pools))}
        if name in of_candidates:
            found[name]["same"] = mean_of(hits(read, of_candidates[name], asked.gold, asked.pools))
    return found


def _after_step(queries: Any, candidates: Any, asked: DiagnosticSet) -> dict[str, Any]:
    """Candidates with K of their own where they are single passes, else with as many steps as the queries."""
    found: dict[str, Any] = {"hit": [], "by_depth": {}}
    columns = []
    for k in range(queries.after_step.shape[1]):
        of_candidates = candidates.after_step[:, min(k, asked.document_latent_steps)]
        columns.append(hits(queries.after_step[:, k], of_candidates, asked.gold, asked.pools))
        found["hit"].append(mean_of(columns[-1]))
    depths = np.array(asked.depths or ())
    for depth in sorted(set(depths.tolist())):
        found["by_depth"][str(depth)] = [float(column[depths == depth].mean()) for column in columns]
    if len(depths):
        found["within_depth"] = [
            float(column[depths <= k].mean()) if (depths <= k).any() else None for k, column in enumerate(columns)
        ]
    return found


def hits(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    gold: Sequence[Sequence[int]],
    pools: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """Whether each query's nearest candidate, of its pool where there are pools, is right, [Q] of 0.0 and 1.0."""
    scores = queries @ candidates.T  # [Q, C]
    if pools is not None:
        outside = torch.ones_like(scores, dtype=torch.bool)
        for row, pool in zip(outside, pools, strict=True):
            row[list(pool)] = False
        scores = scores.masked_fill(outside, float("-inf"))
    best = scores.argmax(dim=1).tolist()
    return np.array([float(one in right) for one, right in zip(best, gold, strict=True)])


def mean_of(values: np.ndarray) -> list[float]:
    """Mean with its 95 % interval over the queries (bootstrap): [mean, low, high]."""
    draws = resampled_means(values[:, None], RESAMPLES, np.random.default_rng(0))[:, 0]
    found = interval(float(values.mean()), draws)
    return [found.mean, found.low, found.high]


def main(
    run: Annotated[
        list[Path] | None, typer.Option(help="Finished run of hops, hops_mixed or scene_hops; repeatable.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A model of pictures, e.g. checkpoints/plume-tiny.")] = None,
    pictures: Annotated[Path, typer.Option(help="The checkpoint's named pictures.")] = Path("examples"),
    miniature: Annotated[Path | None, typer.Option(help="What `make miniature` wrote. Default: left out.")] = None,
    photographs: Annotated[Path | None, typer.Option(help="What `make photos` wrote. Default: left out.")] = None,
    queries: Annotated[int, typer.Option(min=2, help="Most queries of a set.")] = 1024,
    to: Annotated[Path, typer.Option("--json", help="Results file; what it has is kept.")] = RESULTS,
    anew: Annotated[bool, typer.Option("--anew", help="Also what the file has already.")] = False,
) -> None:
    """Diagnose the latent steps of trained models."""
    quiet_libraries()
    results = json.loads(to.read_text()) if to.is_file() else {}
    loaders = []
    for folder in run or []:
        keys = [f"{name}/{folder.name}" for name in sets_of_run(folder)]
        is_here, is_known = (folder / "results.json").is_file(), all(key in results for key in keys)
        if not is_here and is_known and not anew:  # it has ended elsewhere
            for key in keys:
                typer.echo(_line(key, results[key]))
        else:
            loaders.append(lambda folder=folder: of_run(folder, queries))
    if checkpoint is not None:
        loaders.append(lambda: of_checkpoint(checkpoint, pictures, miniature, photographs, queries))
    for load in loaders:
        loaded = load()
        for asked in loaded.sets:
            key = f"{asked.name}/{loaded.name}"
            known = results.get(key, {})
            is_same = (known.get("weights"), known.get("digest")) == (loaded.weights, asked.digest)
            if anew or not is_same:
                results[key] = diagnose(loaded, asked)
                write_json(to, dict(sorted(results.items())))
            typer.echo(_line(key, results[key]))


def _line(key: str, found: dict[str, Any]) -> str:
    return f"{key}: Hit@1 {100 * found['read_outs']['embedding']['embedding'][0]:.1f} %"


if __name__ == "__main__":
    run_command(main)
