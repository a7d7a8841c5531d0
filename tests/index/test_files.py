"""A folder as items: what is read, how it is cut, and that nothing hostile ends the run."""

from pathlib import Path

import pypdfium2
import pytest
from PIL import Image
from small_files import write_encrypted_pdf, write_pdf, write_picture, write_video

from plume_embed.index.files import (
    PAGE_LONG_SIDE,
    PASSAGE_CHARACTERS,
    FileItem,
    SourceFile,
    UnreadableError,
    read_items,
    split_text,
)
from plume_embed.index.listing import list_folder


def always(text: str) -> bool:
    return True


def listed(folder: Path, name: str) -> SourceFile:
    return next(file for file in list_folder(folder).files if file.path == name)


def items_of(folder: Path, name: str, **options) -> list[FileItem]:
    return list(read_items(listed(folder, name), options.pop("fits", always), 8, 256, **options))


def test_a_short_text_is_one_item_without_a_locator(tmp_path: Path):
    (tmp_path / "x.txt").write_text("  a short\ntext \n")
    assert items_of(tmp_path, "x.txt") == [FileItem(0, 1, "", "text", "a short text", {"text": "a short\ntext"})]


def test_passages_cover_a_long_text_and_their_ranges_point_into_the_file(tmp_path: Path):
    text = "\n\n".join(f"Paragraph {i}. " + "Words and more words. " * (i % 9) for i in range(200))
    (tmp_path / "long.txt").write_text(text)
    items = items_of(tmp_path, "long.txt")
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


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("space.txt", b" \n\t ", "empty: nothing but white space"),
        ("latin1.txt", "größe".encode("latin-1"), "not UTF-8 text"),
        ("binary.txt", b"abc\0def", "NUL"),
        ("text.png", b"this is a text", "cannot identify image file"),
        ("header.png", b"\x89PNG\r\n\x1a\n", "Cannot read it as an image"),
        ("text.mp4", b"this is a text", "Cannot read it as a video"),
        ("text.pdf", b"this is a text", "Data format error"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_unreadable(tmp_path: Path, name: str, content: bytes, reason: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=reason):
        items_of(tmp_path, name)


def test_truncated_media_are_unreadable(tmp_path: Path):
    for path in (write_picture(tmp_path / "x.png"), write_video(tmp_path / "x.mp4"), write_pdf(tmp_path / "x.pdf")):
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(UnreadableError):
            items_of(tmp_path, path.name)


def test_an_encrypted_pdf_is_unreadable_with_its_reason(tmp_path: Path):
    write_encrypted_pdf(tmp_path / "x.pdf")
    with pytest.raises(UnreadableError, match="needs a password"):
        items_of(tmp_path, "x.pdf")


def test_each_pdf_page_is_a_picture_of_its_own(tmp_path: Path):
    write_pdf(tmp_path / "x.pdf", num_pages=3)
    assert len(pypdfium2.PdfDocument(tmp_path / "x.pdf")) == 3
    items = items_of(tmp_path, "x.pdf")
    assert [(item.number, item.count, item.locator) for item in items] == [(i, 3, f"page={i + 1}") for i in range(3)]
    pictures = [item.content["image"] for item in items]
    assert all(max(picture.size) == PAGE_LONG_SIDE for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_pages_that_are_there_already_are_not_rendered(tmp_path: Path):
    write_pdf(tmp_path / "x.pdf", num_pages=3)
    assert [item.number for item in items_of(tmp_path, "x.pdf", skip=frozenset({0, 2}))] == [1]


def test_a_picture_and_a_video_are_one_item_each(tmp_path: Path):
    write_picture(tmp_path / "x.png", size=(40, 30))
    write_video(tmp_path / "x.mp4", num_frames=12)
    (picture,) = items_of(tmp_path, "x.png")
    assert picture.content["image"].size == (40, 30) and picture.locator == ""
    (video,) = items_of(tmp_path, "x.mp4")
    assert len(video.content["video"]) == 8 and isinstance(video.content["video"][0], Image.Image)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path):
    (tmp_path / "x.txt").write_text("before")
    file = listed(tmp_path, "x.txt")
    (tmp_path / "x.txt").write_text("afterwards")
    with pytest.raises(UnreadableError, match="changed"):
        list(read_items(file, always, 8, 256))
