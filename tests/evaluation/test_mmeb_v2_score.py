"""Facts about pools, rankings and scores."""

import numpy as np
import pytest
from mmeb_v2_data import task_named

from plume_embed.evaluation.mmeb_v2.candidates import make_pool
from plume_embed.evaluation.mmeb_v2.items import Candidate, Item, Query
from plume_embed.evaluation.mmeb_v2.score import Prediction, count_ties, predict, score

LOCAL, GLOBAL = task_named("ImageNet-1K"), task_named("MSVD")


def query(keys: str, labels: str, text: str = "q") -> Query:
    return Query(Item(text), tuple(Candidate(key, Item(key)) for key in keys), tuple(labels))


def unit(*rows: list[float]) -> np.ndarray:
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_first_occurrence_of_a_key_wins_and_the_corpus_comes_last():
    first = Query(Item("q"), (Candidate("a", Item("first a")), Candidate("b", Item("b"))), ("a",))
    second = Query(Item("q"), (Candidate("a", Item("second a")), Candidate("c", Item("c"))), ("c",))
    pool = make_pool(LOCAL, "fixed", [first, second], [Candidate("d", Item("d")), Candidate("b", Item("no"))])
    assert [c.item.text for c in pool.candidates] == ["first a", "b", "c", "d"]
    assert [q.candidates.tolist() for q in pool.queries] == [[0, 1], [0, 2]]


def test_an_empty_pool_and_a_task_without_queries_are_refused():
    with pytest.raises(ValueError, match="query 1 has no candidates"):
        make_pool(LOCAL, "fixed", [query("a", "a"), query("", "a")], [])
    with pytest.raises(ValueError, match="there are no queries"):
        make_pool(LOCAL, "fixed", [], [])


def test_local_pools_rank_the_rows_own_list_and_keep_its_duplicates():
    pool = make_pool(LOCAL, "fixed", [query("aba", "b"), query("c", "c")], [])
    (first, second) = predict(pool, unit([1, 0], [1, 0]), unit([0.9, 0.5], [1, 0.1], [1, 0]))
    assert first.keys == ["b", "a", "a"] and second.keys == ["c"]


def test_global_pools_rank_all_candidates():
    pool = make_pool(GLOBAL, "fixed", [query("a", "a"), query("b", "b")], [Candidate("c", Item("c"))])
    predictions = predict(pool, unit([1, 0], [0, 1]), unit([0.2, 1], [1, 0.1], [1, 0]))
    assert [p.keys for p in predictions] == [["c", "b", "a"], ["a", "b", "c"]]


@pytest.mark.parametrize(
    ("queries", "candidates", "message"),
    [
        (unit([1, 0]), np.array([[np.nan, 1]], np.float32), "embedding of candidate 0 is NaN or infinite"),
        (np.array([[np.inf, 1]], np.float32), unit([1, 0]), "embedding of query 0 is NaN or infinite"),
        (2 * unit([1, 0]), unit([1, 0]), "query 0 has norm 2.000; normalise"),
        (unit([1, 0], [1, 0]), unit([1, 0]), r"query embeddings have shape \(2, 2\), expected \[1, D\]"),
        (unit([1, 0]), unit([1, 0, 0]), "queries have 2 dimensions, candidates 3"),
    ],
)
def test_vectors_that_cannot_be_ranked_are_refused(queries, candidates, message):
    with pytest.raises(ValueError, match=message):
        predict(make_pool(LOCAL, "fixed", [query("a", "a")], []), queries, candidates)


def test_a_prediction_without_labels_is_refused():
    with pytest.raises(ValueError, match="query 1 has no correct candidate"):
        score([Prediction(["a"], ("a",), None), Prediction(["a"], (), None)])


def test_any_of_several_positives_is_a_hit():
    scores = score([Prediction(list("xba"), ("a", "b"), None)])
    assert (scores["hit@1"], scores["hit@5"], scores["mrr@10"], scores["recall@5"]) == (0, 1, 0.5, 1)
    assert scores["map@5"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    ideal = 1 + 1 / np.log2(3)
    assert scores["ndcg_linear@5"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / ideal)


def test_grades_weigh_linearly_or_exponentially():
    scores = score([Prediction(["low", "high"], ("high", "low"), (3, 1))])
    discount = np.log2(3)
    assert scores["ndcg_linear@5"] == pytest.approx((1 + 3 / discount) / (3 + 1 / discount))
    assert scores["ndcg_exponential@5"] == pytest.approx((1 + 7 / discount) / (7 + 1 / discount))


def test_upstreams_order_is_told_only_where_it_does_not_hang_on_the_hash_seed():
    by_number = score([Prediction([5, 3], (5, 3), (1, 3))])
    assert by_number["ndcg_linear@1"] == pytest.approx(1 / 3)
    assert by_number["ndcg_linear@1_upstream_order"] == 1.0  # a set of these holds 3 before 5
    by_name = score([Prediction(["b", "a"], ("b", "a"), (1, 3))])
    assert not [key for key in by_name if "upstream" in key]
    even = score([Prediction(["b", "a"], ("b", "a"), (2, 2))])
    assert even["ndcg_linear@5_upstream_order"] == even["ndcg_linear@5"]
    assert not [key for key in score([Prediction(["b"], ("b",), None)]) if "upstream" in key]


def test_a_collapsed_model_is_betrayed_by_its_ties():
    pool = make_pool(LOCAL, "fixed", [query("ab", "a"), query("ba", "a")], [])
    queries, candidates = unit([1, 0], [1, 0]), unit([1, 1], [1, 1])
    assert score(predict(pool, queries, candidates))["hit@1"] == 0.5
    assert count_ties(pool, queries, candidates) == 2
    for count in (3, 5, 13, 98):
        for task in (LOCAL, GLOBAL):
            keys = [f"{number:02d}" for number in range(count)]
            asked = Query(Item("q"), tuple(Candidate(key, Item(key)) for key in keys), (keys[-1],))
            everything = make_pool(task, "fixed", [asked] * 20, [])
            rows = np.random.default_rng(count).normal(size=(21, 256))
            one, alike = unit(*rows[:20]), unit(*[rows[20]] * count)
            assert count_ties(everything, one, alike) == 20
            assert {tuple(found.keys) for found in predict(everything, one, alike)} == {tuple(keys[:10])}
    assert count_ties(pool, queries, unit([1, 0], [1, 1])) == 0
