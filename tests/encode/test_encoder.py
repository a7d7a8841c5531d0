"""Encoder: whatever the passes, the order and the threads, the same vectors, in passes of a bounded size."""

import copy
import hashlib
import pickle
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from common import random_item
from PIL import Image
from safetensors.torch import load_file, save_file
from small_files import write_picture, write_video
from transformers import BatchFeature

from plume_embed.encode.encoder import Encoder, fingerprint
from plume_embed.encode.read_out import ReadOut, read_vectors
from plume_embed.model import PlumeProcessor

pd = pytest.importorskip("pandas", reason="it comes with the extra train")
datasets = pytest.importorskip("datasets", reason="it comes with the extra train")


class WatchedEncoder(Encoder):
    """Keeps the shapes of its passes."""

    def __init__(self, model: Path):
        super().__init__(model, device="cpu")
        self.shapes: list[tuple[int, int]] = []

    def embed(self, batch: BatchFeature, num_latent_steps: int, read_out: ReadOut = "embedding") -> np.ndarray:
        self.shapes.append(tuple(batch["input_ids"].shape))
        return super().embed(batch, num_latent_steps, read_out)


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> WatchedEncoder:
    return WatchedEncoder(released_model_dir)


@pytest.fixture(scope="module")
def items() -> list:
    rng = random.Random(3)
    return [random_item(rng) for _ in range(24)]


@pytest.fixture(scope="module")
def expected(encoder: WatchedEncoder, items: list) -> np.ndarray:
    return np.concatenate([encoder.encode([item], num_latent_steps=3) for item in items])


@pytest.mark.parametrize(
    "one",
    ["ferry", b"ferry", {"text": "ferry"}, Path("ferry.png"), Image.new("RGB", (28, 28)), 5, None, np.array(0.5)],
)
def test_one_item_instead_of_a_list_is_refused(encoder, one):
    with pytest.raises(ValueError, match=rf"Hand over a list of items: .*, got one {type(one).__name__}"):
        encoder.encode(one)


def test_what_can_be_run_through_once_is_a_list_of_items(encoder):
    words = ["a ferry", "a bridge"]
    np.testing.assert_array_equal(encoder.encode(word for word in words), encoder.encode(words))


