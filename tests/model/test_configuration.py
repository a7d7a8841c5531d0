"""PlumeConfig: strict types, values that fit together, and a round trip."""

import pytest
from huggingface_hub.errors import StrictDataclassError

from plume_embed import PlumeConfig

SMALL = {"model_type": "qwen2_vl", "text_config": {"hidden_size": 32, "num_hidden_layers": 1}}


@pytest.mark.parametrize(
    "settings",
    [
        {"num_latent_steps": "eight"},
        {"use_shared_expert": "yes"},
        {"router_context": "suffix"},
        {"position_mode": "rope"},
        {"adapter_type": "lora"},
        {"vision_position_advance": "max"},
        {"suffix_token_ids": "1 2 3"},
    ],
)
def test_a_wrong_type_or_an_unknown_choice_is_refused(settings):
    with pytest.raises((StrictDataclassError, TypeError, ValueError)):
        PlumeConfig(backbone_config=SMALL, **settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_latent_steps": 33}, r"0\.\.32, got 33: .*init BACKBONE OUT --set num_step_embeddings=33"),
        ({"num_latent_steps": -1}, r"0\.\.32, got -1"),
        ({"anytime_steps": [33]}, "init BACKBONE OUT --set num_step_embeddings=33"),
        ({"anchor_token_id": 200_000}, "has 152064 token embeddings, and anchor_token_id names 200000"),
        ({"num_experts_per_tok": 5}, r"1\.\.num_experts=4, got 5"),
        ({"adapter_dropout": 1.0}, "adapter_dropout"),
        ({"suffix_token_ids": [1, 2], "embedding_token_id": 3}, "must end in embedding_token_id=3"),
        ({"mlp_inner_size": 50}, "leave it out for adapter_type=.moe."),
        ({"mlp_inner_size": 0, "adapter_type": "mlp"}, "at least 1"),
        ({"backbone_config": {"model_type": "llama"}}, "'llama' is not supported; supported: qwen2_vl"),
        ({"backbone_config": {"hidden_size": 3}}, "no model_type"),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_remedy(settings, match):
    with pytest.raises((StrictDataclassError, ValueError), match=match):
        PlumeConfig(**{"backbone_config": SMALL, **settings})


def test_every_field_survives_saving_and_loading(tmp_path):
    settings = {
        "num_latent_steps": 4,
        "adapter_type": "mlp",
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "use_shared_expert": False,
        "expert_expansion": 3,
        "mlp_inner_size": 50,
        "adapter_dropout": 0.1,
        "router_context": "none",
        "use_step_embedding": False,
        "num_step_embeddings": 12,
        "position_mode": "cache_length",
        "vision_position_advance": "max_thw",
        "anchor_token_id": 5,
        "latent_start_token_id": 6,
        "latent_end_token_id": 7,
        "embedding_token_id": 8,
        "suffix_token_ids": [7, 8],
    }
    PlumeConfig(backbone_config=SMALL, **settings).save_pretrained(tmp_path)
    loaded = PlumeConfig.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in settings} == settings
    assert loaded.backbone_config.model_type == "qwen2_vl"
    assert loaded.hidden_size == loaded.get_text_config().hidden_size == 32
