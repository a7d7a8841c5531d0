"""A file as items: what is read, how it is cut, and that nothing hostile ends the run."""

import os
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
import torch
from altered_films import alter_films, endless, slow
from killed_decoders import kill_decoders
from PIL import Image
from small_files import write_encrypted_pdf, write_long_video, write_pdf, write_picture, write_video

from plume_embed import PlumeProcessor
from plume_embed.model.videos_plume import sample_frames
from plume_embed.reading.bounded import ProcessLimits
from plume_embed.reading.clips import CLIP_SECONDS, clip_locator, clip_windows
from plume_embed.reading.decode import PAGE_LONG_SIDE
from plume_embed.reading.items import FileItem, SourceFile, UnreadableError
from plume_embed.reading.passages import PASSAGE_CHARACTERS, split_text
from plume_embed.reading.read import Options, kind_by_suffix, read_items

FAULTS = Path(__file__).parents[1] / "fixtures" / "faults"
OPTIONS = Options(num_frames=8, max_pixels=100_000_000)


def always(text: str) -> bool:
    return True


def source(path: Path) -> SourceFile:
    status = path.stat()
    return SourceFile(path.name, path, kind_by_suffix(path.suffix.lower()), status.st_size, status.st_mtime_ns)


def items_of(path: Path, options: Options = OPTIONS, fits=always, **kwargs) -> list[FileItem]:
    return list(read_items(source(path), fits, options, **kwargs))


def refusal(path: Path, **kwargs) -> str:
    with pytest.raises(UnreadableError) as caught:
        items_of(path, **kwargs)
    return str(caught.value)


# Texts


def test_a_short_text_is_one_item_without_a_locator(tmp_path: Path):
    (tmp_path / "x.txt").write_text("  a short\ntext \n")
    assert items_of(tmp_path / "x.txt") == [FileItem(0, 1, "", "text", "a short text", {"text": "a short\ntext"})]


def test_passages_cover_a_long_text_and_their_ranges_point_into_the_file(tmp_path: Path):
    text = "\n\n".join(f"Paragraph {i}. " + "Words and more words. " * (i % 9) for i in range(200))
    (tmp_path / "long.txt").write_text(text)
    items = items_of(tmp_path / "long.txt")
    assert [item.number for item in items] == list(range(len(items))) and len(items) > 5
    for item in items:
        start, end = map(int, item.locator.removeprefix("chars=").split("-"))
        assert item.content["text"] == text[start:end]
        assert 0 < end - start <= PASSAGE_CHARACTERS
    assert "".join("".join(item.content["text"] for item in items).split()) == "".join(text.split())


def test_passages_end_at_paragraphs_where_there_are_any():
    text = ("a" * 80 + "\n\n") * 10
    assert split_text(text, always, limit=100) == [(82 * i, 82 * i + 80) for i in range(10)]


def test_a_text_without_any_break_is_cut_hard():
    assert split_text("a" * 250, always, limit=100) == [(0, 100), (100, 200), (200, 250)]


def test_passages_shrink_until_they_fit():
    text = "word " * 100
    passages = split_text(text, lambda passage: len(passage) <= 30)
    assert all(end - start <= 30 for start, end in passages)
    assert "".join(text[start:end] for start, end in passages).replace(" ", "") == text.replace(" ", "")


def test_a_prompt_that_leaves_no_room_is_named():
    with pytest.raises(UnreadableError, match="not even one character"):
        split_text("word", lambda passage: False)


def test_a_text_that_would_fill_the_memory_is_refused(tmp_path: Path):
    with (tmp_path / "x.csv").open("wb") as file:
        file.truncate(2**28 + 1)
    assert refusal(tmp_path / "x.csv") == "a text of more than 256 MiB; cut it into parts"


