"""`plume-embed report`: its numbers are those of the model, its pictures exist and are drawn."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.cli.main import main
from plume_embed.training.diagnostics import Sample, expert_activation, explicit_cosines, latent_cosines
from plume_embed.training.recipe import load_recipe, recipe_from
from plume_embed.training.report import write_report
from plume_embed.training.run import run
from training.hops import HOPS_MIXED
from training.hops.task import HopsTask

SETTINGS = ["curriculum.max_steps=10", "curriculum.shares=[2,2,2,2,2]", "batch_size=6", "workers=0", "logging_steps=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run of ten steps in four families, one of stage 0 alone, a single pass."""
    base, whole = tmp_path_factory.mktemp("runs"), HopsTask._evaluate
    changes = {"full": [], "explicit": ["curriculum.stages=[0]"], "single": ["curriculum.num_latent_steps=0"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HopsTask, "_evaluate", lambda self, model, stage, count: whole(self, model, stage, 20))
        for name, change in changes.items():
            run(load_recipe(HOPS_MIXED, [*SETTINGS, *change, f"output_dir={base / name}"]))
    return {name: base / name for name in changes}


def loaded(folder: Path):
    return PlumeModel.from_pretrained(folder / "model").eval(), PlumeProcessor.from_pretrained(folder / "model")


def samples(folder: Path, count: int) -> list[Sample]:
    recipe = recipe_from(json.loads((folder / "results.json").read_text())["recipe"])
    assert recipe == load_recipe(HOPS_MIXED, [*SETTINGS, f"output_dir={folder}"])
    return HopsTask.samples(_task(recipe), count)


def _task(recipe):
    from plume_embed.training.run import make_task

    return make_task(recipe)


def test_a_report_has_its_pictures_and_numbers(runs, tmp_path):
    files = write_report(runs["full"], tmp_path / "report", runs["explicit"], samples=15)
    names = ["curve.png", "latent_cosine.png", "experts_by_task.png", "experts_by_input.png", "report.json"]
    assert [path.name for path in files] == names
    for path in files[:-1]:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert min(pixels.shape[:2]) > 200 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    numbers = json.loads(files[-1].read_text())
    assert numbers["samples"] == 15 and numbers["expert_samples"] == 150
    assert set(numbers["experts_by_task"]) == {"film", "text", "count", "walk"}
    assert set(numbers["experts_by_input"]) == {"text", "text + image", "text + video"}
    for shares in (*numbers["experts_by_task"].values(), *numbers["experts_by_input"].values()):
        assert sum(shares) == pytest.approx(2) and len(shares) == 4
    assert len(numbers["latent_cosine"]["mean"]) == 10 and len(numbers["explicit_cosine"]["mean"]) == 32


def test_a_single_pass_has_a_curve_only(runs, tmp_path):
    files = write_report(runs["single"], tmp_path, samples=5)
    assert [path.name for path in files] == ["curve.png", "report.json"]
    with pytest.raises(ValueError, match="no latent steps to set beside those of --explicit"):
        write_report(runs["single"], tmp_path, runs["explicit"], samples=5)


def test_cosines_are_those_of_the_states_and_the_target_one_at_a_time(runs):
    model, processor = loaded(runs["full"])
    chosen = samples(runs["full"], 70)  # more than a batch, rows of different lengths
    found = latent_cosines(model, processor, chosen, 0)
    assert found.shape == (70, 10)
    for row in (0, 1, 69):
        with torch.inference_mode():
            target = model(**processor([chosen[row].target]), num_latent_steps=0).embeddings[0]
            output = model(**processor([chosen[row].query]), output_latent_states=True)
            z0 = model.prefix(**processor([chosen[row].query])).z0[0]
        states = [z0, *output.latent_states[0], output.embeddings[0]]
        expected = [F.cosine_similarity(state, target, dim=0).item() for state in states]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("target_writes", [False, True])
def test_explicit_cosines_begin_at_the_prefix_and_end_at_the_embedding(runs, target_writes):
    from plume_embed.encode.rationale import generate_rationale

    model, processor = loaded(runs["explicit"])
    chosen = samples(runs["full"], 3)  # each writes hundreds of tokens: the model has hardly been trained
    found = explicit_cosines(model, processor, chosen, target_writes, points=7)
    with torch.inference_mode():
        for row, sample in enumerate(chosen):
            batch = processor([sample.query])
            target = model(**processor([sample.target]), num_latent_steps=0).embeddings[0]
            if target_writes:
                target = generate_rationale(model, processor([sample.target])).embeddings[0]
            single = model(**batch, num_latent_steps=0).embeddings[0]
            written = generate_rationale(model, batch).embeddings[0]
            assert found[row, 0].item() == pytest.approx((single @ target).item(), abs=1e-5)
            assert found[row, -1].item() == pytest.approx((written @ target).item(), abs=1e-5)


def test_experts_are_counted_per_step_and_grouped(runs):
    model, processor = loaded(runs["full"])
    chosen = samples(runs["full"], 10)
    tasks, inputs = expert_activation(model, processor, chosen)
    walks = [sample for sample in chosen if sample.task == "walk"]
    counts = torch.zeros(4)
    with torch.inference_mode():
        for sample in walks:
            probs = model(**processor([sample.query]), output_router_probs=True).router_probs[0]  # [K, Me]
            for step in probs:
                counts[step.argsort(descending=True)[:2]] += 1
    assert tasks["walk"] == pytest.approx((counts / (8 * len(walks))).tolist(), abs=1e-6)
    assert inputs["text + image"] == pytest.approx(tasks["walk"], abs=1e-6)


def test_an_input_type_names_what_a_query_is_made_of():
    types = ["a", {"text": "a"}, {"image": 1}, {"image": 1, "text": "a"}, {"video": 1, "text": "a"}]
    assert [Sample(query, "t", "x").input_type for query in types] == [
        "text",
        "text",
        "image",
        "text + image",
        "text + video",
    ]


def test_a_small_task_is_reported_with_as_many_queries_as_it_has(runs, tmp_path, monkeypatch):
    original = HopsTask.samples
    monkeypatch.setattr(HopsTask, "samples", lambda task, count: original(task, min(count, 20)))
    write_report(runs["full"], tmp_path, samples=15)
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["samples"] == 15 and numbers["expert_samples"] == 20


def test_what_cannot_be_reported_says_why(runs, tmp_path):
    with pytest.raises(ValueError, match="has not ended"):
        write_report(tmp_path, tmp_path / "out")
    (tmp_path / "results.json").write_text((runs["full"] / "results.json").read_text())
    with pytest.raises(ValueError, match="no whole model"):
        write_report(tmp_path, tmp_path / "out")
    model, processor = loaded(runs["single"])
    with pytest.raises(ValueError, match="no latent states"):
        latent_cosines(model, processor, samples(runs["full"], 2), 0)
    with pytest.raises(ValueError, match="experts to choose from"):
        expert_activation(model, processor, samples(runs["full"], 2))


def test_a_lora_run_is_reported_from_its_merged_model(runs, tmp_path):
    for name in ("log.jsonl", "results.json"):
        shutil.copy(runs["single"] / name, tmp_path / name)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"write that with plume_embed\.training\.efficiency\.lora\.load_lora"):
        write_report(tmp_path, tmp_path / "out")
    shutil.copytree(runs["single"] / "model", tmp_path / "merged")
    assert [path.name for path in write_report(tmp_path, tmp_path / "out")] == ["curve.png", "report.json"]


