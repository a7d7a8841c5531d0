"""Positions: the released rule for a long small video, and those of rollout and suffix; others in test_families.py."""

import pytest
import torch

from plume_embed.model.family_plume import VisionBlock, mrope_positions
from plume_embed.model.positions_plume import latent_positions, suffix_positions


def test_the_released_rule_moves_on_by_the_longest_extent_of_a_long_small_video():
    is_visual, blocks = [False] + [True] * 6 + [False], [VisionBlock(6, 1, 1)]
    after = {rule: mrope_positions(is_visual, blocks, rule)[0, -1].item() for rule in ("max_hw", "max_thw")}
    assert after == {"max_hw": 1 + 1, "max_thw": 1 + 6}


@pytest.mark.parametrize(
    ("mode", "latents", "suffix"),
    [
        ("mrope", [21, 22], [23, 24, 25]),  # p_slt + k, then on
        ("cache_length", [30, 31], [32, 33, 34]),  # valid cache entries
        ("released_training", [30, 31], [23, 24, 25]),
    ],
)
def test_positions_after_the_prefix_follow_the_mode(mode, latents, suffix):
    start, length = torch.tensor([[20, 20, 20], [7, 7, 7]]), torch.tensor([30, 9])
    found = [latent_positions(mode, start, length, step) for step in (1, 2)]
    assert all(positions.shape == (2, 3, 1) for positions in found)
    assert [positions[0, 0, 0].item() for positions in found] == latents
    after = suffix_positions(mode, start, length, num_steps=2, length=3)
    assert after.shape == (2, 3, 3)
    assert after[0, 2].tolist() == suffix


@pytest.mark.parametrize("mode", ["cache_length", "released_training"])
def test_for_text_all_modes_agree(mode):
    # A text of n tokens ends at position n - 1 on every axis.
    length = torch.tensor([12, 40])
    start = (length - 1)[:, None].expand(-1, 3)
    for step in (1, 5):
        assert torch.equal(latent_positions(mode, start, length, step), latent_positions("mrope", start, length, step))
    assert torch.equal(suffix_positions(mode, start, length, 8, 6), suffix_positions("mrope", start, length, 8, 6))
