"""Converters: every layout of the released weights gives the same model, and what does not fit is named."""

import io
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from common import FIXTURES
from rich.console import Console
from safetensors.torch import load_file, save_file

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.hub.convert import convert_released

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def source(tmp_path):
    return shutil.copytree(FIXTURES / "checkpoint", tmp_path / "released")


def rewrite(source, change) -> None:
    tensors = load_file(source / "model.safetensors")
    save_file(change(dict(tensors)), source / "model.safetensors")


def assert_same_model(out, released_model_dir) -> None:
    first, second = (PlumeModel.from_pretrained(folder).state_dict() for folder in (out, released_model_dir))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_key_layout_of_transformers_5_gives_the_same_weights(source, tmp_path, released_model_dir):
    shutil.copy(FIXTURES / "model_v5_keys.safetensors", source / "model.safetensors")
    assert_same_model(convert_released(source, tmp_path / "out"), released_model_dir)


def test_a_converted_model_is_the_same_wherever_its_source_lay(source, tmp_path):
    moved = shutil.copytree(source, tmp_path / "moved")
    first, second = (convert_released(one, tmp_path / f"of-{one.name}") / "config.json" for one in (source, moved))
    assert first.read_text() == second.read_text() and str(tmp_path) not in first.read_text()


@pytest.mark.parametrize("prefix", ["model.", "base_model.model.", "module."])
def test_the_adapter_may_stand_under_any_prefix(source, tmp_path, released_model_dir, prefix):
    rewrite(source, lambda t: {prefix + k if k.startswith("latent_moe") else k: v for k, v in t.items()})
    assert_same_model(convert_released(source, tmp_path / "out"), released_model_dir)


