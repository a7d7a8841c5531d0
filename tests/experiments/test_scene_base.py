"""What comes before scene_hops: a tower that knows words, descriptions and instructions, the model that is taken on."""

import itertools
import json
import random

import pytest
import torch
import torch.nn.functional as F

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.training.loss.losses import info_nce
from plume_embed.training.recipe import load_recipe, recipe_from
from training.scene_hops import CHECKPOINT, SCENE_BASE, SCENE_HOPS, scenes
from training.scene_hops.base import LESSONS, BaseTask, lesson_at
from training.scene_hops.pictures import BLANK, COLOURS, LETTERS, MARKS, NAMES, SHAPES, SIZES
from training.scene_hops.reading import KINDS, Reading, draw_reading
from training.scene_hops.scenes import BOARDS, START_MARK, WORD_MARKS
from training.scene_hops.task import SceneTask
from training.scene_hops.tower import ATTRIBUTES, OFF_BOARD, Words, labels, seen, teach, tokens_of

SMALL = ["batch_size=4", "model.hidden_size=64", "model.layers=1", "model.intermediate_size=64"]


@pytest.fixture(scope="module")
def task() -> BaseTask:
    return BaseTask(load_recipe(SCENE_BASE, SMALL))


def encoded(task: BaseTask, text: str) -> list[int]:
    return task.processor.tokenizer.encode(text, add_special_tokens=False)


def untaught(task: BaseTask):
    return super(BaseTask, task).make_model()


def test_a_taught_tower_names_what_fields_show_in_renderings_it_has_not_seen(task):
    model = untaught(task)
    teach(model, task.processor, task.prefix, seed=0, steps=200)
    queries = scenes.held_out_queries(64)
    wanted, words = labels(queries), Words(model, task.processor)
    with torch.no_grad():
        tokens = seen(model, task.prefix(queries))
    found = torch.stack([products.argmax(dim=1) for products in words.products(tokens)], dim=1)
    right = (found == wanted)[wanted[:, 0] != OFF_BOARD].float().mean(dim=0)
    assert dict(zip(ATTRIBUTES, (right > 0.95).tolist(), strict=True)) == dict.fromkeys(ATTRIBUTES, True), right


def test_the_words_of_a_field_are_told_apart_and_a_field_without_a_picture_has_none(task):
    words, wanted = Words(untaught(task), task.processor), labels(scenes.held_out_queries(8))
    sums, on_board = words.sums(wanted), wanted[:, 0] != OFF_BOARD
    for place, products in enumerate(words.products(sums)):
        right = products[on_board].argmax(dim=1) == wanted[on_board, place]
        assert right.float().mean() > 0.95  # 64 random dimensions: now and then another word is as near
    assert not on_board.all() and torch.equal(sums[~on_board], words.off_board.expand(int((~on_board).sum()), -1))


def test_all_tokens_of_a_word_begin_with_one_embedding(task):
    table = task.make_model().get_input_embeddings().weight
    firsts = []
    for word in itertools.chain(*ATTRIBUTES.values()):
        rows = table[tokens_of(word, task.processor)]
        assert torch.equal(rows, rows[:1].expand_as(rows)), word
        firsts.append(rows[0])
    assert len({tuple(row.tolist()) for row in firsts}) == len(firsts)
    assert all(len(tokens_of(word, task.processor)) >= 2 for word in (*COLOURS, *SHAPES))


def test_teaching_changes_the_tower_and_nothing_else(task):
    model = untaught(task)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    teach(model, task.processor, task.prefix, seed=0, steps=1)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("backbone.visual.") for name in changed)


def test_lessons_go_from_small_boards_to_all_and_from_descriptions_to_instructions():
    assert sum(lesson.share for lesson in LESSONS) == pytest.approx(1)
    found = [lesson_at(share) for share in (0, 0.1, 0.4, 0.9, 1.0)]
    assert found == [*LESSONS, LESSONS[-1]]
    assert [len(lesson.boards) for lesson in LESSONS] == [1, 1, 1, len(BOARDS)]
    assert [lesson.reads for lesson in LESSONS] == sorted((lesson.reads for lesson in LESSONS), reverse=True)


