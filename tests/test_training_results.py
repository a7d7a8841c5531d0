"""Collected runs: the committed figures, and what the collection refuses."""

import json
from pathlib import Path

import pytest

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
