"""Pictures and films: every kind of file, what its header says, and what its decoder raises."""

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin
from small_files import turned_video, write_dng, write_long_video, write_picture, write_video

from plume_embed.model.images_plume import IMAGE_SUFFIXES, MAX_PIXELS, image_size
from plume_embed.model.media_plume import load_image, load_video
from plume_embed.model.videos_plume import film_seconds, is_animated, open_film, sample_frames

FAULTS = Path(__file__).parents[1] / "fixtures" / "faults"


@pytest.fixture
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((80, 60))


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and first.tobytes() == second.tobytes()


def stored_frames(path: Path) -> list[Image.Image]:
    """The frames as they lie in the file, whatever its header says."""
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def pictures_of(film: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in film]


# Pictures


@pytest.mark.parametrize("suffix", [".avif", ".jfif", ".jpe", ".jp2", ".heic", ".heif"])
def test_a_suffix_that_pillow_or_its_plugin_decodes_is_a_picture(picture, tmp_path, suffix):
    assert suffix in IMAGE_SUFFIXES
    path = tmp_path / f"a{suffix}"
    picture.save(path, format={".jfif": "JPEG", ".jpe": "JPEG", ".heic": "HEIF", ".heif": "HEIF"}.get(suffix))
    shown = np.asarray(load_image(path), dtype=np.int16)
    assert np.abs(shown - np.asarray(picture, dtype=np.int16)).mean() < 25


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_with_an_orientation_is_upright_as_a_jpeg_is(tmp_path, orientation):
    """The phones' own format: the mark stands in EXIF or in a box of the file, and is undone once."""
    pytest.importorskip("pillow_heif")
    stored = Image.new("RGB", (96, 64), "white")
    stored.paste("black", (0, 0, 24, 16))  # a corner that is not the middle of any turn
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("heic", "jpg"):
        stored.save(tmp_path / f"a.{suffix}", exif=exif.tobytes(), quality=95)
    shown, wanted = (np.asarray(load_image(tmp_path / f"a.{suffix}"), np.int16) for suffix in ("heic", "jpg"))
    assert shown.shape == wanted.shape and np.abs(shown - wanted).mean() < 4


def test_a_cameras_raw_picture_is_developed_and_upright(tmp_path):
    upright = load_image(write_dng(tmp_path / "a.dng"))
    assert upright.size == (96, 64) and ".nef" in IMAGE_SUFFIXES
    left, right = upright.getpixel((20, 30)), upright.getpixel((75, 30))
    assert left[0] > 200 > left[1] and right[1] > 200 > right[0]
    assert load_image(write_dng(tmp_path / "b.dng", orientation=6)).size == (64, 96)


def test_a_plain_picture_under_the_name_of_a_raw_one_is_what_it_is_under_its_own(picture, tmp_path):
    for suffix, own in ((".dng", ".jpg"), (".nef", ".png")):
        picture.save(tmp_path / f"a{own}")
        (tmp_path / f"a{suffix}").write_bytes((tmp_path / f"a{own}").read_bytes())
        assert same(load_image(tmp_path / f"a{suffix}"), load_image(tmp_path / f"a{own}"))


