"""The scene_hops task: what its instructions ask, that nothing gives the answer away, its batches, its rows."""

import json
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from plume_embed.training.loss.batch_loss import batch_losses
from plume_embed.training.objective import run_side
from plume_embed.training.recipe import load_recipe
from training.ablations.rows import recipe_of, row_named
from training.ablations.tables import markdown, summarise
from training.scene_hops import SCENE_HOPS, pictures, scenes
from training.scene_hops.scenes import STAY, WORDS, Query, Scene
from training.scene_hops.tables import main
from training.scene_hops.task import SceneTask

MARKS = {"red": "r", "orange": "o", "yellow": "y", "green": "g", "cyan": "c", "blue": "b", "purple": "p", "black": "k"}
MARKS |= {"circle": "z", "ring": "f", "square": "q", "triangle": "t", "diamond": "d", "cross": "x", "star": "a"}
MARKS |= {"hourglass": "j"}


@pytest.fixture(scope="module")
def queries() -> list[Query]:
    return scenes.held_out_queries()


@pytest.fixture(scope="module")
def task() -> SceneTask:
    return SceneTask(load_recipe(SCENE_HOPS, ["batch_size=16", "model.path=null"]))


def followed(query: Query) -> tuple[str, str]:
    """Fields and marks of the rationale by another way: from the text and a table of the board, names for numbers."""
    board = {}
    for field, (picture, size) in enumerate(zip(query.scene.shown, query.scene.sizes, strict=True)):
        if picture != pictures.BLANK:
            colour, shape = pictures.NAMES[picture].split()
            board["ABCDEFGHIJKLMNOP"[field]] = (colour, shape, pictures.SIZES[size])
    lines = [own for line in ("ABCD", "EFGH", "IJKL", "MNOP") if (own := [at for at in line if at in board])]
    columns = [[line[index] for line in lines] for index in range(len(lines[0]))]
    here, path, marks = query.text.split()[1], query.text.split()[1], "@"
    for word in query.text.split()[2:]:
        line, column = next(own for own in lines if here in own), next(own for own in columns if here in own)
        looked_up = {"colour": 0, "shape": 1}
        if word in looked_up:
            alike = [at for at in board if at != here and board[at][looked_up[word]] == board[here][looked_up[word]]]
            assert len(alike) == 1
            marks += MARKS[board[here][looked_up[word]]]
            (here,) = alike
        elif word in ("right", "left", "large"):
            places = {"right": 1, "left": -1, "large": [board[at][2] for at in line].count("large")}[word]
            marks += {"right": ">", "left": "<"}.get(word, str(places))
            here = (line * 3)[line.index(here) + len(line) + places % len(line)]
        elif word in ("up", "down", "small"):
            places = {"down": 1, "up": -1, "small": [board[at][2] for at in column].count("small")}[word]
            marks += {"down": "v", "up": "^"}.get(word, str(places))
            here = (column * 3)[column.index(here) + len(column) + places % len(column)]
        else:
            marks += "="
        path += here
    return path, marks


def test_every_rationale_is_what_another_follower_finds_and_has_one_answer(queries):
    for query in queries[:1000]:
        path, marks = followed(query)
        followed_by_it, answer = query.rationale[:-2], query.rationale[-2:]
        assert (followed_by_it[1::2], followed_by_it[::2]) == (path, marks) and len(path) == len(marks) == 7
        assert query.final == query.scene.shown["ABCDEFGHIJKLMNOP".index(path[-1])]
        assert answer == "".join(MARKS[word] for word in pictures.NAMES[query.final].split())


def test_an_example_by_hand():
    names = ["red star", "blue star", "red ring", "green ring", "blue cross", "green cross"]
    places = [0, 1, 2, 4, 5, 6]  # two rows of three
    shown = [pictures.BLANK] * 16
    for place, name in zip(places, names, strict=True):
        shown[place] = pictures.NAMES.index(name)
    sizes = [0] * 16
    sizes[0] = sizes[5] = pictures.SIZES.index("large")
    signs = tuple(map(WORDS.index, ("colour", "right", "stay", "small", "shape", "up")))
    query = Query(Scene(2, 3, tuple(shown), tuple(sizes)), 0, signs, (0,) * 16)
    # A -> C, the other red; right over the edge -> A; stay; one small one in A's column, so on to E, a green ring;
    # the other ring -> C; up over the edge -> G, a green cross
    assert query.text == "from A colour right stay small shape up"
    assert query.rationale == "@ArC>A=A1EfC^Ggx"
    assert pictures.NAMES[query.final] == "green cross" and query.num_hops == 5 and query.depth == 14
    assert query.family == "directions"


def test_scenes_have_six_to_sixteen_pictures_and_each_colour_and_shape_twice(queries):
    sizes = Counter(len(query.scene.fields) for query in queries)
    assert set(sizes) == {6, 8, 12, 16} and min(sizes.values()) > 0.2 * len(queries)
    for query in queries[:500]:
        shown = [pictures.NAMES[query.scene.shown[field]] for field in query.scene.fields]
        assert len(set(shown)) == len(shown)
        for part in (0, 1):
            assert set(Counter(name.split()[part] for name in shown).values()) == {2}
        assert sum(picture != pictures.BLANK for picture in query.scene.shown) == len(shown)


