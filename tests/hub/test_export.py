"""plume-embed export: a folder that stands alone on the Hub."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense

from plume_embed.cli.main import main
from plume_embed.encode.encoder import Encoder
from plume_embed.hub.export import export_model


@pytest.fixture(scope="module")
def exported(released_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tmp_path_factory.mktemp("hub") / "plume-small", released_model_dir, "Qwen/Qwen2-VL-2B-Instruct")


def front_matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_the_exported_model_gives_the_same_vectors(exported: Path, released_model_dir: Path):
    items = ["a text", "another one"]
    np.testing.assert_array_equal(Encoder(exported).encode(items), Encoder(released_model_dir).encode(items))


def test_the_folder_holds_real_files_and_all_of_them(exported: Path):
    names = {path.name for path in exported.iterdir()}
    assert not any(path.is_symlink() for path in exported.iterdir())
    assert {
        "README.md",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "chat_template.jinja",
        "tokenizer.json",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "adapter_plume.py",
        "configuration_plume.py",
        "media_plume.py",
        "modeling_plume.py",
        "positions_plume.py",
        "processing_plume.py",
    } <= names


def test_code_that_is_linked_in_the_source_is_copied(released_model_dir: Path, tmp_path: Path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in released_model_dir.iterdir():
        (linked / path.name).symlink_to(path)
    out = export_model(tmp_path / "out", linked)
    assert not any(path.is_symlink() for path in out.iterdir())
    assert (out / "modeling_plume.py").read_text() == (released_model_dir / "modeling_plume.py").read_text()


def test_the_model_card_says_what_the_hub_wants_to_know(exported: Path):
    data = front_matter(exported)
    # With transformers as the library, the Hub would show pipeline("feature-extraction") as the way to use the model.
    assert data["library_name"] == "sentence-transformers" and data["pipeline_tag"] == "feature-extraction"
    assert "transformers" in data["tags"]
    assert data["base_model"] == "Qwen/Qwen2-VL-2B-Instruct" and data["license"] == "apache-2.0"
    assert {"sentence-transformers", "multimodal", "plume"} <= set(data["tags"])
    card = (exported / "README.md").read_text()
    for part in ("AutoModel.from_pretrained", "SentenceTransformer(", "num_latent_steps", "## Limits", "2604.02073"):
        assert part in card


def test_the_card_says_what_k_documents_take(released_model_dir: Path, tmp_path: Path):
    same = "embed documents and queries with the same K"
    assert same in (export_model(tmp_path / "one", released_model_dir) / "README.md").read_text()
    own = shutil.copytree(released_model_dir, tmp_path / "own")
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"document_latent_steps": 0}))
    card = (export_model(tmp_path / "two", own) / "README.md").read_text()
    assert "Documents take K = 0" in card and same not in card


def test_the_card_names_no_base_model_that_it_does_not_know(released_model_dir: Path, tmp_path: Path):
    assert "base_model" not in front_matter(export_model(tmp_path / "out", released_model_dir))


def test_what_sentence_transformers_saved_in_the_model_is_kept(released_model_dir: Path, tmp_path: Path):
    prompts = {"query": "find a picture of "}
    options = {"prompts": prompts, "default_prompt_name": "query", "truncate_dim": 32, "similarity_fn_name": "dot"}
    saved = SentenceTransformer(str(released_model_dir), trust_remote_code=True, **options)
    saved.save_pretrained(str(tmp_path / "saved"))
    exported = SentenceTransformer(str(export_model(tmp_path / "out", tmp_path / "saved")), trust_remote_code=True)
    assert exported.prompts["query"] == prompts["query"] and exported.default_prompt_name == "query"
    assert (exported.truncate_dim, exported.similarity_fn_name) == (32, "dot")
    np.testing.assert_array_equal(exported.encode(["a cat"]), saved.encode(["a cat"]))


def test_an_export_calls_the_model_as_this_version_does(released_model_dir: Path, tmp_path: Path):
    """A model that was saved by an older version does not pass on whether a text is a document."""
    old = shutil.copytree(released_model_dir, tmp_path / "old")
    (old / "modules.json").write_text((old / "modules.json").read_text().replace(',\n      "task"', ""))
    out = export_model(tmp_path / "out", old)
    assert json.loads((out / "modules.json").read_text())[0]["kwargs"] == ["num_latent_steps", "task"]


def test_further_modules_of_sentence_transformers_are_refused_by_name(released_model_dir: Path, tmp_path: Path):
    saved = SentenceTransformer(str(released_model_dir), trust_remote_code=True)
    saved.append(Dense(64, 16))
    saved.save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(
        ValueError, match=r"modules.json has further modules: 1_Dense \(Dense\).* push the folder as it is"
    ):
        export_model(tmp_path / "out", tmp_path / "saved")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("tokenizer.json", "{", "tokenizer.json is damaged or of another form"),
        ("processor_config.json", "[]", "processor_config.json is damaged or of another form: it holds no dict"),
        ("modules.json", "{}", "modules.json is damaged or of another form: it holds no list"),
        ("modules.json", '[{"path": ""}]', "modules.json is damaged or of another form: it lacks 'type'"),
        ("model.safetensors.index.json", "{}", "index.json is damaged or of another form: it lacks 'weight_map'"),
        ("tokenizer.json", None, "lacks tokenizer.json"),
    ],
)
def test_a_damaged_file_of_the_model_is_named(name, content, match, released_model_dir: Path, tmp_path: Path):
    source = shutil.copytree(released_model_dir, tmp_path / "source")
    (source / name).unlink(missing_ok=True)
    if content is not None:
        (source / name).write_text(content)
    if "index" in name:
        (source / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=match):
        export_model(tmp_path / "out", source)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_with_a_model_or_links_is_refused(exported: Path, released_model_dir: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="holds a model already"):
        export_model(exported, released_model_dir)
    (tmp_path / "modeling_plume.py").symlink_to(exported / "modeling_plume.py")
    with pytest.raises(ValueError, match="is not empty, it holds modeling_plume.py"):
        export_model(tmp_path, released_model_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["modeling_plume.py"]


def test_the_command_exports(released_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as end:
        main(["export", str(tmp_path / "out"), "--model", str(released_model_dir), "--license", "mit"])
    out, err = capsys.readouterr()
    assert end.value.code == 0 and err == "" and str(tmp_path / "out") in out
    assert front_matter(tmp_path / "out")["license"] == "mit"
