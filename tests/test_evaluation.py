"""Facts about the evaluation commands, the miniature's comparison, the intervals and the loadable metrics."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, List, Value
from mmeb_v2_data import FIXTURES
from PIL import Image as Picture
from typer.testing import CliRunner

from plume_embed.evaluation import miniature_run
from plume_embed.evaluation.bootstrap import estimate
from plume_embed.evaluation.cli import app
from plume_embed.evaluation.embedders import InputError, PlumeEmbedder, hash_folder
from plume_embed.evaluation.metrics import METRICS, metric_path
from plume_embed.evaluation.miniature_run import PIXELS, Contestant
from plume_embed.evaluation.tradeoff import write_plot

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
        (["mmeb-v2", "--paradigm", "cot"], "cannot decode text yet"),
        (["miniature", "--paradigm", "cot"], "cannot decode text yet"),
        (["mmeb-v2", "--variant", "new"], "fixed, original, plume"),
        (["mmeb-v2", "--tasks", "Nothing"], "No task named Nothing"),
        (["mmeb-v2", "--model", "a", "--peer", "b"], "Give one of --model, --peer and --embeddings-dir"),
        (["mmeb-v2", "--check"], "pass --media-dir"),
        (["miniature", "--steps", "2,x"], "--steps takes whole numbers"),
        (["miniature", "--steps", "2", "--latent-steps", "2"], "Give either --steps or"),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_work(arguments, message):
    assert message in refused(*arguments)


# The miniature


class ColourEmbedder:
    """The mean colour of a picture; a text is the colour that it names. Takes no text if told so."""

    name, fingerprint, num_latent_steps, paradigm = "colours", "c", 2, "latent"

    def __init__(self, takes_text: bool = True) -> None:
        self.takes_text = takes_text

    def embed(self, inputs, batch_size):
        if not self.takes_text and "text" in inputs[0]:
            raise InputError(0, "no text")
        vectors = []
        for item in inputs:
            image = item["image"] if "image" in item else Picture.new("RGB", (1, 1), item["text"].split()[-1])
            vectors.append(np.asarray(image.convert("RGB"), np.float32).reshape(-1, 3).mean(axis=0) + 1)
        array = np.array(vectors, np.float32)
        return array / np.linalg.norm(array, axis=1, keepdims=True)


@pytest.fixture
def stills(tmp_path) -> Path:
    """Two trained and two held-out colours, in the test style and in two training styles."""
    columns: dict[str, list] = {name: [] for name in ("image", "hexcode", "label", "tags", "group", "subgroup")}
    columns |= {name: [] for name in ("skin_tone", "gender", "family", "split_family", "style", "picture_hash")}
    for style, side in (("twemoji", 8), ("noto", 10), ("fluent-flat", 12)):
        for number, colour in enumerate(("red", "lime", "blue", "yellow")):
            row = {"image": Picture.new("RGB", (side, side), colour), "hexcode": colour, "label": f"all {colour}"}
            row |= {"tags": [], "group": "symbols", "subgroup": colour, "skin_tone": "", "gender": ""}
            row |= {"family": colour, "split_family": "train" if number < 2 else "test", "style": style}
            for name, value in (row | {"picture_hash": f"{style} {colour}"}).items():
                columns[name].append(value)
    features = {name: Value("string") for name in columns} | {"image": Image(), "tags": List(Value("string"))}
    Dataset.from_dict(columns, Features(features)).to_parquet(tmp_path / "stills.parquet")
    return tmp_path


def test_models_and_pixels_stand_in_one_table(stills):
    tasks, (colours, deaf, pixels) = miniature_run.evaluate(stills, [ColourEmbedder(), ColourEmbedder(False)])
    assert len(tasks) == 6 and pixels.name == PIXELS and colours.name == "colours K=2"
    assert [contestant.ms_per_item is None for contestant in (colours, deaf, pixels)] == [False, False, True]
    means = [None if hits is None else float(hits.mean()) for hits in colours.hits]
    assert means == [1.0] * 6
    table = miniature_run.as_json(tasks, [colours, deaf, pixels])
    assert table["models"][0]["mean"] == [1.0, 1.0, 1.0]
    assert {task["task"] for task in table["models"][1]["tasks"] if task["hit@1"] is None} == {
        "text -> picture",
        "picture -> label",
    }
    assert table["models"][1]["mean"] is None, "a mean over fewer tasks would not compare"


def test_batching_changes_no_ranking_of_a_plume_model(stills, released_model_dir):
    embedder = PlumeEmbedder(released_model_dir, num_latent_steps=2, device="cpu")
    singly, together = (
        miniature_run.evaluate(stills, [embedder], batch_size, with_pixels=False)[1][0] for batch_size in (1, 16)
    )
    for one, many in zip(singly.hits, together.hits, strict=True):
        assert np.array_equal(one, many)


def test_the_miniature_command_compares_steps_and_draws_them(stills, released_model_dir, tmp_path):
    where = ["--data", str(stills), "--model", str(released_model_dir), "--device", "cpu"]
    out = ["--json", str(tmp_path / "figures.json"), "--plot", str(tmp_path / "figure.svg"), "--resamples", "50"]
    printed = run("miniature", *where, *out, "--steps", "0,2")
    assert "released_tiny K=0" in printed and "ms per item" in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [(m["paradigm"], m["num_latent_steps"]) for m in figures["models"]] == [
        ("single", 0),
        ("latent", 2),
        (None, None),
    ]
    drawn = (tmp_path / "figure.svg").read_text()
    assert drawn.count("<circle") == 2 and "released_tiny K=2" in drawn


def test_a_plot_without_points_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to plot"):
        write_plot([Contestant("pixels", [np.array([1])])], tmp_path / "figure.svg")


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
