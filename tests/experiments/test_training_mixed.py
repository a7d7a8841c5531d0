"""The mixed setting: what its four families ask, and that its tables give what the processor gives."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from plume_embed.training.recipe import load_recipe
from training.hops import HOPS_MIXED, hops, mixed
from training.hops.task import MixedTask


@pytest.fixture(scope="module")
def task() -> MixedTask:
    return MixedTask(load_recipe(HOPS_MIXED, ["batch_size=20"]))


def draw(family: str, count: int) -> list[mixed.Query]:
    rng = random.Random(family)
    return [mixed.draw(rng, family=family) for _ in range(count)]


@pytest.mark.parametrize("family", ["film", "text"])
def test_a_machine_moves_by_the_same_presses_in_a_film_and_in_text(family):
    for query in draw(family, 100):
        machine, start, *words = query.text.split()
        if family == "text":
            assert [mixed.BUTTONS[glyph] for glyph in query.signs] == words and query.shown == query.renderings == ()
        states = hops.run_machine(hops.MACHINES.index(machine), int(start), query.signs)
        assert query.rationale == "".join(map(str, states))


def test_counting_counts_the_named_button():
    for query in draw("count", 100):
        glyph = mixed.BUTTONS.index(query.text.split()[1])
        assert query.rationale == "".join(str(query.signs[: i + 1].count(glyph)) for i in range(8))


@pytest.mark.parametrize(
    ("start", "moves", "cells"),
    [
        (0, "left up right down", [0, 0, 1, 6]),
        (4, "right down right up", [4, 9, 9, 4]),
        (7, "up up left left", [2, 2, 1, 0]),
        (3, "E E", [3, 3]),
    ],
)
def test_a_walk_stays_on_its_board(start, moves, cells):
    assert mixed.walk(start, tuple(mixed.MOVES.index(move) for move in moves.split())) == cells


def test_a_walk_shows_its_start_and_says_its_moves():
    for query in draw("walk", 50):
        assert query.text == "walk " + " ".join(mixed.MOVES[sign] for sign in query.signs)
        assert query.rationale == "".join(map(str, mixed.walk(query.shown[0], query.signs)))
        pixels = np.asarray(query.item()["image"]).astype(int).sum(axis=2)
        dark = np.argwhere(pixels < pixels.min() + 150).mean(axis=0)  # the dot's centre
        row, column = divmod(query.shown[0], 5)
        assert abs(dark[0] - 14 * (row + 0.5)) < 5 and abs(dark[1] - 5.6 * (column + 0.5)) < 2.8


def test_the_test_set_has_all_families_alike_and_no_answer_that_is_nearly_always_right():
    queries = mixed.held_out_queries()
    assert len(queries) == 4096 and set(Counter(query.family for query in queries).values()) == {1024}
    chance = mixed.chance()
    assert set(chance) == set(mixed.FAMILIES) and max(chance.values()) < 0.3
    assert {shown for query in queries[:300] for shown in query.renderings} <= set(range(400, 500))
    train = draw("film", 300) + draw("walk", 300)
    assert {shown for query in train for shown in query.renderings} <= set(range(400))


def test_a_prefix_from_the_tables_is_what_the_processor_gives(task):
    queries = mixed.held_out_queries(60)
    table, processed = task.prefix(queries), task.processor([query.item() for query in queries])
    assert set(table) == set(processed)
    for name, tensor in processed.items():
        assert torch.equal(table[name], tensor), name


def test_a_batch_without_text_is_the_same_but_for_its_padding(task):
    queries = draw("walk", 3) + draw("count", 3)
    table, processed = task.prefix(queries), task.processor([query.item() for query in queries])
    length = processed["input_ids"].shape[1]
    assert not table["attention_mask"][:, :-length].any()
    for name in ("input_ids", "attention_mask", "position_ids"):
        kept = processed["attention_mask"].bool()
        mine, theirs = table[name][..., -length:], processed[name]
        if name == "position_ids":
            mine, theirs = mine.transpose(0, 1), theirs.transpose(0, 1)
            assert torch.equal(mine[:, kept], theirs[:, kept])
        else:
            assert torch.equal(mine[kept], theirs[kept])


def test_a_state_is_one_token_in_every_family(task):
    suffix = len(task.processor.suffix_token_ids())
    for family in mixed.FAMILIES:
        for query in draw(family, 20):
            text = task.curriculum.suffix(query.rationale, None, task.curriculum.at(0))
            assert len(task.processor.tokenizer.encode(text, add_special_tokens=False)) == 8 + suffix


def test_an_untrained_model_is_evaluated_by_family(task):
    results = task.evaluate(task.make_model(), count=48)
    assert set(results["hit_at_1_by_family"]) == set(mixed.FAMILIES)
    assert results["hit_at_1"] == pytest.approx(sum(results["hit_at_1_by_family"].values()) / 4)
    assert results["hit_at_1"] < 0.4