def test_hops_are_uniform_in_number_and_none_is_of_the_kind_of_the_one_before_it(queries):
    hops = Counter(query.num_hops for query in queries)
    assert set(hops) == set(range(7)) and min(hops.values()) > 0.85 * len(queries) / 7
    opposite = {"right": "row", "left": "row", "up": "column", "down": "column"}
    for query in queries:
        words = [WORDS[sign] for sign in query.signs if sign != STAY]
        assert all(opposite.get(one, one) != opposite.get(next_one, next_one) for one, next_one in pairwise(words))
    families = Counter(query.family for query in queries)
    assert set(families) == {"none", *scenes.FAMILIES} and min(families.values()) > 0.1 * len(queries)


def test_given_the_scene_and_the_hops_every_picture_is_the_answer_for_exactly_one_start(queries):
    for query in queries[:1000]:
        shown = [query.scene.shown[field] for field in query.scene.fields]
        assert sorted(scenes.answers(query.scene, query.signs)) == sorted(shown)


def test_given_the_text_every_picture_of_the_pool_is_the_answer_equally_often():
    # Colours and shapes are drawn alike, so the 64 ways to shift them make equally probable scenes for one text.
    rng = random.Random(0)
    for query in (scenes.draw(rng) for _ in range(50)):
        finals = []
        for shape in range(8):
            for colour in range(8):
                shown = tuple(
                    p if p == pictures.BLANK else (p // 8 + shape) % 8 * 8 + (p % 8 + colour) % 8
                    for p in query.scene.shown
                )
                moved = Scene(query.scene.rows, query.scene.columns, shown, query.scene.sizes)
                finals.append(Query(moved, query.start, query.signs, query.renderings).final)
        assert sorted(finals) == list(range(64))


def test_drawn_scenes_show_all_pictures_alike_on_all_fields_and_all_starts_are_alike():
    rng = random.Random(1)
    drawn = [scenes.draw(rng) for _ in range(6000)]
    shown = Counter(query.scene.shown[field] for query in drawn for field in query.scene.fields)
    assert stats.chisquare([shown[picture] for picture in range(64)]).pvalue > 0.001
    first = Counter(query.scene.shown[0] for query in drawn)
    assert stats.chisquare([first[picture] for picture in range(64)]).pvalue > 0.001
    largest = [query for query in drawn if len(query.scene.fields) == 16]
    starts = Counter(query.start for query in largest)
    assert stats.chisquare([starts[field] for field in range(16)]).pvalue > 0.001


def test_guessing_stays_at_its_level(queries):
    chance = scenes.chance(queries)
    assert chance["constant"] < 0.03  # 1/64 but for the spread of the most frequent one
    assert chance["bag_of_pictures"] == pytest.approx((1 / 6 + 1 / 8 + 1 / 12 + 1 / 16) / 4, abs=0.005)
    # Following the text without the pictures, or staying at the start, is no better than any picture of the scene.
    for hops in range(2, 7):
        own = [query for query in queries if query.num_hops == hops]
        assert scenes.chance(own)["start"] < 0.17


def test_the_order_of_hops_matters():
    rng = random.Random(2)
    changed = []
    for query in (scenes.draw(rng) for _ in range(2000)):
        if query.num_hops >= 3:
            moves = [sign for sign in query.signs if sign != STAY]
            other = query.scene.follow(query.start, tuple(moves[::-1]))[-1]
            changed.append(other != query.states[-1])
    assert np.mean(changed) > 0.6


def test_queries_are_a_function_of_the_split_and_the_test_shows_renderings_that_training_does_not(queries):
    assert scenes.held_out_queries(50) == queries[:50]
    validation = scenes.held_out_queries(300, "validation")
    assert not set(validation) & set(queries)
    seen = {rendering for query in validation for rendering in query.renderings}
    unseen = {rendering for query in queries[:300] for rendering in query.renderings}
    assert seen == set(range(48)) and unseen == set(range(48, 60))


def test_unseen_renderings_are_told_apart_by_the_nearest_seen_one():
    tiles = torch.from_numpy(pictures.tiles()[:64]).float().flatten(3)  # [pictures, sizes, renderings, pixels]
    seen, unseen = tiles[:, :, :48].flatten(0, 2), tiles[:, :, 48:50].flatten(0, 2)
    nearest = torch.cdist(unseen, seen).argmin(dim=1) // 48
    assert (nearest == torch.arange(128).repeat_interleave(2)).float().mean() > 0.9


def test_a_prefix_from_the_table_is_what_the_processor_gives(task, queries):
    table, processed = task.prefix(queries[:24]), task.processor([query.item() for query in queries[:24]])
    assert set(table) == set(processed)
    for name, tensor in processed.items():
        assert torch.equal(table[name], tensor), name


def test_a_field_is_one_visual_token_and_a_look_up_one_token(task):
    batch, config = task.batch(0, task.curriculum.at(0)), task.make_model().config
    is_field = batch.queries[0].prefix["input_ids"] == config.backbone_config.image_token_id
    assert is_field.sum(dim=1).tolist() == [16] * 16
    assert batch.queries[0].suffix_lengths.tolist() == [16 + len(config.suffix_token_ids)] * 16


def test_a_batch_is_a_function_of_seed_and_step_and_names_its_answers(task):
    state = task.curriculum.at(7)
    first, again, other = task.batch(7, state), task.batch(7, state), task.batch(8, state)
    assert torch.equal(first.queries[0].prefix["pixel_values"], again.queries[0].prefix["pixel_values"])
    assert not torch.equal(first.target_keys, other.target_keys)
    named = task.processor([pictures.NAMES[key] for key in first.target_keys])
    rows = first.targets[0].prefix["input_ids"][first.target_of_query]
    assert torch.equal(rows, named["input_ids"])


def test_a_training_step_reaches_the_tower_and_the_steps(task):
    model, last = task.make_model(), task.curriculum.at(task.curriculum.max_steps - 1)
    batch = task.batch(0, last)
    outputs = run_side(model, batch.queries[0], batch.num_latent_steps), run_side(model, batch.targets[0], 0)
    loss, _ = batch_losses(*outputs, batch, task.recipe.loss)
    loss.backward()
    tower = dict(model.backbone.visual.named_parameters())
    for name in ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "merger.mlp.0.weight"):
        assert tower[name].grad.abs().sum() > 0, name
    assert sum(parameter.grad.abs().sum() for parameter in model.adapter.parameters() if parameter.grad is not None) > 0


