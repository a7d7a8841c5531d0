"""The example of fine-tuning on pairs of one's own."""

import json

from PIL import Image

from plume_embed.training.data.pair_rows import read_pairs
from training.pairs_example.make import main as make
from training.pairs_example.seeds import RESULTS


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
