"""Loading, all three ways, offline, from a fresh process with an empty module cache, and saving each of them again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "load_all_ways.py"


@pytest.fixture(scope="module")
def report(released_model_dir, tmp_path_factory) -> dict:
    """What a fresh process outside the checkout saw, see load_all_ways.py."""
    work = tmp_path_factory.mktemp("fresh")
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(work / "modules"),
        "HF_HOME": str(work / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, str(SCRIPT), str(released_model_dir), str(work)]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((work / "report.json").read_text())


def test_remote_code_was_used_not_the_installed_package(report):
    assert report["remote_module"].startswith("transformers_modules.")
    assert report["package_module"] == "plume_embed.model.modeling_plume"


def test_nothing_is_missing_or_unexpected_and_nothing_is_nan(report):
    assert report["loading_problems"] == []
    assert report["nan_parameters"] == []
    assert report["nan_after_meta_device"] == []


@pytest.mark.parametrize(
    "way",
    [
        "sentence_transformer",
        "package",
        "encode_one_by_one",
        "encode_shuffled",
        "saved_model",
        "saved_sentence_transformer",
        "saved_package",
    ],
)
def test_every_way_in_gives_the_same_vectors(report, way):
    assert report["lowest_cosine"][way] >= 0.99999


@pytest.mark.parametrize(
    "claim",
    [
        "num_latent_steps_reach_the_model",
        "prompt_is_a_text_prefix",
        "queries_and_documents",
        "truncate_dim",
        "int8_precision",
        "binary_precision",
        "normalised",
        "dimension",
        "similarity",
        "picture_path",
        "forced_text",
    ],
)
def test_sentence_transformers_features_work(report, claim):
    assert report["claims"][claim] is True


def test_loading_without_the_remote_code_fails_loudly(report):
    assert "trust_remote_code" in report["without_trust"]["AutoModel"]
    assert "trust_remote_code" in report["without_trust"]["SentenceTransformer"]
