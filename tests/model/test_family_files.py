"""Every family saved, exported and loaded: with the package, with AutoModel alone, with sentence-transformers."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from common import random_item
from families import NAMES, make_tiny, tiny
from load_families import items

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.hub.export import export_model

SCRIPT = Path(__file__).with_name("load_families.py")


def folder_name(name: str, is_tied: bool) -> str:
    return f"{name.replace(' ', '-')}-{'tied' if is_tied else 'untied'}"


UNTIED = ("qwen3_vl", "fast_vlm semantic")
KINDS = {folder_name(name, True): (name, True) for name in NAMES} | {folder_name(n, False): (n, False) for n in UNTIED}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A folder each from `export`, made from what `save_pretrained` wrote."""
    root = tmp_path_factory.mktemp("families")
    for folder, (name, is_tied) in KINDS.items():
        made = tiny(name) if is_tied else make_tiny(name, is_tied=False)
        made.model.save_pretrained(root / "saved" / folder)
        made.processor.save_pretrained(root / "saved" / folder)
        export_model(root / folder, root / "saved" / folder)
    return root


@pytest.fixture(scope="module")
def fresh(folders) -> dict:
    """What a process without the package embeds."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(folders / "modules"), "HF_HOME": str(folders / "home")}
    command = [sys.executable, str(SCRIPT), str(folders), *(str(folders / name) for name in KINDS)]
    done = subprocess.run(command, cwd=folders, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folders / "report.json").read_text())


@pytest.mark.parametrize("folder", KINDS)
def test_every_way_of_loading_gives_the_same_vectors(folder, folders, fresh):
    name, is_tied = KINDS[folder]
    made = tiny(name) if is_tied else make_tiny(name, is_tied=False)
    with torch.inference_mode():
        expected = made.model(**made.processor(items())).embeddings
        loaded, info = PlumeModel.from_pretrained(folders / folder, output_loading_info=True)
        again = loaded.eval()(**PlumeProcessor.from_pretrained(folders / folder)(items())).embeddings
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = fresh[folder]
    assert found["module"].startswith("transformers_modules.") and found["problems"] == 0
    for vectors in (again, torch.tensor(found["automodel"]), torch.tensor(found["sentence_transformer"])):
        assert (vectors * expected).sum(dim=1).min() >= 0.99999
    assert (loaded.lm_head is None) == is_tied
    if not is_tied:
        assert torch.equal(loaded.lm_head.weight, made.model.lm_head.weight)


def test_a_processor_of_another_backbone_is_refused(folders, tmp_path):
    saved = folders / "saved" / folder_name("qwen2_5_vl", True)
    files = ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "config.json", "chat_template.jinja")
    for file in files:
        (tmp_path / file).write_text((saved / file).read_text())
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone_config"]["vision_config"]["tokens_per_second"] = 9
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="backbone_settings.*tokens_per_second': 9"):
        PlumeProcessor.from_pretrained(tmp_path)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_was_cast_has_the_vectors_of_the_same_one_saved_and_loaded(name, dtype, tmp_path):
    made = make_tiny(name)
    made.model.register_buffer("unset", None, persistent=False)  # modules may have such a place without a value
    batch = made.processor([random_item(random.Random(3)) or "x", "a longer text about a red bicycle near the lake"])
    cast = made.model.to(dtype)
    cast.save_pretrained(tmp_path)
    loaded = PlumeModel.from_pretrained(tmp_path, dtype=dtype).eval()
    both = (dict(model.named_buffers()) for model in (cast, loaded))
    kinds, of_loaded = ({name: buffer.dtype for name, buffer in buffers.items()} for buffers in both)
    assert kinds == of_loaded
    assert torch.equal(cast(**batch).embeddings, loaded(**batch).embeddings)
