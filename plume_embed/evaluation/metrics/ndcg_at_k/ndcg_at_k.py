"""NDCG@k for `evaluate`, with linear or exponential gain and graded relevance."""

import datasets
import evaluate

from plume_embed.evaluation.mmeb_v2.score import Prediction, score

_INPUTS = """
Args:
    predictions: For each query the candidates' ids, best first.
    references: For each query the ids of all correct candidates.
    grades: For each query how relevant each of them is, in the same order; all 1 if left out.
    k: 1, 5 or 10.
    gain: "linear" or "exponential".
Returns:
    ndcg_at_k: 0..1.
"""


class NdcgAtK(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": ids, "references": ids}),
        )

    def _compute(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        grades: list[list[int]] | None = None,
        k: int = 5,
        gain: str = "linear",
    ) -> dict[str, float]:
        if k not in (1, 5, 10) or gain not in ("linear", "exponential"):
            raise ValueError(f"k must be 1, 5 or 10 and gain linear or exponential, got {k} and {gain!r}.")
        weights = grades if grades is not None else [[1] * len(labels) for labels in references]
        queries = zip(predictions, references, weights, strict=True)
        found = score([Prediction(list(p), tuple(r), tuple(g)) for p, r, g in queries])
        return {"ndcg_at_k": float(found[f"ndcg_{gain}@{k}"])}
