"""Facts about `evaluate miniature`: the models it is given, what it writes, keeps and draws, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature_colours import NAMES, ColourEmbedder, png, run
from typer.testing import CliRunner

from plume_embed.cli.evaluate.app import app
from plume_embed.cli.evaluate.contestants import (
    ModelOptions,
    check_options,
    load_contestants,
    model_and_steps,
    parse_steps,
)
from plume_embed.evaluation import embedders
from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder, column_name
from plume_embed.evaluation.miniature import report as miniature_report
from plume_embed.evaluation.miniature import store
from plume_embed.evaluation.miniature.schema import write_media
from plume_embed.evaluation.tradeoff import write_plot
from plume_embed.model.modeling_plume import PlumeModel


def command(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["miniature", *arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_the_command_compares_steps_writes_figures_and_draws_them(data, released_model_dir, tmp_path):
    where = ["--data", str(data), "--model", str(released_model_dir), "--device", "cpu"]
    out = ["--json", str(tmp_path / "new" / "figures.json"), "--plot", str(tmp_path / "figure.svg")]
    printed = command(*where, *out, "--resamples", "50", "--steps", "0,2", "--latency-rounds", "1")
    assert "released_tiny single pass" in printed and "ms per item, batch 1 " in printed
    report = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert [(m["paradigm"], m["num_latent_steps"]) for m in report["models"]] == [
        ("single", 0),
        ("latent", 2),
        (None, None),
    ]
    assert report["conditions"]["threads"] == 1 and report["conditions"]["batch_size"] == 32
    assert all(set(m["ms_per_item"]) == {"1", "28"} for m in report["models"][:2])
    assert report["models"][0]["num_items"] == 32
    readme = miniature_report.markdown(report)
    heads = ["", "chance", "best guess", "released_tiny single pass", "released_tiny K=2", "16x16 thumbnails"]
    assert readme.splitlines()[0] == f"| {' | '.join(heads)} |"
    assert "| **mean** |" in readme and "| VisDoc (NDCG@5) |" in readme
    drawn = (tmp_path / "figure.svg").read_text()
    assert "<!-- K=2 -->" in drawn and "<!-- K=0 -->" in drawn and "<!-- CoT -->" not in drawn


def test_a_model_may_bring_its_own_steps(data, released_model_dir, tmp_path):
    out = ["--json", str(tmp_path / "figures.json"), "--resamples", "20", "--latency-rounds", "0"]
    command("--data", str(data), "--device", "cpu", *out, "--model", f"{released_model_dir}@0,2", "--steps", "4")
    models = json.loads((tmp_path / "figures.json").read_text())["models"]
    assert [model["num_latent_steps"] for model in models] == [0, 2, None]
    assert model_and_steps("runs/a@b") == ("runs/a@b", None) and model_and_steps(None) == (None, None)
    assert model_and_steps("runs/a@b@cot") == ("runs/a@b", "cot")
    assert model_and_steps("runs/a@anchor,z1,8") == ("runs/a", "anchor,z1,8")
    assert parse_steps("0,anchor,z1,8,cot") == [
        ("single", None),
        ("anchor", None),
        ("state", 1),
        ("latent", 8),
        ("cot", None),
    ]
    with pytest.raises(ValueError, match="takes whole numbers, cot, anchor and z1"):
        parse_steps("0,y1")


def test_steps_that_are_named_twice_count_once():
    assert parse_steps("8, 8,0,z0,cot,cot") == [("latent", 8), ("single", None), ("cot", None)]


def test_options_that_no_model_of_a_table_would_read_are_refused():
    """Before any of them is loaded."""
    variants = [("latent", None)]
    with pytest.raises(ValueError, match="a --peer run its own code, and there is none; leave it out"):
        load_contestants(["gone"], [], variants, ModelOptions("cpu", "auto", trust_remote_code=True))
    with pytest.raises(ValueError, match=r"of a written rationale \(cot\), and none is asked for"):
        load_contestants(["gone", "gone@0"], [], variants, ModelOptions("cpu", "auto", max_new_tokens=3))
    check_options(ModelOptions("cpu", "auto", 3, True), [*variants, ("cot", None)], ["peer"])


def test_read_outs_have_columns_of_their_own(released_model_dir):
    found = [
        PlumeEmbedder(released_model_dir, paradigm, steps, device="cpu")
        for paradigm, steps in (("latent", 2), ("state", 2), ("anchor", None), ("single", None))
    ]
    heads = [column_name(embedder).split(maxsplit=1)[1] for embedder in found]
    assert heads == ["K=2", "z(2)", "anchor", "single pass"]
    assert len({embedder.fingerprint for embedder in found}) == 4
    vectors = [embedder.embed([{"text": "a red bicycle"}], 1) for embedder in found]
    cosines = [float((one * other).sum()) for n, one in enumerate(vectors) for other in vectors[:n]]
    assert max(cosines) < 0.999 and all(abs(float(np.linalg.norm(one)) - 1) < 1e-5 for one in vectors)


def test_kept_scores_are_taken_for_the_same_model_data_tasks_and_code_only(
    data, released_model_dir, tmp_path, monkeypatch
):
    where = ["--data", str(data), "--model", f"{released_model_dir}@2", "--device", "cpu", "--resamples", "20"]
    where += ["--latency-rounds", "0", "--keep", str(tmp_path / "kept"), "--json"]
    command(*where, str(tmp_path / "first.json"))
    assert len(list((tmp_path / "kept").iterdir())) == 1

    def refuse(*args):
        pytest.fail("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(PlumeEmbedder, "embed_readable", refuse)
        command(*where, str(tmp_path / "second.json"))
    reports = [json.loads((tmp_path / name).read_text()) for name in ("first.json", "second.json")]
    assert reports[0] == reports[1]
    command(*where, str(tmp_path / "third.json"), "--meta", "I-CLS")
    where[3] = f"{released_model_dir}@0"
    command(*where, str(tmp_path / "fourth.json"))
    assert len(list((tmp_path / "kept").iterdir())) == 3
    redrawn = tmp_path / "redrawn"
    shutil.copytree(data, redrawn)
    write_media({f"crop/{name}": [png(name, 56)] for name in NAMES}, redrawn, "crop")
    where[1] = str(redrawn)
    command(*where, str(tmp_path / "fifth.json"))
    assert len(list((tmp_path / "kept").iterdir())) == 4
    for place in (store, embedders):  # the code that ranks, and the code that embeds
        with monkeypatch.context() as patch:
            patch.setattr(place, "_CODE", (Path(__file__),))
            command(*where, str(tmp_path / "other code.json"))
    assert len(list((tmp_path / "kept").iterdir())) == 6


def test_a_written_rationale_stands_beside_the_latent_steps_with_its_latency_and_length(
    data, released_model_dir, tmp_path, monkeypatch
):
    def ends_at_once(model, states):
        vocabulary = model.config.get_text_config().vocab_size
        return torch.arange(vocabulary).eq(model.config.embedding_token_id).float().expand(*states.shape[:-1], -1)

    monkeypatch.setattr(PlumeModel, "next_token_logits", ends_at_once)
    where = ["--data", str(data), "--model", str(released_model_dir), "--device", "cpu", "--latency-rounds", "1"]
    out = ["--json", str(tmp_path / "figures.json"), "--plot", str(tmp_path / "figure.svg"), "--resamples", "20"]
    printed = command(*where, *out, "--steps", "2,cot")
    assert "- released_tiny CoT wrote 1.0 tokens an item." in printed
    explicit = json.loads((tmp_path / "figures.json").read_text())["models"][1]
    assert (explicit["paradigm"], explicit["num_latent_steps"]) == ("cot", 0)
    assert explicit["rationales"] == {"num_rows": 32, "num_tokens": 32, "num_cut": 0}
    assert explicit["means"]["mean"] is not None and explicit["ms_per_item"]["1"] > 0
    assert "<!-- CoT -->" in (tmp_path / "figure.svg").read_text()


def test_two_columns_of_one_name_are_refused(data):
    one, other = ColourEmbedder(), ColourEmbedder()
    with pytest.raises(ValueError, match="colours K=2 is named twice"):
        run(data, one, other)
    other.fingerprint = "of other weights"
    with pytest.raises(ValueError, match="Two models would be called colours K=2"):
        run(data, one, other)


def test_a_folder_whose_name_ends_as_steps_do_is_a_folder(data, released_model_dir, tmp_path):
    folder = tmp_path / "plume@2"
    shutil.copytree(released_model_dir, folder)
    assert model_and_steps(str(folder)) == (str(folder), None)
    assert model_and_steps(f"{folder}@0") == (str(folder), "0")


def test_the_dtype_reaches_peers_and_is_said_of_each_where_they_differ(released_model_dir):
    options = ModelOptions("cpu", "auto")
    found, conditions = load_contestants([str(released_model_dir)], [], [("latent", 2), ("single", None)], options)
    assert [embedder.dtype for embedder in found] == ["float32"] * 2 and conditions["dtype"] == "float32"
    peer = SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True, dtype="bfloat16")
    whole = SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True)
    assert (peer.dtype, whole.dtype) == ("bfloat16", "float32") and peer.fingerprint != whole.fingerprint
    with pytest.raises(ValueError, match="dtype of a peer is one of auto, float32, bfloat16, float16, got 'int8'"):
        SentenceTransformerEmbedder(str(released_model_dir), "cpu", True, "int8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--meta", "I-CLS,I-QA"], "mean of all nine meta-tasks, or one whole"),
        (["--tasks", "I-RET/text to picture", "--meta", "V-RET"], "No task has both"),
        (["--tasks", "I-QA/colour", "--tasks", "V-QA/colour"], "mean of all nine meta-tasks, or one whole"),
        (["--latency-rounds", "0"], "give --latency-rounds a number from 1"),
    ],
)
def test_a_plot_that_could_only_fail_is_refused_before_a_model_is_loaded(data, tmp_path, options, said):
    where = ["--data", str(data), "--model", str(tmp_path / "none"), "--plot", str(tmp_path / "figure.svg")]
    result = CliRunner().invoke(app, ["miniature", *where, *options])
    assert isinstance(result.exception, ValueError) and said in str(result.exception)


def test_a_plot_of_one_meta_task_is_drawn_into_a_folder_that_is_new(data, released_model_dir, tmp_path):
    where = ["--data", str(data), "--model", str(released_model_dir), "--device", "cpu", "--resamples", "20"]
    out = tmp_path / "new" / "folder" / "figure.svg"
    printed = command(*where, "--meta", "I-CLS", "--latency-rounds", "1", "--steps", "0,2", "--plot", str(out))
    assert "<!-- I-CLS, % -->" in out.read_text() and f"written: {out}" in printed.replace("\n", "")


def test_a_model_that_writes_no_rationale_fails_in_one_clear_sentence_and_the_others_go_on(data, released_model_dir):
    where = ["--data", str(data), "--model", str(released_model_dir), "--device", "cpu", "--latency-rounds", "0"]
    printed = command(*where, "--steps", "2,cot", "--max-new-tokens", "3", "--resamples", "20", code=1)
    assert "FAILED released_tiny CoT: 10 tasks, I-CLS/picture to label (known) first: None of 32 rationales" in printed


def test_a_plot_without_points_or_of_an_unknown_format_is_refused(data, tmp_path):
    _, _, report = run(data, ColourEmbedder())
    with pytest.raises(ValueError, match="nothing to plot"):
        write_plot(report, tmp_path / "figure.svg")
    _, _, report = run(data, ColourEmbedder(), latency_rounds=1)
    with pytest.raises(ValueError, match="A plot is one of .*svg.*, got figure.nothing"):
        write_plot(report, tmp_path / "figure.nothing")
    assert write_plot(report, tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("slowest", [3.0, 300.0])
def test_a_paradigm_that_is_far_off_is_drawn_on_a_logarithmic_axis(data, tmp_path, slowest):
    _, _, report = run(data, ColourEmbedder(), ColourEmbedder(name="others"))
    for model, paradigm, ms in zip(report["models"], ("latent", "cot"), (2.0, slowest), strict=True):
        model |= {"paradigm": paradigm, "ms_per_item": {"1": ms}, "weights": "one"}
    drawn = write_plot(report, tmp_path / "figure.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("ms per item, batch 1", "CoT", "explicit CoT"))
    assert ("<!-- 10 -->" in drawn and "<!-- 100 -->" in drawn) == (slowest > 100)
    report["models"][1]["weights"] = "two"
    named = write_plot(report, tmp_path / "named.svg").read_text()
    assert f"<!-- {report['models'][1]['model']} -->" in named and "<!-- CoT -->" not in named
    alone = write_plot(report, tmp_path / "alone.svg", of="V-RET").read_text()
    assert "<!-- V-RET, % -->" in alone
