"""The two fixture tasks, number by number: parsed rows, candidates, rankings, scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmeb_v2_data import FIXTURES, as_upstream_candidate, as_upstream_row, task_named

from plume_embed.evaluation.mmeb_v2.candidates import make_pool
from plume_embed.evaluation.mmeb_v2.embeddings import load_stored
from plume_embed.evaluation.mmeb_v2.media import Media
from plume_embed.evaluation.mmeb_v2.parsers import parse
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.score import UPSTREAM_ORDER, count_ties, predict, score

NAMES = ("RefCOCO-Matching", "ViDoSeek-doc")
MEDIA = FIXTURES / "data_basedir"
# The fixtures were made with the released evaluation's empty document instructions.
VARIANT = "plume"


def lines(name: str, part: str) -> list[dict]:
    return [json.loads(line) for line in (FIXTURES / "expected" / f"{name}_{part}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def parsed(tmp_path_factory) -> dict:
    cache = tmp_path_factory.mktemp("datasets")
    found = {}
    for name in NAMES:
        task = task_named(name)
        rows = Rows(task, VARIANT, FIXTURES / "hub", MEDIA, cache)
        queries, corpus = parse(task, VARIANT, rows, Media(MEDIA, task))
        found[name] = (list(queries), corpus)
    return found


@pytest.fixture(scope="module")
def pools(parsed) -> dict:
    return {name: make_pool(task_named(name), VARIANT, *parsed[name]) for name in NAMES}


@pytest.fixture(scope="module")
def predictions(pools) -> dict:
    found = {}
    for name, pool in pools.items():
        stored = load_stored(FIXTURES / "embeddings", pool)
        found[name] = predict(pool, stored.queries, stored.candidates)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_parsed_rows_equal_the_expected_ones(parsed, name):
    rows = [as_upstream_row(query, MEDIA, as_one_label=name == "RefCOCO-Matching") for query in parsed[name][0]]
    assert rows == lines(name, "parsed")


@pytest.mark.parametrize("name", NAMES)
def test_candidates_equal_the_expected_ones_in_their_order(pools, name):
    assert [as_upstream_candidate(c, MEDIA) for c in pools[name].candidates] == lines(name, "candidates")
    assert pools[name].keys == json.loads((FIXTURES / "embeddings" / f"{name}_cand_keys.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_first_ten_equal_the_expected_ones(predictions, name):
    ours = [
        {"prediction": p.keys, "label": list(p.labels), "rel_scores": p.grades and list(p.grades)}
        for p in predictions[name]
    ]
    assert ours == lines(name, "pred_top10")


@pytest.mark.parametrize("name", NAMES)
def test_every_score_equals_the_expected_one_to_the_last_bit(predictions, name):
    expected = json.loads((FIXTURES / "expected" / f"{name}_score.json").read_text())
    ours = score(predictions[name])
    assert list(ours)[: len(expected)] == list(expected)
    in_upstream_order = {key: ours.get(f"{key}{UPSTREAM_ORDER}", ours[key]) for key in expected}
    assert in_upstream_order == expected


def test_the_headline_of_graded_pages_is_the_right_value_and_upstreams_stands_beside_it(predictions):
    expected = json.loads((FIXTURES / "expected" / "summary.json").read_text())["ViDoSeek-doc"]
    ours = score(predictions["ViDoSeek-doc"])
    assert ours["ndcg_linear@5"] == expected["ndcg_linear@5_label_order_kept"] == expected["pytrec_eval_ndcg_cut_5"]
    assert ours[f"ndcg_linear@5{UPSTREAM_ORDER}"] == expected["ndcg_linear@5"]


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_of_the_fixtures_holds(pools, predictions, name):
    expected = json.loads((FIXTURES / "expected" / "summary.json").read_text())[name]
    task, ours = pools[name].task, score(predictions[name])
    assert expected["modality"] == task.modality
    assert expected["eval_type"] == ("global" if task.is_global else "local")
    assert (expected["n_query"], expected["n_cand"]) == (len(pools[name].queries), len(pools[name].candidates))
    for key in ("hit@1", "hit@5", "ndcg_linear@5", "ndcg_exponential@5", "mrr@10"):
        assert ours.get(f"{key}{UPSTREAM_ORDER}", ours[key]) == expected[key]


def test_ndcg_equals_pytrec_evals(predictions):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels, runs = {}, {}
    for number, prediction in enumerate(predictions["ViDoSeek-doc"]):
        qrels[str(number)] = {str(key): grade for key, grade in zip(prediction.labels, prediction.grades, strict=True)}
        runs[str(number)] = {str(key): float(10 - rank) for rank, key in enumerate(prediction.keys)}
    results = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.5"}).evaluate(runs)
    theirs = np.mean([result["ndcg_cut_5"] for result in results.values()])
    assert score(predictions["ViDoSeek-doc"])["ndcg_linear@5"] == pytest.approx(theirs, abs=1e-12)


def test_no_ranking_of_the_fixtures_hangs_on_a_tie(pools):
    for pool in pools.values():
        stored = load_stored(FIXTURES / "embeddings", pool)
        assert count_ties(pool, stored.queries, stored.candidates) == 0


def test_both_layouts_of_the_media_folder_give_the_same_items(tmp_path, parsed):
    (tmp_path / "image-tasks").symlink_to(MEDIA / "image-tasks" / "MMEB")
    (tmp_path / "visdoc-tasks").symlink_to(MEDIA / "visdoc-tasks" / "visdoc-tasks")
    for name in NAMES:
        task = task_named(name)
        rows = Rows(task, VARIANT, FIXTURES / "hub", tmp_path, tmp_path / "cache")
        queries, _ = parse(task, VARIANT, rows, Media(tmp_path, task))
        for flat, doubled in zip(queries, parsed[name][0], strict=True):
            assert flat.candidates[0].item.text == doubled.candidates[0].item.text
            assert [c.item.media[0].name for c in flat.candidates] == [c.item.media[0].name for c in doubled.candidates]
            assert all(Path(path).is_file() for c in flat.candidates for path in c.item.media)


def test_the_corrected_version_writes_the_instructions(tmp_path):
    task = task_named("ViDoSeek-doc")
    rows = Rows(task, "fixed", FIXTURES / "hub", MEDIA, tmp_path)
    queries, corpus = parse(task, "fixed", rows, Media(MEDIA, task))
    assert next(iter(queries)).item.text.startswith("Find a document image that matches the given query: question 0")
    assert corpus[0].item.text == "<|image_pad|> Understand the content of the provided document image."
