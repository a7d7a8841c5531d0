"""Collected runs: the committed figures, and what the collection refuses."""

import json
from pathlib import Path

import pytest

from plume_embed.evaluation.miniature.report import markdown as nine_tasks
from training.ablations.archive import archive_of, read_archive
from training.ablations.tables import markdown as ablation_table
from training.plume_tiny.collect import collect, markdown
from training.plume_tiny.paradigms import EXPLICIT_SHARE, PARADIGMS
from training.plume_tiny.paradigms import markdown as paradigm_table

pytestmark = pytest.mark.release
ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = ROOT / "docs" / "results"
HOPS = json.loads((ROOT / "training" / "hops" / "results" / "hops.json").read_text())


def test_the_committed_hops_need_the_curriculum_and_the_latent_steps():
    assert HOPS["full_curriculum"]["hit_at_1"] >= 0.95
    assert HOPS["without_curriculum"]["recipe"]["curriculum"]["stages"] == [0, 4]
    assert HOPS["without_curriculum"]["hit_at_1"] < 0.30
    assert HOPS["single_pass"]["recipe"]["curriculum"]["num_latent_steps"] == 0
    assert HOPS["single_pass"]["hit_at_1"] < 0.30


def test_the_documents_show_the_committed_hops():
    assert markdown(HOPS) in (DOCUMENTS / "hops.md").read_text()


@pytest.mark.parametrize("task", ["hops", "hops_mixed"])
def test_the_documents_show_the_committed_ablation_and_its_archive_has_the_same_runs(task):
    file = ROOT / "training" / "ablations" / "results" / f"{task}.json"
    results = json.loads(file.read_text())
    assert results["task"] == task and ablation_table(results) in (DOCUMENTS / f"{task}.md").read_text()
    archived = {(row, str(seed)): run["hit_at_1"] for (row, seed), run in read_archive(archive_of(file)).items()}
    shown = {
        (row, seed): run["hit_at_1"] for row, entry in results["rows"].items() for seed, run in entry["runs"].items()
    }
    assert archived == shown
    assert results["rows"]["full"]["mean"] >= 0.95
    assert results["rows"]["no_curriculum"]["mean"] < (0.30 if task == "hops" else 0.70)


def test_the_documents_show_the_committed_paradigms_of_equal_data_and_budget():
    page = (DOCUMENTS / "plume_tiny.md").read_text()
    runs = json.loads((ROOT / "training" / "plume_tiny" / "results" / "paradigms.json").read_text())
    scores = json.loads((ROOT / "evaluation" / "results" / "paradigms.json").read_text())
    assert paradigm_table(runs) in page and nine_tasks(scores) in page
    assert list(runs) == list(PARADIGMS)
    recipes = {row: run["recipe"] for row, run in runs.items()}
    assert len({(r["batch_size"], r["seed"], r["model"]["path"], str(r["data"])) for r in recipes.values()}) == 1
    steps = {row: recipe["curriculum"]["max_steps"] for row, recipe in recipes.items()}
    assert steps["single_pass"] == steps["no_curriculum"] == steps["full"]
    assert steps["explicit_cot"] == round(EXPLICIT_SHARE * steps["full"])
    minutes = {row: run["train_cpu_minutes"] + run["train_cpu_minutes_shared"] for row, run in runs.items()}
    assert max(minutes.values()) <= 120  # an hour on 2 cores
    assert 0.7 <= minutes["explicit_cot"] / minutes["full"] <= 1.25
    named = {model["model"]: model for model in scores["models"]}
    for name in ("single_pass-0 single pass", "no_curriculum-0 K=8", "full-0 K=8", "explicit_cot-0 CoT"):
        assert named[name]["means"]["mean"] is not None and not named[name]["failed"]


def test_the_committed_diagnostics_say_what_their_page_says():
    found = json.loads((ROOT / "training" / "steps" / "results" / "diagnostics.json").read_text())
    tiny = found["names -> pictures/plume-tiny"]
    assert (
        tiny["causal"]["another query"]["difference"] == [0, 0, 0] and tiny["causal"]["another query"]["follows"] == 0
    )
    anchor, embedding = (tiny["read_outs"][name]["embedding"] for name in ("anchor", "embedding"))
    assert embedding[1] <= anchor[0] <= embedding[2]  # level
    assert min(value for row in tiny["similarities"]["between_steps"][2:] for value in row[2:]) > 0.9


def test_the_figures_of_plume_tiny_and_their_numbers_are_there():
    folder = ROOT / "training" / "plume_tiny" / "results" / "report"
    report = json.loads((folder / "report.json").read_text())
    assert len(report["latent_cosine"]["mean"]) == 10 and len(report["experts_by_task"]) == 17
    for name in ("curve", "latent_cosine", "experts_by_task", "experts_by_input"):
        assert (folder / f"{name}.png").stat().st_size > 10_000


def test_a_run_that_has_not_ended_and_two_of_one_name_are_refused(tmp_path):
    for folder in ("a/run", "b/run"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match="has not ended"):
        collect([tmp_path / "a" / "run"])
    for folder in ("a/run", "b/run"):
        (tmp_path / folder / "results.json").write_text(json.dumps({"recipe": {"output_dir": "somewhere"}}))
    assert collect([tmp_path / "a" / "run"]) == {"run": {"recipe": {}}}
    with pytest.raises(ValueError, match="Two runs are named run"):
        collect([tmp_path / "a" / "run", tmp_path / "b" / "run"])
