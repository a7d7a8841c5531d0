"""Whatever is uploaded is taken as what it is, or refused with a sentence; nothing is fetched or written."""

import struct
import time
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from small_files import (
    trimmed_video,
    write_dng,
    write_encrypted_pdf,
    write_long_video,
    write_pdf,
    write_picture,
    write_video,
)

from plume_embed.model.images_plume import IMAGE_SUFFIXES
from plume_embed.model.videos_plume import sample_frames
from plume_embed.reading.items import SourceFile
from plume_embed.reading.options import Options
from plume_embed.reading.read import read_items
from space.content.uploads import RefusedError, read_upload, shown_name
from space.settings import MEGABYTE, Limits

LIMITS = Limits()
ALL = ("image", "video", "page")
OPTIONS = Options(num_frames=4, max_pixels=0)


def read(path: Path, wanted=ALL, limits: Limits = LIMITS, name: str | None = None, options: Options = OPTIONS):
    return list(read_upload(path, name or path.name, wanted, limits, options, lambda text: len(text) < 1000))


def refusal(path: Path, **kwargs) -> str:
    with pytest.raises(RefusedError) as caught:
        read(path, **kwargs)
    return str(caught.value)


def test_pictures_films_and_pages_are_read(tmp_path):
    (picture,) = read(write_picture(tmp_path / "a.png", size=(40, 30)))
    assert picture.content["image"].size == (40, 30)
    (film,) = read(write_video(tmp_path / "a.mp4", num_frames=12, size=32))
    assert [frame.size for frame in film.content["video"]] == [(32, 32)] * 4
    pages = read(write_pdf(tmp_path / "a.pdf", num_pages=3))
    assert [page.locator for page in pages] == ["page=1", "page=2", "page=3"]


def test_a_film_is_sampled_by_rate_and_keeps_its_times_where_the_model_says_so(tmp_path):
    path = write_long_video(tmp_path / "a.mp4", seconds=6, rate=4.0)
    (film,) = read(path, options=Options(num_frames=None, max_pixels=0, fps=0.5, with_times=True))
    assert film.content["video"].times == tuple(sample_frames(path, 3)[1])


def test_every_picture_format_that_is_promised_is_read(tmp_path):
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif"):
        (item,) = read(write_picture(tmp_path / f"a.{suffix}", size=(40, 30)))
        assert item.content["image"].size == (40, 30)


@pytest.mark.parametrize("suffix", ["avif", "jp2", "heic"])
def test_a_picture_that_lies_in_boxes_as_films_do_is_a_picture(tmp_path, suffix):
    if f".{suffix}" not in IMAGE_SUFFIXES:
        pytest.skip(f"Pillow reads no .{suffix} here")
    (item,) = read(write_picture(tmp_path / f"a.{suffix}", size=(64, 48)))
    assert (item.kind, item.content["image"].size) == ("image", (64, 48))
    (tmp_path / "a.mp4").write_bytes((tmp_path / f"a.{suffix}").read_bytes())
    assert "its content is a picture" in refusal(tmp_path / "a.mp4")


def test_a_cameras_raw_picture_is_read_where_the_library_for_it_is_there(tmp_path):
    pytest.importorskip("rawpy")
    (item,) = read(write_dng(tmp_path / "a.dng"))
    assert (item.kind, item.content["image"].size) == ("image", (96, 64))


@pytest.mark.parametrize(("suffix", "kind", "count"), [("gif", "video", 1), ("webp", "video", 1), ("tif", "page", 6)])
def test_several_pictures_in_one_are_what_index_makes_of_them_and_the_first_one_in_a_query(
    tmp_path, suffix, kind, count
):
    path = tmp_path / f"a.{suffix}"
    first, *others = (Image.new("RGB", (64, 48), (40 * number, 0, 0)) for number in range(6))
    first.save(path, save_all=True, append_images=others, **({} if suffix == "tif" else {"duration": 200}))
    items = read(path)
    assert [(item.kind, item.number) for item in items] == [(kind, number) for number in range(count)]
    file = SourceFile(path.name, path, "image", path.stat().st_size, path.stat().st_mtime_ns)
    indexed = list(read_items(file, lambda text: True, replace(OPTIONS, max_pixels=10**6)))
    assert [(item.kind, item.locator) for item in items] == [(item.kind, item.locator) for item in indexed]
    (query,) = read(path, wanted=("image",))
    assert query.content["image"].getpixel((5, 5))[0] < 10


