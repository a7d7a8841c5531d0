"""Training over every family of backbones: what a frozen tower keeps, LoRA, a head of its own."""

import dataclasses
from pathlib import Path

import pytest
import torch

from plume_embed import PlumeModel
from plume_embed.hub.init import init_model
from plume_embed.model.families_plume import FAMILIES
from plume_embed.training.dry_run import dry_recipe
from plume_embed.training.efficiency.lora import load_lora
from plume_embed.training.log import read_log
from plume_embed.training.recipe import LoraSettings, Recipe, load_recipe
from plume_embed.training.run import make_task, run
from training.plume_tiny.backbone import write_backbone


def small(output_dir: Path, backbone: str, **changes) -> Recipe:
    """Two steps of the dry run's last stage."""
    settings = [f"output_dir={output_dir}", f"model.backbone={backbone}", "curriculum.num_latent_steps=4"]
    recipe = dry_recipe(load_recipe("paper_2b", settings))
    curriculum = dataclasses.replace(recipe.curriculum, stages=(4,), max_steps=2, learning_rates=(0.01,) * 5)
    return dataclasses.replace(recipe, curriculum=curriculum, **changes)


def weights_of(recipe: Recipe) -> tuple[PlumeModel, PlumeModel]:
    """The model before and after the run."""
    before = make_task(recipe, 0, 1).make_model()
    run(recipe)
    return before, PlumeModel.from_pretrained(Path(recipe.output_dir) / "model")


def changed(before: torch.nn.Module, after: torch.nn.Module) -> list[bool]:
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return [not torch.equal(first, second) for first, second in pairs]


@pytest.mark.parametrize("backbone", list(FAMILIES))
def test_a_frozen_tower_stays_and_its_merger_and_the_language_model_move(backbone, tmp_path):
    before, after = weights_of(small(tmp_path / "run", backbone))
    family = before.family
    mergers = [family.merger_modules(model.backbone) for model in (before, after)]
    assert all(any(changed(*pair)) for pair in zip(*mergers, strict=True))
    kept = {id(parameter) for merger in mergers[0] for parameter in merger.parameters()}
    for tower, again in zip(family.vision_modules(before.backbone), family.vision_modules(after.backbone), strict=True):
        moved = changed(tower, again)
        assert not any(is_moved for is_moved, p in zip(moved, tower.parameters(), strict=True) if id(p) not in kept)
        assert all(torch.equal(*pair) for pair in zip(tower.buffers(), again.buffers(), strict=True))
    assert any(changed(before.backbone.language_model, after.backbone.language_model))
    assert any(changed(before.adapter, after.adapter))


def test_a_dry_run_of_the_recipe_of_qwen3_vl_goes_through_all_stages(tmp_path):
    recipe = dry_recipe(load_recipe("qwen3_vl_2b", [f"output_dir={tmp_path / 'run'}"]))
    run(recipe)
    stages = [entry["stage"] for entry in read_log(Path(recipe.output_dir)) if "stage" in entry]
    assert stages == sorted(stages) and set(stages) == set(recipe.curriculum.stages)
    made = PlumeModel.from_pretrained(Path(recipe.output_dir) / "model")
    assert made.family.model_type == "qwen3_vl" and all(p.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("backbone", ["qwen3_vl", "fast_vlm"])
def test_lora_trains_the_language_model(backbone, tmp_path):
    recipe = small(tmp_path / "run", backbone, lora=LoraSettings(rank=2))
    task = make_task(recipe, 0, 1)
    run(recipe)
    before, after = task.make_model(), load_lora(task.make_model(), tmp_path / "run-dry-run" / "model")
    layers = [model.backbone.language_model.layers[0] for model in (before, after)]
    assert any(changed(*(layer.self_attn.q_proj for layer in layers)))
    assert not any(changed(*(layer.input_layernorm for layer in layers)))


def test_a_head_of_its_own_is_trained_and_saved(tmp_path):
    sizes = {"hidden_size": 64, "layers": 2, "intermediate_size": 64, "vision_size": 32, "vision_depth": 2}
    texts = ["some words for a tokenizer"] * 3
    folder = tmp_path / "backbone"
    write_backbone(folder, texts, 420, backbone_type="qwen3_vl", is_tied=False, initializer_range=0.05, **sizes)
    recipe = small(tmp_path / "run", "qwen3_vl")
    model = dataclasses.replace(recipe.model, path=str(init_model(folder, tmp_path / "fresh")), plume={})
    before, after = weights_of(dataclasses.replace(recipe, model=model))
    assert all(changed(before.lm_head, after.lm_head))