def test_an_untrained_model_is_evaluated_by_hops_and_summed_up(task):
    results = task.evaluate(task.make_model(), count=64)
    assert results["hit_at_1"] < 0.15
    assert set(results["hit_at_1_by_hops"]) == set(range(7))
    assert set(results["hit_at_1_by_last_hop"]) == {"none", *scenes.FAMILIES}
    recipe = {"curriculum": {"max_steps": 1, "learning_rates": [1.0]}}
    run = results | {"recipe": recipe, "parameters": 1, "train_minutes": 1.0, "train_cpu_minutes": 1.0}
    run |= {"device": "cpu", "torch": "2", "resumed_from": None}
    table = markdown(summarise("scene_hops", [("full", 0, run)]))
    assert "by hops 0 .. 6" in table


@pytest.mark.parametrize(
    "row", ["full", "full_distilled", "single_pass", "no_curriculum", "explicit_cot_stage_0", "k_4"]
)
def test_the_rows_of_the_grid_are_recipes_of_it(row, tmp_path):
    recipe = recipe_of(row_named(row), "scene_hops", 3, str(tmp_path), [])
    assert recipe.task == "training.scene_hops.task:SceneTask" and recipe.seed == 3


def test_queries_in_twos_ask_one_scene_for_different_answers():
    found = scenes.queries_over_one_scene(40)
    assert len(found) == 40 and found[:10] == scenes.queries_over_one_scene(10)
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert (one.scene, one.renderings) == (other.scene, other.renderings) and one.final != other.final
    with pytest.raises(ValueError, match="an even number, not 3"):
        scenes.queries_over_one_scene(3)


def test_the_table_has_a_row_for_each_model_and_each_guess(tmp_path, capsys):
    queries = scenes.held_out_queries(200)
    found = {"hit_at_1": 0.5, "parameters": 1, "train_minutes": 1.0, "train_cpu_minutes": 1.0, "device": "cpu"}
    found |= {"torch": "2", "recipe": {"curriculum": {"max_steps": 1, "learning_rates": [1.0]}}}
    found["chance_by_hops"] = {n: scenes.chance([query for query in queries if query.num_hops == n]) for n in range(7)}
    found["hit_at_1_by_last_hop"] = dict.fromkeys(["none", *scenes.FAMILIES], 0.5) | {"counting": 0.25}
    runs = [("full", seed, found | {"hit_at_1_by_hops": {n: n / 10 + seed / 50 for n in range(7)}}) for seed in (0, 1)]
    (tmp_path / "a.json").write_text(json.dumps(summarise("scene_hops", runs)))
    main(tmp_path / "a.json", tmp_path / "a.svg")
    *lines, written = capsys.readouterr().out.splitlines()
    assert written == f"written: {tmp_path / 'a.svg'}" and "<svg" in (tmp_path / "a.svg").read_text()
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| full | 2 | 50 | 1 | 11 | 21 | 31 | 41 | 51 | 61 | 50 | 50 | 50 | 25 |"
    assert lines[4].startswith("| guess: the picture at the start |  | 23 | 100 |") and lines[4].endswith(
        "|  |  |  |  |"
    )