def avi_with_dropped_frames(path: Path) -> Path:
    """40 frames of 45: five in the middle were dropped, which an AVI counts."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 6 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number if number < 20 else number + 5, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_film_that_dropped_frames_is_read_and_refused_only_where_it_is_cut_off(tmp_path):
    path = avi_with_dropped_frames(tmp_path / "a.avi")
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 45
    (film,) = read(path)
    assert [frame.tobytes() for frame in film.content["video"]] == [f.tobytes() for f in sample_frames(path, 4)[0]]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "it is truncated: " in refusal(path)


@pytest.mark.parametrize(("before", "behind"), [(b"\xef\xbb\xbf", b""), (b"\r\n", b""), (b"", b"\0" * 4096)])
def test_a_pdf_with_bytes_before_its_header_or_behind_its_end_is_read(tmp_path, before, behind):
    path = write_pdf(tmp_path / "a.pdf", num_pages=2)
    path.write_bytes(before + path.read_bytes() + behind)
    assert [item.locator for item in read(path)] == ["page=1", "page=2"]


def test_a_large_tiff_and_films_as_transport_stream_and_bare_mpeg_4_are_what_they_are_named(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.tif", big_tiff=True)
    (picture,) = read(tmp_path / "a.tif")
    assert (picture.kind, picture.content["image"].size) == ("image", (64, 48))
    for name, container, codec in (("a.mpg", "mpegts", "mpeg2video"), ("a.m4v", "m4v", "mpeg4")):
        with av.open(str(tmp_path / name), "w", format=container) as target:
            stream = target.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for number in range(8):
                frame = np.full((64, 64, 3), 30 * number, np.uint8)
                target.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            target.mux(stream.encode())
        (film,) = read(tmp_path / name)
        assert len(film.content["video"]) == 4


def test_limits_hold_for_several_pictures_in_one(tmp_path):
    first, *others = (Image.new("RGB", (64, 48), (40 * number, 0, 0)) for number in range(6))
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    assert "it has 6 pages, and the limit is 5" in refusal(tmp_path / "a.tif", limits=replace(LIMITS, pages=5))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    assert "more than 5 frames" in refusal(tmp_path / "a.gif", limits=replace(LIMITS, film_frames=5))
    assert "64 x 48 pixels" in refusal(tmp_path / "a.gif", limits=replace(LIMITS, film_pixels=1000))


@pytest.mark.parametrize("start", ["BM25 is a ranking function.", "%PDF- is how a PDF begins.", "GIF89a is another."])
def test_a_text_is_a_text_however_it_begins(tmp_path, start):
    (tmp_path / "a.txt").write_text(start)
    (item,) = read(tmp_path / "a.txt", wanted=("text",))
    assert item.content == {"text": start}


def test_a_text_is_cut_into_passages_that_fit_and_refused_by_its_length_before_that(tmp_path):
    (tmp_path / "a.txt").write_text("word " * 400)
    assert [len(item.content["text"]) < 1000 for item in read(tmp_path / "a.txt", wanted=("text",))] == [True] * 3
    (tmp_path / "a.txt").write_text("word " * 70_000)

    def fits(text: str) -> bool:
        raise AssertionError("it is refused before it is looked at")

    with pytest.raises(RefusedError, match="it has more than 60 passages; cut it into parts"):
        list(read_upload(tmp_path / "a.txt", "a.txt", ("text",), LIMITS, OPTIONS, fits))


@pytest.mark.parametrize(("start", "seconds"), [(0, 5), (3, 4)])
def test_a_film_that_was_trimmed_by_an_edit_list_is_read(tmp_path, start, seconds):
    whole = write_video(tmp_path / "whole.mp4", num_frames=50)
    (film,) = read(trimmed_video(tmp_path / "a.mp4", whole, start, seconds))
    assert len(film.content["video"]) == 4
    grey = [frame.convert("L").getpixel((5, 5)) for frame in film.content["video"]]
    assert grey[-1] == pytest.approx(24 * (start + seconds), abs=12), "the part that is shown"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "vector drawings"),
        ("a.exe", b"MZ\x90\x00", "files of type .exe are not taken"),
        ("a.html", b"<html><script>alert(1)</script></html>", "files of type .html are not taken"),
        ("a.zip", b"PK\x03\x04", "files of type .zip are not taken"),
        ("a", b"\x89PNG\r\n\x1a\n", "files without a type"),
        ("a.png", b"", "it is empty"),
        ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "its content is something else"),
        ("a.png", b"<html><script>alert(1)</script></html>", "its content is something else"),
        ("a.png", b"%PDF-1.4\n%%EOF", "its content is a PDF"),
        ("a.pdf", b"\x89PNG\r\n\x1a\n" + b"x" * 50, "its content is a picture"),
        ("a.mp4", b"\xff\xd8\xff" + b"x" * 50, "its content is a picture"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"x" * 50, "it is damaged or truncated"),
        ("a.mp4", b"\0\0\0\x18ftypmp42" + b"x" * 500, "it is damaged or truncated"),
        ("a.pdf", b"%PDF-1.7\nnothing\n%%EOF", "was refused"),
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n", "its content is something else"),
        ("a.avi", b"ffconcat version 1.0\nfile /etc/passwd\n", "its content is something else"),
    ],
)
def test_a_file_that_is_not_what_is_taken_is_refused_in_a_sentence(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    sentence = refusal(tmp_path / name)
    assert sentence.startswith(f"“{name}” was refused: ") and sentence.endswith(".")
    assert any(part in sentence for part in reason.split("|")), sentence
    assert str(tmp_path) not in sentence and "Errno" not in sentence


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_a_truncated_picture_is_refused(tmp_path, suffix):
    path = write_picture(tmp_path / f"a.{suffix}", size=(200, 150))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "was refused" in refusal(path)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_a_truncated_film_is_refused_or_read_as_far_as_it_says_it_goes(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", num_frames=60, size=64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if suffix == "mkv":  # a stream without a length: what is there is a film
        assert len(read(path)[0].content["video"]) == 4
    else:
        assert "truncated" in refusal(path)


def test_a_film_that_promises_more_frames_than_it_has_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(tmp_path / "whole.mp4", num_frames=60, size=64)
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert len(read(path)[0].content["video"]) == 4
    path.write_bytes(path.read_bytes()[: path.stat().st_size - path.stat().st_size // 3])
    assert "it is truncated: " in refusal(path) or "damaged or truncated" in refusal(path)


def test_a_truncated_and_an_encrypted_pdf_are_refused(tmp_path):
    path = write_pdf(tmp_path / "a.pdf")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "damaged, or no PDF" in refusal(path)
    assert "password" in refusal(write_encrypted_pdf(tmp_path / "b.pdf"))


def png_that_claims(width: int, height: int) -> bytes:
    """A valid header, and data that would unpack to that many pixels: 50 kB for a gigabyte."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = zlib.compress(b"\0" * (1 + width // 8) * min(height, 2000), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(6000, 5000), (60_000, 60_000), (400_000, 100)])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(width, height))
    started = time.monotonic()
    assert "the limit is 25 megapixels" in refusal(path) or "more than 25 megapixels" in refusal(path)
    assert time.monotonic() - started < 20


