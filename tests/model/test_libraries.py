"""Facts about what libraries hand over: standard arguments, other tensors, saving and pushing, limits, tracing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from small_files import write_picture
from transformers import pipeline

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.encode.encoder import Encoder
from plume_embed.evaluation.embedders import SentenceTransformerEmbedder
from plume_embed.hub.convert import convert_released
from plume_embed.hub.init import init_model
from plume_embed.training.efficiency.lora import load_lora

CHAT = [{"role": "user", "content": [{"type": "text", "text": "a red car"}]}]


@pytest.fixture(scope="module")
def model(released_model_dir) -> PlumeModel:
    return PlumeModel.from_pretrained(released_model_dir).eval()


@pytest.fixture
def processor(released_model_dir) -> PlumeProcessor:
    return PlumeProcessor.from_pretrained(released_model_dir)


@pytest.fixture
def sentence(released_model_dir) -> SentenceTransformer:
    return SentenceTransformer(str(released_model_dir), trust_remote_code=True, device="cpu")


def embed(model: PlumeModel, batch, **kwargs) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch, **kwargs).embeddings


# forward


@pytest.mark.parametrize("value", [None, False])
def test_standard_arguments_at_their_default_change_nothing(model, processor, value):
    batch = processor(["a", "b"])
    names = ("use_cache", "output_attentions", "output_hidden_states")
    extra = dict.fromkeys(names, value) | dict.fromkeys(("inputs_embeds", "past_key_values", "labels"))
    assert torch.equal(embed(model, batch, **extra), embed(model, batch))


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("inputs_embeds", torch.zeros(1, 4, 64), "pass input_ids"),
        ("output_hidden_states", True, "output_latent_states=True"),
        ("output_attentions", True, "model.backbone"),
        ("past_key_values", object(), "pass the whole input"),
        ("use_cache", True, "leave it out"),
        ("labels", torch.zeros(1), "plume_embed.training"),
        ("token_type_ids", torch.zeros(1, 4), "leave it out"),
    ],
)
def test_a_standard_argument_that_asks_for_something_is_refused_with_the_remedy(model, processor, name, value, remedy):
    with pytest.raises(ValueError, match=rf"^{name} is not used by PlumeModel.*{remedy}"):
        embed(model, processor(["a"]), **{name: value})


def test_pefts_feature_extraction_wraps_the_model(released_model_dir, processor):
    from peft import LoraConfig, TaskType, get_peft_model

    plain = PlumeModel.from_pretrained(released_model_dir).eval()
    batch = processor(["a", {"image": Image.new("RGB", (40, 40)), "text": "b"}])
    expected = embed(plain, batch)
    config = LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, target_modules=["q_proj"], r=2)
    wrapped = get_peft_model(plain, config).eval()
    assert torch.allclose(embed(wrapped, batch), expected, atol=1e-6)  # a new adapter adds nothing
    wrapped.train()
    wrapped(**batch).embeddings[:, 0].sum().backward()
    assert all(p.grad is not None for n, p in wrapped.named_parameters() if "lora_B" in n and "language_model" in n)


@pytest.mark.parametrize("steps", [2.5, "two", True, -1, 33, float("nan")])
def test_a_number_of_steps_that_is_none_is_refused(model, processor, steps):
    with pytest.raises(ValueError, match=r"num_latent_steps must be a whole number in 0\.\.32, got "):
        embed(model, processor(["a"]), num_latent_steps=steps)


def test_a_whole_number_of_numpy_is_a_number_of_steps(model, processor):
    batch = processor(["a"])
    assert torch.equal(embed(model, batch, num_latent_steps=np.int64(2)), embed(model, batch, num_latent_steps=2))


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "position_ids", "pixel_values", "image_grid_thw"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda tensor: tensor.to("meta"), "is on the meta device"),
        (lambda tensor: tensor.to_sparse(), r"is sparse .*to_dense"),
        (lambda tensor: tensor.numpy(), "must be a torch.Tensor, got ndarray"),
        (lambda tensor: tensor.tolist(), "must be a torch.Tensor, got list"),
    ],
)
def test_what_is_no_tensor_with_values_is_refused_by_name(model, processor, name, spoil, reason):
    batch = dict(processor([{"image": Image.new("RGB", (40, 40))}]))
    with pytest.raises(ValueError, match=f"^{name} {reason}"):
        embed(model, batch | {name: spoil(batch[name])})


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "position_ids"])
def test_what_is_missing_is_named_with_the_remedy(model, processor, name):
    batch = {key: value for key, value in processor(["a"]).items() if key != name}
    with pytest.raises(ValueError, match=rf"^{name} is missing; .*model\(\*\*processor\(items\)\)"):
        embed(model, batch)


# Tracing: a fixed shape, texts. The library's vision towers branch on the grid of the pictures.


@pytest.fixture
def texts(processor):
    processor.blank_image_for_text = False
    return dict(processor(["a red car", "b"]))


def test_torch_export_gives_the_same_vectors(model, texts):
    with torch.no_grad():
        program = torch.export.export(model, (), {**texts, "num_latent_steps": 2})
        traced = program.module()(**texts, num_latent_steps=2).embeddings
    assert torch.allclose(traced, embed(model, texts, num_latent_steps=2), atol=1e-6)


def test_torch_compile_takes_the_whole_model_as_one_graph(model, texts):
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        traced = compiled(**texts, num_latent_steps=2).embeddings
    assert torch.allclose(traced, embed(model, texts, num_latent_steps=2), atol=1e-6)


# The processor


def test_arrays_of_numpy_hold_the_same_values(processor):
    items = [{"image": Image.new("RGB", (40, 40), "red")}, "a"]
    tensors, arrays = processor(items), processor(items, return_tensors="np")
    assert arrays.keys() == tensors.keys() and {type(array) for array in arrays.values()} == {np.ndarray}
    assert all(np.array_equal(arrays[name], tensors[name].numpy()) for name in tensors)
    chats = processor.apply_chat_template([CHAT], tokenize=True, return_tensors="np")
    assert type(chats["input_ids"]) is np.ndarray


def test_return_dict_false_gives_the_token_ids(processor):
    ids = processor.apply_chat_template([CHAT], tokenize=True, return_dict=False)
    assert torch.equal(ids, processor(["a red car"])["input_ids"])
    assert (
        type(processor.apply_chat_template([CHAT], tokenize=True, return_dict=False, return_tensors="np")) is np.ndarray
    )


@pytest.mark.parametrize("kind", ["tf", "jax", "mlx"])
def test_tensors_of_other_libraries_are_refused(processor, kind):
    for call in (processor, lambda items, **kw: processor.apply_chat_template([CHAT], tokenize=True, **kw)):
        with pytest.raises(ValueError, match=f"return_tensors must be 'pt' or 'np', got '{kind}'"):
            call(["a"], return_tensors=kind)


@pytest.mark.parametrize("where", ["top", "nested"])
def test_options_of_pictures_are_honoured_wherever_they_stand(processor, where):
    chat = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (224, 224), "red")}]}]
    options = {"images_kwargs": {"size": {"shortest_edge": 784, "longest_edge": 3136}}}
    asked = options if where == "top" else {"processor_kwargs": options}
    small = processor.apply_chat_template([chat], tokenize=True, **asked)
    assert len(small["pixel_values"]) < len(processor([chat[0]])["pixel_values"])


@pytest.mark.parametrize("asked", [{"max_pixels": 784}, {"num_frames": 2}, {"processor_kwargs": {"fps": 1}}])
def test_an_option_that_would_be_ignored_is_refused(processor, asked):
    with pytest.raises(ValueError, match=r"apply_chat_template takes no .*images_kwargs or videos_kwargs"):
        processor.apply_chat_template([CHAT], tokenize=True, **asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"truncation": True, "max_length": 8},
        {"processor_kwargs": {"truncation": True, "max_length": 8}},
        {"processor_kwargs": {"text_kwargs": {"truncation": True, "max_length": 8}}},
        {"processor_kwargs": {"common_kwargs": {"truncation": True, "max_length": 8}}},
    ],
)
def test_truncation_is_refused_wherever_it_stands(processor, asked):
    with pytest.raises(ValueError, match="cannot be truncated"):
        processor.apply_chat_template([CHAT], tokenize=True, **asked)


def test_a_pipeline_that_would_tokenise_without_the_prompt_is_refused_with_the_remedy(released_model_dir):
    extract = pipeline("feature-extraction", model=str(released_model_dir), trust_remote_code=True, device="cpu")
    with pytest.raises(ValueError, match=r"position_ids is missing; .*model\(\*\*processor\(items\)\)"):
        extract("a red car")


# Limits


def test_the_limit_that_libraries_show_is_the_processors(processor, sentence):
    assert processor.tokenizer.model_max_length == processor.max_length == sentence.max_seq_length == 11288


def test_a_limit_set_in_sentence_transformers_holds_and_is_saved(sentence, tmp_path):
    sentence.max_seq_length = 300
    short, long = "a", "word " * 200
    sentence.encode([short])
    with pytest.raises(ValueError, match=r"over the processor's max_length=300"):
        sentence.encode([long])
    sentence.save_pretrained(str(tmp_path))
    assert PlumeProcessor.from_pretrained(tmp_path).max_length == 300
    sentence.max_seq_length = 20000
    assert sentence.encode([long]).shape == (1, 64)


def test_a_limit_asked_for_at_loading_holds(released_model_dir):
    assert PlumeProcessor.from_pretrained(released_model_dir, max_length=90).max_length == 90
    loaded = SentenceTransformer(
        str(released_model_dir), trust_remote_code=True, device="cpu", processor_kwargs={"model_max_length": 300}
    )
    with pytest.raises(ValueError, match="max_length=300"):
        loaded.encode(["word " * 200])


@pytest.mark.parametrize("value", [0, -1, None, "512", 1.5])
def test_a_limit_that_is_none_is_refused(processor, value):
    with pytest.raises(ValueError, match="max_length must be a whole number of at least 1"):
        processor.max_length = value


# Bare paths, by the suffixes of sentence-transformers: docs/libraries.md names them


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp"])
def test_a_bare_path_of_a_suffix_that_sentence_transformers_knows_is_the_picture(sentence, tmp_path, suffix):
    path = str(write_picture(tmp_path / f"a{suffix}"))
    assert np.allclose(sentence.encode([path]), sentence.encode([{"image": path}]), atol=1e-5)


@pytest.mark.parametrize("suffix", [".tif", ".avif", ".jp2"])
def test_a_bare_path_of_another_suffix_is_a_text_and_under_its_key_the_picture(sentence, tmp_path, suffix):
    path = str(write_picture(tmp_path / f"a{suffix}"))
    with Image.open(path) as picture:
        expected = sentence.encode([{"text": path}, picture.convert("RGB")])
    assert np.allclose(sentence.encode([path])[0], expected[0], atol=1e-5)
    assert np.allclose(sentence.encode([{"image": path}])[0], expected[1], atol=1e-5)


# Saving and pushing

ST_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")


def test_prompts_default_prompt_and_similarity_survive_saving(released_model_dir, tmp_path):
    prompts = {"query": "Find: ", "document": "", "short": "In short: "}
    sentence = SentenceTransformer(
        str(released_model_dir),
        trust_remote_code=True,
        device="cpu",
        prompts=prompts,
        default_prompt_name="short",
        similarity_fn_name="dot",
    )
    sentence.save_pretrained(str(tmp_path / "first"))
    again = SentenceTransformer(str(tmp_path / "first"), trust_remote_code=True, device="cpu")
    assert (again.prompts, again.default_prompt_name, again.similarity_fn_name) == (prompts, "short", "dot")
    assert np.array_equal(again.encode(["a"]), sentence.encode(["a"]))
    # Saving the processor once more, as a trainer does at each checkpoint, keeps them too.
    PlumeProcessor.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "first")
    assert json.loads((tmp_path / "first" / ST_FILES[2]).read_text())["prompts"] == prompts


class FakeHub:
    """Takes what the library would upload."""

    def __init__(self) -> None:
        self.uploaded: set[str] = set()

    def create_repo(self, repo_id: str, **kwargs):
        return type("Repository", (), {"repo_id": repo_id})

    def create_commit(self, operations, **kwargs) -> None:
        self.uploaded |= {operation.path_in_repo for operation in operations}


@pytest.mark.parametrize("way", ["save_pretrained", "push_to_hub"])
def test_pushing_the_processor_uploads_the_files_of_sentence_transformers(processor, tmp_path, monkeypatch, way):
    hub = FakeHub()
    for module in ("transformers.utils.hub", "transformers.processing_utils"):
        monkeypatch.setattr(f"{module}.hf_api", lambda *args, **kwargs: hub)
    monkeypatch.chdir(tmp_path)
    if way == "save_pretrained":
        processor.save_pretrained("out", push_to_hub=True, repo_id="someone/plume")
    else:
        processor.push_to_hub("someone/plume")
    assert {*ST_FILES, "processor_config.json", "chat_template.jinja", "processing_plume.py"} <= hub.uploaded


# A checkout without symbolic links


def test_links_that_became_text_files_are_recognised_with_the_remedy(tmp_path):
    import plume_embed.model

    package = Path(plume_embed.model.__file__).parent
    source = (package / "__init__.py").read_text()
    (tmp_path / "__init__.py").write_text(source)
    for file in package.glob("*_plume.py"):
        (tmp_path / file.name).write_text(f"../../{file.name}")
    with pytest.raises(ImportError, match=r"became text files.*git config core.symlinks true.*pip install \."):
        exec(compile(source, "model", "exec"), {"__file__": str(tmp_path / "__init__.py")})


# Weights


@pytest.fixture
def pickled(released_model_dir, tmp_path) -> Path:
    """The model as an old checkpoint would have it."""
    folder = tmp_path / "pickled"
    shutil.copytree(released_model_dir, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize(
    "load",
    [
        PlumeModel.from_pretrained,
        Encoder,
        lambda folder: SentenceTransformer(str(folder), trust_remote_code=True),
        lambda folder: convert_released(folder, folder / "out"),
        lambda folder: init_model(folder, folder / "out"),
        lambda folder: Encoder(folder / "pytorch_model.bin"),
        lambda folder: SentenceTransformerEmbedder(str(folder)),
        lambda folder: load_lora(None, folder),
    ],
    ids=["PlumeModel", "Encoder", "SentenceTransformer", "convert", "init", "a file", "a peer", "LoRA"],
)
def test_pickled_weights_are_refused_with_the_reason(pickled, load):
    with pytest.raises(ValueError, match=r"pytorch_model.bin: a pickle can run any code .*safetensors.torch.save"):
        load(pickled)


def test_a_subfolder_of_pickles_is_refused_by_its_own_name(pickled):
    with pytest.raises(ValueError, match=r"/pickled holds its weights as pytorch_model.bin: a pickle can run any code"):
        PlumeModel.from_pretrained(pickled.parent, subfolder="pickled")


def test_a_pickle_beside_the_subfolder_of_the_model_is_no_matter(released_model_dir, tmp_path):
    shutil.copytree(released_model_dir, tmp_path / "model")
    torch.save({}, tmp_path / "rng_state.pth")
    assert PlumeModel.from_pretrained(tmp_path, subfolder="model").config.num_latent_steps == 8


def test_a_pickle_cannot_be_asked_for_beside_safetensors(released_model_dir):
    with pytest.raises(ValueError, match="use_safetensors=False would load pickles"):
        PlumeModel.from_pretrained(released_model_dir, use_safetensors=False)


def test_other_files_of_a_trainer_beside_safetensors_are_no_matter(released_model_dir, tmp_path):
    shutil.copytree(released_model_dir, tmp_path / "model")
    torch.save({}, tmp_path / "model/training_args.bin")
    assert PlumeModel.from_pretrained(tmp_path / "model").config.num_latent_steps == 8
