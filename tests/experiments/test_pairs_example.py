"""The example of fine-tuning on pairs of one's own."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from plume_embed.training.data.pair_rows import read_pairs
from plume_embed.training.recipe import load_recipe
from training.pairs_example.make import main as make
from training.pairs_example.seeds import RESULTS
from training.pairs_example.seeds import main as seeds_main


def test_the_sketches_are_pairs_and_made_alike_each_time(tmp_path):
    for name in ("a", "b"):
        make(tmp_path / name)
    rows = read_pairs([tmp_path / "a" / "sketches.csv"])
    assert len(rows) == 160
    query, again = rows[0].query["image"][0], tmp_path / "b" / rows[0].query["image"][0].name
    assert query.read_bytes() == again.read_bytes() and Image.open(query).mode == "L"


def test_fine_tuning_visibly_improved_every_seed():
    seeds = json.loads(RESULTS.read_text())["seeds"]
    assert len(seeds) == 3
    for one in seeds.values():
        assert one["after"]["ndcg_at_10"] > one["before"]["ndcg_at_10"] + 0.05
        assert one["cpu_minutes"] < 10


def run_of(folder: Path, data: Path, seed: int, steps: int) -> None:
    """What a run of so many steps leaves behind."""
    settings = [f"data.files=[{data / 'sketches.csv'}]", f"seed={seed}", f"output_dir={folder}"]
    made_by = asdict(load_recipe("pairs", [*settings, f"curriculum.max_steps={steps}"]))
    one = json.loads(RESULTS.read_text())["seeds"]["0"]
    about = {"queries": 32, "pool": 32, "torch": "2", "device": "cpu", "train_cpu_minutes": 1.0}
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(
        json.dumps({**one["after"], "before": one["before"], "recipe": made_by, **about})
    )


def test_other_seeds_that_the_file_holds_stay_in_it(tmp_path):
    to, data = tmp_path / "results.json", tmp_path / "data"
    to.write_bytes(RESULTS.read_bytes())
    run_of(tmp_path / "runs" / "seed-3", data, 3, 100)
    seeds_main(data, tmp_path / "runs", "3", 100, to)
    held, before = json.loads(to.read_text())["seeds"], json.loads(RESULTS.read_text())["seeds"]
    assert list(held) == ["0", "1", "2", "3"] and {seed: held[seed] for seed in before} == before
    with pytest.raises(ValueError, match="holds seed 0 with 100 steps; ask with --steps 100"):
        seeds_main(data, tmp_path / "runs", "3", 400, to)


def test_a_finished_run_of_other_steps_is_refused(tmp_path):
    run_of(tmp_path / "runs" / "seed-0", tmp_path / "data", 0, 100)
    with pytest.raises(ValueError, match="seed-0 holds a run of another recipe"):
        seeds_main(tmp_path / "data", tmp_path / "runs", "0", 400, tmp_path / "results.json")
