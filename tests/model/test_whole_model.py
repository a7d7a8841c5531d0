"""A model is what was saved: every weight, the config that it was built from, and a batch as the processor makes it."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from plume_embed import PlumeConfig, PlumeModel, PlumeProcessor
from plume_embed.encode.encoder import Encoder, load_model
from plume_embed.model.sentence_transformers_plume import SENTENCE_TRANSFORMERS_FILES

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def batch_of(folder: Path) -> dict:
    return dict(PlumeProcessor.from_pretrained(folder)(["a", "a red bicycle"]))


@pytest.mark.parametrize(
    ("field", "value"), [("num_experts_per_tok", 1), ("router_context", "none"), ("adapter_type", "none")]
)
def test_a_config_that_was_changed_after_loading_is_refused(released_model_dir, tmp_path, field, value):
    model, batch = PlumeModel.from_pretrained(released_model_dir), batch_of(released_model_dir)
    setattr(model.config, field, value)
    for use in (lambda: model(**batch), lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(ValueError, match=rf"config\.{field} was set .*from_pretrained\(folder, {field}="):
            use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("drop", ["layers.0.mlp", "adapter.router", "embed_tokens"])
def test_a_model_some_of_whose_weights_are_missing_is_refused(released_model_dir, tmp_path, drop):
    folder = shutil.copytree(released_model_dir, tmp_path / "m")
    weights = {name: value for name, value in load_file(folder / "model.safetensors").items() if drop not in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for load in (PlumeModel.from_pretrained, partial(AutoModel.from_pretrained, trust_remote_code=True)):
        with pytest.raises(ValueError, match=rf"do not fit the model \(missing: [^)]*{drop}.*"):
            load(folder)


@pytest.mark.parametrize(
    "field", [{"num_experts_per_tok": 1}, {"adapter_dropout": 0.1}, {"router_context": "none"}, {}]
)
def test_a_field_that_needs_no_other_weights_excuses_none_that_are_missing(released_model_dir, tmp_path, field):
    folder = shutil.copytree(released_model_dir, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("adapter.router")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit the model \(missing: [^)]*adapter.router"):
        PlumeModel.from_pretrained(folder, **field)
    assert PlumeModel.from_pretrained(released_model_dir, **field).config.num_experts_per_tok > 0


def test_weights_of_another_shape_or_too_many_are_refused_unless_they_are_asked_for(released_model_dir, tmp_path):
    folder = shutil.copytree(released_model_dir, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    router = next(name for name in weights if name.endswith("router.bias"))
    save_file(weights | {"extra": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not of this model: extra"):
        PlumeModel.from_pretrained(folder)
    save_file(weights | {router: torch.ones(9)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"of another shape: .*router\.bias"):
        PlumeModel.from_pretrained(folder)
    assert PlumeModel.from_pretrained(folder, ignore_mismatched_sizes=True).adapter.router.bias.shape != (9,)


def test_another_adapter_may_be_asked_for_in_every_way_of_loading(released_model_dir):
    config = PlumeConfig.from_pretrained(released_model_dir, adapter_type="none")
    for model in (
        PlumeModel.from_pretrained(released_model_dir, adapter_type="none"),
        PlumeModel.from_pretrained(released_model_dir, config=config),
        AutoModel.from_pretrained(released_model_dir, trust_remote_code=True, adapter_type="none"),
    ):
        assert model.adapter.adapter_type == "none"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_experts_per_tok": 0}, r"num_experts_per_tok must lie in 1\.\.num_experts=4, got 0"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok must lie in"),
        ({"suffix_token_ids": [1, 2]}, "suffix_token_ids must end in embedding_token_id"),
        ({"suffix_token_ids": []}, "suffix_token_ids must end in embedding_token_id"),
        ({"document_latent_steps": 99}, r"document_latent_steps must lie in 0\.\.32, got 99"),
        ({"anytime_steps": [4, 2]}, "anytime_steps must ascend"),
        ({"num_latent_steps": 40}, r"num_latent_steps must lie in 0\.\.32, got 40"),
        ({"adapter_dropout": 1.5}, "adapter_dropout in"),
        ({"num_latent_steps": "8"}, "'num_latent_steps' expected int, got str"),
    ],
    ids=str,
)
def test_values_given_while_loading_are_checked_as_those_of_a_new_config_are(released_model_dir, values, words):
    loads = [
        partial(PlumeConfig.from_pretrained, **values),
        partial(PlumeConfig.from_pretrained, return_unused_kwargs=True, **values),
        partial(PlumeModel.from_pretrained, **values),
        partial(AutoModel.from_pretrained, trust_remote_code=True, **values),
    ]
    for load in loads:
        # The class of the remote code is another one, and its error is a ValueError all the same.
        with pytest.raises(ValueError, match=words) as error:
            load(released_model_dir)
        assert "\n" not in str(error.value)


def test_a_config_that_was_changed_is_checked_when_a_model_is_made_of_it(released_model_dir):
    config = PlumeConfig.from_pretrained(released_model_dir)
    config.num_experts_per_tok = 9
    for make in (PlumeModel, partial(PlumeModel.from_pretrained, released_model_dir, config=config)):
        with pytest.raises((StrictDataclassError, ValueError), match="num_experts_per_tok must lie in"):
            make(config=config) if make is PlumeModel else make()


def test_the_table_of_steps_of_a_trained_adapter_is_never_drawn_anew(released_model_dir, tmp_path):
    for count in (16, 64):
        with pytest.raises(ValueError, match=rf"num_step_embeddings={count}: .* has 32 of them.*plume-embed init"):
            PlumeModel.from_pretrained(released_model_dir, num_step_embeddings=count)
    # Where there is no such table, there is nothing to draw.
    PlumeModel.from_pretrained(released_model_dir, adapter_type="none").save_pretrained(tmp_path)
    batch = batch_of(released_model_dir)
    plain, wide = (PlumeModel.from_pretrained(tmp_path, **more) for more in ({}, {"num_step_embeddings": 64}))
    assert torch.equal(plain(**batch).embeddings, wide(**batch).embeddings)
    assert wide(**batch, num_latent_steps=40).embeddings.isfinite().all()


def test_token_ids_that_the_model_has_no_embedding_for_are_refused(released_model_dir):
    model, batch = PlumeModel.from_pretrained(released_model_dir), batch_of(released_model_dir)
    plain, rows, suffix = (
        model(**batch).embeddings,
        model.config.get_text_config().vocab_size,
        model.config.suffix_token_ids,
    )
    for values in (
        {"suffix_token_ids": [rows, suffix[-1]]},
        {"suffix_token_ids": [-1, suffix[-1]]},
        {"anchor_token_id": rows},
    ):
        with pytest.raises(ValueError, match=rf"has {rows} token embeddings, and .*{next(iter(values))}"):
            PlumeModel.from_pretrained(released_model_dir, **values)
    model.config.suffix_token_ids = [rows, suffix[-1]]
    with pytest.raises(ValueError, match=f"has {rows} token embeddings, and suffix_token_ids names {rows}"):
        model(**batch)
    model.config.suffix_token_ids = [suffix[-1], 1]
    with pytest.raises(ValueError, match="suffix_token_ids must end in embedding_token_id"):
        model(**batch)
    # A matrix that was made larger has an embedding for it: the config says its size.
    model.resize_token_embeddings(rows + 1)
    model.config.suffix_token_ids = [rows, suffix[-1]]
    assert not torch.allclose(model(**batch).embeddings, plain, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("attention_mask", lambda mask: mask[:, 1:], "attention_mask must be"),
        ("attention_mask", lambda mask: mask * 0.5 + 0.5, "0 and 1 alone"),
        ("attention_mask", lambda mask: mask * 2 - 1, "0 and 1 alone|padding must be on the left"),
        ("input_ids", lambda ids: ids[0], "must be"),
        ("input_ids", lambda ids: ids[:0], "must be"),
    ],
)
def test_tensors_of_other_shapes_and_masks_of_other_values_are_refused(released_model_dir, name, change, words):
    model, batch = PlumeModel.from_pretrained(released_model_dir), batch_of(released_model_dir)
    with pytest.raises(ValueError, match=words):
        model(**{**batch, name: change(batch[name])})


def changed_config(model: Path, to: Path, **values) -> Path:
    """A copy of a model folder with other values in its config; `None` takes one out."""
    folder = shutil.copytree(model, to)
    config = json.loads((folder / "config.json").read_text())
    config = {name: value for name, value in (config | values).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "values",
    [
        {"backbone_config": None},
        {"router_context": "ancor"},
        {"adapter_type": "moo"},
        {"position_mode": "x"},
        {"num_latent_steps": 99},
        {"num_latent_steps": "8"},
        {"num_step_embeddings": 4},
        {"num_step_embeddings": 64},
        {"num_experts": 2},
        {"num_experts_per_tok": 9},
        {"use_shared_expert": False},
        {"adapter_type": "mlp"},
        {"suffix_token_ids": [1, 2]},
        {"dtype": "float99"},
    ],
    ids=str,
)
def test_a_config_that_is_not_of_the_weights_is_refused_in_one_line(released_model_dir, tmp_path, values):
    with pytest.raises(ValueError, match="config.json|do not fit the model") as error:
        load_model(changed_config(released_model_dir, tmp_path / "m", **values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["[]", "null", "3", "{"])
def test_a_config_that_is_no_config_is_refused(released_model_dir, tmp_path, content):
    folder = shutil.copytree(released_model_dir, tmp_path / "m")
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json is damaged|of type None, not plume"):
        load_model(folder)


def test_sizes_of_a_backbone_that_its_vocabulary_does_not_fit_are_refused(released_model_dir, tmp_path):
    backbone = json.loads((released_model_dir / "config.json").read_text())["backbone_config"]
    small = backbone | {"text_config": backbone["text_config"] | {"vocab_size": 10}}
    with pytest.raises(ValueError, match="config.json|do not fit the model"):
        load_model(changed_config(released_model_dir, tmp_path / "m", backbone_config=small))


@pytest.mark.parametrize(
    ("name", "words"),
    [("chat_template.jinja", "no chat_template.jinja, its prompt"), ("tokenizer_config.json", "no padding token")],
)
def test_a_folder_without_its_prompt_or_its_padding_is_refused(released_model_dir, tmp_path, name, words):
    folder = shutil.copytree(released_model_dir, tmp_path / "m")
    (folder / name).unlink()
    with pytest.raises(ValueError, match=words):
        Encoder(folder, device="cpu")


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), -1.0])
def test_a_rate_of_frames_is_a_number_above_zero(released_model_dir, fps):
    with pytest.raises(ValueError, match="must be numbers above 0"):
        PlumeProcessor.from_pretrained(released_model_dir, fps=fps, num_frames=None)


@pytest.mark.parametrize("name", ["plume-small", "plume-tiny", "plume-tiny-anytime", "plume-tiny-stills"])
def test_the_bundled_models_have_the_files_and_the_code_that_a_model_is_saved_with(name):
    folder = CHECKPOINTS / name
    for file, content in SENTENCE_TRANSFORMERS_FILES.items():
        assert json.loads((folder / file).read_text()) == content
    code = {path.name for path in CHECKPOINTS.parent.glob("*_plume.py")}
    assert {path.name for path in folder.glob("*.py")} == code
    assert all((folder / one).resolve() == CHECKPOINTS.parent / one for one in code)
