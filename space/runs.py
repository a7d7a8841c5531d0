"""What the model computes for the page, as functions that can run on a borrowed GPU; see gpu.py."""

from plume_embed.encode.encoder import Encoder
from space.compare import Variant, compare
from space.steps import Intervention, interventions
from space.trace import Trace, finish, median_times, trace_query


def trace_content(encoder: Encoder, content: dict, num_latent_steps: int) -> Trace:
    """The trace of what the processor takes."""
    return finish(trace_query(encoder, encoder.process([content]), num_latent_steps))


def trace_repeatedly(encoder: Encoder, content: dict, num_latent_steps: int, runs: int) -> Trace:
    """The same trace with the median times of several runs."""
    batch = encoder.process([content])
    return median_times([finish(trace_query(encoder, batch, num_latent_steps)) for _ in range(runs)])


def tampered(encoder: Encoder, content: dict, original: Trace, other_text: str) -> list[Intervention]:
    """The interventions on one query, with the latents of a text."""
    other = trace_content(encoder, {"text": other_text}, original.num_latent_steps)
    return list(interventions(encoder, encoder.process([content]), original, other))


def compared(encoder: Encoder, content: dict, *arguments) -> list[Variant]:
    """All variants of one query."""
    return list(compare(encoder, encoder.process([content]), *arguments))
