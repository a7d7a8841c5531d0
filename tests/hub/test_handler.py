"""handler.py of an exported folder, called as Inference Endpoints calls it, where plume_embed cannot be imported."""

import base64
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer
from small_files import write_video

from plume_embed.encode.encoder import Encoder
from plume_embed.hub.export import HANDLER_REQUIREMENTS, export_model
from plume_embed.hub.handler import EndpointHandler

ROOT = Path(__file__).parent.parent.parent
CACTUS = ROOT / "examples" / "queries" / "cactus.png"
# As the toolkit does it: the file is loaded by its path, the class is called with the folder, requests are JSON.
PROGRAM = """
import importlib.util, json, sys
sys.modules["plume_embed"] = None
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
handler = module.EndpointHandler(folder)
print(json.dumps([handler(data) for data in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def exported(released_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tmp_path_factory.mktemp("hub") / "model", released_model_dir)


@pytest.fixture(scope="module")
def handler(exported: Path) -> EndpointHandler:
    return EndpointHandler(str(exported))


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_a_process_without_this_package_gives_the_vectors_of_encode(exported, tmp_path):
    film, encoder = write_video(tmp_path / "film.mp4"), Encoder(exported)
    inputs = ["a", {"image": base64_of(CACTUS), "text": "b"}, {"video": f"data:video/mp4;base64,{base64_of(film)}"}]
    inputs += [{"text": "a longer text than the first"}, {"video": [base64_of(CACTUS)] * 2}]
    items = ["a", {"image": CACTUS, "text": "b"}, {"video": film}, inputs[3], {"video": [CACTUS] * 2}]
    requests = [
        {"inputs": inputs},
        {"inputs": "a", "parameters": {"latent_steps": 2}},
        {"inputs": inputs, "parameters": {"dimensions": 16, "batch_size": 2}},
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(exported)],
        input=json.dumps(requests),
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    many, one, short = map(np.array, json.loads(done.stdout.splitlines()[-1]))
    expected = encoder.encode(items)
    assert np.abs(many - expected).max() < 1e-5
    assert np.abs(one - encoder.encode(["a"], num_latent_steps=2)).max() < 1e-5
    cut = expected[:, :16] / np.linalg.norm(expected[:, :16], axis=1, keepdims=True)
    assert np.abs(short - cut).max() < 1e-5


def test_a_query_and_a_document_have_the_prompts_and_the_steps_that_the_model_has_for_them(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "model")
    for name, more in (
        ("config.json", {"num_latent_steps": 3, "document_latent_steps": 0}),
        ("config_sentence_transformers.json", {"prompts": {"query": "Find: ", "passage": "Page: "}}),
    ):
        file = tmp_path / "model" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | more))
    handler = EndpointHandler(str(tmp_path / "model"))
    model = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    items = ["a", {"text": ["a", "b"]}, {"image": base64_of(CACTUS)}]
    of_library = ["a", "a\nb", {"image": str(CACTUS)}]
    for kind, encode in (("query", model.encode_query), ("document", model.encode_document)):
        found = handler({"inputs": items, "parameters": {"input_type": kind}})
        assert np.abs(np.array(found) - encode(of_library)).max() < 1e-5
    for wrong in ("passage", ["query"], 1):
        with pytest.raises(ValueError, match="input_type must be query or document, got "):
            handler({"inputs": "a", "parameters": {"input_type": wrong}})


def test_a_picture_as_the_body_is_an_item(handler, exported):
    with Image.open(CACTUS) as picture:
        found = handler({"inputs": picture})
    assert np.abs(np.array(found) - Encoder(exported).encode([{"image": CACTUS}])).max() < 1e-5


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_item_at_fault_is_named_by_its_place_in_the_request(handler, place):
    picture, no_picture = base64_of(CACTUS), base64.b64encode(b"no picture").decode()
    inputs = [{"image": picture, "text": "a"}, "a longer text", "b"]
    inputs.insert(place, {"image": no_picture})
    for batch_size in (16, 1):
        with pytest.raises(ValueError, match=rf"^Item {place}: Cannot read 10 bytes as an image"):
            handler({"inputs": inputs, "parameters": {"batch_size": batch_size}})
    with pytest.raises(ValueError, match=r"^Item 20: It has more than .* tokens"):
        handler({"inputs": ["a text"] * 20 + ["word " * 60_000]})


@pytest.mark.parametrize("wrong", ["A*", "zzz", "\u00e9", "data:image/png;base64,\u00e9"])
def test_what_is_no_base64_is_named_by_its_place_and_its_key(handler, wrong):
    for key, value in (("image", wrong), ("video", [base64_of(CACTUS), wrong])):
        with pytest.raises(ValueError, match=f"^Item 1: {key} holds no valid base64: "):
            handler({"inputs": ["a", {key: value}]})


def test_null_in_an_item_is_not_there(handler):
    picture, nothing = {"image": base64_of(CACTUS)}, {"text": None, "video": None}
    assert handler({"inputs": [{**picture, **nothing}, {"text": "a", "image": None}]}) == handler(
        {"inputs": [picture, {"text": "a"}]}
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "inputs"),
        ([], "inputs"),
        ({"inputs": {"text": 5}}, "text must be a string or a list of strings, got 5"),
        ({"inputs": {"text": ["a", 5]}}, "text must be a string or a list of strings"),
        ({"inputs": ["a", {"text": None}]}, "^Item 1: The item is empty"),
        ({"inputs": ["a", "b", 5]}, "^Item 2: An item is a text or an object"),
        ({"inputs": "a", "parameters": [1]}, "parameters is an object with batch_size"),
        ({"inputs": []}, "empty"),
        ({"inputs": 5}, "a text or an object"),
        ({"inputs": {"audio": "x"}}, "a text or an object"),
        ({"inputs": {"image": "https://example.org/a.png"}}, "not fetched"),
        ({"inputs": {"image": "/etc/passwd"}}, "Cannot read|base64"),
        ({"inputs": {"image": "A*"}}, "base64"),
        ({"inputs": "a", "parameters": {"k": 1}}, "latent_steps"),
        ({"inputs": "a", "parameters": {"latent_steps": 99}}, "latent"),
        ({"inputs": "a", "parameters": {"dimensions": 65}}, "64 dimensions"),
    ],
)
def test_a_request_that_is_none_is_refused_with_the_remedy(handler, data, words):
    with pytest.raises(ValueError, match=words):
        handler(data)


@pytest.mark.parametrize("name", ["latent_steps", "dimensions", "batch_size"])
@pytest.mark.parametrize("value", [True, False, "8", 1.5])
def test_a_parameter_that_is_no_whole_number_is_refused_by_its_name(handler, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be a whole number, got {value!r}"):
        handler({"inputs": "a", "parameters": {name: value}})


def test_a_batch_of_nothing_is_refused_and_no_value_is_the_default(handler):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        handler({"inputs": "a", "parameters": {"batch_size": 0}})
    empty = {"inputs": "a", "parameters": dict.fromkeys(("latent_steps", "dimensions", "batch_size", "input_type"))}
    assert np.allclose(handler(empty), handler({"inputs": "a"}))


def test_the_requirements_are_those_that_the_package_declares(exported):
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    lines = (exported / "requirements.txt").read_text().splitlines()
    assert tuple(lines) == HANDLER_REQUIREMENTS and set(lines) <= declared
