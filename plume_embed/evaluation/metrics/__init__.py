"""Metrics for Hugging Face's `evaluate`: `evaluate.load(metric_path("hit_at_k"))`, without network."""

from __future__ import annotations

from pathlib import Path

METRICS = ("hit_at_k", "ndcg_at_k")


def metric_path(name: str) -> str:
    """Where `evaluate.load` finds a metric of this package.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in METRICS:
        raise ValueError(f"The metrics are {', '.join(METRICS)}, got {name!r}.")
    return str(Path(__file__).parent / name / f"{name}.py")
