"""The hops task: its data, its batches, and (slow) the proof that the curriculum is what makes it solvable."""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
import torch

from plume_embed.training.recipe import load_recipe
from plume_embed.training.run import run
from training.hops import HOPS, hops
from training.hops.task import HopsTask


def test_the_states_follow_from_the_presses():
    rng = random.Random(0)
    for _ in range(200):
        hop = hops.draw(rng)
        state = hop.start
        for glyph, after in zip(hop.frames, hop.states, strict=True):
            state = state if glyph == hops.IDLE else hops.permutations()[hop.machine, glyph, state]
            assert state == after
        assert hop.final == state and hop.rationale == "".join(map(str, hop.states))
        assert hop.text == f"{hops.MACHINES[hop.machine]} {hop.start}"


def test_presses_are_uniform_and_final_states_are_not_given_away():
    queries = hops.held_out_queries()
    assert len(queries) == 4096
    presses = Counter(query.num_presses for query in queries)
    assert set(presses) == set(range(1, 9)) and min(presses.values()) > 0.8 * 512
    finals = Counter(query.final for query in queries)
    assert max(finals.values()) < 0.13 * 4096  # the best constant answer
    stays = np.mean([query.final == query.start for query in queries])
    assert stays < 0.15


def test_each_machine_and_button_is_a_permutation_and_no_two_are_equal():
    tables = hops.permutations().reshape(-1, len(hops.STATES))
    assert tables.shape == (8, 10)
    assert all(sorted(table) == list(range(10)) for table in tables)
    assert len({tuple(table) for table in tables}) == 8


def test_the_last_renderings_are_only_in_the_test():
    rng = random.Random(0)
    train = {rendering for _ in range(300) for rendering in hops.draw(rng).renderings}
    test = {rendering for query in hops.held_out_queries(300) for rendering in query.renderings}
    assert max(train) < 400 <= min(test) and max(test) < 500
    pictures = hops.renderings()
    assert pictures.shape == (5, 500, 28, 28, 3) and pictures.dtype == np.uint8
    assert len({picture.tobytes() for picture in pictures.reshape(-1, 28, 28, 3)}) == 2500


@pytest.fixture(scope="module")
def task() -> HopsTask:
    return HopsTask(load_recipe(HOPS, ["batch_size=8"]))


def test_a_frame_is_one_visual_token_and_a_hop_one_token(task):
    batch = task.batch(0, task.curriculum.at(0))
    side, config = batch.queries[0], task.make_model().config
    is_frame = side.prefix["input_ids"] == config.backbone_config.video_token_id
    assert is_frame.sum(dim=1).tolist() == [8] * 8
    assert side.suffix_lengths.tolist() == [8 + len(config.suffix_token_ids)] * 8
    last = task.batch(0, task.curriculum.at(task.curriculum.max_steps - 1)).queries[0]
    assert last.suffix_ids.tolist() == [config.suffix_token_ids] * 8


def test_a_batch_is_a_function_of_seed_and_step(task):
    state = task.curriculum.at(7)
    first, again, other = task.batch(7, state), task.batch(7, state), task.batch(8, state)
    assert torch.equal(first.queries[0].prefix["pixel_values_videos"], again.queries[0].prefix["pixel_values_videos"])
    assert not torch.equal(first.target_keys, other.target_keys)
    halves = [HopsTask(task.recipe, rank, 2).batch(7, state) for rank in (0, 1)]
    together = torch.stack([half.target_keys for half in halves], dim=1).flatten()
    assert torch.equal(together, first.target_keys)


def test_a_prefix_from_the_table_is_what_the_processor_gives(task):
    queries = hops.held_out_queries(40)
    table, processed = task.prefix(queries), task.processor([query.item() for query in queries])
    assert set(table) == set(processed)
    for name, tensor in processed.items():
        assert torch.equal(table[name], tensor), name


def test_the_validation_queries_are_no_test_queries():
    validation, test = hops.held_out_queries(200, "validation"), hops.held_out_queries(200)
    assert max(shown for query in validation for shown in query.renderings) < 400
    assert not set(validation) & set(test)


@pytest.mark.parametrize(
    ("settings", "writes"),
    [([], False), (["curriculum.stages=[0]"], True), (["curriculum.num_latent_steps=0"], False)],
)
def test_an_untrained_model_is_evaluated_at_chance_in_each_paradigm(settings, writes):
    task = HopsTask(load_recipe(HOPS, settings))
    results = task.evaluate(task.make_model(), count=100)
    assert results["hit_at_1"] < 0.3
    assert ("finished" in results) == writes


@pytest.mark.parametrize(("setting", "steps"), [("false", 0), ("true", 8)])
def test_targets_of_hops_may_run_through_the_rollout_without_a_rationale(setting, steps):
    task = HopsTask(load_recipe(HOPS, [f"target_rollout={setting}", "batch_size=8"]))
    last = task.curriculum.at(task.curriculum.max_steps - 1)
    assert task.target_latent_steps == steps
    for state in (task.curriculum.at(0), last):
        (targets,) = task.batch(0, state).targets
        if steps:
            assert {tuple(row) for row in targets.suffix_ids.tolist()} == {tuple(task.processor.suffix_token_ids())}
        else:
            assert targets.suffix_ids is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        ([], 0.95, 1.0),
        (["curriculum.stages=[0,4]"], 0.0, 0.3),
        (["curriculum.num_latent_steps=0"], 0.0, 0.3),
    ],
    ids=["full curriculum", "without curriculum", "single pass"],
)
def test_hops_is_solved_with_the_curriculum_and_not_without(settings, low, high, tmp_path):
    recipe = dataclasses.replace(load_recipe(HOPS, settings), output_dir=str(tmp_path / "run"))
    results = run(recipe)
    assert low <= results["hit_at_1"] <= high
