"""Hit@k for `evaluate`: the share of queries with a correct candidate among the first k."""

import datasets
import evaluate

from plume_embed.evaluation.metrics.ranking import CUTOFFS, hit

_INPUTS = """
Args:
    predictions: For each query the candidates' ids, best first.
    references: For each query the ids of all correct candidates.
    k: 1, 5 or 10.
    per_query: Whether the value of each query is given instead of their mean.
Returns:
    hit_at_k: 0..1, or a list of 0 and 1.
"""


class HitAtK(evaluate.Metric):
    """See the module."""

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=str(__doc__),
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": ids, "references": ids}),
        )

    def _compute(
        self, predictions: list[list[str]], references: list[list[str]], k: int = 1, per_query: bool = False
    ) -> dict[str, float | list[float]]:
        if k not in CUTOFFS:
            raise ValueError(f"k must be 1, 5 or 10, got {k}.")
        values = [hit(ranking, correct, k) for ranking, correct in zip(predictions, references, strict=True)]
        return {"hit_at_k": values if per_query else sum(values) / len(values)}
