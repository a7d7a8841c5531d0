"""The variants of a query, and what is said about a rationale."""

import numpy as np
import pytest
import torch

from plume_embed.encode.rationale import Rationale
from space import compare
from space.content.corpora import load_corpora
from space.content.sessions import QueryResult, Session
from space.service import Query, Service
from space.settings import Settings
from space.trace import finish


@pytest.fixture
def session():
    return Session()


def ask(service: Service, session: Session, text: str, steps: int = 8) -> QueryResult:
    return finish(service.query(session, Query(service.corpora[0], text, None, None, steps)))


def test_compare_gives_each_way_its_own_vector_and_time(service, session, corpus):
    ask(service, session, "cactus", steps=4)
    variants = [variant for variant, _, _ in service.compare(session)]
    assert [variant.name for variant in variants] == ["Single pass", "Latent, K = 4", "Explicit rationale"]
    for variant, steps in zip(variants, (0, 4), strict=False):
        expected = corpus.encoder.encode([{"text": "cactus"}], num_latent_steps=steps)[0]
        np.testing.assert_allclose(variant.vector, expected, atol=1e-5)
        assert variant.milliseconds > 0 and variant.runs == compare.REPEATS


def test_a_model_that_serves_fewer_steps_shows_each_of_them(encoder, monkeypatch):
    monkeypatch.setattr(encoder.model.config, "anytime_steps", [0, 2, 4, 8])
    batch = encoder.processor([{"text": "cactus"}])
    variants = list(compare.compare(encoder, batch, 8, False, 128))
    assert [variant.name for variant in variants] == [
        *("Single pass", "Anytime, K = 2", "Anytime, K = 4", "Latent, K = 8", "Explicit rationale")
    ]
    assert [variant.passes for variant in variants[:4]] == [1, 4, 6, 10]
    for variant, steps in zip(variants[:4], (0, 2, 4, 8), strict=True):
        expected = encoder.encode([{"text": "cactus"}], num_latent_steps=steps)[0]
        np.testing.assert_allclose(variant.vector, expected, atol=1e-5)
        assert ("was trained to be read here" in variant.note) == (steps < 8)


def test_compare_before_any_query_says_so(service, session):
    with pytest.raises(ValueError, match="There is no query yet"):
        next(service.compare(session))


def test_a_model_that_never_ends_its_rationale_is_not_shown_writing(service, encoder, monkeypatch):
    tokens = [[5] * 128] * len(compare.PROBES)
    never = Rationale(torch.zeros(4, encoder.dimension), tokens, torch.zeros(4, dtype=torch.bool))
    monkeypatch.setattr(compare, "generate_rationale", lambda *args, **kwargs: never)
    assert not compare.writes_rationales(encoder, 128)
    batch = encoder.processor([{"text": "cactus"}])
    variant = list(compare.compare(encoder, batch, 8, False, 128))[-1]
    assert variant.vector is None and variant.text == "" and "does not write" in variant.note


def test_a_model_that_writes_shows_its_text_and_is_read_behind_it(service, encoder, monkeypatch):
    gen = encoder.model.config.embedding_token_id
    text = encoder.processor.tokenizer.encode("The picture shows a cactus.", add_special_tokens=False)
    vector = torch.nn.functional.normalize(torch.ones(4, encoder.dimension), dim=-1)
    written = Rationale(vector, [[*text, gen]] * 4, torch.ones(4, dtype=torch.bool))
    monkeypatch.setattr(compare, "generate_rationale", lambda *args, **kwargs: written)
    assert compare.writes_rationales(encoder, 128)
    batch = encoder.processor([{"text": "cactus"}])
    variant = list(compare.compare(encoder, batch, 8, True, 128))[-1]
    assert "cactus" in variant.text and "<gen_emb>" not in variant.text
    np.testing.assert_array_equal(variant.vector, vector[0])


def test_a_model_that_stops_at_once_has_written_nothing(encoder, monkeypatch):
    gen = encoder.model.config.embedding_token_id
    silent = Rationale(torch.zeros(4, encoder.dimension), [[gen]] * 4, torch.ones(4, dtype=torch.bool))
    monkeypatch.setattr(compare, "generate_rationale", lambda *args, **kwargs: silent)
    assert not compare.writes_rationales(encoder, 128)


@pytest.mark.parametrize("steps", [0, 1, 8])
def test_the_passes_that_are_named_are_those_that_the_layers_see(encoder, steps):
    seen = []
    layer = encoder.model.backbone.get_decoder().layers[0]
    hook = layer.register_forward_hook(lambda *args: seen.append(1))
    try:
        batch = encoder.process([{"text": "cactus"}])
        finish(compare.trace_query(encoder, batch, steps))
        assert len(seen) == compare.layer_passes(steps)
        seen.clear()
        written = compare.generate_rationale(encoder.model, dict(batch), max_new_tokens=5)
        assert len(seen) == compare.layer_passes(0, len(written.token_ids[0]))
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a cat sits</think>\n<gen_emb>", "a cat sits"),
        ("<//think>\n<gen_emb>", ""),
        ("<think>one</think> two <|im_end|>", "one two"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
    ],
)
def test_control_tokens_are_stripped_from_a_rationale(written, read):
    assert compare.without_control_tokens(written) == read


def test_a_rationale_without_a_known_word_is_said_to_make_no_sense():
    known = frozenset({"cactus", "desert"})
    assert compare.sense("A cactus stands in sand.", known) == ""
    assert "None of its 2 different words occurs" in compare.sense("tures of a ning", known)
    assert "Its only word does not occur" in compare.sense("erererers", known)
    assert "no word" in compare.sense("", known) and "no word" in compare.sense("is of a", known)


def test_the_remark_beside_a_rationale_is_about_what_was_written(service, session, monkeypatch):
    gen = service.corpora[0].encoder.model.config.embedding_token_id
    tokenizer = service.corpora[0].encoder.processor.tokenizer
    vector = torch.nn.functional.normalize(torch.ones(4, service.corpora[0].encoder.dimension), dim=-1)
    for text, remark in (("qqq zzz", "makes no sense"), ("a banana", "")):
        tokens = [*tokenizer.encode(text, add_special_tokens=False), gen]
        written = Rationale(vector, [tokens] * 4, torch.ones(4, dtype=torch.bool))
        monkeypatch.setattr(compare, "generate_rationale", lambda *args, written=written, **kwargs: written)
        monkeypatch.setattr(service.corpora[0], "can_write", True)
        ask(service, session, "cactus")
        (*_, (variant, _, said)) = service.compare(session)
        assert variant.text == text and (remark in said if remark else said == "")


def test_the_drawings_are_served_by_a_model_of_any_number_of_steps(tmp_path):
    photographs, drawings = load_corpora(Settings(data=tmp_path), None)
    assert drawings.id == "drawings" and drawings.has_own_model and "plume-tiny-anytime knows" in drawings.model_line
    for corpus in (photographs, drawings):
        assert "embedded in a single pass. The model was trained for K = 0, 1, 2, 4, 8." in corpus.steps_line
    assert drawings.encoder.document_latent_steps() == 0 and drawings.default_steps == 8
