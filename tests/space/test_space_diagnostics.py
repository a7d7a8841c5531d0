"""The numbers of the rollout tab: a trace is the model's own forward pass, and each figure is what it says."""

import base64
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from space import diagnostics
from space.content.sessions import Session
from space.page import charts
from space.page.snippets import trace_file
from space.service import Query
from space.steps import interventions
from space.trace import finish, median_times, trace_query

ITEMS = [
    {"text": "a cactus"},
    {"image": Image.new("RGB", (90, 60), "teal")},
    {"video": [Image.new("RGB", (56, 56), colour) for colour in ("red", "green", "blue", "white")]},
    {"image": Image.new("RGB", (60, 60), "olive"), "text": "a tree"},
]


def forward(encoder, item, steps):
    with torch.inference_mode():
        return encoder.model(
            **encoder.processor([item]),
            num_latent_steps=steps,
            output_anchor_embeddings=True,
            output_latent_states=True,
            output_router_probs=True,
        )


@pytest.mark.parametrize("item", ITEMS, ids=["text", "image", "video", "image and text"])
@pytest.mark.parametrize("steps", [0, 1, 5, 8])
def test_a_trace_is_the_models_own_forward_pass(encoder, item, steps):
    trace = finish(trace_query(encoder, encoder.processor([item]), steps))
    expected = forward(encoder, item, steps)
    np.testing.assert_allclose(trace.embedding, expected.embeddings[0], atol=1e-5)
    np.testing.assert_allclose(trace.anchor, expected.anchor_embeddings[0], atol=1e-5)
    assert trace.latent_states.shape == (steps, encoder.dimension)
    if steps:
        states = torch.nn.functional.normalize(expected.latent_states[0], dim=-1)
        np.testing.assert_allclose(trace.latent_states, states, atol=1e-5)
        np.testing.assert_allclose(trace.router_probs, expected.router_probs[0], atol=1e-5)


def test_every_part_of_a_trace_has_its_own_time_and_they_add_up(encoder):
    trace = finish(trace_query(encoder, encoder.processor([ITEMS[1]]), 6))
    assert len(trace.step_ms) == trace.num_latent_steps == 6
    assert min([trace.prefix_ms, trace.suffix_ms, *trace.step_ms]) > 0
    assert trace.total_ms == pytest.approx(trace.prefix_ms + sum(trace.step_ms) + trace.suffix_ms)
    assert finish(trace_query(encoder, encoder.processor([ITEMS[1]]), 0)).suffix_ms == 0


def test_a_slow_step_shows_as_slow(encoder, monkeypatch):
    import time

    original = encoder.model.latent_step

    def slow_third(z, prefix, step):
        time.sleep(0.2 if step == 3 else 0)
        return original(z, prefix, step)

    monkeypatch.setattr(encoder.model, "latent_step", slow_third)
    trace = finish(trace_query(encoder, encoder.processor([ITEMS[0]]), 4))
    assert trace.step_ms.index(max(trace.step_ms)) == 2
    assert trace.step_ms[2] >= 200


def test_a_trace_that_is_closed_computes_nothing_more(encoder, monkeypatch):
    steps_run = []
    original = encoder.model.latent_step
    monkeypatch.setattr(encoder.model, "latent_step", lambda z, p, step: steps_run.append(step) or original(z, p, step))
    running = trace_query(encoder, encoder.processor([ITEMS[0]]), 8)
    while next(running) != "latent step 3 of 8":
        pass
    running.close()
    assert steps_run == [1, 2]


def test_trajectories_are_cosines_computed_one_by_one():
    rng = np.random.default_rng(0)
    states, candidates = rng.normal(size=(8, 16)), rng.normal(size=(5, 16)) * 3
    found = diagnostics.trajectories(states, candidates)
    assert found.shape == (5, 8)
    for c, candidate in enumerate(candidates):
        for k, state in enumerate(states):
            dot = sum(a * b for a, b in zip(candidate, state, strict=True))
            lengths = math.sqrt(sum(a * a for a in candidate)) * math.sqrt(sum(b * b for b in state))
            assert found[c, k] == pytest.approx(dot / lengths)


