"""Facts about the evaluation commands, the intervals and the loadable metrics."""

import json
import re

import numpy as np
import pytest
from mmeb_v2_data import FIXTURES
from typer.testing import CliRunner

from plume_embed.cli.evaluate.app import app
from plume_embed.evaluation.bootstrap import estimate
from plume_embed.evaluation.embedders import hash_folder
from plume_embed.evaluation.metrics import METRICS, by_query, metric_path
from plume_embed.evaluation.miniature.score import query_scores
from plume_embed.evaluation.mmeb_v2.score import Prediction, score

STORED = ["--hub-dir", str(FIXTURES / "hub"), "--embeddings-dir", str(FIXTURES / "embeddings")]
BOTH = ["--tasks", "RefCOCO-Matching,ViDoSeek-doc"]


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ValueError), result.output
    return str(result.exception)


# MMEB-v2


def test_stored_embeddings_are_scored_from_the_command_line(tmp_path):
    printed = run("mmeb-v2", *STORED, *BOTH, "--variant", "plume", "--out", str(tmp_path))
    assert "RefCOCO-Matching: hit@1 75.00 (12 queries, 28 candidates)" in printed
    assert "ViDoSeek-doc: ndcg_linear@5 45.44 (6 queries, 40 candidates)" in printed
    assert "Image (1 of 36)" in printed and "PLUME's published rows average to 61.45; the paper states 61.6" in printed
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["benchmark_version"] == "plume" and summary["averages"]["Image"] is None
    assert summary["incomplete"]["Image"] == {"have": 1, "of": 36}
    assert (tmp_path / "summary.md").read_text().count("\n| ") == 78 + 1 + 17


def test_a_failed_task_makes_the_command_fail_after_the_others(tmp_path):
    names = ["--tasks", "MSVD,ViDoSeek-doc"]
    printed = run("mmeb-v2", *STORED, *names, "--out", str(tmp_path), code=1)
    assert "MSVD: FAILED: cannot read the rows of VLM2Vec/MSVD" in printed
    assert "ViDoSeek-doc: ndcg_linear@5 45.44" in printed and "- FAILED MSVD: " in printed


def test_the_preflight_says_what_is_ready(tmp_path):
    arguments = ["--hub-dir", str(FIXTURES / "hub"), "--media-dir", str(FIXTURES / "data_basedir"), "--check"]
    assert "2 of 2 tasks are ready" in run("mmeb-v2", *arguments, *BOTH)
    printed = run("mmeb-v2", *arguments, "--tasks", "ViDoSeek-doc,ViDoSeek-page", code=1)
    assert "ViDoSeek-page: NOT READY: cannot read the rows of VLM2Vec/ViDoSeek-page-fixed" in printed
    assert "1 of 2 tasks are ready" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mmeb-v2", "--paradigm", "cot", "--latent-steps", "2"], "cot writes a rationale instead of latent steps"),
        (["miniature", "--paradigm", "cot", "--latent-steps", "2"], "cot writes a rationale instead of latent steps"),
        (["mmeb-v2", "--variant", "new"], "fixed, original, plume"),
        (["mmeb-v2", "--tasks", "Nothing"], "No task named Nothing"),
        (["mmeb-v2", "--model", "a", "--peer", "b"], "Give one of --model, --peer and --embeddings-dir"),
        (["mmeb-v2", "--check"], "pass --media-dir"),
        (["miniature", "--steps", "2,x"], "--steps takes whole numbers, cot"),
        (["miniature", "--steps", "2", "--latent-steps", "2"], "Give either --steps or"),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_work(arguments, message):
    assert message in refused(*arguments)


# Intervals


def test_an_interval_is_that_of_the_binomial_and_repeats():
    values = [1] * 300 + [0] * 700
    found = estimate([values])
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert found.mean == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.005)
    assert estimate([values]) == found and str(found).startswith("30.0 [2")


def test_a_mean_over_tasks_weighs_tasks_and_not_queries():
    both = estimate([[1] * 10, [0] * 990])
    assert (both.mean, both.low, both.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no queries"):
        estimate([[1], []])


def test_a_folders_hash_sees_weights_code_and_names(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    first = hash_folder(tmp_path)
    (tmp_path / "b.py").write_text("x = 1")
    second = hash_folder(tmp_path)
    (tmp_path / "notes.log").write_text("ignored")
    assert first != second == hash_folder(tmp_path)


# Metrics


def test_the_metrics_load_in_evaluate_without_network(tmp_path, monkeypatch):
    evaluate = pytest.importorskip("evaluate")
    hit, ndcg = (evaluate.load(metric_path(name), cache_dir=str(tmp_path)) for name in METRICS)
    found = hit.compute(predictions=[["a", "b"], ["b", "a"]], references=[["a"], ["a"]], k=1)
    assert found == {"hit_at_k": 0.5}
    graded = ndcg.compute(predictions=[["b", "a"]], references=[["a", "b"]], grades=[[3, 1]], k=5)
    assert graded["ndcg_at_k"] == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))
    with pytest.raises(ValueError, match="k must be 1, 5 or 10"):
        hit.compute(predictions=[["a"]], references=[["a"]], k=2)
    with pytest.raises(ValueError, match=re.escape("hit_at_k, ndcg_at_k")):
        metric_path("bleu")


def test_the_commands_scores_come_from_the_metrics(monkeypatch):
    asked = []

    def spied(name, predictions, references, **options):
        asked.append((name, options["k"]))
        return by_query(name, predictions, references, **options)

    monkeypatch.setattr("plume_embed.evaluation.mmeb_v2.score.by_query", spied)
    monkeypatch.setattr("plume_embed.evaluation.miniature.score.by_query", spied)
    found = score([Prediction([3, 1], (1, 2), (3, 1)), Prediction([7], (7,), None)])
    assert {f"hit@{k}" for name, k in asked if name == "hit_at_k"} == {"hit@1", "hit@5", "hit@10"}
    assert found["hit@1"] == 0.5 and found["hit@5"] == 1
    reached, ideal = 3 / np.log2(3), 3 + 1 / np.log2(3)
    assert found["ndcg_linear@5"] == pytest.approx((reached / ideal + 1) / 2)
    assert score([Prediction(["1"], (1,), None)])["hit@1"] == 0  # a text is not the number that it spells
    asked.clear()
    assert query_scores([np.array([0.1, 0.9])], [np.array([True, False])])[0] == pytest.approx([0, 1 / np.log2(3)])
    assert asked == [("hit_at_k", 1), ("ndcg_at_k", 5)]
