"""Facts about models whose modules a library has altered: offloaded to disk, or with a LoRA."""

from pathlib import Path

import numpy as np
import pytest
import torch
from families import make_tiny
from PIL import Image

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.encode.encoder import Encoder
from plume_embed.hub.init import init_model

peft = pytest.importorskip("peft", reason="it comes with the extra train")


def embed(model, batch) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch).embeddings


def with_lora(model: PlumeModel, module: str) -> torch.nn.Module:
    """The model with a LoRA of random weights on the module of this name."""
    torch.manual_seed(1)
    config = peft.LoraConfig(target_modules=[module], init_lora_weights=False, r=4)
    return peft.get_peft_model(model, config).eval()


def offloaded(model: PlumeModel, folder: Path, part: str) -> PlumeModel:
    """The model loaded anew with one of its parts on disk. Not the tower: transformers' timm wrapper refuses that."""
    model.save_pretrained(folder / "model")
    parts = ("backbone.vision_tower", "backbone.multi_modal_projector", "backbone.language_model", "adapter")
    device_map = {name: "disk" if name == part else "cpu" for name in parts}
    return PlumeModel.from_pretrained(
        folder / "model", device_map=device_map, offload_folder=str(folder / "off")
    ).eval()


@pytest.fixture
def semantic():
    return make_tiny("fast_vlm semantic")


@pytest.fixture
def batch(semantic):
    colours = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    return semantic.processor(["a red bicycle", {"image": colours}])


@pytest.mark.parametrize("part", ["backbone.multi_modal_projector", "backbone.language_model", "adapter"])
def test_a_part_that_lies_on_disk_gives_the_same_vectors(semantic, batch, tmp_path, part):
    expected = embed(semantic.model, batch)
    loaded = offloaded(semantic.model, tmp_path, part)
    for _ in range(2):
        assert torch.allclose(embed(loaded, batch), expected, atol=1e-6)


@pytest.mark.parametrize("module", ["table", "multi_modal_projector.classifier", "projection"])
def test_a_lora_on_the_semantic_projector_counts_before_and_after_merging(semantic, batch, module):
    plain = embed(semantic.model, batch)
    tuned = with_lora(semantic.model, module)
    with_it = embed(tuned, batch)
    assert torch.allclose(with_it[0], plain[0], atol=1e-6)  # a text
    assert (with_it[1] - plain[1]).abs().max() > 1e-3  # a picture
    assert torch.allclose(embed(tuned.merge_and_unload(), batch), with_it, atol=1e-5)


def test_the_logits_are_those_of_the_word_embedding_with_its_lora(semantic):
    states = torch.randn(3, 64)
    plain = semantic.model.next_token_logits(states)
    tuned = with_lora(semantic.model, "embed_tokens")
    with_it = tuned.next_token_logits(states)
    assert (with_it - plain).abs().max() > 1e-3
    with tuned.disable_adapter():
        assert torch.allclose(tuned.next_token_logits(states), plain)
    assert torch.allclose(tuned.merge_and_unload().next_token_logits(states), with_it, atol=1e-5)


def test_the_logits_are_the_same_where_the_word_embedding_lies_on_disk(semantic, tmp_path):
    states = torch.randn(3, 64)
    loaded = offloaded(semantic.model, tmp_path, "backbone.language_model")
    assert torch.allclose(loaded.next_token_logits(states), semantic.model.next_token_logits(states), atol=1e-6)


def test_an_encoder_embeds_with_a_lora_on_the_word_embedding(released_model_dir):
    encoder = Encoder(released_model_dir)
    plain = encoder.encode(["a red bicycle"])
    with_lora(encoder.model, "embed_tokens")  # puts its layers into the model itself
    assert np.abs(encoder.encode(["a red bicycle"]) - plain).max() > 1e-3


def test_a_removed_layer_is_refused_until_the_config_knows_of_it(released_model_dir, tmp_path):
    model = PlumeModel.from_pretrained(released_model_dir).eval()
    batch = PlumeProcessor.from_pretrained(released_model_dir)(["a red bicycle"])
    whole = embed(model, batch)  # which leaves buffers for as many layers
    layers, text = model.backbone.get_decoder().layers, model.config.get_text_config()
    count = len(layers) - 1
    del layers[0]
    with pytest.raises(ValueError, match=rf"decoder has {count} layers and its config says {count + 1}: "):
        embed(model, batch)
    text.num_hidden_layers, text.layer_types = count, text.layer_types[:count]
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    vectors = embed(model, batch)
    assert model.rollout_engine.last_run.implementation == "static"
    assert not torch.allclose(vectors, whole, atol=1e-3)
    model.rollout_implementation = "reference"
    assert torch.allclose(embed(model, batch), vectors, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.allclose(embed(PlumeModel.from_pretrained(tmp_path).eval(), batch), vectors, atol=1e-5)


def test_a_folder_with_a_lora_alone_is_refused_with_the_remedy_which_works(released_model_dir, tmp_path):
    model, processor = (kind.from_pretrained(released_model_dir) for kind in (PlumeModel, PlumeProcessor))
    tuned = with_lora(model, "q_proj")
    expected = embed(tuned, processor(["a red bicycle"]))
    tuned.save_pretrained(tmp_path / "lora")
    for load in (Encoder, lambda folder: init_model(folder, tmp_path / "out")):
        with pytest.raises(ValueError, match=rf"lora holds a LoRA over {released_model_dir} and no model: merge it, "):
            load(tmp_path / "lora")
    plain = PlumeModel.from_pretrained(released_model_dir)
    peft.PeftModel.from_pretrained(plain, tmp_path / "lora").merge_and_unload().save_pretrained(tmp_path / "merged")
    processor.save_pretrained(tmp_path / "merged")
    vectors = Encoder(tmp_path / "merged").encode(["a red bicycle"])
    assert np.abs(vectors - expected.numpy()).max() < 1e-5
