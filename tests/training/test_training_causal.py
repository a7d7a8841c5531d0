"""The causal tests of the latent steps: nothing replaced is the rollout itself, what is replaced is what it says."""

import random

import pytest
import torch
import torch.nn.functional as F
from common import random_item

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.training.latents.branches import behind
from plume_embed.training.latents.causal import REPLACEMENTS, embed_with, other_queries, record, replaced, similarities

STEPS = 4


@pytest.fixture(scope="module")
def model(released_model_dir) -> PlumeModel:
    return PlumeModel.from_pretrained(released_model_dir).eval()


@pytest.fixture(scope="module")
def processor(released_model_dir) -> PlumeProcessor:
    return PlumeProcessor.from_pretrained(released_model_dir)


@pytest.fixture(scope="module")
def items() -> list[dict]:
    rng = random.Random(5)
    return [random_item(rng) for _ in range(7)]


@pytest.fixture(scope="module")
def recorded(model, processor, items):
    return record(model, processor, items, STEPS)


def test_the_record_is_what_the_model_gives_for_any_number_of_steps(model, processor, items, recorded):
    with torch.inference_mode():
        outputs = [
            model(**processor(items), num_latent_steps=k, output_latent_states=True, output_anchor_embeddings=True)
            for k in range(STEPS + 1)
        ]
    for k, output in enumerate(outputs):
        torch.testing.assert_close(recorded.after_step[:, k], output.embeddings, atol=1e-5, rtol=0)
    torch.testing.assert_close(recorded.embeddings, outputs[-1].embeddings, atol=1e-5, rtol=0)
    torch.testing.assert_close(recorded.anchors, outputs[0].anchor_embeddings, atol=1e-5, rtol=0)
    torch.testing.assert_close(recorded.states[:, 1:], outputs[-1].latent_states, atol=1e-4, rtol=1e-5)
    reads = recorded.read_outs()
    assert list(reads) == ["anchor", "z(0)", "z(1)", "z(2)", "z(3)", "z(4)", "embedding"]
    torch.testing.assert_close(reads["z(0)"], outputs[0].embeddings, atol=1e-5, rtol=0)
    torch.testing.assert_close(reads["z(3)"], F.normalize(outputs[-1].latent_states[:, 2], dim=-1), atol=1e-5, rtol=0)


def test_its_own_inputs_in_one_pass_give_the_embedding_of_the_rollout(model, processor, items, recorded):
    found = embed_with(model, processor, items, {"own": recorded.inputs, "none": torch.zeros_like(recorded.inputs)})
    torch.testing.assert_close(found["own"], recorded.embeddings, atol=1e-5, rtol=0)
    assert (found["none"] * recorded.embeddings).sum(dim=1).max() < 0.9999


def test_what_is_replaced_is_what_the_table_says(recorded):
    inputs, others = recorded.inputs, other_queries([[answer] for answer in (0, 0, 1, 1, 2, 0, 3)])
    assert others.tolist() == [2, 2, 4, 4, 5, 6, 0]
    found = replaced(inputs, others)
    assert list(found) == list(REPLACEMENTS)
    assert all(given.shape == inputs.shape for given in found.values())
    assert torch.equal(found["another query"][1], inputs[2])
    torch.testing.assert_close(found["noise"].norm(dim=-1), inputs.norm(dim=-1))
    assert F.cosine_similarity(found["noise"], inputs, dim=-1).abs().max() < 0.6
    for row, own in zip(found["other order"], inputs, strict=True):
        order = torch.cdist(row, own).argmin(dim=1).tolist()
        assert sorted(order) == list(range(STEPS)) and all(place != step for step, place in enumerate(order))
    torch.testing.assert_close(found["mean of the step"][3], inputs.mean(dim=0))
    assert torch.equal(found["position only"][0, 0], found["position only"][5, 2])
    assert torch.equal(found["noise"], replaced(inputs, others)["noise"])


def test_what_cannot_be_replaced_is_refused(recorded):
    with pytest.raises(ValueError, match="at least two latent steps"):
        replaced(recorded.inputs[:, :1], torch.tensor([0]))
    with pytest.raises(ValueError, match="one gold candidate"):
        other_queries([[4], [4], [4]])


def test_a_branch_ends_behind_its_steps_and_leaves_the_cache_alone(model, processor, items):
    with torch.inference_mode():
        prefix = model.prefix(**processor(items[:2]))
        length = prefix.attention_mask.shape[1]
        model.latents(prefix, 3)
        first = behind(prefix, 1)
        model.suffix(first, 1)
    assert prefix.cache.get_seq_length() == length + 3
    assert first.cache.get_seq_length() == length + 1 + len(model.config.suffix_token_ids)
    with pytest.raises(ValueError, match="not the .* that are to be kept"):
        behind(prefix, 4)


def test_likeness_is_one_for_equal_states_and_is_the_mean_over_pairs():
    rng = torch.Generator().manual_seed(0)
    states = torch.randn(5, 3, 8, generator=rng)
    states[:, 2] = 2 * states[:, 1]
    found = similarities(states)
    between = torch.tensor(found["between_steps"])
    torch.testing.assert_close(between.diagonal(), torch.ones(3))
    assert between[1, 2].item() == pytest.approx(1, abs=1e-5) and abs(between[0, 1].item()) < 0.9
    unit = F.normalize(states[:, 0], dim=-1)
    pairs = [float(unit[i] @ unit[j]) for i in range(5) for j in range(5) if i != j]
    assert found["between_queries"][0] == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
