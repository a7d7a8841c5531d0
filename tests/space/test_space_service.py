"""Searching, adding and comparing, with the real model and collection and without the page."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_files import write_long_video, write_pdf, write_picture, write_video

from plume_embed.index.search import open_index
from plume_embed.index.update import update_index
from space.content.collection import NotReadyError
from space.content.corpora import Corpus
from space.content.sessions import QueryResult, Session
from space.content.uploads import RefusedError, Upload
from space.page import render
from space.page.examples import Examples
from space.service import Query, Service
from space.tools import check_queries
from space.trace import finish

ROOT = Path(__file__).parent.parent.parent
GARDEN = ROOT / "space" / "collection" / "documents" / "garden.pdf"


@pytest.fixture
def session(service, request):
    """A session of its own that ends with the test."""
    name = request.node.name[:40]
    yield service.sessions.of(name)
    service.sessions.end(name)


def ask(service: Service, session: Session, text="", image=None, video=None, steps=8) -> QueryResult:
    return finish(service.query(session, Query(service.corpora[0], text, image, video, steps)))


def add(service: Service, session: Session, *uploads: Upload) -> list[str]:
    return finish(service.add(session, service.corpora[0], uploads))


def upload(service, source: Path, name: str | None = None) -> Upload:
    """A copy in the upload folder, where Gradio would have put it."""
    target = service.sessions.upload_folder / f"hash{abs(hash(str(source)))}" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return Upload(target, name or source.name)


@pytest.mark.parametrize("kind", ["text", "image", "video", "combination"])
def test_at_least_eight_of_ten_prepared_queries_of_each_kind_find_the_right_item_first(service, spec, kind):
    queries = [query for query in spec.prepared if query.kind == kind]
    assert len(queries) == 10
    right = [query.is_right(check_queries.ask(service, service.corpora[0], query)[0].item) for query in queries]
    assert sum(right) >= 8, [query.label for query, good in zip(queries, right, strict=True) if not good]


def test_the_examples_are_ten_and_show_every_kind(spec):
    examples = [query for query in spec.prepared if query.example]
    assert len(examples) == 10
    assert {query.kind for query in examples} == {"text", "image", "video", "combination"}


def test_the_collection_holds_pictures_films_and_documents_and_finds_each_by_its_own_vector(corpus):
    kinds = [item.kind for item in corpus.collection.items]
    assert kinds.count("image") == 160 and kinds.count("video") >= 8 and kinds.count("page") >= 8
    for kind in ("image", "video", "page"):
        item = next(item for item in corpus.collection.items if item.kind == kind)
        (hit,) = corpus.collection.search(item.vector, 1)
        assert hit.item is item and hit.score == pytest.approx(1, abs=1e-5)
        assert item.thumbnail.startswith("data:image/webp;base64,")


def test_a_second_start_embeds_nothing(corpus, encoder, settings):
    again = Corpus(corpus.spec, encoder, settings.data).collection
    again.build()
    assert again.embedded == 0
    assert [item.label for item in again.items] == [item.label for item in corpus.collection.items]
    np.testing.assert_array_equal(again.vectors, corpus.collection.vectors)


def test_a_collection_that_is_not_ready_says_how_far_it_is(encoder, tmp_path, service, spec):
    unready = Corpus(spec, encoder, tmp_path)
    unready.collection.done, unready.collection.total = 57, 178
    with pytest.raises(NotReadyError, match="57 of 178 items"):
        unready.collection.search(np.zeros(encoder.dimension, np.float32), 3)
    with pytest.raises(ValueError, match="is being embedded"):
        ask(Service(service.settings, [unready], service.sessions.upload_folder), Session(), "cactus")


def test_a_collection_that_cannot_be_built_says_why(encoder, tmp_path, spec):
    (tmp_path / "drawings").write_text("a file in the way")
    collection = Corpus(spec, encoder, tmp_path).collection
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
def test_a_query_that_cannot_be_answered_is_refused_in_a_sentence(service, session, text, steps, reason):
    with pytest.raises(ValueError, match=reason):
        ask(service, session, text, None, steps=steps)


def test_a_text_that_is_an_address_or_a_path_is_a_text(service, session, corpus):
    for text in ("http://127.0.0.1:9/cat.png", str(ROOT / "examples" / "queries" / "cactus.png")):
        result = ask(service, session, text, None, steps=8)
        expected = corpus.encoder.encode([{"text": text}])[0]
        np.testing.assert_allclose(result.trace.embedding, expected, atol=1e-5)


@pytest.mark.parametrize("steps", [0, 3, 8])
def test_a_query_has_the_vector_that_the_encoder_gives_and_its_ranking(service, session, steps, corpus):
    picture = ROOT / "examples" / "queries" / "turtle.png"
    result = ask(service, session, "turtle", upload(service, picture), steps=steps)
    vector = corpus.encoder.encode([{"text": "turtle", "image": picture}], num_latent_steps=steps)[0]
    np.testing.assert_allclose(result.trace.embedding, vector, atol=1e-5)
    scores = np.sort(corpus.collection.vectors @ vector)[::-1][: len(result.hits)]
    np.testing.assert_allclose([hit.score for hit in result.hits], scores, atol=1e-5)


def test_a_session_keeps_a_querys_picture_and_film_no_larger_than_the_model_looks_at_them(
    service, session, corpus, tmp_path
):
    picture = write_picture(tmp_path / "a.png", size=(1200, 900))
    film = write_video(tmp_path / "a.mp4", size=600)
    for given in ({"image": picture}, {"video": film}):
        result = ask(service, session, **{key: upload(service, path) for key, path in given.items()})
        vector = corpus.encoder.encode([given], num_latent_steps=8)[0]
        np.testing.assert_allclose(result.trace.embedding, vector, atol=1e-5)
        kept = session.last.content
        for one in [kept["image"]] if "image" in kept else kept["video"]:
            assert one.width * one.height < 200_000


@pytest.mark.parametrize("address", ["?k=99&q=cat", "?k=9"])
def test_an_address_with_too_many_steps_is_refused_before_the_fields_are_filled(service, address):
    with pytest.raises(ValueError, match="Latent steps go from 0 to 8, got"):
        Examples(service).request(address)


def test_own_files_are_found_only_in_their_own_session_and_leave_no_file(service, session, request, tmp_path):
    uploads = [
        upload(service, write_picture(tmp_path / "mine.png", seed=5)),
        upload(service, write_pdf(tmp_path / "mine.pdf", num_pages=2)),
        upload(service, write_video(tmp_path / "mine.mp4")),
    ]
    assert add(service, session, *uploads) == []
    assert not any(one.path.exists() for one in uploads)
    assert [item.kind for item in session.own("drawings")] == ["image", "page", "page", "video"]
    query = upload(service, tmp_path / "mine.png")
    result = ask(service, session, "", query, steps=8)
    assert result.hits[0].item.name == "mine.png · your picture"
    assert result.hits[0].score == pytest.approx(1, abs=1e-4)
    other = ask(service, service.sessions.of("somebody else"), "", query, steps=8)
    assert not any(hit.item.is_own for hit in other.hits)
    service.sessions.end("somebody else")
    service.sessions.end(request.node.name[:40])
    assert session.items == {} and not query.path.exists()


def test_own_files_have_the_vectors_that_an_index_gives_them(service, session, encoder, monkeypatch, tmp_path):
    for name, value in (("page_words", 20), ("num_frames", None), ("fps", 1.0)):
        monkeypatch.setattr(encoder.processor, name, value)
    pages = shutil.copy(GARDEN, tmp_path)
    film = write_long_video(tmp_path / "mine.mp4", seconds=8, rate=4.0)
    assert add(service, session, upload(service, Path(pages)), upload(service, film)) == []
    update_index(tmp_path, tmp_path / "index", encoder)
    indexed = open_index(tmp_path, tmp_path / "index", encoder).rows()
    own = session.own("drawings")
    assert [item.kind for item in own] == [row.kind for row in indexed]
    np.testing.assert_allclose([item.vector for item in own], [row.vector for row in indexed], atol=1e-5)
    assert "turns its head to the light" in own[1].text, "all of a page's text, and not its first words"


def test_own_texts_of_other_scripts_are_the_passages_of_an_index(service, session, encoder, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("夜の山道を歩く。猫がいる。" * 120)
    assert add(service, session, upload(service, path)) == []
    update_index(tmp_path, tmp_path / "index", encoder)
    indexed = open_index(tmp_path, tmp_path / "index", encoder).rows()
    own = session.own("drawings")
    assert [item.label for item in own] == [f"a.txt, {row.locator.replace('=', ' ')}" for row in indexed]
    np.testing.assert_allclose([item.vector for item in own], [row.vector for row in indexed], atol=1e-5)


def test_an_own_animation_plays_on_the_page(service, session, tmp_path):
    first, *others = (Image.new("RGB", (64, 48), (40 * number, 0, 0)) for number in range(6))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=200)
    assert add(service, session, upload(service, tmp_path / "a.gif")) == []
    (item,) = session.own("drawings")
    assert item.kind == "video" and item.make_preview().startswith("data:video/mp4")


def test_a_list_of_films_in_the_field_for_a_film_is_refused_before_it_is_opened(service, session, tmp_path):
    (tmp_path / "a.m3u8").write_text(f"#EXTM3U\n#EXTINF:2.0,\n{ROOT / 'space/queries/frog.mp4'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(RefusedError, match="“a.m3u8” was refused: files of type .m3u8 are not taken here"):
        service.playable(session, upload(service, tmp_path / "a.m3u8"))


def test_refused_files_are_named_the_others_are_taken_and_all_are_deleted(service, session, tmp_path):
    (tmp_path / "x.svg").write_text("<svg/>")
    uploads = [
        upload(service, tmp_path / "x.svg", "<img src=x onerror=alert(1)>.svg"),
        upload(service, write_picture(tmp_path / "good.png")),
    ]
    (sentence,) = add(service, session, *uploads)
    assert sentence.startswith("“<img src=x onerror=alert(1)>.svg” was refused: vector drawings")
    assert "<img" not in render.refused(sentence)
    assert [item.label for item in session.own("drawings")] == ["good.png"]
    assert not any(one.path.exists() for one in uploads)


def test_too_many_files_at_once_or_in_all_are_refused(service, tmp_path):
    limits = replace(service.settings.limits, files_at_once=2, items=3)
    small = Service(replace(service.settings, limits=limits), service.corpora, service.sessions.upload_folder)
    pictures = [upload(small, write_picture(tmp_path / f"{n}.png", seed=n)) for n in range(3)]
    (sentence,) = add(small, small.sessions.of("s"), *pictures)
    assert sentence == "3 files are too many at once; the limit is 2."
    assert not any(one.path.exists() for one in pictures)
    pdf = upload(small, write_pdf(tmp_path / "a.pdf", num_pages=2))
    assert add(small, small.sessions.of("s"), pdf) == []
    pdf = upload(small, write_pdf(tmp_path / "b.pdf", num_pages=2))
    (sentence,) = add(small, small.sessions.of("s"), pdf)
    assert "would have 4 items, and the limit is 3" in sentence
    assert len(small.sessions.of("s").own("drawings")) == 2


def test_a_closed_upload_adds_nothing_and_deletes_its_files(service, session, tmp_path):
    one = upload(service, write_pdf(tmp_path / "a.pdf", num_pages=8))
    adding = service.add(session, service.corpora[0], [one])
    while not next(adding).endswith("a.pdf: embedding 5 of 8"):
        pass
    adding.close()
    assert session.items == {} and not one.path.exists()


def test_the_anchors_ranking_is_over_all_items_of_the_session(service, session, tmp_path):
    add(service, session, *[upload(service, write_picture(tmp_path / "mine.png", seed=9))])
    result = ask(service, session, "", upload(service, tmp_path / "mine.png"), steps=8)
    rank_changes = service.rank_changes(session, result, 3)
    first = next(item for item, move in rank_changes if move.final_rank == 1)
    assert first.label == "mine.png"
    vectors = np.stack([item.vector for item in service.candidates(session, service.corpora[0])])
    best_by_anchor = next(item for item, move in rank_changes if move.anchor_rank == 1)
    expected = service.candidates(session, service.corpora[0])[int((vectors @ result.trace.anchor).argmax())]
    assert best_by_anchor is expected


def test_what_visitors_name_is_escaped_in_every_piece_of_html(service, session, tmp_path):
    Image.new("RGB", (30, 30), "red").save(tmp_path / "x.png")
    nasty = "<script>alert(1)</script>.png"
    add(service, session, *[upload(service, tmp_path / "x.png", "a/" + nasty.replace("/", "∕"))])
    ask(service, session, "<b>bold</b>", upload(service, tmp_path / "x.png", "<i>.png"), steps=8)
    pieces = [
        render.own_files(session.own("drawings")),
        render.rank_table(service.rank_changes(session, session.last, 30), 179),
        render.variant_cards(list(service.compare(session))),
        render.status(session.last.description),
    ]
    assert "&lt;script&gt;" in pieces[0] and "&lt;b&gt;bold" in pieces[3] and "&lt;i&gt;.png" in pieces[3]
    assert not any("<script" in piece or "<b>" in piece or "<i>" in piece for piece in pieces)
