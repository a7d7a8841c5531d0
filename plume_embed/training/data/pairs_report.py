"""The scores of models on pairs of one's own, as plain values and as a table."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from plume_embed.evaluation.bootstrap import interval, resampled_means
from plume_embed.evaluation.embedders import Embedder, InputError, PlumeEmbedder, read_out_label
from plume_embed.reading.options import Options
from plume_embed.training.data.pair_rows import PAGES_AS_PICTURES, open_pages
from plume_embed.training.data.pair_scores import SCORES, Embed, PairPool

_HEADINGS = dict(zip(SCORES, ("Hit@1", "Hit@5", "Hit@10", "NDCG@10"), strict=True))


def embed_with(embedder: Embedder, batch_size: int, on_items: Callable[[int], None] = lambda number: None) -> Embed:
    """What [`PairPool.embedded`] takes; an item that cannot be embedded raises ValueError, naming its row.

    Args:
        embedder ([`Embedder`]): The model.
        batch_size (`int`): Items per pass.
        on_items: Called with how many items are done since.
    """

    def embed(items: Sequence[dict[str, Any]], where: Sequence[str]) -> NDArray[np.float32]:
        parts, at_once, reading = [], 4 * batch_size, _reading(embedder)
        for start in range(0, len(items), at_once):
            named = zip(items[start:][:at_once], where[start:], strict=False)
            part = [_opened(item, name, reading) for item, name in named]
            try:
                parts.append(embedder.embed(part, batch_size))
            except InputError as error:
                raise ValueError(f"{where[start + error.index]}: {error.reason}") from error
            on_items(len(part))
        return np.concatenate(parts)

    return embed


def _reading(embedder: Embedder) -> Options:
    """How pages are read for a model; a peer does not say, and gets their pictures."""
    return Options.of(embedder.encoder.processor) if isinstance(embedder, PlumeEmbedder) else PAGES_AS_PICTURES


def _opened(item: dict[str, Any], where: str, reading: Options) -> dict[str, Any]:
    try:
        return open_pages(item, reading)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def check_truncation(embedder: Embedder, pool: PairPool, truncate: Sequence[int]) -> None:
    """Embeds one query to learn the model's dimension, before all others are embedded.

    Raises:
        ValueError: as many dimensions as the model has, or more.
    """
    key, item = next(iter(pool.queries.items()))
    _check_dimensions(embedder, embed_with(embedder, 1)([item], [pool.where[key]]).shape[1], truncate)


def _check_dimensions(embedder: Embedder, dimension: int, truncate: Sequence[int]) -> None:
    too_long = [size for size in truncate if size >= dimension]
    if too_long:
        raise ValueError(f"--truncate must lie in 1..{dimension - 1} for {embedder.name}, got {too_long[0]}.")


def as_dict(
    embedder: Embedder,
    pool: PairPool,
    embed: Callable[[Embedder], Embed],
    truncate: Sequence[int],
    resamples: int,
) -> list[dict[str, Any]]:
    """A model's scores in 0..1, each with its 95 % bootstrap interval over queries: whole vectors, then shorter ones.

    Args:
        embed: [`embed_with`] of an embedder; candidates are embedded by `embedder.documents`.

    Raises:
        ValueError: as many dimensions as the model has, or more.
    """
    queries, answers = pool.embedded(embed(embedder), embed(embedder.documents))
    _check_dimensions(embedder, queries.shape[1], truncate)
    found = []
    for size in (queries.shape[1], *truncate):
        scores = pool.scores(queries[:, :size], answers[:, :size])
        means = resampled_means(np.array(list(scores.values())).T, resamples, np.random.default_rng(0))
        estimates = {
            name: interval(float(np.mean(values)), means[:, place])
            for place, (name, values) in enumerate(scores.items())
        }
        found.append(
            {
                "model": embedder.name,
                "num_latent_steps": embedder.num_latent_steps,
                "paradigm": embedder.paradigm,
                "fingerprint": embedder.fingerprint,
                "dimensions": size,
                "scores": {name: [round(x, 4) for x in (e.mean, e.low, e.high)] for name, e in estimates.items()},
            }
        )
    return found


def table(models: Sequence[dict[str, Any]], num_queries: int, pool_size: int) -> Table:
    """For the terminal, a row a model and number of dimensions."""
    shown = Table(title=f"{num_queries} queries in a pool of {pool_size}, percent", box=box.SIMPLE)
    shown.add_column("model")
    for heading in ("K", "dimensions", *_HEADINGS.values()):
        shown.add_column(heading, justify="right")
    for model in models:
        cells = [f"{100 * m:.1f} [{100 * low:.1f}, {100 * high:.1f}]" for m, low, high in model["scores"].values()]
        steps = model["num_latent_steps"]
        shown_steps = "-" if steps is None else read_out_label(model["paradigm"], steps) or str(steps)
        shown.add_row(model["model"], shown_steps, str(model["dimensions"]), *cells)
    return shown
