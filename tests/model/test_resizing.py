"""Pictures that are resized early: nothing changes but the memory they take."""

import numpy as np
import pytest
import torch
from families import NAMES, SIDE, processor_of
from PIL import Image

from plume_embed.model.family_fast_vlm_plume import picture_processors

QWEN = [name for name in NAMES if "qwen" in name]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def by_the_library(processor, content):
    """The batch with the resize of the library's image processor: with options a picture goes there as it is."""
    return processor([content], images_kwargs={"do_rescale": True})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1200, 900), (901, 1603), (3000, 40), (33, 2500), (641, 480), (80, 60), (20, 20)])
def test_a_shrunk_picture_has_the_same_pixels_and_tokens(name, size):
    processor = processor_of(name, max_length=100_000)
    content = {"image": noise(*size), "text": "a heron"}
    small = processor.shrunk(content)
    expected = by_the_library(processor, content)
    assert equal(processor([content]), expected) and equal(by_the_library(processor, small), expected)
    assert small["text"] == "a heron" and content["image"].size == size
    from_array = processor.shrunk({**content, "image": np.asarray(content["image"])})
    assert equal(processor([from_array]), expected), "an array, as files are read"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("size", [(640, 360), (361, 643), (900, 30), (64, 48)])
def test_shrunk_frames_have_the_same_pixels_and_tokens(name, size, count):
    processor = processor_of(name, max_length=100_000)
    content = {"video": [noise(*size, seed=index) for index in range(count)]}
    small = processor.shrunk(content)
    assert equal(processor([small]), processor([content])) and len(small["video"]) == count
    from_arrays = processor.shrunk({"video": [np.asarray(frame) for frame in content["video"]]})
    assert equal(processor([from_arrays]), processor([content]))


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("size", [(5700, 41), (41, 5700), (6000, 30), (8000, 41)])
def test_a_long_thin_picture_that_the_library_takes_has_its_vector_at_the_released_limits(name, size):
    """Rounded to whole tokens, some of them are too long and thin for a second resize."""
    processor = processor_of(name, max_length=100_000)
    processor.image_processor.size = dict(processor.family.image_size)
    content = {"image": noise(*size)}
    expected = by_the_library(processor, content)
    assert equal(processor([content]), expected)
    assert equal(by_the_library(processor, processor.shrunk(content)), expected)


@pytest.mark.parametrize("name", QWEN)
def test_long_thin_frames_that_the_library_takes_have_its_vector_at_the_released_limits(name):
    processor = processor_of(name, max_length=100_000)
    processor.video_processor.size = dict(processor.family.video_size)
    content = {"video": [noise(5700, 41, seed=index) for index in range(2)]}
    assert equal(processor([processor.shrunk(content)]), processor([content]))


@pytest.mark.filterwarnings("ignore:Passing `min_pixels`:FutureWarning")  # the library's own, each time
@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize(
    "limits", [{"max_pixels": 3136, "min_pixels": 784}, {"max_pixels": 40_000}, {"min_pixels": 4096}]
)
def test_limits_set_by_their_old_names_count_as_in_the_library(name, limits):
    """`max_pixels` set on a processor stands above its `size`; the video processor of Qwen3-VL does not know it."""
    processor = processor_of(name, max_length=100_000)
    for part in (processor.image_processor, processor.video_processor):
        for limit, value in limits.items():
            setattr(part, limit, value)
    picture, film = {"image": noise(500, 300)}, {"video": [noise(320, 200), noise(320, 200, seed=1)]}
    expected = by_the_library(processor, picture)
    assert equal(processor([picture]), expected)
    assert equal(by_the_library(processor, processor.shrunk(picture)), expected)
    assert equal(processor([processor.shrunk(film)]), processor([film]))
    part = processor.image_processor
    most = limits.get("max_pixels", part.size["longest_edge"]) / (part.patch_size * part.merge_size) ** 2
    assert processor.family.num_visual_tokens(processor, None, None) == most, "and batches are cut by it"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shrunk_is_left_as_it_is_by_the_next_resize(name):
    """So the resize that files get as soon as they are read is the processor's own, done once."""
    processor = processor_of(name, max_length=100_000)
    for size in [(4000, 3000), (901, 1603), (801, 2003)]:
        small = processor.shrunk({"image": noise(*size)})["image"]
        target = processor.family.size_after_resizing(processor, (small.height, small.width), None)
        assert small.size != size and target == (small.height, small.width)
        assert processor.shrunk({"image": small})["image"] is small


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_and_a_film_shrink_to_what_the_model_looks_at(name):
    processor = processor_of(name, max_length=100_000)
    picture = processor.shrunk({"image": noise(1600, 1200)})["image"]
    frame = processor.shrunk({"video": [noise(640, 480)] * 2})["video"][0]
    assert picture.width * picture.height < 100_000 and frame.width * frame.height < 100_000


def test_what_is_not_decoded_or_not_rgb_stays_as_it_is(tmp_path):
    processor = processor_of("qwen2_vl")
    for content in (
        {"text": "a"},
        {"image": tmp_path / "a.png"},
        {"image": noise(900, 900).convert("RGBA")},
        {"video": [noise(900, 900), noise(800, 900)]},
        {"video": "a.mp4"},
        {"image": np.zeros((900, 900, 4), np.uint8)},
        {"image": np.zeros((3, 900, 900), np.uint8)},
        {"image": np.zeros((900, 900), np.uint8)},
    ):
        kept = processor.shrunk(content)
        assert kept.keys() == content.keys() and all(kept[name] is content[name] or kept == content for name in kept)


@pytest.mark.parametrize("size", [(1200, 900), (901, 1603), (300, 70), (70, 300)])
def test_a_picture_whose_middle_is_cut_out_has_the_same_pixels(size):
    processor = processor_of("fast_vlm")
    processor.image_processor, processor.video_processor = picture_processors(SIDE, 127, 128, keeps_all=False)
    for content in ({"image": noise(*size)}, {"video": [noise(*size), noise(*size, seed=1)]}):
        expected = by_the_library(processor, content)
        assert equal(by_the_library(processor, processor.shrunk(content)), expected)
        assert equal(processor([content]), expected)


def test_frames_are_shrunk_by_the_limits_of_films_not_of_pictures():
    processor = processor_of("fast_vlm")
    _, processor.video_processor = picture_processors(SIDE, 127, 128, keeps_all=False)
    processor.video_processor.size = {"shortest_edge": SIDE + 32}
    content = {"video": [noise(500, 300), noise(500, 300, seed=1)]}
    assert equal(processor([processor.shrunk(content)]), processor([content]))


def test_a_large_picture_goes_to_the_librarys_processor_at_the_size_that_the_model_sees(monkeypatch):
    processor, seen = processor_of("qwen2_vl"), []
    own = type(processor.image_processor).__call__
    monkeypatch.setattr(
        type(processor.image_processor),
        "__call__",
        lambda self, images, **options: seen.append(images[0].size) or own(self, images=images, **options),
    )
    processor([{"image": noise(1200, 900)}])
    processor([{"image": noise(1200, 900)}], images_kwargs={"do_rescale": True})
    assert seen[0][0] * seen[0][1] < 100_000 and seen[1] == (1200, 900)
