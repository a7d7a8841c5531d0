"""Facts about the evaluation commands, the intervals and the loadable metrics."""

import json
import re
import shutil

import numpy as np
import pytest
from mmeb_v2_data import FIXTURES
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from plume_embed.cli.evaluate.app import app
from plume_embed.evaluation.bootstrap import interval, resampled_means
from plume_embed.evaluation.embedders import InputError, SentenceTransformerEmbedder, hash_folder
from plume_embed.evaluation.metrics import METRICS, by_query, metric_path
from plume_embed.evaluation.miniature.score import query_scores
from plume_embed.evaluation.mmeb_v2.score import Prediction, score
from plume_embed.evaluation.similarity import ranked, similarities

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
    values = np.array([1.0] * 300 + [0.0] * 700)

    def estimate():
        return interval(values.mean(), resampled_means(values[:, None], 2000, np.random.default_rng(0)))

    found = estimate()
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert found.mean == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.005)
    assert estimate() == found


def test_no_interval_is_taken_over_no_queries():
    with pytest.raises(ValueError, match="no queries"):
        resampled_means(np.zeros((0, 1)), 20, np.random.default_rng(0))


# Rankings


def is_right(*places: int, of: int) -> np.ndarray:
    return np.isin(np.arange(of), places)


def test_ties_count_against_the_query_and_never_between_two_right_candidates():
    one, same = np.array([1.0, 1.0, 0.0]), np.zeros(3)
    found = ranked([same, one, one], [is_right(0, of=3), is_right(0, of=3), is_right(0, 1, of=3)])
    assert [row.tolist() for row in found] == [[False, False, True], [False, True, False], [True, True, False]]


@pytest.mark.parametrize(
    ("similarity", "correct", "message"),
    [
        ([0.3, np.nan], [True, False], "query 1 has a similarity that is NaN"),
        ([0.3, 0.2], [False, False], "query 1 has no correct candidate"),
    ],
)
def test_what_cannot_be_ranked_is_refused(similarity, correct, message):
    good = (np.array([1.0, 0.0]), is_right(0, of=2))
    with pytest.raises(ValueError, match=message):
        query_scores([good[0], np.array(similarity)], [good[1], np.array(correct)])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_have_no_similarity(value):
    rows, broken = np.eye(2, dtype=np.float32), np.array([[1, 0], [0, value]], dtype=np.float32)
    with pytest.raises(ValueError, match="the embedding of query 1 is NaN or infinite"):
        similarities(broken, rows)
    with pytest.raises(ValueError, match="the embedding of candidate 1 is NaN or infinite"):
        similarities(rows, broken)


# Peers


@pytest.fixture
def prompted(released_model_dir, tmp_path):
    """A peer with prompts; what it makes of a query and of a document differs by them alone."""
    folder = shutil.copytree(released_model_dir, tmp_path / "prompted")
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings["prompts"] = {"query": "a search for: ", "document": "a text: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def test_a_peer_embeds_queries_and_documents_by_its_own_prompts(prompted):
    library = SentenceTransformer(str(prompted), trust_remote_code=True, device="cpu")
    peer = SentenceTransformerEmbedder(str(prompted), "cpu", trust_remote_code=True)
    item = [{"text": "a cup"}]
    for embedder, wanted in (
        (peer, library.encode_query("a cup")),
        (peer.documents, library.encode_document("a cup")),
        (peer.documents.documents, library.encode_document("a cup")),
    ):
        np.testing.assert_allclose(embedder.embed(item, 1)[0], wanted, atol=1e-6)
    assert not np.allclose(*(side.embed(item, 1) for side in (peer, peer.documents)), atol=1e-3)


def test_a_benchmark_that_writes_instructions_gets_a_peer_without_its_prompts(prompted, released_model_dir):
    whole, bare, plain = (
        SentenceTransformerEmbedder(str(folder), "cpu", trust_remote_code=True, own_prompts=own)
        for folder, own in ((prompted, True), (prompted, False), (released_model_dir, True))
    )
    item = [{"text": "a cup"}]
    for side in (bare, bare.documents):
        np.testing.assert_allclose(side.embed(item, 1), plain.embed(item, 1), atol=1e-6)
    assert len({whole.fingerprint, bare.fingerprint, plain.fingerprint}) == 3


def test_a_peer_whose_sides_are_alike_embeds_everything_once(released_model_dir, tmp_path):
    folder = shutil.copytree(released_model_dir, tmp_path / "one way")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["kwargs"] = ["num_latent_steps"]
    (folder / "modules.json").write_text(json.dumps(modules))
    peer = SentenceTransformerEmbedder(str(folder), "cpu", trust_remote_code=True)
    assert peer.documents is peer


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "is NaN or infinite"), (0.0, "has norm 0.000"), (2.0, "has norm 2.828; normalise")]
)
def test_a_peers_vector_that_cannot_be_ranked_is_refused_by_the_models_name(released_model_dir, value, reason):
    peer = SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True)
    peer._encode = lambda items, **options: np.array([[1, 0]] + [[value, value]] * (len(items) - 1), dtype=np.float32)
    with pytest.raises(InputError, match=f"input 1: its embedding by released_tiny {reason}"):
        peer.embed([{"text": "a"}, {"text": "b"}], 2)
    vectors, errors = peer.embed_readable([{"text": "a"}, {"text": "b"}], 2)
    assert list(errors) == [1] and np.isnan(vectors[1]).all() and vectors[0].tolist() == [1, 0]


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