@pytest.fixture
def damaged(runs, tmp_path) -> Path:
    """A copy of a run, to be damaged."""
    for name in ("model", "log.jsonl", "results.json"):
        copy = shutil.copytree if (runs["single"] / name).is_dir() else shutil.copy
        copy(runs["single"] / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("log", [None, "", '{"step": 1, "lo', '{"step": 3, "warning": "slow"}\n'])
def test_a_run_that_logged_no_loss_has_no_curve_and_it_is_said(log, damaged, capsys):
    (damaged / "log.jsonl").unlink()
    if log is not None:
        (damaged / "log.jsonl").write_text(log)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(damaged), "--samples", "2"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "no curve: the run logged no loss" in out and "report.json" in out
    assert [path.name for path in (damaged / "report").iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", b"{"),
        ("results.json", b"{}"),
        ("results.json", b"[]"),
        ("results.json", b'{"recipe": {"task": 3}}'),
        ("log.jsonl", b'{"step": 1, "loss": 2}\n'),
        ("log.jsonl", b'{"step": 1, "loss": null, "stage": 4, "latent_steps": 0}\n'),
        ("log.jsonl", b"\xff\xfe\n"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(name, content, damaged):
    (damaged / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name.replace('.', '[.]')} is damaged or of another form"):
        write_report(damaged, damaged / "report", samples=2)
    assert not (damaged / "report").exists()


def test_weights_that_were_cut_are_named(damaged):
    weights = damaged / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(ValueError, match="The weights in .*model are damaged"):
        write_report(damaged, damaged / "report", samples=2)
