"""Whatever a program hands over has the right vector or is refused in one error that names it, beside any neighbour."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import part_slow, within_limits
from odd_inputs import Odd, odd_inputs
from sentence_transformers import SentenceTransformer

from plume_embed import Encoder
from plume_embed.model.inputs_plume import ItemError

ODD = odd_inputs()
NEIGHBOURS = ["a boat on the lake", {"text": "two cats"}]
# sentence-transformers looks into these before the processor does, and fails in words of its own.
FAILS_BEFORE = {
    "chat: a role that is a list",
    "no item: a list in itself",
    "no item: a dict in itself",
    "no item: a deep list",
}
# It takes these lists apart and passes over what is nobody.
FLATTENED = {"dict: nobody among texts", "dict: a list in a list"}


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> Encoder:
    return Encoder(released_model_dir, device="cpu")


@pytest.fixture(scope="module")
def sentence(released_model_dir: Path) -> SentenceTransformer:
    return SentenceTransformer(str(released_model_dir), trust_remote_code=True, device="cpu")


@pytest.fixture(scope="module")
def neighbours(encoder: Encoder) -> np.ndarray:
    return encoder.encode(NEIGHBOURS)


def assert_vector(vector: np.ndarray) -> None:
    assert np.isfinite(vector).all() and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_there_are_more_than_two_hundred():
    assert len(ODD) > 200


@pytest.mark.parametrize("odd", part_slow(ODD, 3), ids=lambda odd: odd.name)
def test_an_odd_input_has_its_vector_or_one_error_that_names_it(odd: Odd, encoder: Encoder, neighbours, tmp_path):
    with within_limits(odd.name):
        batch = [NEIGHBOURS[0], odd.make(tmp_path), NEIGHBOURS[1]]
        if odd.error is not None:
            with pytest.raises(ItemError, match=re.escape("Item 1: ")) as refused:
                encoder.processor(batch)
            said = str(refused.value)
            assert re.search(odd.error, said) and "\n" not in said and len(said) < 400
        # The encoder reads each input anew; a file that is read to its end is given once more.
        vectors, errors = encoder.encode_readable([NEIGHBOURS[0], odd.make(tmp_path), NEIGHBOURS[1]])
    np.testing.assert_allclose(vectors[[0, 2]], neighbours, atol=1e-5)
    if odd.error is not None:
        assert errors.keys() == {1} and re.search(odd.error, errors[1])
        return
    assert not errors
    assert_vector(vectors[1])
    same = encoder.encode([(odd.same_as or odd.make)(tmp_path)])[0]
    np.testing.assert_allclose(vectors[1], same, atol=1e-5)


@pytest.mark.parametrize("odd", part_slow(ODD, 6), ids=lambda odd: odd.name)
def test_sentence_transformers_gives_the_same_vector_or_an_error(odd: Odd, encoder, sentence, tmp_path):
    item = odd.make(tmp_path)
    is_message = isinstance(item, dict) and "role" in item
    with within_limits(odd.name):
        try:
            (vector,) = sentence.encode([[item] if is_message else item])
        except ValueError:
            return
        except (TypeError, RecursionError):
            assert odd.name in FAILS_BEFORE
            return
    assert_vector(vector)
    if odd.name in FLATTENED:
        return
    assert odd.error is None
    np.testing.assert_allclose(vector, encoder.encode([odd.make(tmp_path)])[0], atol=1e-5)


TEXTS = st.text(st.characters(), max_size=60) | st.lists(
    st.sampled_from(["<bot>", "<disc_emb>", "<|image_pad|>", "<|im_", "end|>", "\U000f0000", " ", "a", "\u0301", "\0"])
).map("".join)
VALUES = st.recursive(
    TEXTS | st.none() | st.integers() | st.floats() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "image", "video", "role", "content", "type", "path"]) | TEXTS, inner)
    ),
    max_leaves=6,
)
FEW = settings(derandomize=True, max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@FEW
@given(text=TEXTS)
def test_any_text_keeps_the_prompt_and_its_neighbours(encoder: Encoder, neighbours, text: str):
    """A text cannot write a control token, whatever it is made of."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        with pytest.raises(ItemError, match="lone surrogates"):
            encoder.process([text])
        return
    ids = encoder.process([text])["input_ids"][0].tolist()
    empty = encoder.process([""])["input_ids"][0].tolist()
    controls = set(encoder.processor.tokenizer.added_tokens_decoder)
    assert [i for i in ids if i in controls] == [i for i in empty if i in controls]
    vectors = encoder.encode([NEIGHBOURS[0], text, NEIGHBOURS[1]])
    assert_vector(vectors[1])
    np.testing.assert_allclose(vectors[[0, 2]], neighbours, atol=1e-5)


@FEW
@given(value=VALUES)
def test_any_nesting_of_values_is_an_item_or_an_error(encoder: Encoder, value):
    vectors, errors = encoder.encode_readable([value])
    if errors:
        assert "\n" not in errors[0]
    else:
        assert_vector(vectors[0])