def test_a_mask_and_a_preview_in_front_of_a_tiffs_picture_are_passed_over(picture, tmp_path):
    mask, preview = Image.new("L", picture.size, 255), picture.resize((12, 8))
    for name, in_front in {"a": [(mask, 4)], "b": [(preview, 1)], "c": [(preview, 1), (mask, 4)]}.items():
        with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / f"{name}.tif"), True) as tiff:
            for page, kind in (*in_front, (picture, 0)):
                page.save(tiff, format="TIFF", tiffinfo={254: kind})
                tiff.newFrame()
        assert same(load_image(tmp_path / f"{name}.tif"), picture)
    mask.save(tmp_path / "masks.tif", tiffinfo={254: 4})
    assert same(load_image(tmp_path / "masks.tif"), mask.convert("RGB"))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_is_opened_and_not_decoded_may_be_read_by_many_threads(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((2400, 1800)).save(tmp_path / f"a{suffix}")
    expected = load_image(tmp_path / f"a{suffix}")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            shared = Image.open(tmp_path / f"a{suffix}")
            assert all(same(found, expected) for found in pool.map(load_image, [shared] * 8))
            with (tmp_path / f"a{suffix}").open("rb") as file:
                assert all(same(found, expected) for found in pool.map(load_image, [file] * 8))


def png(bits: int, kind: int, row: bytes, clear: bytes) -> bytes:
    """A PNG of one row of two pixels, with a transparent value."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 2, 1, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", clear), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("bits", "kind", "row", "clear", "other"),
    [
        (2, 0, bytes([0b01_10_0000]), b"\0\1", (170, 170, 170)),
        (4, 0, bytes([0x5A]), b"\0\5", (170, 170, 170)),
        (8, 0, bytes([5, 10]), b"\0\5", (10, 10, 10)),
        (16, 0, b"\x05\x00\x0a\x00", b"\x05\x00", (9, 9, 9)),
        (8, 2, bytes([85, 17, 34, 1, 2, 3]), bytes([0, 85, 0, 17, 0, 34]), (1, 2, 3)),
        (16, 2, bytes.fromhex("550011002200010002000300"), bytes.fromhex("550011002200"), (1, 2, 3)),
    ],
)
def test_the_transparent_value_of_a_png_is_white_at_every_depth(bits, kind, row, clear, other):
    data = png(bits, kind, row, clear)
    for source in (data, Image.open(io.BytesIO(data))):
        shown = load_image(source)
        assert (shown.getpixel((0, 0)), shown.getpixel((1, 0))) == ((255, 255, 255), other)


def test_transparency_that_is_multiplied_in_is_white_as_well():
    clear = Image.new("RGBA", (4, 4), (10, 200, 30, 0))
    assert load_image(clear.convert("RGBa")).getpixel((0, 0)) == load_image(clear).getpixel((0, 0)) == (255, 255, 255)


def test_the_preview_in_front_of_a_raw_picture_is_never_taken_for_it(picture, tmp_path):
    raw = write_dng(tmp_path / "a.dng").read_bytes()
    preview = io.BytesIO()
    picture.save(preview, format="TIFF", tiffinfo={254: 1})
    with pytest.raises(ValueError, match="as an image"):
        load_image(preview.getvalue())
    assert load_image({"bytes": raw, "path": "a.dng"}).size == (96, 64)


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytearray,
        memoryview,
        io.BytesIO,
        lambda data: {"bytes": data, "path": None},
        lambda data: {"bytes": data, "path": "elsewhere/a.png"},
    ],
)
def test_bytes_binary_files_and_undecoded_pictures_equal_the_file(picture, tmp_path, make):
    picture.save(tmp_path / "a.png")
    data = make((tmp_path / "a.png").read_bytes())
    assert same(load_image(data), picture)
    assert same(load_image(data), picture)  # a second time: a file was read to its end by the first
    assert image_size(data) == picture.size
    assert same(load_image({"bytes": None, "path": str(tmp_path / "a.png")}), picture)


def test_whatever_a_decoder_raises_is_a_value_error_that_names_the_file():
    with pytest.raises(ValueError, match=r"Cannot read .*bad_data.avif as an image: "):
        load_image(FAULTS / "bad_data.avif")
    with pytest.raises(ValueError, match=r"Cannot read 477 bytes as an image: "):
        load_image((FAULTS / "bad_data.avif").read_bytes())


def test_a_picture_that_is_opened_and_turns_out_to_be_damaged_is_named(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    with Image.open(tmp_path / "a.png") as lazy, pytest.raises(ValueError, match="Cannot decode .*a.png: "):
        load_image(lazy)


@pytest.mark.parametrize("read", [load_image, lambda path: load_video(path, 8, 256)])
def test_nothing_but_a_regular_file_is_opened(tmp_path, read):
    os.mkfifo(tmp_path / "q.png")
    for path in (tmp_path / "q.png", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"{path} is no .* file but a folder, a pipe or a device"):
            read(path)


def test_a_name_that_the_system_refuses_is_a_value_error():
    for name in ("x" * 300 + ".png", "a\0b.png"):
        with pytest.raises(ValueError, match="Cannot open"):
            load_image(name)


def png_that_claims(width: int, height: int) -> bytes:
    """A valid header and data, most of it missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_a_picture_above_the_limit_is_refused_before_it_is_decoded(picture, tmp_path):
    (tmp_path / "a.png").write_bytes(png_that_claims(13_300, 13_300))
    with pytest.raises(ValueError, match=r"a.png .*13300 x 13300 pixels are over the limit of 100 megapixels"):
        load_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png_that_claims(60_000, 60_000))
    with pytest.raises(ValueError, match=r"a.png .*MAX_IMAGE_PIXELS"):
        load_image(tmp_path / "a.png")
    assert MAX_PIXELS == 100_000_000
    assert load_image(picture, max_pixels=80 * 60).size == (80, 60)
    for form in (picture, np.asarray(picture)):
        with pytest.raises(ValueError, match="80 x 60 pixels are over the limit of 0.004799 megapixels"):
            load_image(form, max_pixels=80 * 60 - 1)


