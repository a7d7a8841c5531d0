"""plume-embed export: a folder that stands alone on the Hub."""

from pathlib import Path

import numpy as np
import pytest
import yaml

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


def test_the_card_names_no_base_model_that_it_does_not_know(released_model_dir: Path, tmp_path: Path):
    assert "base_model" not in front_matter(export_model(tmp_path / "out", released_model_dir))


def test_a_folder_with_a_model_or_links_is_refused(exported: Path, released_model_dir: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="holds a model already"):
        export_model(exported, released_model_dir)
    (tmp_path / "modeling_plume.py").symlink_to(exported / "modeling_plume.py")
    with pytest.raises(ValueError, match="holds links"):
        export_model(tmp_path, released_model_dir)


def test_the_command_exports(released_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as end:
        main(["export", str(tmp_path / "out"), "--model", str(released_model_dir), "--license", "mit"])
    out, err = capsys.readouterr()
    assert end.value.code == 0 and err == "" and str(tmp_path / "out") in out
    assert front_matter(tmp_path / "out")["license"] == "mit"
