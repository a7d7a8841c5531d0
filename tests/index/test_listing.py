"""A folder as files: what is listed, what is left out, and that a listing never leads out of the folder."""

import hashlib
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
    assert sorted(listing.others) == ["no_suffix", "program.exe"]


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
    assert sorted(listing.links) == ["loop", "nowhere.txt", "out", "out.txt", "self.txt"]


def test_a_pipe_with_a_text_suffix_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.txt")
    listing = list_folder(tmp_path)
    assert listing.files == [] and listing.others == ["pipe.txt"]


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


def test_a_file_that_is_not_as_it_was_listed_has_no_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.txt").write_text("x")
    file, digest = listed(tmp_path, "x.txt"), hashlib.file_digest

    def while_it_is_read(opened, name):
        (tmp_path / "x.txt").write_text("longer")
        return digest(opened, name)

    monkeypatch.setattr(hashlib, "file_digest", while_it_is_read)
    for _ in ("changed while it is read", "changed before"):
        with pytest.raises(NotAccessibleError, match="it has changed since it was listed; run again"):
            content_hash(file)
    (tmp_path / "x.txt").unlink()
    with pytest.raises(NotAccessibleError, match="No such file"):
        content_hash(file)


def test_rules_that_cannot_be_read_are_refused_where_the_folder_can(tmp_path: Path):
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / ".plumeignore").mkdir()  # what root cannot read either
    with pytest.raises(ValueError, match="Cannot read the rules in .*/.plumeignore: .*Is a directory"):
        list_folder(tmp_path)


@pytest.mark.parametrize("has_rules", [False, True])
def test_a_path_too_long_for_rules_in_it_is_listed_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_rules: bool
):
    deep = tmp_path
    while len(str(deep)) < 3870:
        deep /= "n" * 200
    deep /= "m" * (4095 - len("/a.txt") - len(str(deep)) - 1)
    start = Path.cwd()
    try:
        os.chdir(tmp_path)
        for name in deep.relative_to(tmp_path).parts:  # no call takes the whole path of what is in it
            os.mkdir(name)
            os.chdir(name)
        Path("a.txt").write_text("deep")
        Path("a_longer_name.txt").write_text("deeper")
        if has_rules:
            Path(".plumeignore").write_text("a.txt")
    finally:
        os.chdir(start)
    if has_rules:
        with pytest.raises(ValueError, match="Cannot read the rules in .*File name too long"):
            list_folder(tmp_path)
    else:
        found = list_folder(tmp_path)
        assert [file.absolute.name for file in found.files] == ["a.txt"]
        assert [reason for _, reason in found.unreadable] == ["File name too long"]


def test_an_index_with_a_visible_name_is_passed_over_and_what_lies_beside_its_tables_is_not(tmp_path: Path):
    for name in ("items.lance/_versions/latest_version_hint.json", "folders.lance/data/x.json", "snapshot.json"):
        for folder in ("x.index", "sub/y.index", "mine"):
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
    (tmp_path / "x.index" / "letter.txt").write_text("put there by hand")
    for name in ("folders", "items"):
        (tmp_path / "mine" / f"{name}.lance").rename(tmp_path / "mine" / name)  # no index
    found = list_folder(tmp_path)
    mine = ["folders/data/x.json", "items/_versions/latest_version_hint.json", "snapshot.json"]
    assert [file.path for file in found.files] == [*(f"mine/{name}" for name in mine), "x.index/letter.txt"]
    assert found.num_excluded == 6
    assert found.is_gone("x.index/snapshot.json"), "an earlier version indexed it"
    again = list_folder(tmp_path, databases=[tmp_path / "x.index"])
    assert "x.index/letter.txt" not in [file.path for file in again.files] and again.num_excluded == 3


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


def test_what_embed_has_written_is_passed_over_and_gone_where_it_was_indexed(tmp_path: Path):
    for name in ("out/_plume.json", "killed.parquet.partial/.lock", "killed.parquet.partial/job.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "letters.partial").mkdir()
    (tmp_path / "letters.partial" / "a.txt").write_text("somebody's own")
    found = list_folder(tmp_path)
    assert [file.path for file in found.files] == ["letters.partial/a.txt"] and found.num_excluded == 2
    assert found.is_gone("out/_plume.json") and found.is_gone("killed.parquet.partial/job.json")
    assert [file.path for file in list_folder(tmp_path / "out").files] == ["_plume.json"], "asked for by name"
