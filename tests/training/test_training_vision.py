"""The grouped vision attention: the same numbers as transformers' own, in one call for all pictures of a size."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers.models.qwen2_vl.modeling_qwen2_vl import VisionAttention

from plume_embed.training.efficiency.vision_attention import GroupedVisionAttention, group_vision_attention
from plume_embed.training.recipe import load_recipe
from plume_embed.training.small_model import make_model, make_processor
from training.hops import HOPS
from training.hops.hops import held_out_queries
from training.hops.task import HopsTask

SIZES = {"hidden_size": 64, "layers": 1, "intermediate_size": 64, "vision_size": 64, "vision_depth": 2}


def embed_and_gradients(model, batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    embeddings = model(**batch).embeddings
    weights = torch.linspace(-1, 1, embeddings.numel()).view_as(embeddings)
    model.zero_grad()
    (embeddings * weights).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return embeddings.detach(), gradients


@pytest.mark.parametrize("sizes", [[(56, 56)] * 3, [(56, 56), (84, 28), (28, 84), (56, 56), (28, 28)]])
@pytest.mark.parametrize("backbone", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"])
def test_embeddings_and_gradients_are_those_of_the_ungrouped_attention(backbone, sizes):
    processor = make_processor(["red green blue"] * 5, 400, 28, max_side=100, backbone_type=backbone)
    model = make_model(processor, **SIZES, initializer_range=0.2, seed=0).train()
    torch.manual_seed(1)
    noise = [torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy() for height, width in sizes]
    batch = processor([{"image": Image.fromarray(pixels)} for pixels in noise])
    assert (len({tuple(grid) for grid in batch["image_grid_thw"].tolist()}) > 1) == (len(set(sizes)) > 1)
    before, gradients = embed_and_gradients(model, batch)
    group_vision_attention(model)
    assert len([m for m in model.modules() if isinstance(m, GroupedVisionAttention)]) == 2
    after, grouped = embed_and_gradients(model, batch)
    assert torch.allclose(before, after, atol=1e-5)
    assert grouped.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, grouped[name], atol=1e-6 + 1e-5 * gradient.abs().max().item()), name


def test_all_frames_of_all_films_are_one_call(monkeypatch):
    task = HopsTask(load_recipe(HOPS, []))
    model, calls = task.make_model(), []
    whole = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(a[0].shape) or whole(*a, **k))
    group_vision_attention(model)
    model.prefix(**task.prefix(held_out_queries(5)))
    assert [shape for shape in calls if shape[-2] == 4 and shape[0] == 40] == [torch.Size([40, 1, 4, 32])]


def test_weights_keep_their_names_and_flash_attention_is_left_alone():
    task = HopsTask(load_recipe(HOPS, []))
    model, names = task.make_model(), None
    names = list(model.state_dict())
    model.backbone.visual.config._attn_implementation = "flash_attention_2"
    group_vision_attention(model)
    assert not [m for m in model.modules() if isinstance(m, GroupedVisionAttention)]
    model.backbone.visual.config._attn_implementation = "sdpa"
    group_vision_attention(model)
    assert len([m for m in model.modules() if isinstance(m, GroupedVisionAttention)]) == 1
    assert list(model.state_dict()) == names
    assert not [m for m in model.modules() if type(m) is VisionAttention]
