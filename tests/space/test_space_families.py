"""The Space's tabs over a model of every family of backbones."""

import numpy as np
import pytest
from model.families import NAMES, make_tiny
from small_files import write_picture, write_video

from plume_embed.encode.encoder import Encoder
from space.compare import compare
from space.steps import interventions
from space.trace import finish, trace_query


@pytest.mark.parametrize("family", NAMES)
def test_traces_interventions_and_variants_are_those_of_the_model(family, tmp_path):
    made = make_tiny(family)
    made.model.save_pretrained(tmp_path / "model")
    made.processor.save_pretrained(tmp_path / "model")
    encoder = Encoder(tmp_path / "model", device="cpu")
    picture, film = write_picture(tmp_path / "a.png"), write_video(tmp_path / "a.mp4")
    items = [{"text": "a lake", "image": picture}, {"video": str(film)}]
    traces = [finish(trace_query(encoder, encoder.process([item]), 3)) for item in items]
    found = np.stack([trace.embedding for trace in traces])
    np.testing.assert_allclose(found, encoder.encode(items, num_latent_steps=3), atol=1e-5)
    same, noise, other = interventions(encoder, encoder.process(items[:1]), *traces)
    np.testing.assert_allclose(same.vector, traces[0].embedding, atol=1e-5)
    assert np.abs(noise.vector - same.vector).max() > 1e-4 and np.abs(other.vector - same.vector).max() > 1e-6
    single, latent, *_ = compare(encoder, encoder.process(items[1:]), 3, False, 8)
    np.testing.assert_allclose(latent.vector, traces[1].embedding, atol=1e-5)
    np.testing.assert_allclose(single.vector, encoder.encode(items[1:], num_latent_steps=0)[0], atol=1e-5)
