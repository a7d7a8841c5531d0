"""Hit@k for `evaluate`: the share of queries with a correct candidate among the first k."""

import datasets
import evaluate

from plume_embed.evaluation.mmeb_v2.score import Prediction, score

_INPUTS = """
Args:
    predictions: For each query the candidates' ids, best first.
    references: For each query the ids of all correct candidates.
    k: 1, 5 or 10.
Returns:
    hit_at_k: 0..1.
"""


class HitAtK(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": ids, "references": ids}),
        )

    def _compute(self, predictions: list[list[str]], references: list[list[str]], k: int = 1) -> dict[str, float]:
        if k not in (1, 5, 10):
            raise ValueError(f"k must be 1, 5 or 10, got {k}.")
        queries = zip(predictions, references, strict=True)
        return {"hit_at_k": float(score([Prediction(list(p), tuple(r), None) for p, r in queries])[f"hit@{k}"])}
