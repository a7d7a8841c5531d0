"""Passages, films for browsers, what is shown enlarged, and the collections on offer."""

import base64
import io
import json
from dataclasses import asdict, replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from small_files import turned_video, write_late_video, write_pdf, write_video

from plume_embed.model.images_plume import MAX_PIXELS
from plume_embed.reading.bounded import ProcessLimits, run_limited
from plume_embed.reading.options import Options
from space.content.corpora import load_corpora, read_specs
from space.content.films import LONG_SIDE, is_played_by_browsers, playable_copy
from space.content.items import Hit, Item
from space.content.passages import best_passage, matching_spans
from space.content.thumbnails import preview, thumbnail
from space.content.uploads import RefusedError, playable_upload, read_upload
from space.page import render
from space.settings import Limits


def test_the_passage_with_most_of_the_querys_words_is_shown():
    text = "one " * 40 + "the red boat sails home " + "two " * 40
    passage = best_passage(text, "a boat that is red", num_words=10)
    assert "red boat" in passage and passage.startswith("… ") and passage.endswith(" …")
    assert best_passage("short and complete", "boat") == "short and complete"
    assert best_passage(text, "", num_words=3) == "one one one …"
    assert best_passage("", "boat") == ""


def test_a_passage_is_short_in_scripts_without_spaces_and_in_words_without_an_end():
    text = "夜の山道を歩くと、遠くに城が見えた。" * 30 + "灯りがともる。" + "猫がいる。" * 60
    passage = best_passage(text, "灯り", num_words=28)
    assert "灯り" in passage and len(passage) < 70
    assert [passage[a:b] for a, b in matching_spans(passage, "灯り 猫")][:2] == ["灯り", "猫"]
    assert len(best_passage(text, "boat", num_words=28)) < 70
    assert len(best_passage("x" * 10_000, "boat", num_words=28)) < 2000
    mixed = best_passage("one  two\nthree 猫がいる four", "", num_words=4)
    assert mixed == "one two three 猫が …"


def test_the_words_that_match_are_marked_and_all_else_is_escaped():
    assert [("A Boat, <b>".lower()[a:b]) for a, b in matching_spans("A Boat, <b>", "boat")] == ["boat"]
    item = Item("x", "page", np.zeros(2), lambda: "data:,", text="A Boat & <b>tree</b>")
    html = render.results([Hit(item, 0.5)], "boat")
    assert "A <mark>Boat</mark> &amp; &lt;b&gt;tree&lt;/b&gt;" in html


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
def test_a_film_that_browsers_do_not_play_becomes_h264_of_the_same_length(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", num_frames=15, size=64)  # MPEG-4 part 2, 5 frames a second
    assert not is_played_by_browsers(path)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(run_limited(playable_copy, path, MAX_PIXELS, limits=ProcessLimits(20, 2**30)))
    assert is_played_by_browsers(copy) and playable_copy(copy, MAX_PIXELS) is None
    with av.open(str(copy)) as container:
        assert container.duration / av.time_base == pytest.approx(3, abs=0.3)
        frames = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert frames == sorted(frames) and frames[-1] - frames[0] > 150  # it grows brighter, as the original


def test_a_large_film_is_made_small_and_a_broken_one_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=3, size=1000)
    with av.open(io.BytesIO(playable_copy(path, MAX_PIXELS, always=True))) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (LONG_SIDE, LONG_SIDE)
    (tmp_path / "b.avi").write_bytes(b"RIFF" + b"x" * 500)
    with pytest.raises(ValueError, match="damaged"):
        playable_copy(tmp_path / "b.avi", MAX_PIXELS)


def test_the_copy_of_a_film_that_lies_on_its_side_is_upright(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        pixels = np.zeros((64, 96, 3), np.uint8)
        pixels[:16] = 255  # white along the upper edge
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    turned = turned_video(tmp_path / "turned.mp4", path, (0, 1, -1, 0))  # as phones write it: the edge is on the right
    with av.open(io.BytesIO(playable_copy(turned, MAX_PIXELS))) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="gray")
    assert frame.shape == (96, 64)
    assert frame[:, -8:].mean() > 200 and frame[:, :8].mean() < 50


