"""Prefixes in groups of rows of like length: the groups that cost least, and the vectors of a single pass."""

import itertools
import random
import time

import pytest
import torch
from families import BACKBONES, NAMES, make_tiny, tiny
from PIL import Image

from plume_embed.model import prefix_plume
from plume_embed.model.prefix_plume import groups_by_length

WORDS = ["word " * number for number in (1, 90, 40, 2, 88, 3, 41, 90)]


def cost(groups: list[list[int]], lengths: list[int]) -> int:
    return sum(len(group) * max(lengths[row] for row in group) + prefix_plume._POSITIONS_A_PASS for group in groups)


def least_cost(lengths: list[int]) -> int:
    """By trying every way to cut the sorted rows."""
    order, costs = sorted(range(len(lengths)), key=lambda row: -lengths[row]), []
    for count in range(len(order)):
        for cuts in itertools.combinations(range(1, len(order)), count):
            bounds = [0, *cuts, len(order)]
            costs.append(cost([order[begin:end] for begin, end in itertools.pairwise(bounds)], lengths))
    return min(costs)


@pytest.mark.parametrize("seed", range(20))
def test_the_groups_cost_least_and_hold_every_row_once(seed):
    rng = random.Random(seed)
    lengths = [rng.randint(1, rng.choice((40, 400))) for _ in range(rng.randint(1, 9))]
    groups = groups_by_length(lengths)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert cost(groups, lengths) == least_cost(lengths)
    longest = [lengths[group[0]] for group in groups]
    assert longest == sorted(longest, reverse=True)


def test_rows_of_like_length_stay_together_and_others_do_not():
    assert groups_by_length([30, 30, 31, 30]) == [[2, 0, 1, 3]]
    assert groups_by_length([10, 500, 11, 499]) == [[1, 3], [2, 0]]


@pytest.fixture
def passes(request, monkeypatch):
    """A model that groups, its processor, and the shapes of its prefix passes."""
    made, shapes = tiny(request.param), []
    prefix = made.model.prefix

    def noted(input_ids: torch.Tensor, **rest):
        shapes.append(tuple(input_ids.shape))
        return prefix(input_ids=input_ids, **rest)

    monkeypatch.setattr(made.model, "prefix", noted)
    monkeypatch.setattr(made.model, "groups_prefixes", True)
    return made.model, made.processor, shapes


def outputs(model, batch, **options):
    with torch.no_grad():
        found = model(**batch, output_anchor_embeddings=True, output_latent_states=True, **options)
    return found.embeddings, found.anchor_embeddings, found.latent_states


@pytest.mark.parametrize("passes", NAMES, indirect=True)
@pytest.mark.parametrize("implementation", ["static", "reference"])
def test_groups_give_the_outputs_of_a_single_pass_in_fewer_positions(passes, implementation, monkeypatch):
    model, processor, shapes = passes
    monkeypatch.setattr(model, "rollout_implementation", implementation)
    batch = processor(WORDS)
    in_groups = outputs(model, batch, num_latent_steps=3)
    grouped, whole = shapes.copy(), batch["input_ids"].numel()
    assert len(grouped) > 1 and sum(rows * length for rows, length in grouped) < whole
    monkeypatch.setattr(model, "groups_prefixes", False)
    for found, expected in zip(in_groups, outputs(model, batch, num_latent_steps=3), strict=True):
        assert (found - expected).abs().max() < 1e-5
    assert shapes[len(grouped) :] == [tuple(batch["input_ids"].shape)]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("passes", NAMES[:1], indirect=True)
def test_a_mask_of_any_type_makes_the_same_groups(passes, dtype):
    model, processor, shapes = passes
    batch = processor(WORDS)
    expected = outputs(model, batch, num_latent_steps=1)[0]
    found = outputs(model, batch | {"attention_mask": batch["attention_mask"].to(dtype)}, num_latent_steps=1)[0]
    assert (found - expected).abs().max() < 1e-5
    assert shapes[: len(shapes) // 2] == shapes[len(shapes) // 2 :] and len(shapes) > 2


def test_groups_of_thousands_of_rows_are_found_at_once():
    lengths = [number % 60 + 1 for number in range(20_000)]
    began = time.process_time()
    assert sum(map(len, groups_by_length(lengths))) == len(lengths)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("passes", NAMES[:1], indirect=True)
def test_media_and_gradients_keep_the_single_pass(passes):
    model, processor, shapes = passes
    model(**processor(WORDS), num_latent_steps=1)
    outputs(model, processor([*WORDS, {"image": Image.new("RGB", (56, 56))}]), num_latent_steps=1)
    assert [rows for rows, _ in shapes] == [len(WORDS), len(WORDS) + 1]


@pytest.mark.parametrize("passes", NAMES[:1], indirect=True)
def test_a_single_pass_without_a_step_reads_the_same_rows(passes):
    model, processor, shapes = passes
    together = outputs(model, processor(WORDS), num_latent_steps=0)[0]
    assert len(shapes) > 1
    alone = torch.cat([outputs(model, processor([text]), num_latent_steps=0)[0] for text in WORDS])
    assert (together - alone).abs().max() < 1e-5


def test_a_sliding_window_keeps_the_single_pass(monkeypatch):
    window = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}
    backbone = BACKBONES["fast_vlm"]
    monkeypatch.setitem(backbone, "text_config", backbone["text_config"] | window)
    made, calls = make_tiny("fast_vlm"), []
    made.model.groups_prefixes = True
    made.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    outputs(made.model, made.processor(WORDS), num_latent_steps=0)
    assert len(calls) == 1
