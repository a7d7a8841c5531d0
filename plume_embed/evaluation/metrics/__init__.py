"""Hit@k and NDCG@k as metrics of Hugging Face's `evaluate`; `plume-embed evaluate` goes through them.

Elsewhere: `evaluate.load(metric_path("hit_at_k"))`, without network.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluate import EvaluationModule

METRICS = ("hit_at_k", "ndcg_at_k")


def metric_path(name: str) -> str:
    """Where `evaluate.load` finds a metric of this package.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in METRICS:
        raise ValueError(f"The metrics are {', '.join(METRICS)}, got {name!r}.")
    return str(Path(__file__).parent / name / f"{name}.py")


@cache
def load_metric(name: str) -> EvaluationModule:
    """A metric of this package, loaded once."""
    import evaluate

    return evaluate.load(metric_path(name), keep_in_memory=True)


def by_query(
    name: str, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], **options: Any
) -> list[float]:
    """A metric's value for each query.

    Args:
        name: See `METRICS`.
        predictions: For each query the candidates' ids, best first.
        references: For each query the ids of all correct candidates.
        options: What else the metric takes, e.g. `k`.
    """
    found = load_metric(name).compute(predictions=predictions, references=references, per_query=True, **options)
    assert found is not None  # of the main process of one
    return found[name]