@pytest.mark.parametrize(("shape", "size"), [(Fraction(4, 3), (128, 64)), (Fraction(1, 2), (48, 64))])
def test_the_copy_of_a_film_whose_pixels_are_not_square_has_the_shape_that_players_show(tmp_path, shape, size):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = shape
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    turned = turned_video(tmp_path / "turned.mp4", path, (0, 1, -1, 0))
    for film, expected in ((path, size), (turned, size[::-1])):
        with av.open(io.BytesIO(playable_copy(film, MAX_PIXELS))) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == expected and stream.sample_aspect_ratio in (None, 1)


def test_the_copy_of_a_film_that_does_not_begin_at_zero_is_whole_and_begins_at_once(tmp_path):
    path = write_late_video(tmp_path / "a.mkv", seconds_before=30)
    with av.open(io.BytesIO(playable_copy(path, MAX_PIXELS))) as container:
        frames = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert len(frames) == pytest.approx(34, abs=2)
    assert frames[2] < frames[-1] - 150


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n{other}\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n{other}\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "ffconcat version 1.0\nfile other.mp4\n"),
    ],
)
def test_a_list_of_films_opens_no_other_film(tmp_path, name, content):
    other = write_video(tmp_path / "other.mp4")
    (tmp_path / name).write_text(content.format(other=other))
    with pytest.raises(ValueError, match="it is no film in a container that is read|it is damaged or truncated"):
        is_played_by_browsers(tmp_path / name)
    with pytest.raises(ValueError, match="it is no film in a container that is read|it is damaged or truncated"):
        playable_copy(tmp_path / name, MAX_PIXELS, always=True)
    with pytest.raises(RefusedError, match="of type .m3u8 are not taken|its content is something else"):
        playable_upload(tmp_path / name, name, ("video",), Limits())


def test_pictures_and_pages_enlarge_and_texts_have_a_card():
    large = preview({"image": Image.new("RGB", (3000, 1000), "red")})
    assert Image.open(io.BytesIO(base64.b64decode(large.split(",")[1]))).size == (1200, 400)
    assert preview({"text": "x"}) is None
    assert thumbnail({"text": "Zürich — 你好 " * 50}).startswith("data:image/webp")


def test_every_item_of_the_collection_can_be_enlarged_and_films_play(corpus):
    for kind in ("image", "page", "video"):
        item = next(item for item in corpus.collection.items if item.kind == kind)
        large = item.make_preview()
        content = base64.b64decode(large.split(",")[1])
        if kind == "video":
            assert large.startswith("data:video/mp4") and content[4:8] == b"ftyp"
        else:
            assert max(Image.open(io.BytesIO(content)).size) >= (1000 if kind == "page" else 100)


def test_the_whole_text_of_an_own_page_can_be_searched_for_a_passage(tmp_path):
    source = "space/collection/documents/garden.pdf"
    options = Options(num_frames=4, max_pixels=0, page_words=2)
    items = list(read_upload(corpus_file(source), "garden.pdf", ("page",), Limits(), options, lambda text: True))
    assert "turns its head to the light" in items[1].snippet
    assert [len(item.content["text"].split()) for item in items] == [2] * len(items)
    path = write_pdf(tmp_path / "a.pdf", 2)
    blank = read_upload(path, "a.pdf", ("page",), Limits(), options, lambda text: True)
    assert [item.snippet for item in blank] == ["", ""]


def corpus_file(name: str):
    from space.content.corpora import ROOT

    return ROOT / name


def test_the_collections_on_offer_are_whole_and_share_a_model(tmp_path, settings):
    specs = read_specs()
    assert len({spec.id for spec in specs}) == len(specs)
    for spec in specs:
        assert spec.first_query in spec.prepared and spec.examples and len(spec.knows) > 20
    second = replace(next(spec for spec in specs if spec.id == "drawings"), id="second", label="Second")
    file = tmp_path / "corpora.json"
    file.write_text(json.dumps([asdict(specs[-1]), asdict(second)]))
    corpora = load_corpora(settings, None, read_specs(file))
    assert [one.id for one in corpora] == [specs[-1].id, "second"]
    assert (corpora[0].encoder is corpora[1].encoder) == (specs[-1].model == second.model)
    assert corpora[0].collection.database != corpora[1].collection.database


def test_another_model_is_not_praised_for_what_the_collections_own_model_knows(
    spec, encoder, released_model_dir, settings
):
    from plume_embed.encode.encoder import Encoder
    from space.content.corpora import Corpus

    assert Corpus(spec, encoder, settings.data).model_line == spec.knows
    other = Corpus(spec, Encoder(released_model_dir, device="cpu"), settings.data)
    assert "released_tiny is served here" in other.model_line