def test_descriptions_have_nothing_to_contrast(task):
    described = task.batch(0, task.curriculum.at(0))
    assert all(isinstance(query, Reading) for query in task.queries(0))
    assert set(described.target_of_query.tolist()) == {0} and len(set(described.target_keys.tolist())) == 1
    positives = described.target_keys[:, None] == described.target_keys.unique()[None]
    queries, targets = (F.normalize(torch.randn(count, 8), dim=1) for count in positives.shape)
    assert info_nce(queries, targets, positives, 0.02) == 0


def test_a_batch_is_of_its_lesson(task):
    steps = task.curriculum.max_steps
    first, last = task.queries(0), [query for step in range(steps - 30, steps) for query in task.queries(step)]
    assert all(isinstance(query, Reading) and not query.with_hops for query in first)
    assert {(query.scene.rows, query.scene.columns) for query in first} == {BOARDS[0]}
    assert {(query.scene.rows, query.scene.columns) for query in last} == set(BOARDS)
    read = sum(isinstance(query, Reading) for query in last) / len(last)
    hops = [query.num_hops for query in last if not isinstance(query, Reading)]
    assert 0 < read < 0.5 and max(hops) == scenes.NUM_SLOTS and min(hops) < scenes.NUM_SLOTS


def test_every_line_of_a_description_is_what_the_board_shows():
    rng = random.Random(5)
    for reading in (draw_reading(rng) for _ in range(200)):
        shown = {
            LETTERS[field]: (*NAMES[picture].split(), SIZES[size])
            for field, (picture, size) in enumerate(zip(reading.scene.shown, reading.scene.sizes, strict=True))
            if picture != BLANK
        }
        lines = reading.rationale.splitlines()
        assert len(lines) == 3 and len({line[0] for line in lines}) == 3
        for line in lines:
            letter, index = line[0], LETTERS.index(line[0])
            assert line[::3] == letter * 4
            (colour, same_colour), (large, right), (shape, same_shape), (small, down) = zip(
                line[1::3], line[2::3], strict=True
            )
            assert (colour, shape) == tuple(MARKS[name] for name in shown[letter][:2])
            assert same_colour != letter and shown[same_colour][0] == shown[letter][0]
            assert same_shape != letter and shown[same_shape][1] == shown[letter][1]
            row = [at for at in LETTERS[index // 4 * 4 : index // 4 * 4 + 4] if at in shown]
            column = [at for at in LETTERS[index % 4 :: 4] if at in shown]
            assert int(large) == sum(shown[at][2] == "large" for at in row)
            assert right == (row * 3)[row.index(letter) + int(large)]
            assert int(small) == sum(shown[at][2] == "small" for at in column)
            assert down == (column * 3)[column.index(letter) + int(small)]


def test_a_description_without_hops_has_what_is_looked_up():
    reading = draw_reading(random.Random(6), boards=BOARDS[:1], with_hops=False)
    lines = reading.rationale.splitlines()
    assert len(lines) == 6 and {line[0] for line in lines} == set("ABCEFG")
    for letter, colour, large, shape, small in lines:
        picture = NAMES[reading.scene.shown[LETTERS.index(letter)]]
        assert (colour, shape) == tuple(MARKS[name] for name in picture.split())
        assert int(large) in range(4) and int(small) in range(3)


def test_a_line_has_a_token_for_each_of_its_kinds(task):
    reading = draw_reading(random.Random(0))
    assert len(encoded(task, reading.rationale)) == 3 * len(KINDS)


def test_a_character_of_a_rationale_is_a_token_whatever_stands_beside_it(task):
    marks = [*MARKS.values(), *WORD_MARKS.values(), START_MARK, *"01234"]
    assert len(set(marks)) == 8 + 8 + 5 + 1 + 5
    for text in (f"{letter}{mark}{end}" for letter in LETTERS for mark in marks for end in LETTERS):
        assert len(encoded(task, text)) == 3, text
    for name in NAMES:
        answer = "".join(MARKS[word] for word in name.split())
        assert all(len(encoded(task, letter + answer)) == 3 for letter in LETTERS), name
    rng = random.Random(7)
    for reading in (draw_reading(rng, with_hops=with_hops) for with_hops in (False, True) for _ in range(100)):
        assert len(encoded(task, reading.rationale)) == len(reading.rationale)


def test_a_description_is_asked_for_by_another_word_than_an_instruction(task):
    rng = random.Random(1)
    queries = [draw_reading(rng), scenes.draw(rng)]
    assert queries[0].text.startswith("at ") and queries[1].text.startswith("from ")
    table, processed = task.prefix(queries), task.processor([query.item() for query in queries])
    for name, tensor in processed.items():
        assert torch.equal(table[name], tensor), name


def test_batches_are_a_function_of_seed_and_step(task):
    assert task.queries(3) == task.queries(3) != task.queries(4)


def test_an_untrained_model_reads_nothing_and_is_told_so(task):
    found = task.evaluate(untaught(task), count=32)
    assert found["hit_at_1"] < 0.2 and set(found["hit_at_1_by_hops"]) == set(range(7))
    assert set(found["read"]) == {kind for kind in KINDS if kind} and max(found["read"].values()) < 0.7


def test_the_model_that_every_row_begins_with_is_of_its_recipe_and_follows_in_text():
    recipe, kept = load_recipe(SCENE_BASE, []), json.loads((CHECKPOINT / "training.json").read_text())
    assert recipe_from(kept["recipe"]) == recipe
    base = BaseTask(recipe)
    assert PlumeProcessor.from_pretrained(CHECKPOINT).tokenizer.get_vocab() == base.processor.tokenizer.get_vocab()
    found = base.evaluate(PlumeModel.from_pretrained(CHECKPOINT), count=256)
    assert found["hit_at_1"] == pytest.approx(kept["hit_at_1"], abs=0.06)  # of 256 and of 4,096 queries
    assert found["read"] == pytest.approx(kept["read"], abs=0.05) and min(found["read"].values()) > 0.9


def test_scene_hops_takes_the_backbone_on_and_starts_with_an_adapter_of_its_own(task, tmp_path):
    base = untaught(task)
    base.save_pretrained(tmp_path)
    task.processor.save_pretrained(tmp_path)
    models = []
    for seed in (1, 2):
        settings = [*SMALL, f"model.path={tmp_path}", f"seed={seed}"]
        models.append(SceneTask(load_recipe(SCENE_HOPS, settings)).make_model())
    for name, tensor in base.backbone.state_dict().items():
        assert all(torch.equal(model.backbone.state_dict()[name], tensor) for model in models), name
    first, second = (model.adapter.state_dict() for model in models)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_backbone_that_is_not_there_is_refused_with_how_to_make_it(tmp_path):
    recipe = load_recipe(SCENE_HOPS, [*SMALL, f"model.path={tmp_path / 'none'}"])
    with pytest.raises(ValueError, match="make scene-hops-base"):
        SceneTask(recipe).make_model()


def test_a_backbone_whose_words_have_other_numbers_is_refused(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(scenes, "tokenizer_texts", lambda: ["other words"])
        other = SceneTask(load_recipe(SCENE_HOPS, [*SMALL, "model.path=null"]))
    other.make_model().save_pretrained(tmp_path)
    other.processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="train it again"):
        SceneTask(load_recipe(SCENE_HOPS, [*SMALL, f"model.path={tmp_path}"])).make_model()


def test_both_recipes_make_models_of_one_size():
    base, hops = (load_recipe(name, []).model for name in (SCENE_BASE, SCENE_HOPS))
    assert base.fresh() == hops.fresh()
