"""Facts about the miniature's composed scenes, in a made-up world."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from miniature_data import context, plain_concepts, svg
from PIL import Image

from evaluation.miniature.parts import Context
from evaluation.miniature.scenes.questions import (
    NUMBERS,
    beside,
    how_many,
    largest,
    neighbours,
    phrases,
    what_is_where,
)
from evaluation.miniature.scenes.scenes import (
    CROP,
    HEIGHT,
    WIDTH,
    Scene,
    Thing,
    compose,
    crop,
    draw,
    fit_for_scenes,
)
from evaluation.miniature.scenes.tasks import (
    asked_of,
    build_scenes,
    grounding_task,
    medium,
    question_tasks,
    scene_pairs,
    scenes_of_split,
    train_scenes,
)
from evaluation.miniature.sources.rationales import Rationales
from evaluation.miniature.sources.render import render_cutout
from plume_embed.evaluation.miniature.schema import Task
from plume_embed.evaluation.miniature.stills import TEST_STYLE, TRAIN_STYLES
from plume_embed.training.curriculum import split_sentences

CONCEPTS = plain_concepts()


@pytest.fixture(scope="module")
def world() -> Context:
    return context(CONCEPTS)


@pytest.fixture(scope="module")
def scenes(world: Context) -> list[Scene]:
    return scenes_of_split(world, "train", 200)


def made(*cells: tuple[str, int, int, int], sort: str = "animal") -> Scene:
    """A scene of things (label, row, column, side), two columns of 84 pixels or more of 42."""
    by_label = {concept.label: concept for concept in CONCEPTS}
    width = 84 if max(column for _, _, column, _ in cells) < 2 else 42
    things = tuple(
        Thing(by_label[label], row, column, column * width + 2, row * 56 + 2, side)
        for label, row, column, side in cells
    )
    return Scene("made", "noto", sort, sum(thing.sort == sort for thing in things), things, 0, False)


# Composition


def test_things_of_a_scene_lie_in_their_cells_and_are_distinct(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert 4 <= len(scene.things) <= 8
        assert len({thing.name for thing in scene.things}) == len(scene.things)
        width = WIDTH // (2 if len(scene.things) <= 4 else 3 if len(scene.things) <= 6 else 4)
        for thing in scene.things:
            assert thing.column * width <= thing.left and thing.left + thing.side <= (thing.column + 1) * width
            assert thing.row * 56 <= thing.top and thing.top + thing.side <= (thing.row + 1) * 56


def test_every_number_of_things_is_as_likely(scenes: list[Scene]) -> None:
    assert all(scene.count == len(scene.of_the_sort) for scene in scenes)
    counts = Counter(scene.count for scene in scenes)
    assert set(counts) == {1, 2, 3, 4, 5, 6} and max(counts.values()) < 2 * min(counts.values())


def test_one_thing_is_clearly_the_largest(scenes: list[Scene]) -> None:
    for scene in scenes:
        first, second = sorted((thing.side for thing in scene.things), reverse=True)[:2]
        assert first / second > 1.3
        assert largest(scene).thing.side == first


def test_a_scene_is_a_function_of_its_name_and_seed(world: Context) -> None:
    stills = fit_for_scenes(world.stills["noto"].values(), "train")
    assert compose(stills, "a", 0) == compose(stills, "a", 0)
    assert compose(stills, "a", 0) != compose(stills, "a", 1) != compose(stills, "b", 1)


def test_equal_pictures_do_not_meet_in_a_scene() -> None:
    same = context(CONCEPTS, same={CONCEPTS[1].hexcode: CONCEPTS[0].hexcode})
    fitting = {still.concept.hexcode for still in fit_for_scenes(same.stills["noto"].values(), "train")}
    assert CONCEPTS[0].hexcode in fitting and CONCEPTS[1].hexcode not in fitting


def test_known_unseen_and_training_scenes_share_neither_families_nor_styles(world: Context) -> None:
    composed = {name: scenes_of_split(world, name, 30) for name in ("train", "test")}
    of = {name: {t.concept.family for scene in found for t in scene.things} for name, found in composed.items()}
    trained = train_scenes(world, 30)
    assert of["train"] and not of["train"] & of["test"]
    assert {t.concept.split_family for s in trained for t in s.things} == {"train"}
    assert {scene.style for scene in trained} == set(TRAIN_STYLES)
    assert {scene.style for scene in composed["train"]} == {TEST_STYLE}


def test_too_few_pictures_are_refused() -> None:
    stills = list(context(CONCEPTS[:4]).stills["noto"].values())
    with pytest.raises(ValueError, match="too few"):
        compose(stills, "a", 0)


# Drawing


def test_a_thing_is_drawn_where_the_scene_says_and_a_crop_shows_it() -> None:
    scene = made(
        ("alder bird", 0, 0, 40), ("birch bird", 1, 1, 20), ("alder tool", 0, 1, 20), ("alder fruit", 1, 0, 20)
    )
    cutouts = {t.concept.hexcode: render_cutout(svg(n, "noto"), 84) for n, t in enumerate(scene.things)}
    picture = draw(scene, cutouts)
    assert picture.size == (WIDTH, HEIGHT)
    for number, thing in enumerate(scene.things):
        inside = np.asarray(picture)[thing.top + thing.side - 2, thing.left + thing.side - 2].astype(int)
        expected = np.asarray(cutouts[thing.concept.hexcode].convert("RGB"))[80, 80].astype(int)
        assert np.abs(inside - expected).max() < 12, number
        part = crop(picture, thing)
        assert part.size == (CROP, CROP)
        assert np.abs(np.asarray(part)[40, 40].astype(int) - expected).max() < 12
    assert tuple(np.asarray(picture)[53, 80]) == (226, 238, 247)  # the ground


def test_a_crop_at_the_border_stays_inside_the_picture() -> None:
    thing = Thing(CONCEPTS[0], 1, 1, 113, 57, 54)
    picture = Image.new("RGB", (WIDTH, HEIGHT), "red")
    assert np.all(np.asarray(crop(picture, thing)) == (255, 0, 0))  # nothing black was padded


# Questions and phrases


def test_neighbours_share_a_row_or_a_column() -> None:
    scene = made(
        ("alder bird", 0, 0, 40), ("birch bird", 0, 1, 20), ("alder tool", 1, 1, 20), ("alder fruit", 1, 3, 20)
    )
    names = {
        side: [(a.name, b.name) for a, b in neighbours(scene, side)] for side in ("left", "right", "above", "below")
    }
    assert names["left"] == [("birch bird", "alder bird")] and names["right"] == [("alder bird", "birch bird")]
    assert names["above"] == [("alder tool", "birch bird")] and names["below"] == [("birch bird", "alder tool")]


def test_questions_are_answered_as_the_scene_stands() -> None:
    scene = made(
        ("alder bird", 0, 0, 40), ("birch bird", 1, 1, 20), ("alder tool", 0, 1, 20), ("alder fruit", 1, 3, 20)
    )
    assert how_many(scene).text == "How many animals are there?" and how_many(scene).answer == "two"
    assert largest(scene).answer == "alder bird"
    asked = beside(scene)
    assert asked is not None
    assert (asked.text, asked.answer) in {
        ("What is directly to the left of the alder tool?", "alder bird"),
        ("What is directly to the right of the alder bird?", "alder tool"),
    }


def test_nothing_is_asked_of_neighbours_where_there_are_none() -> None:
    assert beside(made(("alder bird", 0, 0, 40), ("birch bird", 1, 2, 20))) is None


def test_a_phrase_names_one_thing_where_at_least_two_others_could_be_meant() -> None:
    things = (("alder bird", 0, 0, 20), ("birch bird", 0, 1, 30), ("cedar bird", 1, 3, 40), ("alder tool", 1, 1, 24))
    found = {asked.text: asked.answer for asked in phrases(made(*things))}
    assert found == {
        "the leftmost animal": "alder bird",
        "the rightmost animal": "cedar bird",
        "the largest animal": "cedar bird",
        "the smallest animal": "alder bird",
        "the animal directly to the left of the birch bird": "alder bird",
        "the animal directly to the right of the alder bird": "birch bird",
        "the animal directly above the alder tool": "birch bird",
    }
    assert phrases(made(*things[1:])) == []


def test_places_and_neighbours_take_turns_among_phrases(scenes: list[Scene]) -> None:
    for scene in scenes:
        is_place = [
            phrase.text.split()[1] in ("leftmost", "rightmost", "largest", "smallest") for phrase in phrases(scene)
        ]
        shared = 2 * min(is_place.count(True), is_place.count(False))
        assert all(first != second for first, second in zip(is_place[:shared:2], is_place[1:shared:2], strict=True))


def test_what_is_not_clearly_leftmost_or_largest_is_not_called_so() -> None:
    things = (("alder bird", 0, 0, 20), ("birch bird", 1, 0, 21), ("cedar bird", 1, 3, 22), ("alder tool", 1, 1, 40))
    found = {asked.text for asked in phrases(made(*things))}
    assert "the rightmost animal" in found
    assert not found & {"the leftmost animal", "the largest animal", "the smallest animal"}


def test_the_phrase_of_every_scene_is_true(scenes: list[Scene]) -> None:
    asked = [(scene, phrase) for scene in scenes for phrase in phrases(scene)]
    assert len(asked) > 200
    for scene, phrase in asked:
        counted, word = scene.of_the_sort, phrase.text.split()[1]
        values = {
            "leftmost": lambda t: t.centre[0],
            "rightmost": lambda t: -t.centre[0],
            "largest": lambda t: -t.side,
            "smallest": lambda t: t.side,
        }
        assert phrase.thing in counted and len(counted) >= 3
        if word in values:
            assert phrase.thing == min(counted, key=values[word])


def test_numbers_are_sixty_four_different_words() -> None:
    assert (
        len(set(NUMBERS)) == 64 and NUMBERS[0] == "one" and NUMBERS[20] == "twenty-one" and NUMBERS[-1] == "sixty-four"
    )


# Tasks and pairs


def test_a_pool_of_names_holds_the_scenes_own_and_reaches_no_further_than_its_split(scenes: list[Scene]) -> None:
    names = [f"name {n}" for n in range(90)] + sorted({t.name for s in scenes for t in s.things})
    for task in question_tasks(scenes[:40], names, "known"):
        assert all(len(query.pool) == 64 for query in task.queries)
        if task.name == "I-QA/largest":
            for scene, query in zip(scenes, task.queries, strict=False):
                pool = {task.candidates[n].text for n in query.pool}
                assert {thing.name for thing in scene.things} <= pool
                assert [task.candidates[n].text for n in query.positives] == [largest(scene).answer]


def test_a_crop_competes_with_its_scene_and_with_others_of_its_subgroup(scenes: list[Scene]) -> None:
    task = grounding_task(scenes, "known")
    things = {medium(scene, n): (scene, thing) for scene in scenes for n, thing in enumerate(scene.things)}
    for query in task.queries:
        own, target = things[task.candidates[query.positives[0]].image]
        assert query.side.image == medium(own)
        pool = [things[task.candidates[n].image] for n in query.pool]
        others = [thing for scene, thing in pool if scene is not own]
        assert len(pool) - len(others) == len(own.things) and len(others) == 60
        assert sum(thing.concept.subgroup == target.concept.subgroup for thing in others) >= 2
        assert all(thing.name != target.name for thing in others)


def test_pairs_of_a_scene_answer_without_spelling_the_answer(world: Context) -> None:
    rationales = Rationales(CONCEPTS, None)
    for scene in train_scenes(world, 60):
        right = {asked.text: asked.answer for asked in (*asked_of(scene), *phrases(scene))}
        found = scene_pairs(scene, rationales)
        assert sum(pair.subset == "I-QA-scene" for pair in found) == 2
        for pair in found:
            answer = right[pair.query.side.text]
            if pair.subset == "I-QA-scene":
                assert pair.target.side.text == answer
            else:
                number = int(pair.target.side.image.rsplit("/", 1)[1])
                assert scene.things[number].name == answer
            assert answer not in pair.query.answer.split() and answer not in pair.target.answer.split()
            for text in (pair.query.rationale, pair.target.rationale):
                assert 4 <= len(split_sentences(text)) <= 7


def test_a_scene_is_told_row_by_row() -> None:
    scene = made(("alder bird", 0, 0, 40), ("birch bird", 0, 1, 20), ("alder tool", 1, 1, 20))
    assert what_is_where(scene) == [
        "The picture is a scene of three things",
        "From left to right, the upper row shows the alder bird and the birch bird",
        "The lower row shows the alder tool",
    ]


def test_all_media_that_tasks_and_pairs_name_are_drawn_and_no_others(world: Context) -> None:
    built = build_scenes(world, Rationales(CONCEPTS, None), 4, 6)
    assert {(task.name, task.concepts) for task in built.tasks} == {
        (name, split)
        for split in ("known", "unseen")
        for name in ("I-QA/how many", "I-QA/left or right of", "I-QA/largest", "I-GD/phrase to crop")
    }

    def named(task: Task) -> set[str]:
        return {side.image for side in (*task.candidates, *(q.side for q in task.queries))}

    of_tasks = set().union(*map(named, built.tasks)) - {""}
    of_pairs = {t.side.image for p in built.pairs for t in (p.query, p.target)} - {""}
    assert built.media.keys() == of_tasks | of_pairs and not of_tasks & of_pairs