# What is not what its name says


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("space.txt", b" \n\t ", "empty: nothing but white space"),
        *((f"x{suffix}", b"", "empty") for suffix in (".txt", ".png", ".mp4", ".pdf")),
        ("latin1.txt", "größe".encode("latin-1"), "not UTF-8 text"),
        ("binary.txt", b"abc\0def", "NUL"),
        ("text.png", b"this is a text", "Cannot read it as an image: cannot identify image file"),
        ("header.png", b"\x89PNG\r\n\x1a\n", "Cannot read it as an image"),
        ("text.mp4", b"this is a text", "Cannot read it as a video"),
        ("text.pdf", b"this is a text", "damaged, or no PDF"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_unreadable(tmp_path: Path, name: str, content: bytes, reason: str):
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name) and str(tmp_path) not in refusal(tmp_path / name)


def test_truncated_media_are_unreadable(tmp_path: Path):
    for path in (write_picture(tmp_path / "x.png"), write_video(tmp_path / "x.mp4"), write_pdf(tmp_path / "x.pdf")):
        path.write_bytes(path.read_bytes()[:60])
        assert refusal(path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path):
    (tmp_path / "x.txt").write_text("before")
    file = source(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_text("afterwards")
    with pytest.raises(UnreadableError, match="changed"):
        list(read_items(file, always, OPTIONS))


def test_damaged_data_under_any_pictures_name_is_one_reason(tmp_path: Path):
    for suffix in (".avif", ".png", ".jpg"):
        (tmp_path / f"x{suffix}").write_bytes((FAULTS / "bad_data.avif").read_bytes())
        assert refusal(tmp_path / f"x{suffix}").startswith("Cannot read it as an image: ")


# Pages


def test_each_pdf_page_is_a_picture_of_its_own(tmp_path: Path):
    path = write_pdf(tmp_path / "x.pdf", num_pages=3)
    assert len(pypdfium2.PdfDocument(path)) == 3
    items = items_of(path)
    assert [(item.number, item.count, item.locator) for item in items] == [(i, 3, f"page={i + 1}") for i in range(3)]
    pictures = [item.content["image"] for item in items]
    assert all(max(picture.size) == PAGE_LONG_SIDE for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 3 and {item.kind for item in items} == {"page"}


def test_a_page_of_any_size_is_read_and_its_long_side_is_the_same(tmp_path: Path):
    sizes = [(595.28, 595.28), (595.28, 300), (300, 595.28), (612, 612), (98, 98), (98, 60)]
    document = pypdfium2.PdfDocument.new()
    for width, height in sizes:
        document.new_page(width, height)
    document.save(tmp_path / "x.pdf")
    assert [(max(page.content["image"].size), page.reason) for page in items_of(tmp_path / "x.pdf")] == [
        (PAGE_LONG_SIDE, "") for _ in sizes
    ]


def test_pages_that_are_there_already_are_not_rendered(tmp_path: Path):
    path = write_pdf(tmp_path / "x.pdf", num_pages=3)
    assert [item.number for item in items_of(path, skip=frozenset({0, 2}))] == [1]
    assert items_of(path, skip=frozenset({0, 1, 2})) == []


def test_a_page_brings_the_first_words_of_its_text_layer_where_the_model_wants_them(tmp_path: Path):
    path = Path(__file__).parents[2] / "space" / "collection" / "documents" / "travel.pdf"
    plain, worded = items_of(path), items_of(path, replace(OPTIONS, page_words=2))
    assert {tuple(item.content) for item in plain} == {("image",)}
    assert [item.content["text"].split() for item in worded] == [item.snippet.split()[:2] for item in plain]
    (blank,) = items_of(FAULTS / "filled_form.pdf", replace(OPTIONS, page_words=2))
    assert set(blank.content) == {"image"}  # it has no text layer


def test_an_encrypted_pdf_is_unreadable_with_its_reason(tmp_path: Path):
    write_encrypted_pdf(tmp_path / "x.pdf")
    assert refusal(tmp_path / "x.pdf") == "encrypted: it needs a password"


def test_what_is_filled_into_a_form_is_drawn():
    (page,) = items_of(FAULTS / "filled_form.pdf")
    shown = np.asarray(page.content["image"], dtype=int)
    is_blue = (shown[..., 2] > 200) & (shown[..., :2].max(axis=-1) < 60)
    assert 0.05 < is_blue.mean() < 0.2  # the field, 200 x 60 of 300 x 300 points, and white letters in it


def test_a_pdf_that_explodes_is_refused_within_bounds_and_the_next_file_is_read(tmp_path: Path):
    start = time.process_time()
    reason = refusal(FAULTS / "formbomb.pdf", limits=ProcessLimits(seconds=5, memory=2**29))
    assert "too much memory" in reason or "longer than 5 seconds" in reason
    assert time.process_time() - start < 2  # nothing of it happens in this process
    assert len(items_of(write_pdf(tmp_path / "x.pdf", num_pages=2))) == 2


def test_a_page_that_explodes_is_named_and_the_pages_around_it_are_read(tmp_path: Path):
    path = tmp_path / "x.pdf"
    document = pypdfium2.PdfDocument.new()
    sound, bomb = (
        pypdfium2.PdfDocument(write_pdf(tmp_path / "s.pdf", 2)),
        pypdfium2.PdfDocument(FAULTS / "formbomb.pdf"),
    )
    document.import_pages(sound, [0])
    document.import_pages(bomb)
    document.import_pages(sound, [1])
    document.save(path)
    items = items_of(path, limits=ProcessLimits(seconds=5, memory=2**29))
    assert [(item.number, item.count, item.locator) for item in items] == [(i, 3, f"page={i + 1}") for i in range(3)]
    assert [item.content is None for item in items] == [False, True, False]
    assert "too much memory" in items[1].reason or "longer than 5 seconds" in items[1].reason


@pytest.mark.parametrize("after", [[0], [1], [3], [0, 2], [3, 2]])
def test_an_item_whose_decoder_is_killed_once_is_read_all_the_same(tmp_path: Path, monkeypatch, after: list[int]):
    path = write_pdf(tmp_path / "x.pdf", num_pages=4)
    expected = items_of(path)
    kill_decoders(monkeypatch, after)
    found = items_of(path)
    assert [item.locator for item in found] == [item.locator for item in expected]
    assert [item.content["image"] for item in found] == [item.content["image"] for item in expected]


def test_an_item_whose_decoder_is_killed_twice_is_cut_short_and_the_others_are_read(tmp_path: Path, monkeypatch):
    path = write_pdf(tmp_path / "x.pdf", num_pages=4)
    kill_decoders(monkeypatch, [3, 1])
    found = items_of(path)
    assert [item.is_cut_short for item in found] == [item.content is None for item in found] == [0, 0, 1, 0]
    assert "from outside" in found[2].reason
    kill_decoders(monkeypatch, [0, 0])
    with pytest.raises(UnreadableError, match="from outside") as caught:
        items_of(write_picture(tmp_path / "x.png"))
    assert caught.value.is_cut_short


def test_a_tiff_with_several_pictures_is_read_as_pages(tmp_path: Path):
    pages = [Image.new("RGB", (60 + 10 * number, 80), (80 * number, 0, 0)) for number in range(3)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    items = items_of(tmp_path / "x.tif")
    assert [(item.kind, item.locator, item.count) for item in items] == [("page", f"page={i + 1}", 3) for i in range(3)]
    assert [item.content["image"].tobytes() for item in items] == [page.tobytes() for page in pages]
    assert [item.number for item in items_of(tmp_path / "x.tif", skip=frozenset({0, 1}))] == [2]


def test_a_preview_and_a_mask_in_a_tiff_are_no_pages(tmp_path: Path):
    page = write_picture(tmp_path / "x.png")
    with Image.open(page) as picture:
        smaller = picture.resize((20, 15))
        smaller.encoderinfo = {"tiffinfo": {254: 1}}
        picture.save(tmp_path / "x.tif", save_all=True, append_images=[smaller])
        (item,) = items_of(tmp_path / "x.tif")
        assert (item.kind, item.locator) == ("image", "") and item.content["image"].tobytes() == picture.tobytes()


# Pictures and films


def test_a_picture_and_a_video_are_one_item_each(tmp_path: Path):
    (picture,) = items_of(write_picture(tmp_path / "x.png", size=(40, 30)))
    assert picture.content["image"].size == (40, 30) and (picture.kind, picture.locator) == ("image", "")
    (video,) = items_of(write_video(tmp_path / "x.mp4", num_frames=12))
    assert len(video.content["video"]) == 8 and isinstance(video.content["video"][0], Image.Image)
    assert (video.kind, video.locator) == ("video", "")


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animated_picture_is_a_film_and_a_still_one_a_picture(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (40, 30), (20 * index, 0, 0)) for index in range(12)]
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    (film,) = items_of(tmp_path / f"x.{suffix}")
    assert film.kind == "video" and len(film.content["video"]) == 8
    frames[0].save(tmp_path / f"y.{suffix}")
    (picture,) = items_of(tmp_path / f"y.{suffix}")
    assert picture.kind == "image"


def test_what_is_read_for_a_model_waits_at_the_size_at_which_it_looks_at_it(tmp_path: Path, released_model_dir: Path):
    processor = PlumeProcessor.from_pretrained(released_model_dir)
    path = write_picture(tmp_path / "x.png", size=(4000, 3000))
    (full,), (small,) = items_of(path), items_of(path, options=Options.of(processor))
    least, limit = processor.image_processor.size["shortest_edge"], processor.image_processor.size["longest_edge"]
    assert full.content["image"].size == (4000, 3000)
    assert least <= small.content["image"].width * small.content["image"].height <= limit
    first, second = processor([full.content]), processor([small.content])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_picture_above_the_limit_is_refused(tmp_path: Path):
    write_picture(tmp_path / "x.png", size=(40, 30))
    assert "40 x 30 pixels are over the limit" in refusal(tmp_path / "x.png", options=Options(8, 1000))


def test_a_pipe_or_a_device_is_never_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.png")
    assert "is no image file but a folder, a pipe or a device" in refusal(tmp_path / "x.png")


# Clips of long films


@pytest.mark.parametrize("seconds", [10.5, 11, 14, 15, 15.01, 60.5, 61, 64, 65, 65.01, 100, 3600.4])
def test_clips_cover_a_long_film_and_share_a_second(seconds: float):
    windows = clip_windows(seconds)
    assert windows[0][0] == 0 and windows[-1][1] == seconds
    for (start, end), (next_start, next_end) in pairwise(windows):
        assert end - start == CLIP_SECONDS and next_start == end - 1 and next_end > end


def test_a_film_up_to_ten_seconds_is_not_cut():
    assert clip_windows(0) == clip_windows(10) == []
    assert [clip_locator(window) for window in clip_windows(62.5)][2:4] == ["time=8-13", "time=12-17"]
    assert clip_locator(clip_windows(62.5)[-1]) == "time=60-63"


def test_a_long_film_is_read_as_clips_that_show_what_they_say(tmp_path: Path):
    path = write_long_video(tmp_path / "x.mp4", seconds=70, rate=4)  # in each second another grey
    items = items_of(path)
    assert [item.locator for item in items] == [clip_locator(window) for window in clip_windows(70)]
    assert {(item.kind, item.count) for item in items} == {("video", len(items))} and len(items) == 18
    for item in items:
        start, end = map(int, item.locator.removeprefix("time=").split("-"))
        greys = [np.asarray(frame).mean() for frame in item.content["video"]]
        assert 4 <= len(greys) <= 8
        assert greys[0] == pytest.approx(20 + 3 * start, abs=2) and greys[-1] == pytest.approx(
            20 + 3 * (end - 1), abs=2
        )


def test_a_film_up_to_a_minute_is_an_item_as_a_whole_beside_its_clips(tmp_path: Path):
    path = write_long_video(tmp_path / "x.mp4", seconds=40, rate=4)
    whole, *clips = items_of(path)
    assert [item.locator for item in clips] == [clip_locator(window) for window in clip_windows(40)]
    assert (whole.locator, whole.number, whole.count) == ("", 0, len(clips) + 1)
    frames = [np.asarray(frame) for frame in whole.content["video"]]
    assert np.array_equal(frames, [np.asarray(frame) for frame in sample_frames(path, 8)[0]])  # as it always was
    again = items_of(path, skip=frozenset({0, 2}))
    assert [item.number for item in again] == [1, *range(3, len(clips) + 1)]
    wanted = [frame.tobytes() for frame in clips[0].content["video"]]
    assert [frame.tobytes() for frame in again[0].content["video"]] == wanted


def test_a_film_may_take_the_seconds_of_an_item_for_each_second_of_it(tmp_path: Path, monkeypatch):
    path = write_long_video(tmp_path / "x.mp4", seconds=12, rate=1)
    expected, limits = items_of(path), ProcessLimits(seconds=1, memory=2**29)
    alter_films(monkeypatch, "_stream_frames", slow)
    for wanted in (0, 3):  # all of it, and the last clip: on the way to it every frame is decoded
        (item,) = items_of(path, skip=frozenset({0, 1, 2, 3} - {wanted}), limits=limits)
        assert item.locator == expected[wanted].locator and item.content == expected[wanted].content


def test_a_film_that_breaks_a_limit_as_a_whole_is_read_as_clips(tmp_path: Path, monkeypatch):
    path = write_long_video(tmp_path / "x.mp4", seconds=12, rate=1)
    _, *expected = items_of(path)
    alter_films(monkeypatch, "_pick", endless)
    whole, *clips = items_of(path, limits=ProcessLimits(seconds=1, memory=2**29))
    assert (whole.content, whole.reason) == (None, "as a whole, it takes longer than 1 seconds to read")
    assert clips == expected


def test_the_times_of_a_clip_count_from_its_start(tmp_path: Path):
    options = replace(OPTIONS, with_times=True)
    whole, first, second, *_ = items_of(write_long_video(tmp_path / "x.mp4", seconds=20, rate=4), options)
    assert whole.content["video"].times == pytest.approx(sample_frames(tmp_path / "x.mp4", 8)[1])
    for clip in (first, second):  # the frames that are shown at 5/16, 15/16, ... of five seconds
        assert clip.content["video"].times == pytest.approx([0.25, 0.75, 1.5, 2.0, 2.75, 3.25, 4.0, 4.5])
    slides = items_of(write_long_video(tmp_path / "x.mkv", seconds=80, rate=0.1), options)  # a picture for ten seconds
    assert [clip.content["video"].times for clip in slides[:3]] == [(0.0,), (0.0,), pytest.approx((0.0, 2.0))]


def test_clips_that_are_there_already_are_not_read_again(tmp_path: Path):
    path = write_long_video(tmp_path / "x.mp4", seconds=70, rate=4)
    items = items_of(path)
    again = items_of(path, skip=frozenset({0, 1, 2, 5, 17}))
    assert [item.number for item in again] == [n for n in range(18) if n not in (0, 1, 2, 5, 17)]
    for item in again:
        wanted = items[item.number].content["video"]
        assert [frame.tobytes() for frame in item.content["video"]] == [frame.tobytes() for frame in wanted]


def test_a_frame_that_stands_still_is_in_every_clip_that_shows_it(tmp_path: Path):
    path = write_long_video(tmp_path / "x.mkv", seconds=80, rate=0.1)  # a slide show: a picture for ten seconds
    items = items_of(path)
    assert len(items) == len(clip_windows(80)) and all(1 <= len(item.content["video"]) <= 2 for item in items)


def test_a_long_animated_picture_is_cut_as_a_film_is(tmp_path: Path):
    frames = [Image.new("L", (40, 30), 3 * second) for second in range(70)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], duration=1000)
    items = items_of(tmp_path / "x.gif")
    assert [item.locator for item in items] == [clip_locator(window) for window in clip_windows(70)]
    assert all(len(item.content["video"]) in (5, 6) for item in items[:-1])