def test_a_column_of_a_table_has_its_vectors_in_its_own_order(encoder):
    table = pd.DataFrame({"text": ["a red bicycle", "a cat", "the moon over a lake", "x"], "rank": [3, 1, 2, 0]})
    in_order, some = table.sort_values("rank")["text"], table[table["rank"] > 1]["text"]
    for column in (in_order, some, pd.concat([some, in_order]), set(some), dict(enumerate(some)).values()):
        np.testing.assert_allclose(encoder.encode(column, 2, 2), encoder.encode([*column], 2, 2), atol=1e-6)
    np.testing.assert_allclose(encoder.encode(in_order, 2, 2)[0], encoder.encode(["x"], 2, 2)[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"got a DataFrame: pass one column"):
        encoder.encode(table)


@pytest.mark.parametrize("kind", ["Array", "ChunkedArray", "datasets", "structs"])
def test_a_column_of_another_library_has_the_vectors_of_a_list(encoder, kind):
    words = ["a red bicycle", "a cat"]
    columns = {
        "Array": pa.array(words),
        "ChunkedArray": pa.chunked_array([words[:1], words[1:]]),
        "datasets": datasets.Dataset.from_dict({"text": words})["text"],
        "structs": pa.array([{"text": word} for word in words]),
    }
    np.testing.assert_array_equal(encoder.encode(columns[kind]), encoder.encode(words))


def test_a_row_that_is_missing_in_a_column_is_named(encoder):
    for column in (pa.array(["a", None]), pd.Series(["a", None], dtype="string"), pd.Series(["a", None])):
        with pytest.raises(ValueError, match="^Item 1: It is missing; drop its row"):
            encoder.encode(column)
    with pytest.raises(ValueError, match=r"got a Table: pass one column"):
        encoder.encode(pa.table({"text": ["a"]}))


USER, OTHER = {"role": "user", "content": "a red bicycle"}, {"role": "user", "content": "the moon over a lake"}
SYSTEM = {"role": "system", "content": "Find: "}


@pytest.mark.parametrize("messages", [[SYSTEM, USER], (USER, SYSTEM), [USER, {"role": "assistant", "content": "b"}]])
def test_one_conversation_instead_of_a_list_is_refused(encoder, messages):
    with pytest.raises(ValueError, match=r"encode\(\[\[\.\.\.\]\]\), got one conversation \(roles "):
        encoder.encode(messages)


def test_a_message_whose_role_is_none_is_an_item_at_fault(encoder):
    vectors, errors = encoder.encode_readable([{"role": None, "content": "a"}])
    assert np.isnan(vectors).all() and "Roles are system and user, got None" in errors[0]


def test_a_chat_message_is_an_item_whatever_stands_beside_it(encoder):
    texts = encoder.encode(["a red bicycle", "the moon over a lake", "Find: a red bicycle"], num_latent_steps=2)
    np.testing.assert_allclose(encoder.encode([USER, OTHER, [SYSTEM, USER]], num_latent_steps=2), texts, atol=1e-5)
    np.testing.assert_allclose(encoder.encode([USER, OTHER], num_latent_steps=2), texts[:2], atol=1e-5)
    assert len(encoder.process([USER, OTHER])["input_ids"]) == 2
    # The two messages are of one length and come into one batch, as a conversation would.
    vectors, errors = encoder.encode_readable(["a " * 400, SYSTEM, {"role": "user", "content": "Find: "}], 2, 2)
    assert list(errors) == [1] and "one user message" in errors[1]
    np.testing.assert_allclose(vectors[2], encoder.encode(["Find: "], num_latent_steps=2)[0], atol=1e-5)


@pytest.mark.parametrize("steps", [2.5, "4", True, -1, 33, float("nan")])
def test_a_number_of_steps_that_is_none_is_refused_before_the_batches(encoder, steps):
    encoder.shapes.clear()
    with pytest.raises(ValueError, match=r"^num_latent_steps is a whole number, and this model takes 0 to 32 "):
        encoder.encode(["a"], num_latent_steps=steps)
    assert not encoder.shapes


@pytest.mark.parametrize("limits", [{"batch_size": "8"}, {"batch_size": 2.5}, {"token_budget": float("nan")}])
def test_limits_of_a_batch_that_are_none_are_refused(encoder, limits):
    with pytest.raises(ValueError, match="number above 0"):
        encoder.encode(["a", "b"], **limits)


def test_a_whole_number_of_numpy_is_a_number_of_steps(encoder):
    assert type(encoder.latent_steps(np.int64(2))) is int
    np.testing.assert_array_equal(encoder.encode(["a"], 1, np.int64(2)), encoder.encode(["a"], 1, 2))


def test_a_setting_of_the_processor_counts_from_the_next_call_on(released_model_dir, tmp_path):
    film = write_video(tmp_path / "film.mp4")
    changed, expected = (Encoder(released_model_dir, device="cpu") for _ in range(2))
    changed.encode([film_item := {"video": film}])
    changed.processor.num_frames = expected.processor.num_frames = 2
    np.testing.assert_allclose(changed.encode([film_item]), expected.encode([film_item]), atol=1e-6)


def smaller_size(processor):
    processor.image_processor.size = {"shortest_edge": 784, "longest_edge": 784}


def smaller_size_in_place(processor):
    processor.image_processor.size.longest_edge = processor.image_processor.size.shortest_edge = 784


def smaller_frames(processor):
    processor.video_processor.size = {"shortest_edge": 784, "longest_edge": 784}


def another_mean(processor):
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]


def another_prompt(processor):
    processor.chat_template = processor.chat_template.replace("helpful", "kind and helpful")


def a_word_more(processor):
    processor.tokenizer.add_tokens(["bicycle near"])