def test_a_vector_drawing_under_a_pictures_name_is_not_handed_to_another_program(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"a.png as an image: it is a vector drawing \(EPS\)"):
        load_image(tmp_path / "a.png")


def test_a_large_picture_over_white_is_the_same_as_in_one_piece():
    values = np.random.default_rng(0).integers(0, 256, (2500, 20, 4), dtype=np.uint8)
    image = Image.fromarray(values)
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert same(load_image(image), whole)


@pytest.mark.parametrize("tensor", [torch.zeros(8, 8, 3, dtype=torch.uint8, device="meta")])
def test_a_tensor_without_values_is_refused_by_name(tensor):
    with pytest.raises(ValueError, match="a meta, a sparse or a nested tensor"):
        load_image(tensor)
    with pytest.raises(ValueError, match="a meta, a sparse or a nested tensor"):
        load_image(torch.zeros(8, 8, 3, dtype=torch.uint8).to_sparse())


def test_pixels_that_are_not_a_number_are_refused():
    for array in (np.full((8, 8, 3), np.nan, dtype=np.float32), torch.full((8, 8, 3), torch.nan)):
        with pytest.raises(ValueError, match="must be uint8 with values 0..255, got .*float32"):
            load_image(array)
    with pytest.raises(ValueError, match="mode F has no fixed range"):
        load_image(Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)))


# Films


def test_a_film_with_a_rotation_mark_is_upright():
    lying = stored_frames(FAULTS / "rot90.mp4")
    wanted = [lying[index].rotate(-90, expand=True) for index in np.linspace(0, 19, 8, dtype=int)]
    frames, seconds = sample_frames(FAULTS / "rot90.mp4", 8)
    assert seconds == pytest.approx([0.0, 0.2, 0.5, 0.8, 1.0, 1.3, 1.6, 1.9])
    assert [frame.size for frame in frames] == [(64, 96)] * 8
    assert all(map(same, frames, wanted))


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: image.rotate(-90, expand=True)),
        ((-1, 0, 0, -1), lambda image: image.rotate(180)),
        ((0, -1, 1, 0), lambda image: image.rotate(90, expand=True)),
        ((-1, 0, 0, 1), lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        ((1, 0, 0, -1), lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
    ],
)
def test_each_quarter_turn_and_mirror_image_of_a_header_is_undone(tmp_path, matrix, turn):
    path = turned_video(tmp_path / "a.mp4", FAULTS / "rot90.mp4", matrix)
    frames, _ = sample_frames(path, 2)
    assert all(map(same, frames, [turn(image) for image in (stored_frames(path)[0], stored_frames(path)[-1])]))


def test_a_film_turned_by_half_a_quarter_is_refused(tmp_path):
    path = turned_video(tmp_path / "a.mp4", FAULTS / "rot90.mp4", (0.7071, 0.7071, -0.7071, 0.7071))
    with pytest.raises(ValueError, match="a.mp4 as a video: its header turns it by an angle"):
        load_video(path, 8, 256)


def test_a_header_that_says_too_few_frames_is_not_believed():
    path = FAULTS / "avi_says3.avi"
    frames = stored_frames(path)
    assert len(frames) == 20
    wanted = [frames[index] for index in np.linspace(0, 19, 8, dtype=int)]
    assert all(map(same, sample_frames(path, 8)[0], wanted))
    assert len(sample_frames(path, 256)[0]) == 20
    assert film_seconds(path) == pytest.approx(2.0)


def test_a_header_that_says_too_many_frames_is_not_believed(tmp_path):
    path = write_video(tmp_path / "a.avi", num_frames=12)
    data = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        struct.pack_into("<I", data, data.index(name) + offset, 4_000_000)
    path.write_bytes(data)
    with open_film(path) as film:
        assert film.promised == 4_000_000
    frames = stored_frames(path)
    assert all(map(same, sample_frames(path, 4)[0], [frames[index] for index in (0, 3, 7, 11)]))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animated_picture_under_a_video_key_is_a_film(picture, tmp_path, suffix):
    frames = [picture.rotate(30 * index) for index in range(12)]
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=250, **options)
    film = load_video(path, 4, 256)[0]
    assert film.shape == (4, 3, 60, 80) and len({frame.numpy().tobytes() for frame in film}) == 4
    if suffix != "gif":  # a GIF has but 256 colours
        assert all(
            same(Image.fromarray(film[i].permute(1, 2, 0).numpy()), frames[j]) for i, j in enumerate((0, 3, 7, 11))
        )
    assert film_seconds(path) == pytest.approx(3.0)
    assert same(load_image(path), load_image(Image.fromarray(film[0].permute(1, 2, 0).numpy())))


