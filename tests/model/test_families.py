"""Every family of backbones: positions, batches, a reference without cache, the engine, gradients, files."""

import copy
import inspect
import random

import pytest
import torch
from common import random_image, random_item
from families import BACKBONES, NAMES, Tiny, library_positions, naive_embedding, tiny
from PIL import Image
from transformers import Qwen2_5_VLModel

from plume_embed.model.families_plume import FAMILIES
from plume_embed.model.family_plume import Film
from plume_embed.model.modeling_plume import PlumeModel

TOLERANCE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(params=NAMES)
def any_tiny(request) -> Tiny:
    return tiny(request.param)


@pytest.fixture(params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"])
def qwen(request) -> Tiny:
    return tiny(request.param)


def test_every_registered_family_is_tested():
    assert {name.split()[0] for name in BACKBONES} == set(FAMILIES)


def rates_of_films() -> tuple[float, ...]:
    """Frames a second. Older libraries cut the seconds of a block to whole ones, against the model's own code."""
    interval = inspect.signature(Qwen2_5_VLModel.get_vision_position_ids).parameters["time_interval"]
    return (0.5, 1.0, 2.0) if isinstance(interval.default, int) else (0.5, 1.0, 2.0, 24.0, 7.3)


def test_prefix_positions_equal_the_librarys_on_200_random_layouts(qwen):
    rng, rates = random.Random(0), rates_of_films()
    family, processor = qwen.family, qwen.processor
    for _ in range(200):
        ids, spans, grids, seconds = [1, 2], [], {"image": [], "video": []}, []
        for _ in range(rng.randint(0, 4)):
            kind = rng.choice(("image", "video"))
            grid = (rng.randint(1, 6) if kind == "video" else 1, rng.randint(1, 5), rng.randint(1, 5))
            if kind == "image":
                span = family.image_span(processor, grid)
            else:
                fps = rng.choice(rates)
                times = tuple(index / fps for index in range(2 * grid[0]))
                span = family.film_span(processor, Film(torch.empty(2 * grid[0], 0), times, fps), grid)
                seconds.append(2 / fps)
            grids[kind].append([grid[0], 2 * grid[1], 2 * grid[2]])
            spans.append(span)
            ids += [3, *span.ids, 4] + [5] * rng.randint(0, 3)
        is_visual = [token_id in (processor.image_token_id, processor.video_token_id) for token_id in ids]
        ours = family.prefix_positions(is_visual, [block for span in spans for block in span.blocks], "max_hw")
        batch = {"input_ids": torch.tensor([ids])}
        batch |= {f"{kind}_grid_thw": torch.tensor(of_kind) for kind, of_kind in grids.items() if of_kind}
        extra = {"second_per_grid_ts": seconds} if family.model_type == "qwen2_5_vl" and seconds else {}
        assert torch.equal(ours, library_positions(qwen, batch, **extra)[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_prefix_positions_of_the_processor_equal_the_librarys(name):
    rng, made = random.Random(1), tiny(name)
    for _ in range(20):
        item = random_item(rng)
        if name == "qwen2_5_vl":
            item.pop("video", None)  # the library is told the seconds, see the layouts above
        batch = made.processor([item or "x"])
        ours = made.family.to_backbone_positions(batch["position_ids"])
        assert torch.equal(ours, library_positions(made, batch))


@torch.inference_mode()
def test_a_row_has_the_same_vector_in_any_of_100_random_batches(any_tiny):
    rng = random.Random(2)
    model, processor = any_tiny.model, any_tiny.processor
    items = [random_item(rng) for _ in range(16)]
    alone = torch.cat([model(**processor([item]), num_latent_steps=2).embeddings for item in items])
    for _ in range(100):
        chosen = rng.sample(range(len(items)), rng.randint(2, 5))
        together = model(**processor([items[index] for index in chosen]), num_latent_steps=2).embeddings
        torch.testing.assert_close(together, alone[chosen], **TOLERANCE)
    assert torch.pdist(alone).min() > 1e-3  # and each its own


@pytest.mark.parametrize("implementation", ["reference", "static"])
@torch.inference_mode()
def test_the_rollout_equals_a_reference_without_any_cache(any_tiny, implementation, monkeypatch):
    monkeypatch.setattr(any_tiny.model, "rollout_implementation", implementation)
    rng = random.Random(3)
    items = [random_item(rng) for _ in range(5)]
    batch = any_tiny.processor(items)
    output = any_tiny.model(**batch, output_latent_states=True)
    assert any_tiny.model.rollout_engine.fallbacks == []
    for index, item in enumerate(items):
        embedding, latents = naive_embedding(any_tiny, any_tiny.processor([item]), 3)
        torch.testing.assert_close(output.embeddings[index], embedding, **TOLERANCE)
        torch.testing.assert_close(output.latent_states[index], latents, atol=1e-4, rtol=1e-4)


def test_gradients_of_a_batch_equal_those_of_its_rows_one_by_one(any_tiny):
    rng = random.Random(4)
    model, items = any_tiny.model, [random_item(rng) for _ in range(4)]
    weights = torch.randn(len(items), 64, generator=torch.Generator().manual_seed(0))

    def gradients(batches: list[tuple[list, torch.Tensor]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        model.train()
        for rows, weight in batches:
            (model(**any_tiny.processor(rows)).embeddings * weight).sum().backward()
        model.eval()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    together = gradients([(items, weights)])
    one_by_one = gradients([([item], weights[index : index + 1]) for index, item in enumerate(items)])
    model.zero_grad()
    assert together.keys() == one_by_one.keys()
    assert any("backbone.language_model.layers.0" in name for name in together)
    for name, gradient in together.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(
            gradient / scale, one_by_one[name] / scale, msg=lambda m, n=name: f"{n}: {m}", **TOLERANCE
        )


def test_a_picture_of_a_new_model_does_not_depend_on_the_others_of_its_batch(any_tiny):
    rng = random.Random(5)
    model = PlumeModel(copy.deepcopy(any_tiny.model.config))  # neither train() nor eval() has been called
    items = [{"image": random_image(rng)} for _ in range(3)]
    alone = torch.cat([model(**any_tiny.processor([item])).embeddings for item in items])
    torch.testing.assert_close(model(**any_tiny.processor(items)).embeddings, alone, **TOLERANCE)


def test_media_of_another_family_are_refused_by_name(any_tiny):
    batch = any_tiny.processor(["x"])
    with pytest.raises(
        ValueError, match=f"takes no pixels: the media of {any_tiny.family.model_type} are pixel_values"
    ):
        any_tiny.model(**batch, pixels=torch.zeros(1))


def test_libraries_see_every_media_argument_in_the_signature_of_forward():
    parameters = inspect.signature(PlumeModel.forward).parameters
    assert all(name in parameters for family in FAMILIES.values() for name in family.media_arguments)
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())


def test_media_that_do_not_belong_to_the_rows_are_refused(any_tiny):
    model, rng = any_tiny.model, random.Random(6)
    batch = any_tiny.processor([{"video": random_item(rng).get("video") or [Image.new("RGB", (40, 40))] * 5}, "x"])
    media = [name for name in any_tiny.family.media_arguments if name in batch]
    without = {name: tensor for name, tensor in batch.items() if name not in media}
    doubled = without | {name: batch[name].repeat(2, *[1] * (batch[name].ndim - 1)) for name in media}
    other_row = dict(batch) | {name: batch[name][1:] for name in ("input_ids", "attention_mask", "position_ids")}
    with torch.inference_mode():
        for wrong in (without, doubled, other_row):
            with pytest.raises(ValueError, match=r"do not match in number.*pass the whole batch"):
                model(**wrong)
        assert torch.isfinite(model(**batch).embeddings).all()