@pytest.mark.parametrize(
    "change", [smaller_size, smaller_size_in_place, smaller_frames, another_mean, another_prompt, a_word_more]
)
def test_a_setting_of_a_part_of_the_processor_counts_from_the_next_call_on(released_model_dir, change):
    encoder, picture = Encoder(released_model_dir), Image.new("RGB", (90, 60), "red")
    item = {"image": picture, "video": [picture] * 2, "text": "a red bicycle near a lake"}
    before, size = encoder.process([item]), encoder.num_tokens(item)
    change(encoder.processor)
    after, expected = encoder.process([item]), encoder.processor([item])
    assert after.keys() == expected.keys() and all(torch.equal(after[name], expected[name]) for name in after)
    assert any(before[name].shape != after[name].shape or not torch.equal(before[name], after[name]) for name in after)
    assert encoder.row_tokens("a b") == encoder.processor(["a b"])["input_ids"].shape[1]
    assert (encoder.num_tokens(item) == size) == (change is another_mean or change is a_word_more)


def test_a_lower_limit_and_another_processor_count_from_the_next_call_on(released_model_dir):
    encoder = Encoder(released_model_dir)
    text = "word " * 100
    assert encoder.fits(text) and encoder.process([text])
    encoder.processor.max_length = 120
    assert not encoder.fits(text)
    with pytest.raises(ValueError, match="max_length=120"):
        encoder.encode([text])
    encoder.processor = PlumeProcessor.from_pretrained(released_model_dir)
    assert encoder.fits(text) and encoder.process([text])


def test_a_limit_below_the_prompt_refuses_each_item_by_its_place(released_model_dir):
    encoder = Encoder(released_model_dir)
    encoder.processor.max_length = 5
    _, errors = encoder.encode_readable(["a", "b"])
    assert list(errors) == [0, 1] and not encoder.fits("")


def test_a_token_that_the_model_has_no_embedding_for_is_refused_with_the_remedy(released_model_dir):
    encoder = Encoder(released_model_dir)
    rows = encoder.model.get_input_embeddings().num_embeddings
    encoder.processor.tokenizer.add_tokens([f"zyxw{n}zyxw" for n in range(rows + 1)])
    with pytest.raises(ValueError, match="no embedding for; after tokenizer.add_tokens call .*resize_token_embeddings"):
        encoder.encode([f"zyxw{rows}zyxw"])


@pytest.mark.parametrize("text", ["", "a red bicycle", "<|im_end|>" * 40, "湖边<|vision_start|>", " end. "])
def test_the_tokens_of_a_text_are_counted_as_its_row_has_them(encoder, text):
    assert encoder.row_tokens(text) == encoder.processor([text])["input_ids"].shape[1]


def test_a_text_of_control_tokens_fits_where_its_row_does(released_model_dir):
    encoder = Encoder(released_model_dir)
    text = "<|im_end|>" * 100
    length = encoder.processor.max_length = encoder.processor([text])["input_ids"].shape[1]
    assert encoder.fits(text)
    encoder.processor.max_length = length - 1
    assert not encoder.fits(text)


@pytest.mark.parametrize(("batch_size", "token_budget"), [(32, 1e9), (5, 1e9), (32, 400), (1, 1)])
def test_the_passes_change_no_vector(encoder, items, expected, batch_size, token_budget):
    vectors = encoder.encode(items, batch_size, 3, token_budget)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_vector_may_be_read_at_the_anchor_and_at_a_latent_state(encoder, items):
    output = encoder.model(**encoder.process(items[:6]), output_anchor_embeddings=True, output_latent_states=True)
    last = output.latent_states[:, -1].detach()
    anchors, _ = encoder.encode_readable(items[:6], read_out="anchor")
    states, _ = encoder.encode_readable(items[:6], num_latent_steps=8, read_out="state")
    np.testing.assert_allclose(anchors, output.anchor_embeddings.detach(), atol=1e-5)
    np.testing.assert_allclose(states, last / last.norm(dim=1, keepdim=True), atol=1e-5)
    for steps, name, message in ((0, "state", "needs K >= 1"), (2, "middle", "embedding, anchor and state")):
        with pytest.raises(ValueError, match=message):
            read_vectors(encoder.model, encoder.process(items[:1]), steps, name)


def test_a_pass_keeps_to_the_number_of_items_and_to_the_token_budget(encoder, items):
    encoder.shapes.clear()
    encoder.encode(items, batch_size=6, num_latent_steps=1, token_budget=1500)
    assert sum(rows for rows, _ in encoder.shapes) == len(items)
    assert 3 <= max(rows for rows, _ in encoder.shapes) <= 6
    # The sizes are known roughly only, hence some slack; an item above the budget has a pass to itself.
    assert all(rows == 1 or rows * length <= 1.3 * 1500 for rows, length in encoder.shapes)