def test_the_picture_in_front_of_an_animated_png_is_no_frame_of_it(tmp_path):
    front, *frames = (Image.new("RGB", (40, 30), colour) for colour in ("white", "red", "lime"))
    front.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True, duration=100)
    pictures, seconds = sample_frames(tmp_path / "a.png", 8)
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(255, 0, 0), (0, 255, 0)] and seconds == [0, 0.1]
    assert film_seconds(tmp_path / "a.png") == pytest.approx(0.2)
    front.save(tmp_path / "one.png", save_all=True, append_images=frames[:1], default_image=True)
    with Image.open(tmp_path / "one.png") as still:
        assert not is_animated(still)


def test_what_an_edit_list_leaves_out_of_a_film_does_not_count_for_its_length(tmp_path):
    whole, cut = write_long_video(tmp_path / "whole.mp4", seconds=12, rate=10.0), tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = (time - int(3.5 / stream.time_base) for time in (packet.pts, packet.dts))
                packet.stream = copied
                target.mux(packet)
    with av.open(str(cut)) as container:
        assert any(packet.is_discard for packet in container.demux(video=0))
    with open_film(cut) as film:
        shown = sum(1 for _ in film.frames)
    assert shown == 85 and film_seconds(cut) == pytest.approx(8.5) and film_seconds(whole) == pytest.approx(12.0)


def test_a_film_is_the_same_from_its_bytes(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=12)
    for source in (path.read_bytes(), io.BytesIO(path.read_bytes()), {"bytes": path.read_bytes(), "path": "a.mp4"}):
        assert torch.equal(load_video(source, 8, 256)[0], load_video(path, 8, 256)[0])


def test_frames_a_second_are_counted_by_the_films_length(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=20)  # five frames a second
    assert load_video(path, 8, 256, fps=2)[0].shape[0] == 8
    assert load_video(path, 8, 256, fps=0.01)[0].shape[0] == 1
    assert load_video(path, 8, 256, fps=5)[0].shape[0] == 20
    with pytest.raises(ValueError, match="over the limit of 10"):
        load_video(path, 8, 10, fps=5)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
@pytest.mark.parametrize("duration", [0, [0, 300, 0, 300, 0]])
def test_a_frame_of_an_animation_that_says_no_time_is_shown_for_a_tenth_of_a_second(tmp_path, suffix, duration):
    first, *others = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "lime", "white", "black"))
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=others, duration=duration)
    expected = [0, 0.1, 0.2, 0.3, 0.4] if duration == 0 else [0, 0.1, 0.4, 0.5, 0.8]
    assert sample_frames(path, 8)[1] == pytest.approx(expected)
    assert film_seconds(path) == pytest.approx(expected[-1] + 0.1)
    assert load_video(path, None, 256, fps=10)[0].shape[0] == 5


@pytest.mark.parametrize(
    "content", [b"#EXTM3U\n#EXTINF:1,\nx.ts\n#EXT-X-ENDLIST\n", b"ffconcat version 1.0\nfile other.mp4\n"]
)
def test_a_playlist_under_a_films_name_opens_no_other_file(tmp_path, content, monkeypatch):
    write_video(tmp_path / "other.mp4")
    (tmp_path / "x.ts").write_bytes((tmp_path / "other.mp4").read_bytes())
    (tmp_path / "a.mp4").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for path in ("a.mp4", tmp_path / "a.mp4"):
        with pytest.raises(ValueError, match="a.mp4 as a video"):
            load_video(path, 8, 256)


def test_a_film_whose_name_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4").rename(tmp_path / "concat:a.mp4")
    assert load_video("concat:a.mp4", 8, 256)[0].shape[0] == 8


def test_frames_above_the_limit_are_refused_before_they_are_decoded(tmp_path):
    path = write_video(tmp_path / "a.mp4", size=64)
    with pytest.raises(ValueError, match=r"a.mp4 as a video: 64 x 64 pixels are over the limit"):
        load_video(path, 8, 256, max_pixels=4000)


def test_a_still_picture_under_a_video_key_is_a_film_of_one_frame(tmp_path):
    for suffix in ("png", "jpg"):
        path = write_picture(tmp_path / f"a.{suffix}")
        film, _ = load_video(path, 8, 256)
        assert same(pictures_of(film)[0], load_image(path)) and len(film) == 1
