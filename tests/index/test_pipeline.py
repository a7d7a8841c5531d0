"""Reading, digests and batches: what waits is bounded by bytes, and order is kept."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plume_embed.encode.batching import read_ahead, run_ahead
from plume_embed.index.listing import content_hash, list_folder
from plume_embed.index.pipeline import Part, Work, content_digest, embed_contents, make_batches, read_parts
from plume_embed.index.store import KnownDigests
from plume_embed.model.videos_plume import TimedFrames
from plume_embed.reading.items import FileItem, SourceFile, UnreadableError

WORK = Work("image-x", [SourceFile("x.png", Path("x.png"), "image", 1, 1)])


def picture_part(side: int, number: int = 0) -> Part:
    return Part(WORK, FileItem(number, 9, "", "image", "", {"image": Image.new("RGB", (side, side))}))


def test_a_batch_keeps_to_items_tokens_and_bytes():
    parts = [picture_part(100, number) for number in range(10)]  # 30,000 bytes each

    def sizes(**limits: float) -> list[int]:
        options = {"batch_size": 32, "token_budget": 1e9, "max_bytes": 10**9, **limits}
        return [len(batch.parts) for batch in make_batches(parts, lambda content: 50.0, **options)]

    assert sizes() == [10]
    assert sizes(batch_size=4) == [4, 4, 2]
    assert sizes(token_budget=150) == [3, 3, 3, 1]
    assert sizes(max_bytes=65_000) == [2] * 5
    assert sizes(max_bytes=10) == [1] * 10, "one picture goes alone whatever its size"
    assert sizes(first_size=1) == [1, 2, 4, 3]
    assert sizes(first_size=2, batch_size=3) == [2, 3, 3, 2]
    text = Part(WORK, FileItem(0, 1, "", "text", "", {"text": "a"}))
    mixed = list(make_batches([text] * 9 + parts, lambda content: 1.0, batch_size=8, first_size=2))
    assert [len(batch.parts) for batch in mixed] == [8, 2, 4, 5], "texts need no small start"


def test_known_parts_and_ends_go_along_without_counting():
    known = Part(WORK, FileItem(0, 1, "", "image", "", {"image": Image.new("RGB", (500, 500))}), is_known=True)
    parts = [known, Part(WORK), picture_part(10), known, picture_part(10), Part(WORK)]
    batches = list(make_batches(parts, lambda content: 1.0, batch_size=1))
    assert [one for batch in batches for one in batch.parts] == parts
    assert [len(batch.to_embed()) for batch in batches] == [1, 1]


def test_what_is_read_ahead_is_bounded_by_bytes():
    taken, may_go_on = [], threading.Event()

    def source() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    elements = read_ahead(source(), ahead=100, num_bytes=lambda element: 40, max_bytes=100)
    assert next(elements) == 0
    may_go_on.wait(0.3)
    assert len(taken) <= 4, "one is out, two wait, and one is in the hand"
    assert list(elements) == list(range(1, 20))


def test_an_element_larger_than_the_bound_is_read_alone():
    elements = read_ahead(range(5), ahead=3, num_bytes=lambda element: 1000, max_bytes=100)
    assert list(elements) == [0, 1, 2, 3, 4]


def test_a_digest_is_of_the_text_or_the_pixels_and_their_shape():
    flat = Image.fromarray(np.arange(120, dtype=np.uint8).reshape(4, 10, 3))
    tall = Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 4, 3))
    contents = [
        {"text": "a"},
        {"text": "b"},
        {"image": flat},
        {"image": tall},
        {"video": [flat]},
        {"video": [flat, flat]},
    ]
    assert len({content_digest(content) for content in contents}) == len(contents)
    assert content_digest({"image": flat.copy()}) == content_digest({"image": flat})


def test_a_digest_is_of_the_times_of_frames_where_they_have_some():
    frames = [Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "red")]
    films = [frames, *(TimedFrames(frames, times) for times in ([0.0, 1.0], [0.0, 1.0], [0.0, 2.0]))]
    plain, *timed = (content_digest({"video": film}) for film in films)
    assert plain != timed[0] == timed[1] != timed[2]


def test_a_file_that_fails_in_its_middle_keeps_what_was_read(tmp_path: Path):
    def read(work: Work) -> Iterator[FileItem]:
        yield FileItem(0, 3, "page=1", "page", "", {"text": "one"})
        raise UnreadableError("it is cut short")

    (tmp_path / "x.pdf").write_text("a PDF")
    (file,) = list_folder(tmp_path).files
    first, end = read_parts(Work(f"page-{content_hash(file)}", [file]), read, known=set())
    assert first.item.locator == "page=1" and (end.item, end.failure) == (None, "it is cut short")


def test_digests_are_found_in_sixteen_bytes_each():
    rng = np.random.default_rng(0)
    digests = [bytes(rng.integers(0, 256, 16, dtype=np.uint8)) for _ in range(500)]
    same_start = [digests[0][:8] + bytes(8), digests[0][:8] + b"\xff" * 8]
    known = KnownDigests(b"".join([*digests[:400], same_start[0]]))
    assert all(digest.hex() in known for digest in [*digests[:400], same_start[0]])
    assert not any(digest.hex() in known for digest in [*digests[400:], same_start[1]])
    assert "0" * 32 not in KnownDigests(b"")


def test_reading_ahead_ends_when_the_reader_leaves():
    elements = read_ahead(iter(range(1000)), ahead=2, num_bytes=lambda element: 10, max_bytes=5)
    assert next(elements) == 0
    elements.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "plume-read-ahead"]


def test_an_error_of_the_source_comes_at_its_place():
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    elements = read_ahead(source(), ahead=5)
    assert next(elements) == 1
    with pytest.raises(ValueError, match="broken"):
        next(elements)


class SlowModel:
    """An encoder whose vectors are the widths of pictures, and whose pass can be waited for."""

    def __init__(self):
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def num_tokens(self, item: dict) -> float:
        return 1.0

    def encode_batches(self, batches, num_latent_steps=None):
        for items, _ in run_ahead(len, batches, 2, 2):
            self.begun.set()
            assert self.may_go_on.wait(timeout=10)
            yield np.array([[float(item["image"].width)] for item in items]), {}


def numbered(count: int) -> list[Work]:
    return [Work(f"{number}", [SourceFile(f"{number}", Path("x"), "text", 1, 1)]) for number in range(count)]


def test_the_next_files_are_read_while_the_model_is_at_the_first_ones():
    model, read_so_far = SlowModel(), []

    def read(work: Work) -> Iterator[FileItem]:
        if int(work.content) >= 6:  # the first batch, and what tells that it is whole, is there before
            assert model.begun.wait(timeout=10)
        read_so_far.append(work.content)
        if len(read_so_far) == 12:
            model.may_go_on.set()
        yield FileItem(0, 1, "", "image", "", {"image": Image.new("RGB", (int(work.content) + 1, 1))})

    batches = list(embed_contents(numbered(20), model, None, 32, read, known=set()))
    assert [int(vector[0]) for batch in batches for vector in batch.vectors] == list(range(1, 21))
    assert [len(batch.to_embed()) for batch in batches] == [4, 8, 8]


def test_leaving_reads_no_batch_to_its_end():
    model, read_so_far = SlowModel(), []
    model.may_go_on.set()

    def read(work: Work) -> Iterator[FileItem]:
        read_so_far.append(work.content)
        if int(work.content) > 6:
            threading.Event().wait(0.05)
        yield FileItem(0, 1, "", "image", "", {"image": Image.new("RGB", (int(work.content) + 1, 1))})

    batches = embed_contents(numbered(500), model, None, 32, read, known=set())
    next(batches)
    batches.close()
    assert len(read_so_far) < 30
    assert not [thread for thread in threading.enumerate() if thread.name == "plume-read-ahead"]