def test_chosen_experts_are_those_that_the_adapter_adds(encoder):
    """Leaving out every expert that is not said to be chosen changes nothing; leaving out a chosen one does."""
    trace = finish(trace_query(encoder, encoder.processor([ITEMS[0]]), 3))
    chosen = diagnostics.chosen_experts(trace.router_probs, encoder.model.config.num_experts_per_tok)
    assert [len(choices) for choices in chosen] == [2, 2, 2]
    for probs, choices in zip(trace.router_probs, chosen, strict=True):
        weights, experts = torch.from_numpy(probs).topk(2)
        assert [choice.expert for choice in choices] == experts.tolist()
        assert [choice.weight for choice in choices] == pytest.approx(weights.tolist())
    used = {choice.expert for choices in chosen for choice in choices}
    unused = sorted(set(range(encoder.model.config.num_experts)) - used)
    assert without_expert(encoder, sorted(used)[0]) > 1e-4
    for expert in unused:
        assert without_expert(encoder, expert) < 1e-6


def without_expert(encoder, expert: int) -> float:
    """By how much the vector of the first item changes when an expert's output is zero."""
    before = forward(encoder, ITEMS[0], 3).embeddings
    experts = encoder.model.adapter.experts
    kept = experts.fc2_weight.detach().clone(), experts.fc2_bias.detach().clone()
    with torch.no_grad():
        experts.fc2_weight[expert + 1] = 0  # the shared expert comes first
        experts.fc2_bias[expert + 1] = 0
        after = forward(encoder, ITEMS[0], 3).embeddings
        experts.fc2_weight.copy_(kept[0])
        experts.fc2_bias.copy_(kept[1])
    return (after - before).abs().max().item()


def test_moves_hold_whatever_is_high_in_either_ranking():
    embedding, anchor = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    candidates = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.5], [0.2, 0.3]])
    found = diagnostics.rank_changes(anchor, embedding, candidates, top=1)
    assert [(move.index, move.anchor_rank, move.final_rank) for move in found] == [(0, 4, 1), (1, 1, 4)]
    assert found[0].final_score == pytest.approx(0.9) and found[0].anchor_score == pytest.approx(0.1)


def test_ties_have_ranks_of_their_own_in_their_order():
    assert diagnostics.ranks([0.5, 0.7, 0.5]).tolist() == [2, 1, 3]


def test_the_trajectory_chart_has_a_point_for_every_step_of_every_candidate():
    cosines = np.linspace(0, 1, 15).reshape(3, 5)
    states = ["anchor", "z(0)", "z(1)", "z(2)", "embedding"]
    figure = charts.trajectory_chart(cosines, states, ["a", "<a href='x'>b</a>", "c"])
    assert [list(line.y) for line in figure.data] == cosines.tolist()
    assert all(list(line.x) == states for line in figure.data)
    assert figure.data[1].name == "2. &lt;a href='x'&gt;b&lt;/a&gt;"


def test_the_routing_chart_marks_the_chosen_cells_only():
    probs = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    figure = charts.routing_chart(probs, diagnostics.chosen_experts(probs, 1))
    assert [list(row) for row in figure.data[0].text] == [["", "0.50"], ["0.60", ""], ["", ""]]
    assert np.asarray(figure.data[0].z).T.tolist() == probs.tolist()


def test_the_timing_chart_has_a_bar_for_prefix_steps_and_suffix(encoder):
    trace = finish(trace_query(encoder, encoder.processor([ITEMS[0]]), 2))
    bars = charts.timing_chart(trace, 1).data[0]
    assert list(bars.y) == ["prefix", "step 1", "step 2", "suffix"]
    assert list(bars.x) == [trace.prefix_ms, *trace.step_ms, trace.suffix_ms]


@pytest.mark.parametrize("steps", [0, 3])
def test_a_path_begins_at_the_anchor_and_z0_and_ends_at_the_embedding(encoder, steps):
    trace = finish(trace_query(encoder, encoder.processor([ITEMS[0]]), steps))
    names, states = zip(*trace.path, strict=True)
    assert list(names) == ["anchor", *(f"z({step})" for step in range(steps + 1)), "embedding"]
    expected = forward(encoder, ITEMS[0], steps)
    np.testing.assert_allclose(states[0], expected.anchor_embeddings[0], atol=1e-5)
    np.testing.assert_allclose(states[-1], expected.embeddings[0], atol=1e-5)
    with torch.inference_mode():
        z0 = torch.nn.functional.normalize(encoder.model.prefix(**encoder.processor([ITEMS[0]])).z0[0], dim=-1)
    np.testing.assert_allclose(states[1], z0, atol=1e-5)
    assert all(np.linalg.norm(state) == pytest.approx(1, abs=1e-5) for state in states)