def test_items_of_like_size_share_a_pass_and_padding_is_reported(encoder):
    short, long = "word", " ".join(["word"] * 400)
    encoder.padding.__init__()
    encoder.encode([short, long] * 8, batch_size=8, num_latent_steps=0)
    assert encoder.padding.num_rows == 16 and encoder.padding.num_padded == 0
    encoder.encode([short, long], num_latent_steps=0)
    assert encoder.padding.num_padded > 300 and 0 < encoder.padding.share_padded < 0.5


def test_two_threads_may_encode_at_once(encoder, items, expected):
    with ThreadPoolExecutor(3) as pool:
        for vectors in pool.map(lambda _: encoder.encode(items, 8, 3), range(4)):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


def replaced(file):
    tensors = {name: tensor * 1.5 for name, tensor in load_file(file).items()}
    save_file(tensors, file.with_name("new"), metadata={"format": "pt"})
    file.with_name("new").replace(file)


def gone(file):
    file.unlink()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copy_of_an_encoder_that_has_embedded_gives_the_same_vectors(released_model_dir, items, copied):
    encoder = Encoder(released_model_dir, device="cpu")
    vectors = encoder.encode(items[:4])
    another = copied(encoder)
    assert another.padding.num_rows == 0
    np.testing.assert_array_equal(another.encode(items[:4]), vectors)
    another.processor.max_length = 4
    np.testing.assert_array_equal(encoder.encode(items[:4]), vectors)
    assert another.fingerprint == encoder.fingerprint


@pytest.mark.parametrize("change", [replaced, gone])
def test_the_fingerprint_of_files_that_changed_after_loading_is_refused(released_model_dir, tmp_path, change):
    folder = shutil.copytree(released_model_dir, tmp_path / "model")
    known, encoder = (Encoder(folder, device="cpu") for _ in range(2))
    before = known.fingerprint
    change(folder / "model.safetensors")
    for one in (encoder, copy.deepcopy(encoder)):
        with pytest.raises(ValueError, match="have changed since this model was loaded from them, .*; load it again"):
            print(one.fingerprint)
    assert known.fingerprint == before


def page_words(processor):
    processor.page_words = 7


def two_frames(processor):
    processor.num_frames = 2


@pytest.mark.parametrize(
    "change", [smaller_size_in_place, smaller_frames, another_mean, another_prompt, a_word_more, two_frames, page_words]
)
def test_a_setting_that_changes_a_vector_changes_the_fingerprint(released_model_dir, change):
    encoder, changed, again = (Encoder(released_model_dir, device="cpu") for _ in range(3))
    processor = copy.deepcopy(changed.processor)
    change(changed.processor)
    change(again.processor)
    assert encoder.fingerprint != changed.fingerprint == again.fingerprint == copy.deepcopy(changed).fingerprint
    assert changed.fingerprints["float32"] == changed.fingerprint
    changed.processor = processor
    assert changed.fingerprint == encoder.fingerprint


def test_a_limit_and_the_use_of_a_processor_change_no_fingerprint(released_model_dir, tmp_path):
    """Existing indexes are of this fingerprint, made with any limit."""
    encoder = Encoder(released_model_dir, device="cpu", max_image_pixels=5000)
    files = fingerprint(released_model_dir)
    expected = hashlib.sha256(f"{files} torch.float32".encode()).hexdigest()
    encoder.encode(["a", Image.new("RGB", (60, 60))])
    encoder.processor([{"video": [Image.new("RGB", (60, 60))] * 2}])
    encoder.processor.max_image_pixels, encoder.processor.max_length, encoder.processor.max_frames = 9000, 500, 9
    assert encoder.fingerprint == expected
    moved = shutil.copytree(released_model_dir, tmp_path / "model")
    encoder.processor = PlumeProcessor.from_pretrained(moved)
    assert encoder.fingerprint == expected == Encoder(moved, device="cpu").fingerprint


