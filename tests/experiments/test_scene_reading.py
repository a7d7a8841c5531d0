"""What comes before scene_hops: a tower that names fields, descriptions of boards, the backbone that is taken on."""

import random

import pytest
import torch

from plume_embed.training.recipe import load_recipe
from training.scene_hops import SCENE_HOPS, SCENE_READING, scenes
from training.scene_hops.pictures import BLANK, LETTERS, NAMES, SIZES
from training.scene_hops.reading import KINDS, ReadingTask, draw_reading
from training.scene_hops.task import SceneTask
from training.scene_hops.tower import ATTRIBUTES, labels, teach

SMALL = ["batch_size=4", "model.hidden_size=64", "model.layers=1", "model.intermediate_size=64"]


@pytest.fixture(scope="module")
def task() -> ReadingTask:
    return ReadingTask(load_recipe(SCENE_READING, SMALL))


def test_a_taught_tower_names_what_fields_show_in_renderings_it_has_not_seen(task):
    model = super(ReadingTask, task).make_model()
    reader = teach(model, task.prefix, seed=0, steps=100)
    queries = scenes.held_out_queries(64)
    with torch.no_grad():
        found = torch.stack([logits.argmax(dim=1) for logits in reader(task.prefix(queries))], dim=1)
    right = (found == labels(queries)).float().mean(dim=0)
    assert dict(zip(ATTRIBUTES, (right > 0.95).tolist(), strict=True)) == dict.fromkeys(ATTRIBUTES, True), right


def test_teaching_changes_the_tower_and_nothing_else(task):
    model = super(ReadingTask, task).make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    teach(model, task.prefix, seed=0, steps=1)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("backbone.visual.") for name in changed)


def test_every_line_of_a_description_is_what_the_board_shows():
    rng = random.Random(5)
    for reading in (draw_reading(rng) for _ in range(200)):
        shown = {
            LETTERS[field]: (*NAMES[picture].split(), SIZES[size])
            for field, (picture, size) in enumerate(zip(reading.scene.shown, reading.scene.sizes, strict=True))
            if picture != BLANK
        }
        lines = reading.rationale.splitlines()
        assert len(lines) == 6 and len({line[0] for line in lines}) == 6
        for letter, colour, same_colour, shape, same_shape, size in map(str.split, lines):
            assert shown[letter] == (colour, shape, size)
            assert same_colour != letter and shown[same_colour][0] == colour
            assert same_shape != letter and shown[same_shape][1] == shape
        assert shown[LETTERS[reading.start]][:2] == tuple(NAMES[reading.final].split())


def test_a_line_has_a_token_for_each_of_its_kinds(task):
    reading = draw_reading(random.Random(0))
    tokens = task.processor.tokenizer.encode(reading.rationale, add_special_tokens=False)
    assert len(tokens) == 6 * len(KINDS)


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
    found = task.evaluate(super(ReadingTask, task).make_model(), count=32)
    assert found["hit_at_1"] < 0.2
    assert set(found["read"]) == {kind for kind in KINDS if kind} and max(found["read"].values()) < 0.7


def test_scene_hops_takes_the_backbone_on_and_starts_with_an_adapter_of_its_own(task, tmp_path):
    base = super(ReadingTask, task).make_model()
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
    with pytest.raises(ValueError, match=r"reading\.yaml"):
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
    reading, hops = (load_recipe(name, []).model for name in (SCENE_READING, SCENE_HOPS))
    assert reading.fresh() == hops.fresh()
