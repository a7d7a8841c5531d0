"""plume-tiny in four paradigms: what is trained from one stage 0, and what is written down of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from training_folder import training_folder

from plume_embed.training.log import LOG_FILE
from training.ablations.grid import run_one
from training.ablations.rows import TRUNK_ROW
from training.plume_tiny.paradigms import PARADIGMS, collected, grid_of, kept, main, markdown
from training.plume_tiny.publish import ROOT, publish

RESULTS = ROOT / "training" / "plume_tiny" / "results" / "paradigms.json"
SMALL = ["batch_size=4", "model.path=null", "model.side=28", "model.vocab_size=400", "model.hidden_size=64"]
SMALL += ["model.vision_size=32", "model.vision_depth=1", "curriculum.max_steps=10", "curriculum.warmup=1"]
SMALL += ["curriculum.shares=[2,2,2,2,2]", "logging_steps=1", "save_steps=0", "data.enlarge_to=0", "data.repeat={}"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = training_folder(tmp_path_factory.mktemp("miniature"))
    out = tmp_path_factory.mktemp("runs")
    grid = grid_of(out, 0, (*SMALL, f"data.folder={folder}"))
    trunk = grid.recipe(TRUNK_ROW, 0)
    run_one(trunk, None, is_trunk=True)
    for row in PARADIGMS:
        run_one(grid.recipe(row, 0), trunk if grid.needs_trunk(row) else None)
    return grid


def test_all_but_the_single_pass_go_on_from_one_stage_0(grid):
    runs = collected(grid, 0)
    assert list(runs) == list(PARADIGMS)
    assert {row: run["steps_shared"] for row, run in runs.items()} == {
        "single_pass": 0,
        "explicit_cot": 2,
        "no_curriculum": 2,
        "full": 2,
    }
    logs = {row: (grid.folder(row, 0) / LOG_FILE).read_text().splitlines() for row in PARADIGMS}
    losses = {row: [json.loads(line)["loss"] for line in lines] for row, lines in logs.items()}
    assert {row: len(found) for row, found in losses.items()} == dict.fromkeys(PARADIGMS, 10) | {"explicit_cot": 6}
    assert losses["explicit_cot"][:2] == losses["no_curriculum"][:2] == losses["full"][:2]
    assert losses["single_pass"][0] != losses["full"][0] and losses["explicit_cot"][2:] != losses["full"][2:]
    assert all("output_dir" not in run["recipe"] for run in runs.values())
    assert "ce" not in runs["single_pass"]["ended_with"] and "ce" in runs["explicit_cot"]["ended_with"]
    assert "router_entropy" in runs["full"]["ended_with"]


def test_a_model_embeds_as_it_was_trained(grid):
    steps = {
        row: json.loads((grid.folder(row, 0) / "model" / "config.json").read_text())["num_latent_steps"]
        for row in PARADIGMS
    }
    assert steps == {"single_pass": 0, "explicit_cot": 8, "no_curriculum": 8, "full": 8}


def test_what_is_published_is_the_last_runs_model_with_the_roots_code_and_a_record_of_every_run(grid, tmp_path):
    runs, to = [grid.folder(row, 0) for row in ("full", "no_curriculum")], tmp_path / "published"
    (to / "thesis").mkdir(parents=True)
    with pytest.raises(ValueError, match="is not empty, it holds thesis"):
        publish(runs, to)
    (to / "thesis").rmdir()
    publish(runs[:1], to)
    (to / "removed_plume.py").symlink_to("../../removed_plume.py")
    publish(runs, to)
    model, files = runs[-1] / "model", {file.name: file for file in to.iterdir()}
    assert set(files) == {file.name for file in model.iterdir()} | {"training.json"}
    assert files["model.safetensors"].read_bytes() == (model / "model.safetensors").read_bytes()
    code = {file for file in files.values() if file.suffix == ".py"}
    assert all(file.is_symlink() and file.resolve() == ROOT / file.name for file in code) and len(code) > 5
    assert all(not file.readlink().is_absolute() for file in code)
    records = json.loads(files["training.json"].read_text())["runs"]
    assert [run["name"] for run in records] == ["full-0", "no_curriculum-0"]
    assert [len(run["losses"]) for run in records] == [10, 10] and records[0]["losses"][-1]["stage"] == 4
    assert all("output_dir" not in run["recipe"] and run["processes"] == 1 for run in records)
    with pytest.raises(ValueError, match="the run has not ended"):
        publish([tmp_path], to)
    assert (to / "training.json").is_file(), "a published model is not lost to a mistake"


def test_the_table_has_a_line_a_run_with_the_shared_minutes_in_its_sum():
    ended = {"nce_gen": 1.234, "ce": 0.5}
    recipe = {"curriculum": {"max_steps": 1200}, "batch_size": 96}
    run = {"label": "full", "recipe": recipe, "ended_with": ended}
    run |= {"train_cpu_minutes": 20.4, "train_cpu_minutes_shared": 30.0}
    line = markdown({"full": run}).splitlines()[-1]
    assert line == "| full | 1,200 x 96 | 50 | 30 | 1.23 | 0.50 |"


def test_paradigms_that_are_not_asked_for_stay_in_the_results_file_unless_they_are_of_other_settings(grid, tmp_path):
    to, alone = tmp_path / "results.json", replace(grid, rows=("full",))
    assert kept(to, alone, 0) == {}
    to.write_text(json.dumps(collected(grid, 0)))
    options = {"out": grid.out, "to": to, "rows": "full", "settings": list(grid.settings)}
    with pytest.raises(SystemExit):  # nothing is missing, so nothing is trained
        main(**options)
    assert list(json.loads(to.read_text())) == list(PARADIGMS)
    with pytest.raises(ValueError, match="holds single_pass of another seed or other settings"):
        kept(to, replace(alone, settings=(*grid.settings, "batch_size=5")), 0)
    assert list(kept(RESULTS, grid_of(tmp_path, 0, rows=("full",)), 0)) == [
        "single_pass",
        "explicit_cot",
        "no_curriculum",
    ]


def test_a_run_that_has_not_ended_is_left_out(tmp_path):
    assert collected(grid_of(Path(tmp_path), 0), 0) == {}
