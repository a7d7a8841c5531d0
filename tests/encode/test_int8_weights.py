"""int8 weights: a choice of its own type, close to float32, the same in any batch, and never mixed with another's."""

import sys

import numpy as np
import pytest
import torch

from plume_embed.encode.encoder import DRAWINGS_MODEL, Encoder
from plume_embed.encode.int8_weights import store_in_int8

ITEMS = ["a cat", "two dogs on the snow near an old house with a green door", "a red bicycle", "snow", "the lake"]


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    pytest.importorskip("torchao")
    return {dtype: Encoder(DRAWINGS_MODEL, device="cpu", dtype=dtype) for dtype in ("float32", "int8")}


def test_vectors_lie_within_a_cosine_of_0_999_of_those_in_float32(encoders):
    plain, rounded = (encoders[name].encode(ITEMS) for name in ("float32", "int8"))
    cosines = (plain * rounded).sum(axis=1)
    assert cosines.min() > 0.999 and not np.allclose(plain, rounded, atol=1e-6)


def test_a_vector_does_not_depend_on_its_batch(encoders):
    together = encoders["int8"].encode(ITEMS)
    alone = np.concatenate([encoders["int8"].encode([item]) for item in ITEMS])
    assert np.allclose(together, alone, atol=1e-5)


def test_an_index_of_one_type_is_not_that_of_the_other(encoders):
    assert encoders["int8"].fingerprint != encoders["float32"].fingerprint
    for dtype, encoder in encoders.items():
        assert encoder.fingerprint == encoder.fingerprints[dtype]


def test_it_is_for_a_cpu_and_float32_and_says_what_to_do_without_torchao(monkeypatch):
    half = Encoder(DRAWINGS_MODEL, device="cpu", dtype="bfloat16").model
    with pytest.raises(ValueError, match=r"bfloat16: use bfloat16 there"):
        store_in_int8(half)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ValueError, match=r'pip install "plume-embed\[int8\]"'):
        store_in_int8(half.to(torch.float32))
