"""Collected runs: the committed figures, and what the collection refuses."""

import json
from pathlib import Path

import pytest

from plume_embed.training.ablation_archive import archive_of, read_archive
from plume_embed.training.ablation_results import markdown as ablation_table
from plume_embed.training.collect import collect, markdown

ROOT = Path(__file__).parent.parent
HOPS = json.loads((ROOT / "training" / "results" / "hops.json").read_text())


def test_the_committed_hops_need_the_curriculum_and_the_latent_steps():
    assert HOPS["full_curriculum"]["hit_at_1"] >= 0.95
    assert HOPS["without_curriculum"]["recipe"]["curriculum"]["stages"] == [0, 4]
    assert HOPS["without_curriculum"]["hit_at_1"] < 0.30
    assert HOPS["single_pass"]["recipe"]["curriculum"]["num_latent_steps"] == 0
    assert HOPS["single_pass"]["hit_at_1"] < 0.30


def test_the_readme_shows_the_committed_hops():
    assert markdown(HOPS) in (ROOT / "README.md").read_text()


def test_the_readme_shows_the_committed_ablation_and_its_archive_has_the_same_runs():
    file = ROOT / "training" / "results" / "ablations_hops.json"
    results = json.loads(file.read_text())
    assert ablation_table(results) in (ROOT / "README.md").read_text()
    archived = {(row, str(seed)): run["hit_at_1"] for (row, seed), run in read_archive(archive_of(file)).items()}
    shown = {
        (row, seed): run["hit_at_1"] for row, entry in results["rows"].items() for seed, run in entry["runs"].items()
    }
    assert archived == shown
    assert results["rows"]["full"]["mean"] >= 0.95 and results["rows"]["no_curriculum"]["mean"] < 0.30


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
