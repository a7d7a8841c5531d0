"""The adapter against the paper's equation, and each ablation as one config value."""

import pytest
import torch
from common import naive_adapter

from plume_embed import PlumeAdapter, PlumeConfig

BACKBONE = {
    "model_type": "qwen2_vl",
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 16,
    },
    "vision_config": {"depth": 1, "embed_dim": 16, "num_heads": 1, "hidden_size": 32},
}


def make(seed: int = 0, **settings) -> PlumeAdapter:
    adapter = PlumeAdapter(PlumeConfig(backbone_config=BACKBONE, **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapter


def states(batch: int = 5, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 32, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("top", [1, 2, 4])
def test_batched_experts_equal_the_equation_expert_by_expert(top):
    adapter = make(num_experts_per_tok=top)
    z, anchor, z0 = states()
    refined, _ = adapter(z, anchor, z0, step=3)
    for row in range(len(z)):
        torch.testing.assert_close(refined[row], naive_adapter(adapter, z[row], anchor[row], 3), atol=1e-5, rtol=0)


def test_selected_probabilities_are_not_renormalised():
    adapter = make(num_experts_per_tok=1, use_shared_expert=False)
    z, anchor, z0 = states()
    refined, probs = adapter(z, anchor, z0, step=1)
    u = adapter.layer_norm(z)
    all_gates = torch.eye(4)[probs.argmax(dim=-1)]
    unweighted = adapter.experts(u, all_gates)
    torch.testing.assert_close(refined - z, probs.max(dim=-1).values[:, None] * unweighted)


@pytest.mark.parametrize(
    ("settings", "depends_on"),
    [
        ({"router_context": "anchor"}, {"anchor", "step"}),
        ({"router_context": "prefix_last"}, {"z0", "step"}),
        ({"router_context": "none"}, {"step"}),
        ({"use_step_embedding": False}, {"anchor"}),
    ],
)
def test_the_router_sees_exactly_its_context_and_the_step(settings, depends_on):
    adapter = make(**settings)
    z, anchor, z0 = states()
    base = adapter.route(z, anchor, z0, 1)
    changed = {
        "anchor": adapter.route(z, anchor + 1, z0, 1),
        "z0": adapter.route(z, anchor, z0 + 1, 1),
        "step": adapter.route(z, anchor, z0, 2),
    }
    assert {name for name, probs in changed.items() if not torch.allclose(probs, base)} == depends_on


def test_without_the_shared_expert_there_is_one_expert_less():
    assert make().experts.fc1_weight.shape == (5, 32, 64)
    assert make(use_shared_expert=False).experts.fc1_weight.shape == (4, 32, 64)
    assert make(expert_expansion=3).experts.fc1_weight.shape == (5, 32, 96)


def test_a_single_mlp_has_no_router_and_runs_its_expert_in_full():
    adapter = make(adapter_type="mlp")
    z, anchor, z0 = states()
    refined, probs = adapter(z, anchor, z0, step=1)
    assert probs is None
    assert not hasattr(adapter, "router")
    torch.testing.assert_close(refined, z + adapter.experts(adapter.layer_norm(z), torch.ones(len(z), 1)))


def test_a_single_mlp_has_the_inner_width_that_is_asked_for():
    assert make(adapter_type="mlp").experts.fc1_weight.shape == (1, 32, 64)
    assert make(adapter_type="mlp", mlp_inner_size=327).experts.fc1_weight.shape == (1, 32, 327)


def test_no_adapter_passes_the_state_on_and_has_no_parameters():
    adapter = make(adapter_type="none")
    z, anchor, z0 = states()
    assert adapter(z, anchor, z0, step=1)[0] is z
    assert list(adapter.parameters()) == []


def test_unselected_experts_get_a_zero_gradient_not_none():
    adapter = make(num_experts_per_tok=1)
    z, anchor, z0 = states(batch=1)
    refined, probs = adapter(z, anchor, z0, step=1)
    refined.sum().backward()
    gradient = adapter.experts.fc1_weight.grad
    norms = gradient.flatten(1).norm(dim=1)
    chosen = 1 + probs.argmax().item()
    assert all((norms[index] > 0) == (index in (0, chosen)) for index in range(5))


def test_dropout_acts_in_training_only():
    adapter = make(adapter_dropout=0.5)
    z, anchor, z0 = states()
    assert torch.equal(adapter(z, anchor, z0, 1)[0], adapter(z, anchor, z0, 1)[0])
    adapter.train()
    assert not torch.equal(adapter(z, anchor, z0, 1)[0], adapter(z, anchor, z0, 1)[0])


def test_routing_is_in_float32_for_bf16_weights():
    adapter = make().to(torch.bfloat16)
    z, anchor, z0 = (state.to(torch.bfloat16) for state in states())
    refined, probs = adapter(z, anchor, z0, step=1)
    assert probs.dtype == torch.float32
    assert refined.dtype == torch.bfloat16


def test_routing_is_in_float32_under_autocast_too():
    adapter = make()
    z, anchor, z0 = states(batch=64)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = adapter.route(z, anchor, z0, 1)
    assert torch.equal(under_autocast, adapter.route(z, anchor, z0, 1))


def test_lora_on_the_router_acts_before_and_after_merging():
    peft = pytest.importorskip("peft")
    adapter = make()
    z, anchor, z0 = states()
    plain = adapter.route(z, anchor, z0, 1)
    config = peft.LoraConfig(target_modules=["router"], init_lora_weights=False, r=4)
    tuned = peft.get_peft_model(adapter, config)
    unmerged = adapter.route(z, anchor, z0, 1)
    assert not torch.allclose(unmerged, plain, atol=1e-3)
    tuned.merge_adapter()
    torch.testing.assert_close(adapter.route(z, anchor, z0, 1), unmerged, atol=1e-5, rtol=0)
