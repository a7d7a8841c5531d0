"""A folder as files: what is listed, what is left out, and that a listing never leads out of the folder."""

import os
from pathlib import Path

import pytest
from small_files import write_pdf, write_picture, write_video

from plume_embed.index.listing import NotAccessibleError, content_hash, list_folder
from plume_embed.reading.items import SourceFile, UnreadableError


def listed(folder: Path, name: str) -> SourceFile:
    return next(file for file in list_folder(folder).files if file.path == name)


def test_files_are_listed_sorted_by_path_with_their_kind(tmp_path: Path):
    (tmp_path / "b").mkdir()
    for name in ("z.txt", "b/a.MD", "b/c.csv", "a.json"):
        (tmp_path / name).write_text("x")
    write_picture(tmp_path / "b.png")
    write_video(tmp_path / "v.mp4")
    write_pdf(tmp_path / "p.pdf")
    found = [(file.path, file.kind) for file in list_folder(tmp_path).files]
    assert found == [
        ("a.json", "text"),
        ("b.png", "image"),
        ("b/a.MD", "text"),
        ("b/c.csv", "text"),
        ("p.pdf", "page"),
        ("v.mp4", "video"),
        ("z.txt", "text"),
    ]


def test_hidden_files_other_types_and_the_database_are_left_out(tmp_path: Path):
    for name in ("seen.txt", ".hidden.txt", "program.exe", "no_suffix"):
        (tmp_path / name).write_text("x")
    for name in (".git", "db"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inside.txt").write_text("x")
    listing = list_folder(tmp_path, databases=[tmp_path / "db"])
    assert [file.path for file in listing.files] == ["seen.txt"]
    assert listing.other_types == {".exe": 1, "": 1}


def test_links_never_lead_out_of_the_folder_nor_in_circles(tmp_path: Path):
    outside = tmp_path / "outside"
    folder = tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "secret.txt").write_text("x")
    (folder / "real.txt").write_text("x")
    (folder / "inside.txt").symlink_to(folder / "real.txt")
    (folder / "out.txt").symlink_to(outside / "secret.txt")
    (folder / "out").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "self.txt").symlink_to(folder / "self.txt")
    (folder / "nowhere.txt").symlink_to(folder / "gone.txt")
    listing = list_folder(folder)
    assert [file.path for file in listing.files] == ["inside.txt", "real.txt"]
    assert listing.num_links == 5


def test_a_pipe_with_a_text_suffix_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.txt")
    listing = list_folder(tmp_path)
    assert listing.files == [] and listing.other_types == {".txt": 1}


def test_a_name_that_is_not_utf8_is_unreadable(tmp_path: Path):
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))).write_text("x")
    listing = list_folder(tmp_path)
    assert listing.files == [] and "UTF-8" in listing.unreadable[0][1]


def test_names_with_markup_unicode_and_newlines_are_read(tmp_path: Path):
    names = ["[red]x.txt", "größe 🐋.txt", "two\nlines.txt", 'it\'s "quoted".txt']
    for name in names:
        (tmp_path / name).write_text(name)
    assert sorted(file.path for file in list_folder(tmp_path).files) == sorted(names)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path):
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "x.txt").chmod(0)
    with pytest.raises(NotAccessibleError, match="Permission denied"):
        content_hash(listed(tmp_path, "x.txt"))


def test_a_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="No such folder"):
        list_folder(tmp_path / "gone")


def test_equal_bytes_have_equal_hashes_and_an_empty_file_has_none(tmp_path: Path):
    for name, content in (("a.txt", "x"), ("b.txt", "x"), ("c.txt", "y"), ("empty.txt", "")):
        (tmp_path / name).write_text(content)
    a, b, c = (content_hash(listed(tmp_path, name)) for name in ("a.txt", "b.txt", "c.txt"))
    assert a == b != c
    with pytest.raises(UnreadableError, match="^empty$"):
        content_hash(listed(tmp_path, "empty.txt"))