def change(index: int, anchor_rank: int, final_rank: int) -> diagnostics.RankChange:
    return diagnostics.RankChange(index, anchor_rank, final_rank, 0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            [change(0, 1, 1), change(1, 4, 2), change(2, 2, 3), change(3, 3, 9)],
            "The steps changed 1 of the first 3 results; the anchor alone already ranked the best one first.",
        ),
        (
            [change(0, 2, 1), change(1, 1, 2), change(2, 3, 3)],
            "The steps changed only the order among the first 3 results; "
            "by the anchor alone the best one was at rank 2.",
        ),
        (
            [change(0, 1, 1), change(1, 2, 2), change(2, 3, 3)],
            "The steps changed nothing among the first 3 results; the anchor alone already ranked the best one first.",
        ),
    ],
)
def test_one_sentence_says_what_the_steps_changed(changes, sentence):
    assert diagnostics.summary(changes, 3) == sentence


def test_times_are_medians_of_several_runs_and_the_rest_is_the_first_runs(encoder):
    first = finish(trace_query(encoder, encoder.processor([ITEMS[0]]), 2))
    runs = [
        replace(first, prefix_ms=prefix, step_ms=[prefix + 1, 2 * prefix], suffix_ms=7.0)
        for prefix in (30.0, 10.0, 20.0)
    ]
    median = median_times(runs)
    assert (median.prefix_ms, median.step_ms, median.suffix_ms) == (20.0, [21.0, 40.0], 7.0)
    np.testing.assert_array_equal(median.embedding, first.embedding)


def test_noise_and_foreign_latents_have_their_place_in_every_step_and_nothing_else_changes(encoder):
    batch = encoder.processor([ITEMS[0]])
    original = finish(trace_query(encoder, batch, 4))
    other = finish(trace_query(encoder, encoder.processor([ITEMS[3]]), 4))
    fed = []
    latent_step = encoder.model.latent_step
    try:
        encoder.model.latent_step = lambda z, prefix, step: fed.append(z.clone()) or latent_step(z, prefix, step)
        same, noise, swapped = interventions(encoder, batch, original, other)
    finally:
        del encoder.model.latent_step
    np.testing.assert_array_equal(same.vector, original.embedding)
    norms = [float(z.norm()) for z in fed[:4]]
    assert norms[0] == pytest.approx(np.linalg.norm(original.states[0]), rel=1e-4)
    np.testing.assert_allclose(torch.cat(fed[4:]).numpy(), other.states[:4], atol=1e-6)
    for one in (noise, swapped):
        assert np.abs(one.vector - original.embedding).max() > 1e-4
        assert np.linalg.norm(one.vector) == pytest.approx(1, abs=1e-5)
    itself = list(interventions(encoder, batch, original, original))[2]
    np.testing.assert_allclose(itself.vector, original.embedding, atol=1e-5)


def test_interventions_need_latents(encoder):
    batch = encoder.processor([ITEMS[0]])
    single = finish(trace_query(encoder, batch, 0))
    with pytest.raises(ValueError, match="same number of latent steps, got 0 and 0"):
        next(interventions(encoder, batch, single, single))


def test_the_exported_trace_holds_every_state_and_the_results(service):
    result = finish(service.query(Session(), Query(service.corpora[0], "banana", None, None, 3)))
    file = json.loads(base64.b64decode(trace_file(result, result.trace).split(",")[1]))
    assert list(file["states"]) == ["anchor", "z(0)", "z(1)", "z(2)", "z(3)", "embedding"]
    np.testing.assert_allclose(file["states"]["embedding"], result.trace.embedding, atol=1e-6)
    assert len(file["router_probs"]) == len(file["milliseconds"]["steps"]) == 3
    assert file["results"][0]["name"] == result.hits[0].item.label
