"""The diagnostics of the latent steps: what they read from models and sets, and the tables of the committed results."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from common import random_item
from typer.testing import CliRunner

from plume_embed import PlumeModel, PlumeProcessor
from training.hops import hops, mixed
from training.steps import diagnose as script
from training.steps import tables
from training.steps.diagnose import diagnose, hits, mean_of
from training.steps.sets import DiagnosticSet, Loaded, last_press, named_pictures

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def entry(released_model_dir) -> dict:
    model = PlumeModel.from_pretrained(released_model_dir, num_latent_steps=3).eval()
    rng = random.Random(1)
    items = [random_item(rng) for _ in range(6)]
    asked = DiagnosticSet("themselves", items, items, [[n] for n in range(6)], 3, [1, 1, 2, 2, 3, 3])
    return diagnose(Loaded("random", model, PlumeProcessor.from_pretrained(released_model_dir), [asked]), asked)


def test_items_find_themselves_by_every_read_out_and_their_own_latents_take_nothing_away(entry):
    assert list(entry["read_outs"]) == ["anchor", "z(0)", "z(1)", "z(2)", "z(3)", "embedding"]
    assert all(found["same"][0] == 1 for found in entry["read_outs"].values())
    assert [found[0] for found in entry["after_step"]["hit"]] == [1, 1, 1, 1]
    assert entry["after_step"]["by_depth"] == {"1": [1.0] * 4, "2": [1.0] * 4, "3": [1.0] * 4}
    assert entry["causal"]["as they are"]["difference"] == [0, 0, 0] and entry["chance"] == pytest.approx(1 / 6)
    assert len(entry["similarities"]["between_steps"]) == 4 and entry["document_latent_steps"] == 3


def test_a_hit_is_the_nearest_candidate_among_the_right_ones_and_its_interval_holds_the_mean():
    queries, candidates = torch.eye(3), torch.eye(3)[[1, 0, 2]]
    found = hits(queries, candidates, [[1], [1, 0], [0]])
    assert found.tolist() == [1, 1, 0]
    mean, low, high = mean_of(np.array([1.0, 0.0] * 50))
    assert low < mean == 0.5 < high


def test_the_depth_of_a_query_is_the_place_of_its_last_press():
    rng = random.Random(3)
    for query in [hops.draw(rng) for _ in range(40)] + [mixed.draw(rng) for _ in range(40)]:
        depth = last_press(query)
        states = query.states
        assert len(set(states[depth - 1 :])) == 1  # nothing happens behind it
        assert query.num_presses <= depth <= 8


def test_named_pictures_are_searched_by_their_names():
    drawings, photographs = (named_pictures(ROOT / "examples" / name, 8) for name in ("", "photographs"))
    assert len(drawings.queries) == len(drawings.candidates) == 160 and "banana" in drawings.queries
    assert "abandoned house" in photographs.queries
    assert all(file.is_file() for file in [*drawings.candidates, *photographs.candidates])


def test_the_command_keeps_what_it_has_found(released_model_dir, tmp_path, monkeypatch):
    pictures, to = tmp_path / "pictures", tmp_path / "found.json"
    pictures.mkdir()
    for name in ("cat.jpg", "airplane.jpg", "canyon.jpg"):
        shutil.copy(ROOT / "examples" / "photographs" / name, pictures / name)
    arguments = ["--checkpoint", str(released_model_dir), "--pictures", str(pictures), "--json", str(to)]
    app, command = CliRunner(), typer.Typer()
    command.command()(script.main)
    assert app.invoke(command, arguments, catch_exceptions=False).exit_code == 0
    (key,) = json.loads(to.read_text())
    assert key == "names -> pictures/released_tiny"
    monkeypatch.setattr(script, "diagnose", lambda *_: pytest.fail("it was there"))
    assert app.invoke(command, arguments, catch_exceptions=False).exit_code == 0


def test_seeds_share_a_row_with_students_interval_and_one_model_has_its_own(entry):
    def seed(number: int, hit: float) -> dict:
        causal = entry["causal"] | {"noise": {"hit": [0, 0, 0], "difference": [hit, 0, 0], "follows": 0.5}}
        return entry | {"set": "hops", "model": f"full-{number}", "causal": causal}

    results = {"a": seed(0, -0.2), "b": seed(1, -0.4), "c": entry}
    assert {name: len(found) for name, found in tables.groups(results).items()} == {
        "hops, full": 2,
        "themselves, random": 1,
    }
    half = 12.706 * 0.1  # Student's t of one degree of freedom, times the standard error
    row = next(line for line in tables.causal(results).splitlines() if line.startswith("| hops"))
    assert f"-30.0 [{-30 - 100 * half:.1f}, {-30 + 100 * half:+.1f}]" in row
    for render in (tables.read_outs, tables.causal, tables.likeness):
        lines = render(results).splitlines()
        assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
