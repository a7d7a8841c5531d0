"""Rivals of the rollout: as many sweeps as steps are PLUME itself, fewer are it for their first steps."""

import pytest
import torch

from plume_embed import PlumeModel
from plume_embed.training.latents.traces import TraceLosses, distillation_losses, explicit_states, traces_of
from plume_embed.training.objective import make_side, run_side
from plume_embed.training.recipe import load_recipe
from plume_embed.training.trainer import load_weights
from training.hops import HOPS
from training.hops.rivals import RivalConfig, RivalModel
from training.hops.task import HopsTask

STEPS = 4
SMALL = ["batch_size=6", f"curriculum.num_latent_steps={STEPS}"]
SUFFIX = "<eot></think>\n<gen_emb>"


def task_with(plume: str) -> HopsTask:
    return HopsTask(load_recipe(HOPS, [*SMALL, f"model.plume={plume}"]))


@pytest.fixture(scope="module")
def serial() -> tuple[HopsTask, PlumeModel]:
    task = HopsTask(load_recipe(HOPS, SMALL))
    return task, task.make_model().eval()


def rival_of(serial, plume: str) -> RivalModel:
    """A rival with the weights of the serial model."""
    model = task_with(plume).make_model().eval()
    assert isinstance(model, RivalModel)
    model.load_state_dict(serial.state_dict(), strict=False)
    return model


def latents_of(task: HopsTask, model: PlumeModel) -> torch.Tensor:
    batch = task.prefix(task.data.held_out_queries(5))
    with torch.inference_mode():
        return model(**batch, output_latent_states=True).latent_states


@pytest.mark.parametrize("sweeps", [1, 2, 3, STEPS])
def test_the_first_t_states_of_t_sweeps_are_those_of_the_rollout(serial, sweeps):
    task, model = serial
    ours = latents_of(task, model)
    theirs = latents_of(task, rival_of(model, f"{{rollout: jacobi, sweeps: {sweeps}}}"))
    torch.testing.assert_close(theirs[:, :sweeps], ours[:, :sweeps], atol=1e-4, rtol=0)
    assert sweeps == STEPS or (theirs[:, sweeps:] - ours[:, sweeps:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "plume",
    [
        "{rollout: parallel, adapter_type: none}",
        "{rollout: parallel, adapter_type: none, shared_slot: true}",
        "{rollout: jacobi, sweeps: 2}",
    ],
)
def test_gradients_reach_the_learned_tokens_and_a_batch_equals_its_rows(plume):
    task = task_with(plume)
    model = task.make_model().double()
    queries = task.data.held_out_queries(3)
    items = [query.item() for query in queries]

    def gradient(groups: list[list[dict]]) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        outputs = [run_side(model, make_side(task.processor, own, [SUFFIX] * len(own)), STEPS) for own in groups]
        gen = torch.cat([output.gen for output in outputs])
        (gen[:, 0].sum() + sum(output.token_losses.sum() for output in outputs)).backward()
        return gen.detach(), model.adapter.slots.grad.clone()

    together, alone = gradient([items]), gradient([[item] for item in items])
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1], alone[1], atol=1e-5, rtol=1e-5)
    assert together[1].abs().max() > 0


@pytest.mark.parametrize("plume", ["{rollout: parallel, adapter_type: none}", "{rollout: jacobi, sweeps: 2}"])
def test_slots_are_held_to_the_states_of_a_rationale_that_saw_no_slot(plume):
    task = task_with(plume)
    model = task.make_model().double().eval()
    queries = task.data.held_out_queries(3)
    side = make_side(task.processor, [query.item() for query in queries], [SUFFIX] * 3)
    last = task.curriculum.at(task.recipe.curriculum.max_steps - 1)
    rationales = [query.rationale for query in queries]
    side.trace = traces_of(task.processor, task.curriculum, last, rationales, TraceLosses(True, False))
    found = run_side(model, side, STEPS)
    assert found.distil is not None
    alone = model.prefix(**side.prefix)
    states = explicit_states(model, alone, side.trace)  # of a cache that has never held a slot
    prefix = model.prefix(**side.prefix)
    latents, _ = model.latents(prefix, STEPS)
    gen = model.suffix(prefix, STEPS, side.suffix_ids)[:, -1]
    torch.testing.assert_close(found.distil, distillation_losses(latents, gen, states, side.trace), atol=1e-6, rtol=0)
    found.distil.sum().backward()
    assert model.adapter.slots.grad.abs().max() > 0


def test_one_token_for_all_slots_is_one_and_has_no_router():
    model = task_with("{rollout: parallel, adapter_type: none, shared_slot: true}").make_model()
    assert model.adapter.slots.shape == (1, 96)
    assert sum(parameter.numel() for parameter in model.adapter.parameters()) == 96


def test_weights_of_a_rival_can_be_loaded_again(tmp_path):
    task = task_with("{rollout: jacobi, sweeps: 2}")
    model, other = task.make_model(), task.make_model()
    with torch.no_grad():
        model.adapter.slots += 1
    model.save_pretrained(tmp_path)
    load_weights(other, tmp_path)
    assert torch.equal(other.adapter.slots, model.adapter.slots)


@pytest.mark.parametrize("settings", [{"sweeps": 0}, {"rollout": "parallel", "sweeps": 2}])
def test_sweeps_that_make_no_sense_are_refused(settings):
    with pytest.raises(Exception, match="sweeps must be 1 for parallel"):
        RivalConfig(**settings)