def test_shards_and_their_index_give_the_same_weights(source, tmp_path, released_model_dir):
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for shard in range(3):
        file = f"model-{shard + 1:05d}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[shard::3]}, source / file)
        weight_map |= dict.fromkeys(names[shard::3], file)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same_model(convert_released(source, tmp_path / "out"), released_model_dir)
    (source / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks the shards \['model-00002"):
        convert_released(source, tmp_path / "again")


def test_an_old_index_beside_the_single_file_is_not_read(source, tmp_path, released_model_dir):
    """transformers takes model.safetensors first as well."""
    old = {name: torch.zeros_like(tensor) for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(old, source / "model-00001-of-00001.safetensors")
    index = json.dumps({"weight_map": dict.fromkeys(old, "model-00001-of-00001.safetensors")})
    (source / "model.safetensors.index.json").write_text(index)
    assert_same_model(convert_released(source, tmp_path / "out"), released_model_dir)


def test_files_without_an_index_are_all_read(source, tmp_path, released_model_dir):
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    adapter = {name for name in tensors if name.startswith("latent_moe")}
    save_file({name: tensors[name] for name in adapter}, source / "adapter.safetensors")
    save_file({name: tensors[name] for name in tensors.keys() - adapter}, source / "backbone.safetensors")
    assert_same_model(convert_released(source, tmp_path / "out"), released_model_dir)


def test_missing_preprocessor_files_are_replaced_by_the_released_limits(source, tmp_path, released_model_dir):
    (source / "preprocessor_config.json").unlink()
    (source / "chat_template.json").unlink()
    out = convert_released(source, tmp_path / "out")
    assert_same_model(out, released_model_dir)
    processor = PlumeProcessor.from_pretrained(out)
    for part in (processor.image_processor, processor.video_processor):
        assert dict(part.size) == {"shortest_edge": 3136, "longest_edge": 2359296}
    assert processor.blank_image_for_text is True


def test_a_tied_head_is_ignored_and_an_untied_one_kept_where_the_config_has_it(source, tmp_path, released_model_dir):
    rewrite(source, lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"].clone()})
    assert_same_model(convert_released(source, tmp_path / "out"), released_model_dir)
    rewrite(source, lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"] + 1})
    with pytest.raises(ValueError, match="set tie_word_embeddings to false there"):
        convert_released(source, tmp_path / "again")
    config = json.loads((source / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (source / "config.json").write_text(json.dumps(config))
    model = PlumeModel.from_pretrained(convert_released(source, tmp_path / "again"))
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight + 1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda t: {k: v for k, v in t.items() if k != "model.layers.1.mlp.up_proj.weight"},
            r"Missing: \['backbone.language_model.layers.1.mlp.up_proj.weight'\]",
        ),
        (lambda t: {k: v for k, v in t.items() if not k.startswith("latent_moe")}, "Missing: .*adapter.router.weight"),
        (lambda t: {k: v for k, v in t.items() if "shared_expert.fc1.weight" not in k}, r"missing \['shared_expert'\]"),
        (lambda t: {k: v for k, v in t.items() if "experts.2.fc2" not in k}, r"missing \['experts.2'\]"),
        (lambda t: {**t, "latent_moe_transition.experts.4.fc1.bias": torch.zeros(128)}, r"unexpected \['latent_moe_"),
        (
            lambda t: {**t, "model.layers.3.mlp.up_proj.weight": torch.zeros(2)},
            r"Unexpected: \['model.layers.3.mlp.up_proj.weight'\]",
        ),
        (
            lambda t: {**t, "model.norm.weight": torch.zeros(63)},
            r"model.norm.weight has shape \(63,\), the model needs",
        ),
        (lambda t: {**t, "latent_moe_transition.experts.1.fc1.bias": torch.zeros(5)}, "experts differ in shape"),
        (
            lambda t: {k: v[0] if "fc1.weight" in k else v for k, v in t.items()},
            r"experts .* have not 2 axes: .*\(64,\)",
        ),
        (
            lambda t: {**t, "model.norm.weight": torch.full((64,), float("nan"))},
            "not finite: backbone.language_model.norm.weight. Fetch or make them again",
        ),
        (lambda t: {**t, EMBEDDING: torch.tensor(1.0)}, r"embed_tokens.weight of .* has shape \(\) and is no matrix"),
        (lambda t: {**t, EMBEDDING: t[EMBEDDING][:-20]}, "has ids up to 618, and the embedding matrix 599 rows"),
    ],
)
def test_a_tensor_that_is_missing_unexpected_misshaped_or_not_finite_is_named(source, tmp_path, change, match):
    rewrite(source, lambda tensors: {k: v.contiguous() for k, v in change(tensors).items()})
    with pytest.raises(ValueError, match=match):
        convert_released(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "second"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.language_model.layers.0.mlp.up_proj.weight"),
        ("latent_moe_transition.router.weight", "model.latent_moe_transition.router.weight"),
        ("latent_moe_transition.experts.1.fc1.bias", "module.latent_moe_transition.experts.1.fc1.bias"),
        ("lm_head.weight", "model.lm_head.weight"),
    ],
)
def test_two_keys_of_one_tensor_are_named(source, tmp_path, key, second):
    rewrite(source, lambda t: {"lm_head.weight": t[EMBEDDING].clone(), **t})
    rewrite(source, lambda t: {**t, second: torch.zeros_like(t[key])})
    with pytest.raises(ValueError, match=f"({key} and {second}|{second} and {key}) are two keys of one tensor"):
        convert_released(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tensors_of_several_types_are_saved_in_the_narrowest_that_loses_nothing(source, tmp_path):
    """bf16 and float16 have no other in common than float32."""
    written = Console(record=True, file=io.StringIO())
    tensors = load_file(source / "model.safetensors")
    for name, adapter, backbone, expected in (
        ("wide adapter", torch.float32, torch.bfloat16, torch.float32),
        ("two halves", torch.float16, torch.bfloat16, torch.float32),
        ("one type", torch.bfloat16, torch.bfloat16, torch.bfloat16),
    ):
        read = {k: t.to(adapter if k.startswith("latent_moe") else backbone) for k, t in tensors.items()}
        save_file(read | {"lm_head.weight": read[EMBEDDING].float()}, source / "model.safetensors")
        model = PlumeModel.from_pretrained(convert_released(source, tmp_path / name, written))
        assert {tensor.dtype for tensor in model.state_dict().values()} == {expected} == {model.config.dtype}
        assert torch.equal(model.adapter.router.weight, read["latent_moe_transition.router.weight"].to(expected))
        assert torch.equal(model.get_input_embeddings().weight, read[EMBEDDING].to(expected))
    assert re.findall(r"written in (\w+)", written.export_text()) == ["float32", "float32", "bfloat16"]


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("key", [EMBEDDING, "latent_moe_transition.experts.1.fc1.bias"])
def test_a_quantised_tensor_is_named(source, tmp_path, key, dtype):
    rewrite(source, lambda t: {**t, key: t[key].to(dtype)})
    with pytest.raises(ValueError, match=f"{key} is in {str(dtype).removeprefix('torch.')}, as quantised weights are"):
        convert_released(source, tmp_path / "out")


def test_a_damaged_file_is_named(source, tmp_path):
    content = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        convert_released(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ("{", "Expecting property name"),
        ("{}", "it lacks 'weight_map'"),
        ("[]", "list indices"),
        ('{"weight_map": {}}', "its weight_map is empty"),
        ('{"weight_map": {"a": 1}}', r"it names \['1'\]"),
        ('{"weight_map": {"a": "../other/model.safetensors"}}', r"it names .* no safetensors files beside it"),
    ],
)
def test_an_index_of_another_form_is_named_and_leads_nowhere_else(index, match, source, tmp_path):
    (source / "model.safetensors").rename(source / "model-1.safetensors")
    (source / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=rf"model.safetensors.index.json is damaged or of another form: .*{match}"):
        convert_released(source, tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_json_file_that_is_none_is_named(name, source, tmp_path):
    (source / name).write_text("{")
    with pytest.raises(ValueError, match=rf"{name} is damaged or of another form: .* Fetch or make it again\."):
        convert_released(source, tmp_path / "out")


def test_a_checkpoint_without_its_tokenizer_is_refused(source, tmp_path):
    (source / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"lacks tokenizer.json \(or vocab.json and merges.txt\)"):
        convert_released(source, tmp_path / "out")


def test_a_model_of_this_package_is_refused_without_running_its_code(released_model_dir, tmp_path):
    """In a process of its own: here PLUME is registered with transformers."""
    command = [sys.executable, "-m", "plume_embed", "convert", released_model_dir, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    message = f"plume-embed: {released_model_dir} is a 'plume', not a released checkpoint; use it as it is.\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_an_existing_model_is_not_overwritten(source, released_model_dir, tmp_path):
    with pytest.raises(ValueError, match="holds a model already"):
        convert_released(source, released_model_dir)
    with pytest.raises(ValueError, match="no model folder"):
        convert_released(tmp_path / "nothing", tmp_path / "out")
