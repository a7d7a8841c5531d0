"""`init`: from a folder of every family, with a tied or an untied head, from a model or from an embedding model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.hub.init import init_model
from plume_embed.model.families_plume import FAMILIES
from training.plume_tiny.backbone import write_backbone

SIZES = {"hidden_size": 64, "layers": 3, "intermediate_size": 64, "vision_size": 32, "vision_depth": 2}
SIZES |= {"initializer_range": 0.05}
TEXTS = ["some words for a tokenizer"] * 3


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A Qwen2-VL folder as the Hub has them: no PLUME tokens, padded vocabulary, tied head, in bf16."""
    folder = tmp_path_factory.mktemp("backbone")
    return write_backbone(folder, TEXTS, 420, dtype="bfloat16", padding_rows=9, **SIZES)


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_init_keeps_the_backbone_and_its_head_and_copies_the_donor_tokens(name, is_tied, tmp_path):
    folder = write_backbone(
        tmp_path / "backbone",
        TEXTS,
        420,
        dtype="bfloat16",
        padding_rows=9,
        backbone_type=name,
        is_tied=is_tied,
        **SIZES,
    )
    settings = {"num_latent_steps": 4, "router_context": "none"}
    model, info = PlumeModel.from_pretrained(
        init_model(str(folder), tmp_path / "out", seed=3, **settings), output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert (model.config.num_latent_steps, model.config.router_context) == (4, "none")
    base = AutoModelForImageTextToText.from_pretrained(folder)
    ours = model.backbone.state_dict()
    for key, tensor in base.model.state_dict().items():
        # The padded vocabulary had room for the new tokens: they replace unused rows.
        rows = len(tensor) - 9 if "embed_tokens" in key else None
        assert torch.equal(ours[key] if rows is None else ours[key][:rows], tensor if rows is None else tensor[:rows])
    processor = PlumeProcessor.from_pretrained(tmp_path / "out")
    vocabulary = processor.tokenizer.get_vocab()
    weights = [model.get_input_embeddings().weight]
    if is_tied:
        assert model.lm_head is None
    else:
        weights.append(model.lm_head.weight)
        assert torch.equal(model.lm_head.weight[:-9], base.lm_head.weight[:-9])
        assert not torch.equal(*weights)
    for weight in weights:
        for token, donor in FAMILIES[name].token_donors.items():
            assert torch.equal(weight[vocabulary[token]], weight[vocabulary[donor]])
    assert processor.blank_image_for_text is False
    with torch.inference_mode():
        assert torch.isfinite(model.eval()(**processor(["some words"])).embeddings).all()


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_init_takes_an_embedding_model_that_left_its_head_out(is_tied, tmp_path):
    kind = {"backbone_type": "qwen3_vl", "is_tied": is_tied}
    full = write_backbone(tmp_path / "instruct", TEXTS, 420, **kind, **SIZES)
    embedder = shutil.copytree(full, tmp_path / "embedder")
    (embedder / "model.safetensors").unlink()
    AutoModelForImageTextToText.from_pretrained(full).model.save_pretrained(embedder)
    assert "lm_head.weight" not in load_file(embedder / "model.safetensors")
    if is_tied:
        model = PlumeModel.from_pretrained(init_model(embedder, tmp_path / "out"))
        with pytest.raises(ValueError, match="leave the head out"):
            init_model(embedder, tmp_path / "other", head=full)
    else:
        with pytest.raises(ValueError, match="name the model that it was made from with --head"):
            init_model(embedder, tmp_path / "other")
        model = PlumeModel.from_pretrained(init_model(embedder, tmp_path / "out", head=full))
        kept = len(model.lm_head.weight) - 5
        assert torch.equal(model.lm_head.weight[:kept], load_file(full / "model.safetensors")["lm_head.weight"])
    base = AutoModelForImageTextToText.from_pretrained(full).model
    assert torch.equal(model.backbone.visual.pos_embed.weight, base.visual.pos_embed.weight)


def test_init_is_the_same_for_the_same_seed_only(backbone, tmp_path):
    first, again, other = (
        load_file(init_model(backbone, tmp_path / name, seed=seed) / "model.safetensors")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["adapter.router.weight"], other["adapter.router.weight"])


def test_init_refuses_what_is_no_backbone(released_model_dir, tmp_path):
    with pytest.raises(ValueError, match="is a 'plume', not a backbone; supported: qwen2_vl"):
        init_model(released_model_dir, tmp_path / "out")
    with pytest.raises(ValueError, match="no model folder"):
        init_model(tmp_path / "nothing", tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama"}, "'llama' is not supported; supported: qwen2_vl, qwen2_5_vl, qwen3_vl"),
        ({"model_type": "qwen3_5"}, "'qwen3_5' has layers of type linear_attention: they keep another state than keys"),
    ],
)
def test_init_refuses_other_backbones_with_the_reason(config, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        init_model(tmp_path, tmp_path / "out")
