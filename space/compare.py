"""The same query by single pass, by latent steps, and by an explicit rationale, each with its latency and ranking.

A model that was trained for several numbers of steps shows each of them.
"""

import re
import statistics
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import BatchFeature

from plume_embed.encode.encoder import Encoder
from plume_embed.encode.rationale import generate_rationale
from space.content.passages import query_words
from space.trace import finish, trace_query

REPEATS = 3
_CONTROL = re.compile(r"</*[A-Za-z/|_]*[A-Za-z_|]>")
# A model that can write ends its rationales by itself; it is asked for this many, and these many must end.
PROBES = ("a cat", "a red car", "two children on a beach", "a page about flowers")
ENOUGH_PROBES = 3
LEAST_TOKENS = 4  # with the embedding token; less is no rationale


@dataclass(frozen=True)
class Variant:
    """One way to embed a query.

    Args:
        name (`str`): "Single pass", ...
        vector (`np.ndarray` of shape [D], *optional*): `None` where the model cannot do it.
        milliseconds (`float`): Median of `runs` runs by the clock, from the processed batch to the vector.
        runs (`int`)
        note (`str`): What was run, or why not.
        passes (`int`): Over the backbone's layers, for one query.
        text (`str`): The rationale, without control tokens.
    """

    name: str
    vector: np.ndarray | None
    milliseconds: float
    runs: int
    note: str
    passes: int = 0
    text: str = ""


def compare(
    encoder: Encoder, batch: BatchFeature, num_latent_steps: int, can_write: bool, max_new_tokens: int
) -> Generator[Variant, None, None]:
    """Variant after variant, as each is done; it can be closed in between.

    Args:
        encoder ([`Encoder`])
        batch (`BatchFeature`): One row from PlumeProcessor.
        num_latent_steps (`int`): K of the latent variant.
        can_write (`bool`): From [`writes_rationales`].
        max_new_tokens (`int`): Where a rationale is cut.
    """
    batch = batch.to(encoder.device)
    trained = encoder.model.config.anytime_steps or []
    yield _of_steps(encoder, batch, 0, "Single pass", 0 in trained)
    for steps in trained:
        if 0 < steps < num_latent_steps:
            yield _of_steps(encoder, batch, steps, f"Anytime, K = {steps}", True)
    yield _of_steps(encoder, batch, num_latent_steps, f"Latent, K = {num_latent_steps}", False)
    yield _explicit(encoder, batch, can_write, max_new_tokens)


def layer_passes(num_latent_steps: int = 0, num_tokens: int = 0) -> int:
    """Passes over the backbone's layers: the prefix, each latent step, the suffix behind them, each written token."""
    return 1 + num_latent_steps + (num_latent_steps > 0) + num_tokens


def without_control_tokens(text: str) -> str:
    """A rationale as a person reads it: without <gen_emb>, </think> and what is left of such tokens."""
    return " ".join(_CONTROL.sub(" ", text).split())


def sense(text: str, known: frozenset[str]) -> str:
    """A sentence about a rationale none of whose words can be found in the query or in the collection; else "".

    Args:
        text (`str`): The rationale, without control tokens.
        known: Words of the query and of the collection, lower case.
    """
    words = query_words(text)
    if not words:
        return "It holds no word that says anything."
    if words & known:
        return ""
    count = "Its only word does not occur" if len(words) == 1 else f"None of its {len(words)} different words occurs"
    return f"{count} in the query or in the collection: as a text it makes no sense."


def writes_rationales(encoder: Encoder, max_new_tokens: int) -> bool:
    """Whether the model writes rationales that end by themselves: it is asked for a few, with short texts."""
    batch = encoder.processor([{"text": text} for text in PROBES]).to(encoder.device)
    written = generate_rationale(encoder.model, dict(batch), max_new_tokens=max_new_tokens)
    ended = [
        bool(finished) and len(tokens) >= LEAST_TOKENS
        for finished, tokens in zip(written.finished, written.token_ids, strict=True)
    ]
    return sum(ended) >= ENOUGH_PROBES


def _of_steps(encoder: Encoder, batch: BatchFeature, steps: int, name: str, is_anytime: bool) -> Variant:
    trace, elapsed = _repeated(lambda: finish(trace_query(encoder, batch, steps)), REPEATS)
    note = f"{steps} latent step{'s' if steps != 1 else ''} between prefix and embedding."
    if not steps:
        note = "Read at the last prefix token; no latent step."
    if is_anytime:
        note += " The model was trained to be read here as well."
    return Variant(name, trace.embedding, elapsed, REPEATS, note, layer_passes(steps))


def _explicit(encoder: Encoder, batch: BatchFeature, can_write: bool, max_new_tokens: int) -> Variant:
    name = "Explicit rationale"
    if not can_write:
        reason = (
            f"This model does not write: asked for {len(PROBES)} rationales, it brought fewer than {ENOUGH_PROBES} to "
            f"an end within {max_new_tokens} tokens. It was trained without them, or with too few."
        )
        return Variant(name, None, 0.0, 0, reason)
    written, elapsed = _repeated(
        lambda: generate_rationale(encoder.model, dict(batch), max_new_tokens=max_new_tokens), 1
    )
    tokens = written.token_ids[0]
    text = without_control_tokens(encoder.processor.tokenizer.decode(tokens))
    note = f"{len(tokens)} tokens, decoded greedily; the embedding is read behind them."
    if not written.finished[0]:
        note = f"Cut at {max_new_tokens} tokens, because it came to no end by itself; the embedding is read there."
    passes = layer_passes(0, len(tokens))
    return Variant(name, written.embeddings[0].cpu().numpy(), elapsed, 1, note, passes, text)


def _repeated(run: Callable, repeats: int):
    """The result, and the median milliseconds of `repeats` runs after one that warms up."""
    result, times = run() if repeats > 1 else None, []
    for _ in range(repeats):
        started = time.perf_counter()
        result = run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return result, statistics.median(times)
