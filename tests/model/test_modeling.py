"""PlumeModel against the released values, against a naive reference, and against itself in other batches."""

import random

import pytest
import torch
import torch.nn.functional as F
from common import CASES, case_item, expected, naive_embedding, random_item

from plume_embed import PlumeModel, PlumeProcessor


@pytest.fixture(scope="module")
def released(released_model_dir):
    """The fixture's weights, converted; its text cases have no blank image in front."""
    processor = PlumeProcessor.from_pretrained(released_model_dir)
    processor.blank_image_for_text = False
    return PlumeModel.from_pretrained(released_model_dir).eval(), processor


@pytest.fixture(scope="module")
def paper(released_model_dir):
    """The same weights under the paper's positions, which the naive reference and our own models use."""
    settings = {"position_mode": "mrope", "vision_position_advance": "max_hw"}
    model = PlumeModel.from_pretrained(released_model_dir, **settings).eval()
    processor = PlumeProcessor.from_pretrained(released_model_dir)
    processor.vision_position_advance, processor.blank_image_for_text = "max_hw", False
    return model, processor


def embed(model, processor, items, **kwargs) -> torch.Tensor:
    with torch.inference_mode():
        return model(**processor(items), **kwargs).embeddings


@pytest.mark.parametrize("order", ["mixed batch", "shuffled", "alone"])
def test_released_embeddings_are_reproduced(released, order):
    model, processor = released
    names, values = [case["name"] for case in CASES], expected()
    if order == "shuffled":
        random.Random(1).shuffle(names)
    by_name = {case["name"]: case_item(case) for case in CASES}
    groups = [[name] for name in names] if order == "alone" else [names]
    for group in groups:
        batch = processor([by_name[name] for name in group])
        with torch.inference_mode():
            full = model(**batch, output_latent_states=True, output_anchor_embeddings=True)
            half = model(**batch, num_latent_steps=4)
            prefix = model.prefix(**batch)
        for row, name in enumerate(group):
            torch.testing.assert_close(full.embeddings[row], values[f"{name}.embedding_k8"], atol=1e-5, rtol=0)
            torch.testing.assert_close(half.embeddings[row], values[f"{name}.embedding_k4"], atol=1e-5, rtol=0)
            # States are not of unit norm: the tolerance is relative to their size.
            for state, name_of_value in (
                (full.latent_states[row], "latent_states_k8"),
                (prefix.anchor[row], "anchor_state"),
            ):
                value = values[f"{name}.{name_of_value}"]
                assert (state - value).norm(dim=-1).max() <= 1e-5 * value.norm(dim=-1).max()
            anchor = F.normalize(values[f"{name}.anchor_state"], dim=0)
            torch.testing.assert_close(full.anchor_embeddings[row], anchor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", ["k8", "k4_answer"])
def test_released_training_states_are_reproduced_under_the_released_training_positions(released_model_dir, steps):
    model = PlumeModel.from_pretrained(released_model_dir, position_mode="released_training").eval()
    processor = PlumeProcessor.from_pretrained(released_model_dir)
    processor.blank_image_for_text = False
    num_steps = int(steps[1])
    for case in CASES:
        suffix = torch.tensor([case[f"train_suffix_ids_{steps}"]])
        with torch.inference_mode():
            prefix = model.prefix(**processor([case_item(case)]))
            z = prefix.z0
            for step in range(1, num_steps + 1):
                z, _ = model.latent_step(z, prefix, step)
            hidden = model.suffix(prefix, num_steps, suffix)[0]
        gen = hidden[suffix[0].tolist().index(model.config.embedding_token_id)]
        value = expected()[f"{case['name']}.train_gen_state_{steps}"]
        assert (gen - value).norm() <= 1e-4 * value.norm(), case["name"]


@pytest.mark.parametrize("num_latent_steps", [0, 1, 8])
def test_the_cached_rollout_equals_the_naive_one_without_any_cache(paper, num_latent_steps):
    model, processor = paper
    rng = random.Random(num_latent_steps)
    items = [random_item(rng) for _ in range(8)]
    with torch.inference_mode():
        output = model(**processor(items), num_latent_steps=num_latent_steps, output_latent_states=True)
    for row, item in enumerate(items):
        embedding, latents = naive_embedding(model, processor([item]), num_latent_steps)
        torch.testing.assert_close(output.embeddings[row], embedding, atol=1e-5, rtol=0)
        if num_latent_steps:
            assert (output.latent_states[row] - latents).norm() <= 1e-5 * latents.norm()


def test_a_row_has_the_same_vector_in_any_of_200_random_mixed_batches(released):
    model, processor = released
    rng = random.Random(0)
    pool = [random_item(rng) for _ in range(40)]
    alone = torch.cat([embed(model, processor, [item]) for item in pool])
    worst = 0.0
    for _ in range(200):
        rows = [rng.randrange(len(pool)) for _ in range(rng.randint(2, 5))]
        batch = embed(model, processor, [pool[row] for row in rows])
        worst = max(worst, (batch - alone[rows]).abs().max().item())
    assert worst <= 1e-5


def test_in_bf16_the_batch_changes_a_row_no_more_than_bf16_itself_does(released_model_dir, released):
    # The fixture's weights are large on purpose, and near a tie bf16 chooses another expert than float32: the yardstick
    # for these weights is their own distance from float32. Trained weights meet 0.999, see test_plume_tiny.py.
    model = PlumeModel.from_pretrained(released_model_dir, dtype=torch.bfloat16).eval()
    processor = released[1]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    rng = random.Random(0)
    pool = [random_item(rng) for _ in range(20)]
    alone = torch.cat([embed(model, processor, [item]) for item in pool])
    in_float32 = torch.cat([embed(released[0], processor, [item]) for item in pool])
    assert alone.dtype == torch.float32
    to_float32 = (alone * in_float32).sum(dim=-1)
    cosines = []
    for _ in range(50):
        rows = [rng.randrange(len(pool)) for _ in range(rng.randint(2, 4))]
        batch = embed(model, processor, [pool[row] for row in rows])
        cosines.append((batch * alone[rows]).sum(dim=-1))
    cosines = torch.cat(cosines)
    assert cosines.median() >= 0.9999
    assert cosines.min() >= to_float32.min()


def test_interleaved_calls_leave_no_state_behind(released):
    model, processor = released
    rng = random.Random(3)
    image, video, text = case_item(CASES[2]), case_item(CASES[5]), "a text"
    first = {name: embed(model, processor, [item]) for name, item in (("i", image), ("v", video), ("t", text))}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    for _ in range(12):
        name, item = rng.choice((("i", image), ("v", video), ("t", text)))
        embed(model, processor, [item, text, video][: rng.randint(1, 3)])
        assert torch.equal(embed(model, processor, [item]), first[name])
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert model.backbone.rope_deltas is None


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(released_model_dir, released, implementation):
    model = PlumeModel.from_pretrained(released_model_dir, attn_implementation=implementation).eval()
    assert model.backbone.language_model.config._attn_implementation == implementation
    rng = random.Random(5)
    items = [random_item(rng) for _ in range(5)]
    ours, other = embed(*released, items), embed(model, released[1], items)
    torch.testing.assert_close(ours, other, atol=1e-5, rtol=0)


def test_half_precision_runs_and_stays_near_float32(released_model_dir, released):
    model = PlumeModel.from_pretrained(released_model_dir, dtype=torch.float16).eval()
    items = [case_item(case) for case in CASES]
    half = embed(model, released[1], items)
    assert half.dtype == torch.float32
    assert (half * embed(*released, items)).sum(dim=-1).min() > 0.99


def test_zero_steps_read_the_last_prefix_state_and_run_no_adapter(released):
    model, processor = released
    batch = processor([case_item(case) for case in CASES])
    with torch.inference_mode():
        output = model(**batch, num_latent_steps=0, output_latent_states=True, output_router_probs=True)
        prefix = model.prefix(**batch)
    torch.testing.assert_close(output.embeddings, F.normalize(prefix.z0, dim=-1))
    assert output.latent_states is None
    assert output.router_probs is None


def test_output_fields_come_on_request_with_their_shapes(released):
    model, processor = released
    batch = processor(["a", "b c"])
    with torch.inference_mode():
        plain = model(**batch)
        full = model(**batch, output_anchor_embeddings=True, output_latent_states=True, output_router_probs=True)
        as_tuple = model(**batch, return_dict=False)
    assert list(plain.keys()) == ["embeddings"]
    assert full.anchor_embeddings.shape == (2, 64)
    assert full.latent_states.shape == (2, 8, 64)
    assert full.router_probs.shape == (2, 8, 4)
    torch.testing.assert_close(full.router_probs.sum(dim=-1), torch.ones(2, 8))
    torch.testing.assert_close(plain.embeddings.norm(dim=-1), torch.ones(2))
    assert torch.equal(as_tuple[0], plain.embeddings)


def test_last_hidden_state_of_the_backbone_is_after_the_final_norm(released):
    model, processor = released
    seen = []
    handle = model.backbone.language_model.norm.register_forward_hook(lambda m, args, output: seen.append(output))
    with torch.inference_mode():
        prefix = model.prefix(**processor(["a"]))
    handle.remove()
    assert torch.equal(prefix.z0, seen[0][:, -1])


def test_gradients_of_a_padded_mixed_batch_equal_those_of_its_rows(released_model_dir, paper):
    # In float64, so that the tolerance tells a wrong gradient from the rounding of sums over hundreds of tokens.
    model = PlumeModel.from_pretrained(released_model_dir, position_mode="mrope", dtype=torch.float64)
    processor = paper[1]
    items = [case_item(case) for case in CASES]
    target = torch.randn(len(items), 64, generator=torch.Generator().manual_seed(0))

    def gradients(groups: list[list[int]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        for group in groups:
            embeddings = model(**processor([items[row] for row in group])).embeddings
            (embeddings * target[group]).sum().backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    batched, single = gradients([list(range(len(items)))]), gradients([[row] for row in range(len(items))])
    scale = max(gradient.abs().max().item() for gradient in single.values())
    for name, gradient in batched.items():
        assert torch.isfinite(gradient).all(), name
        assert (gradient - single[name]).abs().max().item() <= 1e-5 * scale, name


class TestRefusals:
    """What would silently give another vector raises a ValueError that says what to do."""

    @pytest.fixture
    def batch(self, released):
        return dict(released[1]([case_item(CASES[0]), case_item(CASES[2])]))

    def expect_refusal(self, model, batch, match, **kwargs):
        with pytest.raises(ValueError, match=match), torch.inference_mode():
            model(**batch, **kwargs)

    def test_a_row_that_does_not_end_in_the_start_token(self, released, batch):
        cut = {name: batch[name][..., :-1] for name in ("input_ids", "attention_mask", "position_ids")}
        self.expect_refusal(released[0], {**batch, **cut}, "end in the start token.*truncation off")

    def test_right_padding(self, released, batch):
        mask = batch["attention_mask"].flip(1)
        self.expect_refusal(released[0], {**batch, "attention_mask": mask}, "padding must be on the left")

    @pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.uint8, torch.float32])
    def test_a_hole_in_the_mask(self, released, batch, dtype):
        batch["attention_mask"][1, 100] = 0
        self.expect_refusal(
            released[0], {**batch, "attention_mask": batch["attention_mask"].to(dtype)}, "padding must be on the left"
        )

    def test_an_empty_row(self, released, batch):
        batch["attention_mask"][0] = 0
        self.expect_refusal(released[0], batch, "rows must not be empty")

    def test_pixels_without_placeholders(self, released, batch):
        text = dict(released[1](["a text"]))
        images = {name: batch[name] for name in ("pixel_values", "image_grid_thw")}
        self.expect_refusal(released[0], {**text, **images}, "do not match in number or size")

    def test_placeholders_without_pixels(self, released, batch):
        del batch["pixel_values"], batch["image_grid_thw"]
        self.expect_refusal(released[0], batch, "do not match in number or size")

    def test_one_image_too_many(self, released, batch):
        batch["image_grid_thw"] = batch["image_grid_thw"].repeat(2, 1)
        batch["pixel_values"] = batch["pixel_values"].repeat(2, 1)
        self.expect_refusal(released[0], batch, "do not match in number or size")

    def test_images_of_other_rows_with_the_same_total(self, released):
        batch = dict(released[1]([case_item(CASES[3])]))
        batch["image_grid_thw"] = batch["image_grid_thw"].flip(0)
        sizes = batch["image_grid_thw"].prod(dim=1).tolist()
        assert sizes[0] != sizes[1]
        self.expect_refusal(released[0], batch, "do not match in number or size")

    def test_pixels_and_grids_one_without_the_other(self, released, batch):
        del batch["image_grid_thw"]
        self.expect_refusal(released[0], batch, "come together")

    def test_no_positions_or_no_mask(self, released, batch):
        for name in ("position_ids", "attention_mask"):
            others = {key: value for key, value in batch.items() if key != name}
            self.expect_refusal(released[0], others, f"{name} is missing; pass the whole batch")

    def test_positions_in_the_backbones_layout(self, released, batch):
        batch["position_ids"] = batch["position_ids"].transpose(0, 1)
        self.expect_refusal(released[0], batch, r"must be \[batch, 3, length\]")

    def test_a_forged_second_anchor(self, released, batch):
        batch["input_ids"][0, -5] = released[0].config.anchor_token_id
        self.expect_refusal(released[0], batch, "exactly one anchor")

    def test_more_steps_than_step_embeddings(self, released, batch):
        self.expect_refusal(released[0], batch, r"0\.\.32, got 33", num_latent_steps=33)
        self.expect_refusal(released[0], batch, r"0\.\.32, got -1", num_latent_steps=-1)

    @pytest.mark.parametrize("where", ["model", "backbone", "vision tower"])
    def test_gradient_checkpointing_of_layers(self, released_model_dir, batch, where):
        model = PlumeModel.from_pretrained(released_model_dir)
        if where == "model":
            with pytest.raises(ValueError, match="does not support"):
                model.gradient_checkpointing_enable()
            return
        (model.backbone if where == "backbone" else model.backbone.visual).gradient_checkpointing_enable()
        self.expect_refusal(model, batch, "gradient_checkpointing_disable")
        self.expect_refusal(model.train(), batch, "gradient_checkpointing_disable")
        model.backbone.gradient_checkpointing_disable()
        assert model.eval()(**batch).embeddings.shape == (2, 64)


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter_type": "mlp"},
        {"adapter_type": "none"},
        {"router_context": "none"},
        {"router_context": "prefix_last"},
        {"use_shared_expert": False},
        {"num_experts_per_tok": 1},
        {"use_step_embedding": False},
        {"num_latent_steps": 4},
        {"num_latent_steps": 0},
        {"position_mode": "cache_length"},
    ],
    ids=str,
)
def test_each_ablation_is_one_config_value_that_saves_loads_and_changes_the_vectors(settings, tmp_path):
    from plume_embed.training.small_model import make_model, make_processor

    processor = make_processor(["a few words"], 420, 56)
    sizes = {"hidden_size": 64, "layers": 2, "intermediate_size": 64, "vision_size": 32, "vision_depth": 1}
    full, ablated = (make_model(processor, **sizes, initializer_range=0.3, seed=0, **s).eval() for s in ({}, settings))
    rng = random.Random(0)
    items = [case_item(CASES[3]), *(random_item(rng) for _ in range(3))]
    vectors = embed(ablated, processor, items)
    assert not torch.allclose(vectors, embed(full, processor, items), atol=1e-3)
    ablated.save_pretrained(tmp_path)
    loaded, info = PlumeModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(embed(loaded.eval(), processor, items), vectors)
