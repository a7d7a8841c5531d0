"""Positions: the library's own for Qwen2-VL, the released rule where it differs, and those of rollout and suffix."""

import random

import pytest
import torch
from transformers import Qwen2VLConfig, Qwen2VLModel

from plume_embed.model.positions_plume import latent_positions, prefix_positions, suffix_positions, to_backbone_layout

OPTIONS = {"merge_size": 2, "vision_position_advance": "max_hw", "image_token_id": 90, "video_token_id": 91}


def random_row(rng: random.Random) -> tuple[list[int], list[list[int]], list[list[int]]]:
    ids, images, videos = [1, 2, 3], [], []
    for _ in range(rng.randint(0, 4)):
        is_video = rng.random() < 0.5
        grid = [rng.randint(1, 6) if is_video else 1, 2 * rng.randint(1, 5), 2 * rng.randint(1, 5)]
        (videos if is_video else images).append(grid)
        ids += [4] + [91 if is_video else 90] * (grid[0] * grid[1] * grid[2] // 4) + [5]
    return ids + [6] * rng.randint(1, 9), images, videos


def test_prefix_positions_equal_the_librarys_on_random_rows():
    config = Qwen2VLConfig(
        text_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "vocab_size": 100,
            "intermediate_size": 16,
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 1, "hidden_size": 16},
    )
    with torch.device("meta"):
        model = Qwen2VLModel(config)
    rng = random.Random(0)
    for _ in range(100):
        ids, images, videos = random_row(rng)
        input_ids = torch.tensor([ids])
        theirs, _ = model.get_rope_index(
            input_ids,
            mm_token_type_ids=(input_ids == 90).int() + 2 * (input_ids == 91).int(),
            image_grid_thw=torch.tensor(images) if images else None,
            video_grid_thw=torch.tensor(videos) if videos else None,
        )
        assert torch.equal(prefix_positions("qwen2_vl", ids, images, videos, OPTIONS), theirs[:, 0])


def test_the_released_rule_moves_on_by_the_longest_extent_of_a_long_small_video():
    ids, grid = [1] + [91] * 6 + [2], [6, 2, 2]
    after = {
        rule: prefix_positions("qwen2_vl", ids, [], [grid], {**OPTIONS, "vision_position_advance": rule})[0, -1].item()
        for rule in ("max_hw", "max_thw")
    }
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


def test_positions_travel_batch_first():
    assert to_backbone_layout(torch.zeros(5, 3, 7)).shape == (3, 5, 7)
