"""What libraries hand over: empty keys, bytes, options for films, texts of any length, and items in another order."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from small_files import write_picture, write_video

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.model.inputs_plume import ItemError, describe


@pytest.fixture(scope="module")
def processor(released_model_dir):
    return PlumeProcessor.from_pretrained(released_model_dir)


@pytest.fixture(scope="module")
def sentence_model(released_model_dir):
    return SentenceTransformer(str(released_model_dir), trust_remote_code=True, device="cpu")


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 84, 3), dtype=np.uint8))


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_none_under_a_key_is_not_there(processor, sentence_model, picture):
    wanted = processor([{"text": "a heron", "image": picture}])
    assert equal(processor([{"text": "a heron", "image": picture, "video": None}]), wanted)
    parts = [{"type": "video", "video": None}, {"type": "image", "image": picture}, {"type": "text", "text": "a heron"}]
    chat = [{"role": "user", "content": parts}]
    assert equal(processor([chat]), wanted)
    assert equal(processor.apply_chat_template([chat], tokenize=True), wanted)
    full, bare = {"text": "a heron", "image": None, "video": None}, {"text": "a heron"}
    assert np.array_equal(sentence_model.encode([full]), sentence_model.encode([bare]))


def test_bytes_and_undecoded_pictures_equal_the_picture(processor, sentence_model, tmp_path):
    path = write_picture(tmp_path / "a.png")
    data = path.read_bytes()
    wanted = processor([path])
    for item in (data, {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}, {"image": data}):
        assert equal(processor([item]), wanted)
    undecoded = {"image": {"bytes": data, "path": None}}
    assert np.array_equal(sentence_model.encode([undecoded]), sentence_model.encode([{"image": str(path)}]))


def test_bytes_and_undecoded_films_equal_the_film(processor, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    wanted = processor([path])
    for item in ({"video": path.read_bytes()}, {"bytes": path.read_bytes(), "path": "a.mp4"}):
        assert equal(processor([item]), wanted)


def test_a_film_is_sampled_as_the_call_says(processor, sentence_model, tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=40)  # eight seconds
    default = processor([{"video": path}])
    assert default["video_grid_thw"][0, 0] == 4
    for options, frames in (({"num_frames": 4}, 4), ({"fps": 0.5}, 4), ({"fps": 2}, 16), ({"num_frames": None}, 8)):
        batch = processor([{"video": path}], videos_kwargs=options)
        assert batch["video_grid_thw"][0, 0] == frames // 2
    chat = [{"role": "user", "content": [{"type": "video", "video": str(path)}]}]
    asked = processor.apply_chat_template([chat], tokenize=True, processor_kwargs={"videos_kwargs": {"num_frames": 4}})
    assert equal(asked, processor([{"video": path}], videos_kwargs={"num_frames": 4}))


def test_options_for_films_that_cannot_be_followed_are_refused(processor, picture, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    for options in ({"num_frames": 4}, {"fps": 2}):
        with pytest.raises(ValueError, match="the frames that you chose are all used"):
            processor([{"video": [picture, picture]}], videos_kwargs=options)
    for options in ({"num_frames": 4, "fps": 1}, {"num_frames": 0}, {"fps": -1}):
        with pytest.raises(ValueError, match="one of them and above 0"):
            processor([{"video": path}], videos_kwargs=options)
    with pytest.raises(ValueError, match="instead of do_sample_frames pass"):
        processor([{"video": path}], videos_kwargs={"do_sample_frames": True})
    for options in ({"num_frames": "4"}, {"num_frames": 2.5}, {"fps": float("nan")}, {"fps": True}):
        with pytest.raises(ValueError, match="num_frames, a whole number, or by fps"):
            processor([{"video": path}], videos_kwargs=options)
    with pytest.raises(ValueError, match="over the limit of 256"):
        processor([{"video": path}], videos_kwargs={"num_frames": 257})


@pytest.mark.parametrize("options", [{"foo": 1}, {"do_resize": False}, {"patch_size": "x"}])
def test_options_for_pictures_that_cannot_be_followed_are_refused(processor, picture, options):
    with pytest.raises(ValueError, match="images_kwargs"):
        processor([{"image": picture}], images_kwargs=options)


def test_what_stands_beside_the_content_of_a_message_is_refused(processor, sentence_model, picture):
    beside = {"role": "user", "content": "describe", "image": picture}
    mixed = {"role": "user", "content": [{"type": "text", "text": "describe", "image": picture}]}
    limits = {"role": "user", "content": [{"type": "image", "image": picture, "max_pixels": 3136}]}
    for message, key in ((beside, "image"), (mixed, "image"), (limits, "max_pixels")):
        with pytest.raises(ValueError, match=f"got also {key}"):
            processor([message])
        with pytest.raises(ValueError, match=f"got also {key}"):
            sentence_model.encode([[message]])
    empty = {"role": "user", "content": [{"type": "image", "image": picture, "text": None}], "name": None}
    assert equal(processor([empty]), processor([picture]))


@pytest.mark.parametrize("text", ["A grey heron stands near the reeds. " * 300_000, "湖" * 3_000_000, "a" * 10_000_000])
def test_a_text_far_beyond_the_limit_is_refused_before_it_is_cut_into_tokens(processor, text):
    start = time.process_time()
    with pytest.raises(ItemError, match="Item 0: It has more than .* tokens, over the processor's max_length=11288"):
        processor([text])
    assert time.process_time() - start < 5


def test_a_long_text_of_few_tokens_is_not_refused_by_its_length(processor):
    longest = max(processor.tokenizer.get_vocab(), key=lambda token: len(token) if token.isalpha() else 0)
    text = "  \n" * 20 * processor.max_length  # white space at the edges is no part of the prompt
    assert processor([text])["input_ids"].shape == processor([""])["input_ids"].shape
    assert len(longest) > 4
    with pytest.raises(ItemError, match="It has .* tokens"):
        processor([f" {longest}" * 2 * processor.max_length])


def test_the_limit_of_pixels_is_an_option_that_is_saved(processor, picture, tmp_path):
    assert processor.max_image_pixels == 100_000_000
    processor.save_pretrained(tmp_path)
    strict = PlumeProcessor.from_pretrained(tmp_path, max_image_pixels=5000)
    with pytest.raises(ItemError, match="Item 1: .*84 x 60 pixels are over the limit of 0.005 megapixels"):
        strict(["a", picture])
    with pytest.raises(ItemError, match="84 x 60 pixels are over the limit"):
        strict([{"video": [picture, picture]}])


def test_an_item_that_a_library_has_sorted_is_named_by_its_looks(sentence_model, tmp_path):
    items = [f"a text of {'many ' * length}words" for length in (1, 9, 4)]
    items.insert(1, {"text": "the tall one", "image": Image.new("RGB", (1, 900))})
    with pytest.raises(ValueError, match=r"aspect ratio over 200.*\[.*the tall one") as caught:
        sentence_model.encode(items, batch_size=2)
    assert "Item" not in str(caught.value)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"Cannot read .*broken.png as an image"):
        sentence_model.encode(["a", {"image": str(tmp_path / "broken.png")}, "b c d e f"], batch_size=1)


def test_an_item_is_described_in_a_few_words(picture):
    assert describe("short") == "'short'" and len(describe("word " * 1000)) < 80
    assert describe({"text": "a heron", "image": picture}) == "text 'a heron', image 84 x 60 pixels"
    assert describe({"image": Path("a/b.png")}) == "image a/b.png"
    assert describe([{"role": "user", "content": [{"type": "text", "text": "x"}]}]) == "text 'x'"
    assert describe([picture] * 9) == "84 x 60 pixels, 84 x 60 pixels, 84 x 60 pixels and 6 more"
    assert describe({"image": {"bytes": b"abc", "path": None}}) == "image bytes 3 bytes, path None"
    assert " at 0x" not in describe(object())


def test_an_item_error_survives_another_process():
    error = pickle.loads(pickle.dumps(ItemError("It is empty.", "text ''", 3)))
    assert str(error) == "Item 3: It is empty. [text '']" and (error.reason, error.index) == ("It is empty.", 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused_by_name(processor, released_model_dir, picture, value):
    model = PlumeModel.from_pretrained(released_model_dir).eval()
    batch = processor([picture, "a text"])
    assert torch.isfinite(model(**batch).embeddings).all()
    batch["pixel_values"][3, 5] = value
    with pytest.raises(ValueError, match="pixel_values holds values that are not finite"):
        model(**batch)
