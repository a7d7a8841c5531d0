"""The default model: its size and form, its vectors in any batch, library and engine, and what it finds."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from common import random_item
from PIL import Image
from safetensors import safe_open

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.encode.encoder import DEFAULT_MODEL, DEFAULT_MODEL_KNOWS, Encoder
from plume_embed.hub.export import export_model
from training.plume_small.tower import to_pixels

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "checkpoints" / "plume-small"
PHOTOGRAPHS = ROOT / "examples" / "photographs"
RESULTS = ROOT / "evaluation" / "results" / "photographs.json"
SCRIPT = ROOT / "tests" / "load_all_ways.py"
# What a person would type -> what must come first in the bundled folder.
FIRST = {
    "a cup of coffee": "coffee",
    "my cat": "cat",
    "a temple": "temple",
    "a flock of sheep": "sheep",
    "boats on a river": "boats",
    "a flower": "dahlia",
    "snowy mountains": "mountains",
}


@pytest.fixture(scope="module")
def small():
    return PlumeModel.from_pretrained(FOLDER).eval(), PlumeProcessor.from_pretrained(FOLDER)


def embed(model, processor, items, **kwargs) -> torch.Tensor:
    with torch.inference_mode():
        return model(**processor(items), **kwargs).embeddings


def test_it_is_small_and_its_code_is_the_roots():
    files = list(FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files if not file.is_symlink()) <= 40 * 2**20
    code = [file for file in files if file.suffix == ".py"]
    assert {file.name for file in code} == {file.name for file in ROOT.glob("*_plume.py")}
    assert all(file.is_symlink() and file.resolve() == ROOT / file.name for file in code)


def test_its_weights_are_halves_on_disk_and_its_vectors_are_computed_in_float32(small):
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118, it is no dict
    assert kinds <= {"F16", "I64"}
    assert small[0].dtype == torch.float32
    assert {p.dtype for p in small[0].parameters()} == {torch.float32}


def test_every_library_gives_the_same_vectors_from_a_fresh_process(tmp_path):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, str(SCRIPT), str(FOLDER), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["loading_problems"] == report["nan_parameters"] == report["nan_after_meta_device"] == []
    assert report["remote_module"].startswith("transformers_modules.")
    assert min(report["lowest_cosine"].values()) >= 0.99999, report["lowest_cosine"]
    assert all(report["claims"].values()), report["claims"]


@pytest.mark.parametrize("batches", [10, pytest.param(30, marks=pytest.mark.slow)])
def test_a_row_keeps_its_vector_in_random_mixed_batches(small, batches):
    rng = random.Random(0)
    pool = [random_item(rng) for _ in range(20)]
    alone = torch.cat([embed(*small, [item]) for item in pool])
    for _ in range(batches):
        rows = [rng.randrange(len(pool)) for _ in range(rng.randint(2, 5))]
        batch = embed(*small, [pool[row] for row in rows])
        assert (batch - alone[rows]).abs().max() <= 1e-5


@pytest.mark.parametrize("num_latent_steps", [0, 1, 8])
def test_the_engine_gives_the_vectors_of_the_loop(small, num_latent_steps):
    model, processor = small
    rng = random.Random(1)
    batch = processor([random_item(rng) for _ in range(5)])
    with torch.inference_mode():
        fast = model(**batch, num_latent_steps=num_latent_steps).embeddings
        model.rollout_implementation = "reference"
        slow = model(**batch, num_latent_steps=num_latent_steps).embeddings
        model.rollout_implementation = "auto"
    assert (fast - slow).abs().max() <= 1e-5


def test_an_exported_folder_gives_the_same_vectors(small, tmp_path):
    out = export_model(tmp_path / "exported", FOLDER)
    again = PlumeModel.from_pretrained(out).eval(), PlumeProcessor.from_pretrained(out)
    items = ["a red fox", Image.open(PHOTOGRAPHS / "cat.jpg"), {"text": "at night", "image": PHOTOGRAPHS / "boats.jpg"}]
    assert torch.equal(embed(*small, items), embed(*again, items))
    assert not any(file.is_symlink() for file in out.iterdir())


def test_the_processor_makes_the_pixels_that_were_trained_on(small):
    picture = Image.open(PHOTOGRAPHS / "astronaut.jpg")
    made = small[1]([picture])["pixel_values"][0]
    assert (made - to_pixels(picture)).abs().max() <= 1 / 64  # one step of 255 and rounding


@pytest.mark.parametrize(("metric", "floor"), [("R@1", 0.20), ("R@10", 0.45)])
def test_the_committed_results_pass_the_floors_on_all_captions(metric, floor):
    report = json.loads(RESULTS.read_text())
    models = [model for model in report["models"] if model["model"] == "plume-small"]
    default = json.loads((FOLDER / "config.json").read_text())["num_latent_steps"]
    (shipped,) = [model for model in models if model["num_latent_steps"] == default]
    assert shipped["scores"]["captions -> photos"][metric][0] >= floor


def test_what_a_person_types_finds_the_bundled_photographs():
    encoder = Encoder(FOLDER, device="cpu")
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    similarities = encoder.encode(list(FIRST)) @ encoder.encode([{"image": file} for file in files]).T
    assert [files[index].stem for index in similarities.argmax(axis=1)] == list(FIRST.values())


def test_search_takes_it_by_default_and_says_once_what_it_knows(tmp_path):
    assert DEFAULT_MODEL == FOLDER
    environment = {name: value for name, value in os.environ.items() if name != "PLUME_MODEL"} | {"COLUMNS": "400"}
    command = [
        sys.executable,
        "-m",
        "plume_embed",
        "search",
        str(PHOTOGRAPHS),
        "a cat",
        "--to",
        str(tmp_path / "index"),
    ]
    first, second = (
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True) for _ in range(2)
    )
    assert DEFAULT_MODEL_KNOWS in first.stdout + first.stderr
    assert DEFAULT_MODEL_KNOWS not in second.stdout + second.stderr
    assert "cat.jpg" in second.stdout
