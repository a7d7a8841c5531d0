"""The first collection: photographs with plume-small, whose backbone is of another family than that of the drawings."""

import json

import numpy as np
import pytest
from pages import captions, found_by

from space import app
from space.content.corpora import Corpus, read_specs
from space.content.sessions import Session
from space.page.about import RESULTS, about
from space.service import Query, Service
from space.tools import check_queries
from space.trace import finish


@pytest.fixture(scope="module")
def photographs(settings) -> Corpus:
    from plume_embed.encode.encoder import DEFAULT_MODEL, Encoder

    corpus = Corpus(read_specs()[0], Encoder(DEFAULT_MODEL, device="cpu"), settings.data)
    corpus.collection.build()
    return corpus


@pytest.fixture(scope="module")
def both(photographs, service) -> Service:
    return Service(service.settings, [photographs, *service.corpora], service.sessions.upload_folder)


def test_photographs_are_the_first_collection_and_say_what_their_model_knows(photographs):
    assert photographs.id == "photographs" and photographs.has_own_model
    assert photographs.model_line == photographs.spec.knows and photographs.model_line.startswith("plume-small knows")
    assert {item.kind for item in photographs.collection.items} == {"image"}


def test_prepared_queries_of_each_kind_find_the_right_photograph_first(both, photographs, capsys):
    prepared = photographs.spec.prepared
    assert sum(query.example for query in prepared) == 10
    assert {query.kind for query in prepared if query.example} == {"text", "image", "video", "combination"}
    assert check_queries.check(both, photographs), capsys.readouterr().out


def test_diagnostics_and_variants_of_a_photographs_query_are_those_of_its_model(both, photographs):
    session = Session()
    result = finish(both.query(session, Query(photographs, "a cup of coffee", None, None, 8)))
    assert result.hits[0].item.label == "coffee" and len(result.trace.states) == 9  # z(0) to z(8)
    expected = photographs.encoder.encode([{"text": "a cup of coffee"}])[0]
    np.testing.assert_allclose(result.trace.embedding, expected, atol=1e-5)
    assert len(both.interventions(result)) > 1
    variants = [variant for variant, _, _ in both.compare(session)]
    single = photographs.encoder.encode([{"text": "a cup of coffee"}], num_latent_steps=0)[0]
    np.testing.assert_allclose(variants[0].vector, single, atol=1e-5)
    assert variants[-1].vector is None, "plume-small was never trained to write"


def test_about_shows_what_was_measured_of_the_model_of_photographs(photographs, encoder):
    page = about(photographs.encoder)
    assert "plume-small, a model of this repository" in page and "captions → photos" in page
    models = json.loads((RESULTS / "photographs.json").read_text())["models"]
    (scores,) = [m["scores"] for m in models if (m["model"], m["num_latent_steps"]) == ("plume-small", 8)]
    for found in scores.values():
        assert f"{100 * found['R@1'][0]:.1f} [" in page
    assert "captions → photos" not in about(encoder)
    stages = json.loads((photographs.encoder.folder / "training.json").read_text())["stages"]
    assert all(f'<th scope="col">{stage["name"]}</th>' in page for stage in stages)


def test_the_page_opens_with_photographs_and_drawings_can_be_chosen(both, visit):
    blocks, address = app.launch(both, prevent_thread_lock=True, quiet=True)
    try:
        page = visit(at=address.rstrip("/"))
        assert "coffee" in captions(page)[0]
        assert "plume-small knows" in page.inner_text("body")
        assert "fox" in found_by(page, page.get_by_label("Drawings", exact=True).click)
        assert "plume-tiny knows" in page.inner_text("body")
    finally:
        blocks.close(verbose=False)
