"""Recomputing layers through the rollout: equal gradients, less memory, and nothing else changed."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch.autograd.graph import saved_tensors_hooks

from plume_embed.training.efficiency.layer_checkpoint import checkpoint_layers
from plume_embed.training.efficiency.lora import add_lora
from plume_embed.training.loss.batch_loss import batch_losses
from plume_embed.training.objective import PlumeForTraining
from plume_embed.training.recipe import LoraSettings, load_recipe
from plume_embed.training.run import run
from training.hops import HOPS
from training.hops.task import HopsTask

SETTINGS = ["batch_size=12", "model.layers=4", "model.initializer_range=0.2", "model.plume={adapter_dropout: 0.1}"]


@pytest.fixture(scope="module")
def task() -> HopsTask:
    return HopsTask(load_recipe(HOPS, SETTINGS))


def step(model, task, at: int) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients, and the bytes that the forward pass keeps for the backward pass, each storage counted once."""
    batch = task.batch(at, task.curriculum.at(at))
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    wrapped = PlumeForTraining(model).train()
    torch.manual_seed(5)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        queries, targets = wrapped(batch.queries + batch.targets, batch.num_latent_steps, batch.early_steps)
        loss, _ = batch_losses(queries, targets, batch, task.recipe.loss)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    count = sum(size for address, (size, _) in kept.items() if address not in own)
    model.zero_grad()
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, count


def assert_equal(first: tuple, second: tuple) -> None:
    assert second[0] == pytest.approx(first[0], abs=1e-6)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        assert torch.allclose(gradient, second[1][name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("at", [0, 400, 589])
def test_gradients_are_equal_and_less_than_half_the_bytes_are_kept(task, at):
    model = task.make_model()
    plain = step(model, task, at)
    checkpoint_layers(model)
    recomputed = step(model, task, at)
    assert_equal(plain, recomputed)
    assert any(gradient.abs().max() > 1e-4 for name, gradient in plain[1].items() if "layers.0" in name)
    assert recomputed[2] < 0.5 * plain[2]


@pytest.mark.parametrize(
    "setting",
    [
        "loss={distil: 1.0, decode: 1.0}",
        "curriculum.anytime_steps=[0,2,4]",
        "model.plume={rollout: jacobi, sweeps: 3}",
        "model.plume={rollout: parallel, adapter_type: none}",
    ],
)
def test_gradients_are_equal_where_a_rollout_is_read_in_several_places(setting):
    task = HopsTask(load_recipe(HOPS, ["batch_size=4", "model.layers=2", "model.initializer_range=0.2", setting]))
    model = task.make_model()
    plain = step(model, task, 589)
    checkpoint_layers(model)
    assert_equal(plain, step(model, task, 589))


def test_what_is_kept_grows_by_one_entry_a_latent_step_not_by_the_whole_cache(task):
    """Keys and values of a step are outputs of its checkpoint; joined copies are made anew in the backward pass."""
    model = task.make_model()
    checkpoint_layers(model)
    with_4, with_8 = (
        step(model, HopsTask(load_recipe(HOPS, [*SETTINGS, f"curriculum.num_latent_steps={k}"])), 589)[2]
        for k in (4, 8)
    )
    batch, hidden, layers, length = 12, 96, 4, 35
    key_values = 2 * batch * hidden // 2 * layers * length * 4  # bytes of one joined copy
    assert with_8 - with_4 < 4 * key_values


def test_it_works_with_lora(task):
    plain, recomputed = task.make_model(), task.make_model()
    checkpoint_layers(recomputed)
    for model in (plain, recomputed):
        torch.manual_seed(0)
        lora = add_lora(model, LoraSettings(rank=2, dropout=0.2))
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)  # zero at first, and the other half would get no gradient
    first, second = step(plain, task, 589), step(recomputed, task, 589)
    assert_equal(first, second)
    assert any("lora_A" in name and gradient.abs().max() > 0 for name, gradient in first[1].items())


def test_evaluation_and_files_are_as_before(task, tmp_path):
    model = task.make_model().eval()
    batch = task.processor(["0", "north 3"])
    with torch.no_grad():
        before = model(**batch).embeddings
        names = list(model.state_dict())
        checkpoint_layers(model)
        checkpoint_layers(model)  # a second call changes nothing
        assert torch.equal(model(**batch).embeddings, before)
        model.rollout_implementation = "reference"
        assert torch.allclose(model(**batch).embeddings, before, atol=1e-6)
    assert list(model.state_dict()) == names
    assert type(model.backbone.language_model.layers[0]).__name__ == "Qwen2VLDecoderLayer"
    copy.deepcopy(model)


def test_a_cache_that_was_begun_without_gradients_is_refused(task):
    model = task.make_model().train()
    checkpoint_layers(model)
    with torch.no_grad():
        prefix = model.prefix(**task.processor(["0"]))
    with pytest.raises(RuntimeError, match="ran without gradients"):
        model.latent_step(prefix.z0, prefix, 1)


def test_a_recipe_with_it_trains_to_the_same_weights(tmp_path, monkeypatch):
    whole = HopsTask._evaluate
    monkeypatch.setattr(HopsTask, "_evaluate", lambda self, model, stage, count: whole(self, model, stage, 20))
    settings = ["curriculum.max_steps=10", "curriculum.shares=[2,2,2,2,2]", "batch_size=6", "workers=0"]
    settings += ["chunk_size=3", "gates.explicit_hit_at_1=null"]
    results = {}
    for flag in ("false", "true"):
        recipe = load_recipe(HOPS, [*settings, f"checkpoint_layers={flag}", f"output_dir={tmp_path / flag}"])
        run(recipe)
        results[flag] = load_file(tmp_path / flag / "model" / "model.safetensors")
    for name, tensor in results["false"].items():
        assert torch.allclose(tensor, results["true"][name], atol=2e-5), name