def test_datasets_has_one_hash_for_an_encoder_whatever_it_has_embedded(released_model_dir):
    encoder, hash_of = Encoder(released_model_dir, device="cpu"), datasets.fingerprint.Hasher.hash
    before = hash_of(encoder)
    encoder.encode(["a ferry", "a bridge"])
    assert encoder.fingerprint
    assert hash_of(encoder) == before == hash_of(Encoder(released_model_dir, device="cpu"))


def test_datasets_maps_in_processes_with_an_encoder_of_the_caller(released_model_dir):
    encoder = Encoder(released_model_dir, device="cpu")
    words = datasets.Dataset.from_dict({"text": ["a ferry", "a bridge", "a coffee"]})
    mapped = words.map(lambda batch: {"vector": encoder.encode(batch["text"])}, batched=True, num_proc=2)
    np.testing.assert_allclose(mapped.with_format("numpy")["vector"][:], encoder.encode(words["text"]), atol=1e-6)


def test_batches_come_one_by_one_and_a_bad_item_leaves_the_others_of_its_batch(encoder):
    thread = Image.new("RGB", (2, 2000))
    taken = []

    def batches():
        for batch in (["a", "b"], ["c", {"image": thread}, "d"], ["e"]):
            taken.append(batch)
            yield batch

    results = list(encoder.encode_batches(batches(), num_latent_steps=2))
    assert [len(vectors) for vectors, _ in results] == [2, 3, 1] and len(taken) == 3
    assert [list(errors) for _, errors in results] == [[], [1], []] and "aspect ratio" in results[1][1][1]
    alone = encoder.encode(["a", "b", "c", "d", "e"], num_latent_steps=2)
    found = np.concatenate([vectors for vectors, _ in results])
    np.testing.assert_allclose(found[[0, 1, 2, 4, 5]], alone, atol=1e-5)
    assert np.isnan(found[3]).all()


def test_sizes_are_near_the_real_number_of_tokens(encoder, tmp_path):
    picture = write_picture(tmp_path / "x.png", size=(300, 200))
    frames = [Image.new("RGB", (112, 84))] * 6
    things = [
        "The ferry leaves at nine and comes back in the evening. " * 6,
        {"image": picture},
        {"image": Image.open(picture)},
        {"video": frames},
    ]
    things.append({"image": [picture, picture], "text": "two pictures"})
    for item in things:
        real = encoder.processor([item])["input_ids"].shape[1]
        assert 0.6 < encoder.num_tokens(item) / real < 1.6, item


def test_what_cannot_be_read_has_a_size_too(encoder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for item in ({"image": broken}, {"image": tmp_path / "missing.png"}, {"sound": 1}, 3, {"video": []}):
        assert encoder.num_tokens(item) > 0
    clip = {"video": write_video(tmp_path / "clip.mp4")}
    assert encoder.num_tokens(clip) >= encoder.num_tokens({"image": Image.new("RGB", (28, 28))})


def test_each_item_is_processed_as_alone_and_one_at_fault_fails_alone(released_model_dir):
    """With a picture for each text, which the released models have, and without."""
    some = ["a", "b c d", "word " * 20_000, "e"]
    for has_picture in (False, True):
        encoder = Encoder(released_model_dir)
        encoder.processor.blank_image_for_text = has_picture
        found = encoder.process_each(some)
        assert isinstance(found[2], ValueError) and "max_length" in str(found[2])
        for place in (0, 1, 3):
            alone, row = encoder.process([some[place]]), found[place]
            assert isinstance(row, BatchFeature)
            assert row.keys() == alone.keys() and all((row[name] == alone[name]).all() for name in alone)


def test_a_panic_of_a_library_stays_with_its_item(encoder, monkeypatch):
    class PanicError(BaseException):
        """As Rust's in Python."""

    process = encoder.process

    def panicking(items):
        if "bad" in items:
            raise PanicError
        return process(items)

    monkeypatch.setattr(encoder, "process", panicking)
    good, bad, last = encoder.process_each(["a", "bad", "b"])
    assert isinstance(bad, PanicError)
    assert isinstance(good, BatchFeature) and isinstance(last, BatchFeature)


def test_an_encoder_on_a_cpu_groups_prefixes(encoder):
    assert encoder.model.groups_prefixes
