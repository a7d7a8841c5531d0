"""A query, computed step by step through the model's own prefix, latent_step and suffix, each of them timed."""

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BatchFeature

from plume_embed.encode.encoder import Encoder

Result = TypeVar("Result")
Change = Callable[[torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Trace:
    """What happened inside the rollout of one query. Times are by the clock, without the decoding of media.

    Args:
        embedding (`np.ndarray` of shape [D]): e_gen, unit norm; what `PlumeModel.forward` gives.
        anchor (`np.ndarray` of shape [D]): e_anc, unit norm.
        states (`np.ndarray` of shape [K + 1, D]): z(0) to z(K), as they are.
        router_probs (`np.ndarray` of shape [K, Me], *optional*): pi(1) to pi(K); `None` without a router or for K = 0.
        num_tokens (`int`): Of the prefix, visual ones included.
        prefix_ms (`float`): The backbone's pass over the prefix.
        step_ms (`list[float]`): Of each of the K latent steps.
        suffix_ms (`float`): The fixed tokens; 0 for K = 0, whose embedding is read at the last prefix token.
    """

    embedding: np.ndarray
    anchor: np.ndarray
    states: np.ndarray
    router_probs: np.ndarray | None
    num_tokens: int
    prefix_ms: float
    step_ms: list[float]
    suffix_ms: float

    @property
    def num_latent_steps(self) -> int:
        """K."""
        return len(self.step_ms)

    @property
    def latent_states(self) -> np.ndarray:
        """z(1) to z(K), [K, D], each scaled to unit norm."""
        return normalized(self.states[1:])

    @property
    def path(self) -> list[tuple[str, np.ndarray]]:
        """What the query passes through: anchor, z(0), z(1) to z(K) and the embedding, each of unit norm."""
        steps = [(f"z({step})", state) for step, state in enumerate(normalized(self.states))]
        return [("anchor", self.anchor), *steps, ("embedding", self.embedding)]

    @property
    def total_ms(self) -> float:
        """Of prefix, steps and suffix."""
        return self.prefix_ms + sum(self.step_ms) + self.suffix_ms


def trace_query(
    encoder: Encoder, batch: BatchFeature, num_latent_steps: int, change: Change | None = None
) -> Generator[str, None, Trace]:
    """Runs the model on one row; between its parts it yields what comes next, and can be closed there.

    Args:
        encoder ([`Encoder`])
        batch (`BatchFeature`): One row from PlumeProcessor.
        num_latent_steps (`int`): K.
        change (`Callable`, *optional*): Gives for z(k) [1, D] and k what goes into step k + 1 in its place. The
            adapter sees the true anchor and z(0) all the same.

    Yields:
        `str`: What will be computed next.

    Returns:
        [`Trace`]: Through `yield from`, or as the value of StopIteration.
    """
    model, steps = encoder.model, encoder.latent_steps(num_latent_steps)
    if len(batch["input_ids"]) != 1:
        raise ValueError(f"A trace is of one query, got {len(batch['input_ids'])} rows.")
    batch = batch.to(encoder.device)
    yield "reading the query"
    prefix, prefix_ms = _timed(encoder, lambda: model.prefix(**batch))
    z, states, probs, step_ms = prefix.z0, [prefix.z0], [], []
    for step in range(1, steps + 1):
        yield f"latent step {step} of {steps}"
        z = z if change is None else change(z, step - 1)
        (z, routed), elapsed = _timed(encoder, lambda z=z, step=step: model.latent_step(z, prefix, step))
        states.append(z)
        step_ms.append(elapsed)
        if routed is not None:
            probs.append(routed)
    gen_state, suffix_ms = prefix.z0, 0.0
    if steps:
        yield "reading the embedding"
        hidden, suffix_ms = _timed(encoder, lambda: model.suffix(prefix, steps))
        gen_state = hidden[:, -1]  # [1, D]
    return Trace(
        embedding=_unit(gen_state)[0],
        anchor=_unit(prefix.anchor)[0],
        states=torch.cat(states).float().cpu().numpy(),
        router_probs=torch.cat(probs).float().cpu().numpy() if probs else None,
        num_tokens=int(batch["attention_mask"].sum()),
        prefix_ms=prefix_ms,
        step_ms=step_ms,
        suffix_ms=suffix_ms,
    )


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Each vector [..., D] scaled to unit norm."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def median_times(traces: Sequence[Trace]) -> Trace:
    """The first of several traces of one query, with the median of all of them for each time."""
    first = traces[0]
    return replace(
        first,
        prefix_ms=statistics.median(trace.prefix_ms for trace in traces),
        step_ms=[statistics.median(times) for times in zip(*(trace.step_ms for trace in traces), strict=True)],
        suffix_ms=statistics.median(trace.suffix_ms for trace in traces),
    )


def finish(steps: Generator[Any, None, Result]) -> Result:
    """What a generator returns, its yields passed over."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def _timed(encoder: Encoder, compute: Callable[[], Result]) -> tuple[Result, float]:
    """The result and its milliseconds. Grad mode belongs to a thread, so it is set for each part anew."""
    _wait_for(encoder.device)
    started = time.perf_counter()
    with torch.inference_mode():
        result = compute()
    _wait_for(encoder.device)
    return result, 1000 * (time.perf_counter() - started)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _unit(states: torch.Tensor) -> np.ndarray:
    return F.normalize(states.float(), dim=-1).cpu().numpy()
