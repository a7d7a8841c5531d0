"""The fast rollout over every family, compiled and as a CUDA graph; test_families.py has it as "static"."""

import random

import pytest
import torch
from common import random_item
from families import NAMES, make_tiny, tiny

EAGER = torch.compile


def compiled_once_per_shape(function, dynamic: bool, fullgraph: bool, options: dict):
    """What `torch.compile` traces, run without a compiler: as strict about breaks in the graph, and fast."""
    return EAGER(function, dynamic=dynamic, fullgraph=fullgraph, backend="aot_eager")


def embeddings(name: str, implementation: str, seed: int) -> torch.Tensor:
    rng, made = random.Random(seed), tiny(name)
    batch = made.processor([random_item(rng) for _ in range(rng.randint(1, 4))])
    made.model.rollout_implementation = implementation
    try:
        with torch.inference_mode():
            return made.model(**batch).embeddings
    finally:
        made.model.rollout_implementation = "auto"


# Tracing takes its time: one family with every change, all of them with -m slow.
ONE_OFTEN = [pytest.param(name, marks=() if name == "qwen3_vl" else pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", ONE_OFTEN)
def test_a_layer_compiles_as_one_graph_and_gives_the_references_vectors(name, monkeypatch):
    monkeypatch.setattr(torch, "compile", compiled_once_per_shape)
    engine = tiny(name).model.rollout_engine
    engine.release()
    for seed in range(3):
        expected = embeddings(name, "reference", seed)
        torch.testing.assert_close(embeddings(name, "compiled", seed), expected, atol=1e-5, rtol=0)
    assert engine.fallbacks == []
    engine.release()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_layer_gives_the_references_vectors(name):
    tiny(name).model.rollout_engine.release()
    for seed in range(3):
        expected = embeddings(name, "reference", seed)
        torch.testing.assert_close(embeddings(name, "compiled", seed), expected, atol=1e-5, rtol=0)
    assert tiny(name).model.rollout_engine.fallbacks == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="capturing a CUDA graph needs an NVIDIA GPU")
@pytest.mark.parametrize("name", NAMES)
def test_the_captured_rollout_gives_the_references_vectors(name):
    made, rng = make_tiny(name), random.Random(0)
    model = made.model.to("cuda")
    for _ in range(3):
        batch = made.processor([random_item(rng) for _ in range(rng.randint(1, 4))]).to("cuda")
        with torch.inference_mode():
            model.rollout_implementation = "reference"
            expected = model(**batch).embeddings
            model.rollout_implementation = "cuda_graph"
            torch.testing.assert_close(model(**batch).embeddings, expected, atol=1e-5, rtol=0)
    assert model.rollout_engine.fallbacks == []