def test_limits_on_size_pages_frames_and_frame_size(tmp_path):
    small = replace(LIMITS, file_bytes=MEGABYTE, pages=2, film_frames=10)
    big = tmp_path / "big.png"
    big.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * (2 * MEGABYTE))
    assert "it has 2 MB, and the limit is 1 MB" in refusal(big, limits=small)
    assert "it has 3 pages, and the limit is 2" in refusal(write_pdf(tmp_path / "a.pdf", 3), limits=small)
    assert "more than 10 frames" in refusal(write_video(tmp_path / "a.mp4", 12), limits=small)
    assert "its frames have 2048 x 2048 pixels" in refusal(write_video(tmp_path / "wide.mp4", 2, size=2048))


def test_a_field_takes_only_its_kind(tmp_path):
    assert "a picture is expected here, and this is a film" in refusal(
        write_video(tmp_path / "a.mp4"), wanted=("image",)
    )


def test_a_file_that_is_gone_is_told_so(tmp_path):
    assert refusal(tmp_path / "gone.png") == "“gone.png” is not there any more; upload it again."


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\Users\\me\\cat.png", "cat.png"),
        ("cat\n\x1b[31m.png", "cat��[31m.png"),
        ("\u202egnp.exe", "�gnp.exe"),
        ("", "unnamed"),
        ("x" * 200 + ".png", "x" * 79 + "…"),
    ],
)
def test_a_name_is_shown_without_folders_and_control_characters(name, shown):
    assert shown_name(name, LIMITS) == shown


def test_transparent_and_rotated_pictures_arrive_upright_on_white(tmp_path):
    Image.new("RGBA", (20, 10), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0].content["image"].getpixel((3, 3)) == (255, 255, 255)
