"""NDCG@k for `evaluate`, with linear or exponential gain and graded relevance."""

import datasets
import evaluate

from plume_embed.evaluation.metrics.ranking import CUTOFFS, GAINS, ndcg

_INPUTS = """
Args:
    predictions: For each query the candidates' ids, best first.
    references: For each query the ids of all correct candidates.
    grades: For each query how relevant each of them is, in the same order; all 1 if left out.
    k: 1, 5 or 10.
    gain: "linear" or "exponential".
    per_query: Whether the value of each query is given instead of their mean.
Returns:
    ndcg_at_k: 0..1, or a list of them.
"""


class NdcgAtK(evaluate.Metric):
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
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        grades: list[list[int]] | None = None,
        k: int = 5,
        gain: str = "linear",
        per_query: bool = False,
    ) -> dict[str, float | list[float]]:
        if k not in CUTOFFS or gain not in GAINS:
            raise ValueError(f"k must be 1, 5 or 10 and gain linear or exponential, got {k} and {gain!r}.")
        weights = grades if grades is not None else [[1] * len(correct) for correct in references]
        values = [
            ndcg(ranking, dict(zip(correct, of_query, strict=True)), k, gain)
            for ranking, correct, of_query in zip(predictions, references, weights, strict=True)
        ]
        return {"ndcg_at_k": values if per_query else sum(values) / len(values)}
