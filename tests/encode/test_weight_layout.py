"""Weights stored by column: the same vectors, one storage that nothing can make stale, and files as ever."""

import copy
import random

import pytest
import torch
from common import random_item

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.encode.encoder import Encoder
from plume_embed.encode.weight_layout import store_by_column


@pytest.fixture(scope="module")
def processor(released_model_dir):
    processor = PlumeProcessor.from_pretrained(released_model_dir)
    processor.blank_image_for_text = False
    return processor


@pytest.fixture
def model(released_model_dir):
    model = PlumeModel.from_pretrained(released_model_dir).eval()
    store_by_column(model)
    return model


def up_projection(model) -> torch.Tensor:
    return model.backbone.language_model.layers[1].mlp.up_proj.weight


def is_by_column(weight: torch.Tensor) -> bool:
    return not weight.is_contiguous() and weight.t().is_contiguous()


def test_100_random_mixed_batches_equal_the_vectors_of_the_other_layout(released_model_dir, processor, model):
    plain, rng = PlumeModel.from_pretrained(released_model_dir).eval(), random.Random(0)
    assert is_by_column(up_projection(model)) and not is_by_column(up_projection(plain))
    pool = [random_item(rng) for _ in range(30)]
    for index in range(100):
        batch = processor([pool[rng.randrange(30)] for _ in range(rng.choice((1, 1, 2, 3, 5)))])
        steps = (0, 1, 4, 8)[index % 4]
        with torch.inference_mode():
            expected, found = (each(**batch, num_latent_steps=steps).embeddings for each in (plain, model))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_parameters_stay_the_same_objects_and_take_no_more_memory(released_model_dir):
    model = PlumeModel.from_pretrained(released_model_dir).eval()
    before = {name: (id(p), p.nbytes, p.detach().clone()) for name, p in model.named_parameters()}
    store_by_column(model)
    for name, parameter in model.named_parameters():
        identity, size, values = before[name]
        assert id(parameter) == identity and torch.equal(parameter, values)
        assert parameter.untyped_storage().nbytes() == size or "embed" in name or "visual" in name


def test_loading_training_and_copies_are_seen_and_keep_the_layout(released_model_dir, processor, model):
    other, batch = PlumeModel.from_pretrained(released_model_dir).eval(), processor(["a", "b c"])
    with torch.no_grad():
        up_projection(other).mul_(2)
        expected, before = (each(**batch).embeddings for each in (other, model))
        model.load_state_dict(other.state_dict())
        torch.testing.assert_close(model(**batch).embeddings, expected, atol=1e-5, rtol=0)
        assert not torch.allclose(before, expected, atol=1e-3)
    model.train()(**batch).embeddings.sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for each in (model, copy.deepcopy(model), copy.deepcopy(model).double()):
        assert is_by_column(up_projection(each))


def test_files_are_written_as_ever(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = PlumeModel.from_pretrained(tmp_path).eval()
    assert up_projection(loaded).is_contiguous() and torch.equal(up_projection(loaded), up_projection(model))


def test_another_type_is_refused(model):
    with pytest.raises(ValueError, match="in float32"):
        store_by_column(model.double())


def test_an_encoder_stores_by_column_only_where_it_is_told_to(released_model_dir):
    assert not is_by_column(up_projection(Encoder(released_model_dir).model))
    encoder = Encoder(released_model_dir, weights_by_column=True)
    assert is_by_column(up_projection(encoder.model))
    assert encoder.fingerprint == Encoder(released_model_dir).fingerprint
