"""Asking, adding and comparing, with the real model and collection and without the page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_files import write_pdf, write_picture, write_video

from plume_embed.encode.rationale import Rationale
from space import compare
from space.content.collection import Collection, NotReadyError
from space.page import render
from space.page.about import _training, about
from space.service import Service, Upload
from space.tools import check_queries
from space.trace import finish

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def session_id(service, request):
    """A session of its own that ends with the test."""
    name = request.node.name[:40]
    yield name
    service.sessions.end(name)


def upload(service, source: Path, name: str | None = None) -> Upload:
    """A copy in the upload folder, where Gradio would have put it."""
    target = service.sessions.upload_folder / f"hash{abs(hash(str(source)))}" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return Upload(target, name or source.name)


@pytest.mark.parametrize("kind", ["text", "image", "video", "combination"])
def test_at_least_eight_of_ten_prepared_queries_of_each_kind_find_the_right_item_first(service, kind):
    queries = [query for query in check_queries.prepared() if query.kind == kind]
    assert len(queries) == 10
    right = [query.is_right(check_queries.ask(service, query)[0].item) for query in queries]
    assert sum(right) >= 8, [query.label for query, good in zip(queries, right, strict=True) if not good]


def test_the_examples_are_ten_and_show_every_kind():
    examples = [query for query in check_queries.prepared() if query.example]
    assert len(examples) == 10
    assert {query.kind for query in examples} == {"text", "image", "video", "combination"}


def test_the_collection_holds_pictures_films_and_documents_and_finds_each_by_its_own_vector(service):
    kinds = [item.kind for item in service.collection.items]
    assert kinds.count("image") == 160 and kinds.count("video") >= 8 and kinds.count("page") >= 8
    for kind in ("image", "video", "page"):
        item = next(item for item in service.collection.items if item.kind == kind)
        (hit,) = service.collection.search(item.vector, 1)
        assert hit.item is item and hit.score == pytest.approx(1, abs=1e-5)
        assert item.thumbnail.startswith("data:image/webp;base64,")


def test_a_second_start_embeds_nothing(service, encoder):
    again = Collection(encoder, service.settings.data)
    again.build()
    assert again.embedded == 0
    assert [item.label for item in again.items] == [item.label for item in service.collection.items]
    np.testing.assert_array_equal(again.vectors, service.collection.vectors)


def test_a_collection_that_is_not_ready_says_how_far_it_is(encoder, tmp_path, service):
    collection = Collection(encoder, tmp_path)
    collection.done, collection.total = 57, 178
    with pytest.raises(NotReadyError, match="57 of 178 items"):
        collection.search(np.zeros(encoder.dimension, np.float32), 3)
    unready = Service(replace(service.settings, data=tmp_path), encoder, service.sessions.upload_folder)
    with pytest.raises(ValueError, match="is being embedded"):
        finish(unready.query("x", "cactus", None, None, 8))


def test_a_collection_that_cannot_be_built_says_why(encoder, tmp_path):
    (tmp_path / "collection").write_text("a file in the way")
    collection = Collection(encoder, tmp_path)
    collection.start()
    with pytest.raises(NotReadyError, match="could not be prepared"):
        collection.wait(30)
    assert not collection.is_ready


@pytest.mark.parametrize(
    ("text", "steps", "reason"),
    [
        ("", 8, "query is empty"),
        ("  \n", 8, "query is empty"),
        ("x" * 2001, 8, "longer than 2,000"),
        ("x", 9, "0 to 8"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_in_a_sentence(service, session_id, text, steps, reason):
    with pytest.raises(ValueError, match=reason):
        finish(service.query(session_id, text, None, None, steps))


def test_a_text_that_is_an_address_or_a_path_is_a_text(service, session_id):
    for text in ("http://127.0.0.1:9/cat.png", str(ROOT / "examples" / "queries" / "cactus.png")):
        result = finish(service.query(session_id, text, None, None, 8))
        expected = service.encoder.encode([{"text": text}])[0]
        np.testing.assert_allclose(result.trace.embedding, expected, atol=1e-5)


@pytest.mark.parametrize("steps", [0, 3, 8])
def test_a_query_has_the_vector_that_the_encoder_gives_and_its_ranking(service, session_id, steps):
    picture = ROOT / "examples" / "queries" / "turtle.png"
    result = finish(service.query(session_id, "turtle", upload(service, picture), None, steps))
    vector = service.encoder.encode([{"text": "turtle", "image": picture}], num_latent_steps=steps)[0]
    np.testing.assert_allclose(result.trace.embedding, vector, atol=1e-5)
    scores = np.sort(service.collection.vectors @ vector)[::-1][: len(result.hits)]
    np.testing.assert_allclose([hit.score for hit in result.hits], scores, atol=1e-5)


def test_own_files_are_found_only_in_their_own_session_and_leave_no_file(service, session_id, tmp_path):
    uploads = [
        upload(service, write_picture(tmp_path / "mine.png", seed=5)),
        upload(service, write_pdf(tmp_path / "mine.pdf", num_pages=2)),
        upload(service, write_video(tmp_path / "mine.mp4")),
    ]
    assert finish(service.add(session_id, uploads)) == []
    assert not any(one.path.exists() for one in uploads)
    session = service.sessions.of(session_id)
    assert [item.kind for item in session.items] == ["image", "page", "page", "video"]
    query = upload(service, tmp_path / "mine.png")
    result = finish(service.query(session_id, "", query, None, 8))
    assert result.hits[0].item.name == "mine.png · your picture"
    assert result.hits[0].score == pytest.approx(1, abs=1e-4)
    other = finish(service.query("somebody else", "", query, None, 8))
    assert not any(hit.item.is_own for hit in other.hits)
    service.sessions.end("somebody else")
    service.sessions.end(session_id)
    assert service.sessions.of(session_id).items == [] and not query.path.exists()


def test_refused_files_are_named_the_others_are_taken_and_all_are_deleted(service, session_id, tmp_path):
    (tmp_path / "x.svg").write_text("<svg/>")
    uploads = [
        upload(service, tmp_path / "x.svg", "<img src=x onerror=alert(1)>.svg"),
        upload(service, write_picture(tmp_path / "good.png")),
    ]
    (sentence,) = finish(service.add(session_id, uploads))
    assert sentence.startswith("“<img src=x onerror=alert(1)>.svg” was refused: vector drawings")
    assert "<img" not in render.refused(sentence)
    assert [item.label for item in service.sessions.of(session_id).items] == ["good.png"]
    assert not any(one.path.exists() for one in uploads)


def test_too_many_files_at_once_or_in_all_are_refused(service, tmp_path, encoder):
    limits = replace(service.settings.limits, files_at_once=2, items=3)
    small = Service(replace(service.settings, limits=limits), encoder, service.sessions.upload_folder)
    pictures = [upload(small, write_picture(tmp_path / f"{n}.png", seed=n)) for n in range(3)]
    (sentence,) = finish(small.add("s", pictures))
    assert sentence == "3 files are too many at once; the limit is 2."
    assert not any(one.path.exists() for one in pictures)
    pdf = upload(small, write_pdf(tmp_path / "a.pdf", num_pages=2))
    assert finish(small.add("s", [pdf])) == []
    pdf = upload(small, write_pdf(tmp_path / "b.pdf", num_pages=2))
    (sentence,) = finish(small.add("s", [pdf]))
    assert "would have 4 items, and the limit is 3" in sentence
    assert len(small.sessions.of("s").items) == 2


def test_a_closed_upload_adds_nothing_and_deletes_its_files(service, session_id, tmp_path):
    one = upload(service, write_pdf(tmp_path / "a.pdf", num_pages=8))
    adding = service.add(session_id, [one])
    while not next(adding).startswith("embedding a.pdf, 5"):
        pass
    adding.close()
    assert service.sessions.of(session_id).items == [] and not one.path.exists()


def test_the_anchors_ranking_is_over_all_items_of_the_session(service, session_id, tmp_path):
    finish(service.add(session_id, [upload(service, write_picture(tmp_path / "mine.png", seed=9))]))
    result = finish(service.query(session_id, "", upload(service, tmp_path / "mine.png"), None, 8))
    rank_changes = service.rank_changes(service.sessions.of(session_id), result.trace, 3)
    first = next(item for item, move in rank_changes if move.final_rank == 1)
    assert first.label == "mine.png"
    vectors = np.stack([item.vector for item in service.candidates(service.sessions.of(session_id))])
    best_by_anchor = next(item for item, move in rank_changes if move.anchor_rank == 1)
    expected = service.candidates(service.sessions.of(session_id))[int((vectors @ result.trace.anchor).argmax())]
    assert best_by_anchor is expected


def test_compare_gives_each_way_its_own_vector_and_time(service, session_id):
    finish(service.query(session_id, "cactus", None, None, 4))
    variants = [variant for variant, _ in service.compare(service.sessions.of(session_id))]
    assert [variant.name for variant in variants] == ["Single pass", "Latent, K = 4", "Explicit rationale"]
    for variant, steps in zip(variants, (0, 4), strict=False):
        expected = service.encoder.encode([{"text": "cactus"}], num_latent_steps=steps)[0]
        np.testing.assert_allclose(variant.vector, expected, atol=1e-5)
        assert variant.milliseconds > 0 and variant.runs == compare.REPEATS


def test_compare_before_any_query_says_so(service, session_id):
    with pytest.raises(ValueError, match="There is no query yet"):
        next(service.compare(service.sessions.of(session_id)))


def test_a_model_that_never_ends_its_rationale_is_not_shown_writing(service, encoder, monkeypatch):
    import torch

    tokens = [[5] * 128] * len(compare.PROBES)
    never = Rationale(torch.zeros(4, encoder.dimension), tokens, torch.zeros(4, dtype=torch.bool))
    monkeypatch.setattr(compare, "generate_rationale", lambda *args, **kwargs: never)
    assert not compare.writes_rationales(encoder, 128)
    batch = encoder.processor([{"text": "cactus"}])
    variant = list(compare.compare(encoder, batch, 8, False, 128))[-1]
    assert variant.vector is None and variant.text == "" and "does not write" in variant.note


def test_a_model_that_writes_shows_its_text_and_is_read_behind_it(service, encoder, monkeypatch):
    import torch

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
    import torch

    gen = encoder.model.config.embedding_token_id
    silent = Rationale(torch.zeros(4, encoder.dimension), [[gen]] * 4, torch.ones(4, dtype=torch.bool))
    monkeypatch.setattr(compare, "generate_rationale", lambda *args, **kwargs: silent)
    assert not compare.writes_rationales(encoder, 128)


def test_about_tells_the_figures_of_the_result_files(encoder):
    page = about(encoder)
    examples = json.loads((ROOT / "evaluation" / "results" / "plume-tiny-examples.json").read_text())
    assert f"{100 * examples['names_hit_at_1']:.0f} % are found first by their name" in page
    for file in (ROOT / "evaluation" / "results").glob("plume-tiny*.json"):
        data = json.loads(file.read_text())
        for one in data.get("with_country_flags", []):
            assert f"<td>{100 * one['hit_at_1']:.1f}</td>" in page
        if data.get("benchmark") == "miniature":
            assert f"{100 * data['models'][0]['means']['mean'][0]:.1f}" in page
    assert f"K = {encoder.model.config.num_latent_steps}" in page and "2604.02073" in page
    runs = json.loads((encoder.folder / "training.json").read_text())["runs"]
    for run in runs:
        assert f'<th scope="col">{run["name"]}</th>' in page
        assert f"<td>{run['recipe']['curriculum']['max_steps']}</td>" in page
        assert f"<td>{run['train_minutes']:,.1f}</td>" in page


def test_about_tells_one_run_as_a_list_and_says_where_there_is_no_record(tmp_path):
    assert "No training record" in _training(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"recipe": {"batch_size": 7}, "processes": 2}))
    assert "<li>batch: 7</li><li>processes: 2</li>" in _training(tmp_path)


def test_about_another_model_shows_no_results_of_ours(encoder, released_model_dir):
    from plume_embed.encode.encoder import Encoder

    page = about(Encoder(released_model_dir, device="cpu"))
    assert "No measured results are bundled for this model" in page and "Hit@1" not in page


def test_what_visitors_name_is_escaped_in_every_piece_of_html(service, session_id, tmp_path):
    Image.new("RGB", (30, 30), "red").save(tmp_path / "x.png")
    nasty = "<script>alert(1)</script>.png"
    finish(service.add(session_id, [upload(service, tmp_path / "x.png", "a/" + nasty.replace("/", "∕"))]))
    finish(service.query(session_id, "<b>bold</b>", upload(service, tmp_path / "x.png", "<i>.png"), None, 8))
    session = service.sessions.of(session_id)
    pieces = [
        render.own_files(session.items),
        render.rank_table(service.rank_changes(session, session.last.trace, 30), 179),
        render.variant_cards([(variant, hits) for variant, hits in service.compare(session)]),
        render.status(session.last.description),
    ]
    assert "&lt;script&gt;" in pieces[0] and "&lt;b&gt;bold" in pieces[3] and "&lt;i&gt;.png" in pieces[3]
    assert not any("<script" in piece or "<b>" in piece or "<i>" in piece for piece in pieces)
