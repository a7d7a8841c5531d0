"""The rollout's benchmark over every other family of backbones: its inputs, its rivals and its rationales."""

import pytest
import torch

from plume_embed.bench import cot
from plume_embed.bench.inputs import random_batch, random_model
from plume_embed.bench.limits import Machine
from plume_embed.bench.released_style import embed_one_by_one
from plume_embed.bench.rollout import embed_with, rollout_rows
from plume_embed.encode.rationale import generate_rationale
from plume_embed.model.families_plume import FAMILIES

OTHERS = [name for name in FAMILIES if name != "qwen2_vl"]


@pytest.fixture(scope="module", params=OTHERS)
def model(request):
    return random_model("test", family=request.param)


@pytest.mark.parametrize("kind", ["text", "image", "video"])
def test_a_batch_has_the_asked_length_and_the_released_style_gives_the_same_vectors(model, kind):
    batch = random_batch(model, 3, 90, kind)
    assert batch["input_ids"].shape == (3, 90)
    expected = embed_with(model, batch, "reference", 8)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    torch.testing.assert_close(embed_with(model, batch, "static", 8), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(embed_one_by_one(model, batch, 8), expected, atol=1e-5, rtol=0)


def test_the_library_and_our_decoder_write_the_same_rationale(model):
    generator = cot.language_model(model)
    assert not any(parameter.is_meta for parameter in generator.parameters())
    batch = random_batch(model, 2, 60, "image")
    written = cot.write_rationale(generator, batch, 6)
    assert torch.equal(written, cot.write_rationale(generator, batch, 6, static_cache=True))
    # Ours ends at the embedding token, and puts one in where it is cut.
    for ours, theirs in zip(
        generate_rationale(model, batch, max_new_tokens=6).token_ids, written.tolist(), strict=True
    ):
        assert ours[:-1] == theirs[: len(ours) - 1]


def test_rows_hold_every_rival_and_a_limit_unless_experts_are_chosen(model):
    rows = rollout_rows(model, Machine(1e9, 1e12), 1, 40, names=("reference", "static"), budget_s=0, min_rounds=1)
    assert {"single pass", "reference", "static", "released style, one by one"} <= {row["name"] for row in rows}
    is_sparse = model.config.backbone_config.model_type == "qwen3_vl_moe"
    assert all(("limit_ms" in row) != is_sparse for row in rows)
