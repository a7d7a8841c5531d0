"""`init`: from a folder of every family, with a tied or an untied head, from a model or from an embedding model."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.hub.init import init_model
from plume_embed.hub.sources import read_tokenizer
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


def test_init_takes_backbone_and_head_from_the_single_file_beside_an_old_index(tmp_path):
    folder = write_backbone(tmp_path / "backbone", TEXTS, 420, backbone_type="qwen3_vl", is_tied=False, **SIZES)
    expected = load_file(init_model(folder, tmp_path / "first") / "model.safetensors")
    old = {name: torch.zeros_like(tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(old, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = json.dumps({"weight_map": dict.fromkeys(old, "model-00001-of-00001.safetensors")})
    (folder / "model.safetensors.index.json").write_text(index)
    tensors = load_file(init_model(folder, tmp_path / "second") / "model.safetensors")
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_init_takes_a_head_from_a_shard(tmp_path):
    folder = write_backbone(tmp_path / "backbone", TEXTS, 420, backbone_type="qwen3_vl", is_tied=False, **SIZES)
    expected = load_file(init_model(folder, tmp_path / "first") / "model.safetensors")
    AutoModelForImageTextToText.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    for file in (tmp_path / "shards").glob("model*"):
        file.rename(folder / file.name)
    assert len([*folder.glob("model-*.safetensors")]) > 1
    tensors = load_file(init_model(folder, tmp_path / "second") / "model.safetensors")
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_init_is_the_same_for_the_same_seed_only(backbone, tmp_path):
    first, again, other = (
        load_file(init_model(backbone, tmp_path / name, seed=seed) / "model.safetensors")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["adapter.router.weight"], other["adapter.router.weight"])


def test_a_new_model_does_not_tell_where_its_backbone_lay(backbone, tmp_path):
    assert str(backbone) not in (init_model(backbone, tmp_path / "out") / "config.json").read_text()


def test_init_refuses_what_is_no_backbone(released_model_dir, tmp_path):
    with pytest.raises(ValueError, match="is a 'plume', not a backbone; supported: qwen2_vl"):
        init_model(released_model_dir, tmp_path / "out")
    with pytest.raises(ValueError, match="no model folder"):
        init_model(tmp_path / "nothing", tmp_path / "out")


def test_init_refuses_a_model_of_this_package_without_running_its_code(released_model_dir, tmp_path):
    """In a process of its own: here PLUME is registered with transformers."""
    command = [sys.executable, "-m", "plume_embed", "init", released_model_dir, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"plume-embed: {released_model_dir} is a 'plume', not a backbone; supported: qwen2_vl"
    )


def cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file({k: change(v) if "q_proj.weight" in k else v for k, v in tensors.items()}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "model.safetensors is damaged: .* Fetch or make it again"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is damaged: "),
        (lambda folder: (folder / "model.safetensors").write_bytes(bytes(1000)), "model.safetensors is damaged: "),
        (lambda folder: change_weights(folder, lambda t: t / 0), r"not finite: .*q_proj.weight.* Fetch or make them"),
        (lambda folder: change_weights(folder, lambda t: t[:-1]), r"layers.0.self_attn.q_proj.weight \(63, 64\), not "),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"lacks tokenizer.json \(or vocab.json and merges.txt\)"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json is damaged or of another form"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json is damaged or of another form"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json names the model type None"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "x"}'),
            "config.json names the model type 'x'",
        ),
        (lambda folder: change_config(folder, dtype="float99"), "config.json is damaged or of another form"),
        (lambda folder: change_config(folder, image_token_id=5), r"disagree \(tokenizer, config\): .*image_pad.* 5\)"),
    ],
)
def test_init_names_what_is_damaged_or_does_not_belong_together(damage, message, backbone, tmp_path):
    source = shutil.copytree(backbone, tmp_path / "source")
    damage(source)
    with pytest.raises(ValueError, match=message):
        init_model(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_tokenizer_larger_or_far_smaller_than_the_embedding_matrix_is_refused(backbone):
    config = AutoConfig.from_pretrained(backbone)
    for rows in (400, 900):
        config.get_text_config().vocab_size = rows
        with pytest.raises(ValueError, match=f"has ids up to 4.., and the embedding matrix {rows} rows"):
            read_tokenizer(backbone, config)


@pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": {"a": "../model.safetensors"}}'])
def test_init_names_an_index_of_another_form(index, backbone, tmp_path):
    source = shutil.copytree(backbone, tmp_path / "source")
    (source / "model.safetensors").rename(source / "model-1.safetensors")
    (source / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model.safetensors.index.json is damaged or of another form"):
        init_model(source, tmp_path / "out")


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), 0.0, -1.0])
def test_init_refuses_a_rate_of_frames_that_is_none(fps, backbone, tmp_path):
    with pytest.raises(ValueError, match="fps must be a number above 0"):
        init_model(backbone, tmp_path / "out", fps=fps)


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
