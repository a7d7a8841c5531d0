"""An index never destroys work: what cannot be looked at is not gone, and what is the same is not embedded again."""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from index_data import CountingEncoder, rows_by_place
from PIL import Image
from small_files import write_pdf, write_picture

from plume_embed.index import listing, look
from plume_embed.index.folders import default_database
from plume_embed.index.search import open_index
from plume_embed.index.table import BusyError
from plume_embed.index.update import UpdateOptions, UpdateReport, update_index
from plume_embed.reading.items import SourceFile
from plume_embed.reading.read import read_items

LONG_AGO = 1_600_000_000


@pytest.fixture(scope="module")
def shared_encoder(released_model_dir: Path) -> CountingEncoder:
    return CountingEncoder(released_model_dir)


@pytest.fixture
def encoder(shared_encoder: CountingEncoder) -> CountingEncoder:
    shared_encoder.embedded.clear()
    return shared_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "whale.txt").write_text("The blue whale is the largest animal.")
    (folder / "sub" / "rose.md").write_text("Roses grow in gardens.")
    write_picture(folder / "sub" / "noise.png")
    age(folder)
    return folder


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that were read for their hash."""
    paths: list[str] = []
    digest = listing.hashlib.file_digest

    def noted(file, name):
        paths.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(listing.hashlib, "file_digest", noted)
    return paths


def age(folder: Path) -> None:
    """Files that have just been written are hashed again at the next update."""
    for path in folder.rglob("*"):
        if path.is_file() and ".plume-index" not in path.parts:
            os.utime(path, (LONG_AGO, LONG_AGO))


def update(folder: Path, encoder: CountingEncoder, db: Path | None = None, reported=None, **options) -> UpdateReport:
    encoder.embedded.clear()
    on_unreadable = (lambda path, reason: reported.append((path, reason))) if reported is not None else lambda *_: None
    return update_index(
        folder,
        db or folder / ".plume-index",
        encoder,
        num_latent_steps=0,
        batch_size=4,
        on_unreadable=on_unreadable,
        options=UpdateOptions(**options),
    )


# What cannot be looked at is not gone


@pytest.mark.parametrize("is_hidden_left", [False, True])
def test_an_empty_folder_over_a_filled_index_is_refused_unless_pruned(
    folder: Path, encoder: CountingEncoder, tmp_path: Path, is_hidden_left: bool
):
    db = tmp_path / "db"
    update(folder, encoder, db)
    before = rows_by_place(db)
    away = folder.rename(tmp_path / "away")
    folder.mkdir()  # where the drive was mounted
    if is_hidden_left:
        (folder / ".trash").mkdir()
    with pytest.raises(ValueError, match=r"None of the 3 files .* drive or a share is away.* --prune"):
        update(folder, encoder, db)
    assert rows_by_place(db) == before
    shutil.rmtree(folder)
    away.rename(folder)
    assert update(folder, encoder, db).embedded == 0 and rows_by_place(db) == before
    shutil.rmtree(folder)
    folder.mkdir()
    report = update(folder, encoder, db, prune=True)
    assert (report.num_items, report.removed_files) == (0, 3) and rows_by_place(db) == {}


def test_a_folder_of_which_nothing_is_left_is_refused_though_other_files_are_there(
    folder: Path, encoder: CountingEncoder, tmp_path: Path
):
    update(folder, encoder, tmp_path / "db")
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "README.txt").write_text("This drive is not mounted.")
    with pytest.raises(ValueError, match="--prune"):
        update(folder, encoder, tmp_path / "db")
    assert len(rows_by_place(tmp_path / "db")) == 3


def test_a_subfolder_that_became_empty_keeps_its_rows_until_it_is_pruned_or_gone(
    folder: Path, encoder: CountingEncoder
):
    update(folder, encoder)
    away = (folder / "sub").rename(folder.parent / "away")
    (folder / "sub").mkdir()
    report = update(folder, encoder)
    assert (report.num_items, report.kept_files, report.away_files, report.removed_files) == (3, 2, 2, 0)
    (folder / "sub").rmdir()
    away.rename(folder / "sub")
    assert update(folder, encoder).embedded == 0
    shutil.rmtree(folder / "sub")
    report = update(folder, encoder)
    assert (report.num_items, report.kept_files, report.removed_files) == (1, 0, 2)


def test_a_file_moved_out_of_a_folder_that_is_empty_now_is_gone_from_there(folder: Path, encoder: CountingEncoder):
    db = folder / ".plume-index"
    (folder / "other").mkdir()
    update(folder, encoder)
    before = rows_by_place(db)
    left, *moved = sorted((folder / "sub").iterdir())
    assert moved
    for file in moved:
        file.rename(folder / "other" / file.name)
    left.unlink()
    report = update(folder, encoder)
    assert (report.embedded, report.kept_files, report.away_files, report.removed_files) == (0, 1, 1, len(moved))
    new = {path: path.replace("sub/", "other/") for path, _ in before if path != f"sub/{left.name}"}
    assert {path for path, _ in rows_by_place(db)} == {*new.values(), f"sub/{left.name}"}
    report = update(folder, encoder, prune=True)
    assert (report.kept_files, report.away_files, report.removed_files) == (0, 0, 1)


def test_files_of_a_drive_that_is_away_are_there_again_though_copies_of_them_are_elsewhere(
    folder: Path, encoder: CountingEncoder
):
    shutil.copytree(folder / "sub", folder / "copies")
    update(folder, encoder)
    before, away = rows_by_place(folder / ".plume-index"), (folder / "sub").rename(folder.parent / "away")
    (folder / "sub").mkdir()
    assert update(folder, encoder).removed_files == 2
    (folder / "sub").rmdir()
    away.rename(folder / "sub")
    assert update(folder, encoder).embedded == 0 and rows_by_place(folder / ".plume-index") == before


def failing(monkeypatch: pytest.MonkeyPatch, name: str, function: str) -> None:
    """Lets a call fail for paths with this name, as a bad disk or missing rights do (root may read everything)."""
    original = getattr(os, function)

    def broken(path, *arguments, **options):
        if Path(os.fspath(path) if not isinstance(path, int) else ".").name == name:
            raise OSError(5, "Input/output error", str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, function, broken)


def test_a_subfolder_that_cannot_be_entered_keeps_its_rows(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    update(folder, encoder)
    before = rows_by_place(folder / ".plume-index")
    reported: list[tuple[str, str]] = []
    with monkeypatch.context() as patch:
        failing(patch, "sub", "scandir")
        report = update(folder, encoder, reported=reported)
        assert reported == [("sub", "Input/output error")] and (report.kept_files, report.away_files) == (2, 0)
        assert rows_by_place(folder / ".plume-index") == before
        update(folder, encoder, reported=reported)
        assert len(reported) == 1, "it is reported once"
    assert update(folder, encoder).unreadable == [] and encoder.embedded == []


def test_a_file_with_an_input_output_error_keeps_its_rows(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    update(folder, encoder)
    before = rows_by_place(folder / ".plume-index")
    os.utime(folder / "whale.txt")
    opened = Path.open

    def broken(path: Path, *arguments, **options):
        if path.name == "whale.txt":
            raise OSError(5, "Input/output error")
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken)
        reported: list[tuple[str, str]] = []
        report = update(folder, encoder, reported=reported)
        assert reported == report.unreadable == [("whale.txt", "Input/output error")]
        assert rows_by_place(folder / ".plume-index") == before
        assert update(folder, encoder, reported=reported).unreadable == reported and len(reported) == 1
    assert update(folder, encoder).unreadable == [] and encoder.embedded == []


def test_files_of_a_type_that_this_machine_does_not_read_keep_their_rows(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    """As when the extra with a decoder is not installed any more."""
    update(folder, encoder)
    known = listing.kind_by_suffix
    monkeypatch.setattr(listing, "kind_by_suffix", lambda suffix: None if suffix == ".png" else known(suffix))
    report = update(folder, encoder)
    assert (report.num_items, report.kept_files, report.other_types) == (3, 1, {".png": 1})


@contextmanager
def changing_while_another_is_hashed(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> Iterator[None]:
    """Calls `change` when the first file is read for its hash: the listing is over then."""
    digest, changes = listing.hashlib.file_digest, [change]

    def changing(file, name):
        while changes:
            changes.pop()()
        return digest(file, name)

    with monkeypatch.context() as patch:
        patch.setattr(listing.hashlib, "file_digest", changing)
        yield


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize("name", ["whale.txt", "a_hashed_first.txt"])
def test_a_file_that_changes_between_listing_and_hashing_keeps_its_items_and_is_read_by_the_next_update(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch, is_indexed: bool, name: str
):
    changed = folder / name
    if is_indexed:
        changed.write_text("The first text.")
        age(folder)
        update(folder, encoder)
    before = rows_by_place(folder / ".plume-index") if is_indexed else {}
    changed.write_text("The second text.")
    (folder / "a.txt").write_text("Another new one, hashed first where the name is behind it.")
    age(folder)
    reported: list[tuple[str, str]] = []
    with changing_while_another_is_hashed(monkeypatch, lambda: changed.write_text("The third and last text.")):
        update(folder, encoder, reported=reported)
    assert reported == [(name, "it has changed since it was listed; run again")]
    after = rows_by_place(folder / ".plume-index")
    assert after.get((name, "")) == before.get((name, "")), "what was known stays, and nothing else is believed"
    assert update(folder, encoder).unreadable == []
    assert rows_by_place(folder / ".plume-index")[name, ""]["snippet"] == "The third and last text."


def test_a_file_that_is_emptied_to_be_written_anew_is_not_taken_for_empty(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    update(folder, encoder)
    before = rows_by_place(folder / ".plume-index")
    (folder / "whale.txt").write_text("")
    (folder / "a.txt").write_text("hashed first")
    with changing_while_another_is_hashed(monkeypatch, lambda: (folder / "whale.txt").write_text("Filled again.")):
        update(folder, encoder)
    assert rows_by_place(folder / ".plume-index")["whale.txt", ""] == before["whale.txt", ""]
    assert update(folder, encoder).unreadable == []


def test_a_file_that_is_only_touched_while_it_is_read_is_read_by_the_next_update(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    from plume_embed.index import update as module

    def touching(file, *arguments):
        if file.path == "whale.txt":
            os.utime(file.absolute, (LONG_AGO + 9, LONG_AGO + 9))
        return read_items(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_items", touching)
        assert update(folder, encoder).num_items == 2
    report = update(folder, encoder)
    assert (report.num_items, report.embedded, report.unreadable) == (3, 1, [])


def test_a_file_that_changed_a_moment_before_a_long_run_is_hashed_again(
    folder: Path, encoder: CountingEncoder, hashed: list[str], monkeypatch: pytest.MonkeyPatch
):
    """It can change once more within the tick of the clock, however long the run takes afterwards."""
    now = time.time_ns()
    os.utime(folder / "whale.txt", ns=(now, now))
    with monkeypatch.context() as patch:
        patch.setattr(look, "time", SimpleNamespace(time_ns=lambda: now + 10**11))
        update(folder, encoder)
    hashed.clear()
    update(folder, encoder)
    assert hashed == ["whale.txt"]


@pytest.mark.parametrize(
    ("after_listing", "is_sure"), [(-3, True), (-1, False), (0, False), (30, False), (61, False), (3600, True)]
)
def test_a_file_that_changed_in_a_long_listing_is_not_sure(
    monkeypatch: pytest.MonkeyPatch, after_listing: int, is_sure: bool
):
    """The listing began a minute ago; a date far in the future is as good as any."""
    listed_ns = LONG_AGO * 10**9
    monkeypatch.setattr(look, "time", SimpleNamespace(time_ns=lambda: listed_ns + 60 * 10**9))
    file = SourceFile("x.txt", Path("x.txt"), "text", 1, listed_ns + after_listing * 10**9)
    row = look.row_of(file, 0, "text-x", 1, (), listed_ns)
    assert row.mtime_ns == (file.mtime_ns if is_sure else 0)


def denied(monkeypatch: pytest.MonkeyPatch, folder: Path, is_listed: bool) -> None:
    """Takes the permissions of a folder away, as far as Python sees: root has them all.

    Args:
        is_listed (`bool`): The names in it can still be read, as with mode 444.
    """

    def guarded(function: Callable, is_itself: bool) -> Callable:
        def refusing(path=".", *arguments, **options):
            place = Path(os.fsdecode(path)) if not isinstance(path, int) else Path()
            if folder in place.parents or (is_itself and place == folder):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return refusing

    for name in ("stat", "lstat", "listdir", "scandir"):
        is_itself = name in ("listdir", "scandir") and not is_listed
        monkeypatch.setattr(os, name, guarded(getattr(os, name), is_itself))
    monkeypatch.setattr(io, "open", guarded(io.open, False))


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_subfolder_without_permission_keeps_its_items_and_the_others_are_updated(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch, is_listed: bool
):
    update(folder, encoder)
    before = rows_by_place(folder / ".plume-index")
    (folder / "new.txt").write_text("A new text.")
    for prune in (False, True):
        with monkeypatch.context() as patch:
            denied(patch, folder / "sub", is_listed)
            report = update(folder, encoder, prune=prune)
        places = ["sub/noise.png", "sub/rose.md"] if is_listed else ["sub"]
        assert sorted(report.unreadable) == [(place, "Permission denied") for place in places]
        after = rows_by_place(folder / ".plume-index")
        assert after.keys() == {*before, ("new.txt", "")} and all(after[place] == before[place] for place in before)
    assert update(folder, encoder).unreadable == [] and encoder.embedded == []


def test_a_new_subfolder_without_permission_leaves_the_others_readable(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        denied(patch, folder / "sub", is_listed=True)
        assert update(folder, encoder).num_items == 1
    assert update(folder, encoder).num_items == 3


# Moved folders


def test_a_moved_folder_is_adopted_when_it_is_said_to_have_moved(
    folder: Path, encoder: CountingEncoder, tmp_path: Path
):
    db = tmp_path / "db"
    update(folder, encoder, db)
    before = rows_by_place(db)
    moved = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"another folder .*--moved"):
        update(moved, encoder, db)
    (moved / "sub" / "rose.md").rename(moved / "rose.md")
    report = update(moved, encoder, db, moved=True)
    assert report.embedded == 0 and encoder.embedded == []
    assert {place: row["vector"] for place, row in rows_by_place(db).items()} == {
        (path.replace("sub/rose.md", "rose.md"), locator): row["vector"] for (path, locator), row in before.items()
    }
    assert update(moved, encoder, db).embedded == 0


def test_another_folder_is_not_adopted_as_the_moved_one(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    db, other = tmp_path / "db", tmp_path / "other"
    update(folder, encoder, db)
    before = rows_by_place(db)
    other.mkdir()
    (other / "whale.txt").write_text("A text of the same name and another content")
    with pytest.raises(ValueError, match="holds none of the 3 files of .*; pass another --to"):
        update(other, encoder, db, moved=True)
    assert rows_by_place(db) == before and update(folder, encoder, db).embedded == 0


def test_an_index_that_was_moved_out_of_its_folder_means_no_other_folder(
    folder: Path, encoder: CountingEncoder, tmp_path: Path
):
    update(folder, encoder)
    db, before = tmp_path / "out.index", rows_by_place(folder / ".plume-index")
    (folder / ".plume-index").rename(db)
    for refused in (update, lambda *arguments: open_index(folder, db, encoder, 0)):
        with pytest.raises(ValueError, match=r"where none of its files is\. If it was moved .* pass --moved"):
            refused(folder, encoder, db)
    assert rows_by_place(db) == before
    report = update(folder, encoder, db, moved=True)
    assert (report.num_items, report.embedded, report.removed_files) == (3, 0, 0) and rows_by_place(db) == before
    assert update(folder, encoder, db).embedded == 0


def test_a_new_subfolder_of_a_folder_with_an_index_is_found_in_it(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    (folder / "sub" / "rose.md").unlink()
    (folder / "new").mkdir()
    (folder / "new" / "x.txt").write_text("new")
    assert update(folder / "new", encoder, folder / ".plume-index").embedded == 1


# What is the same is neither read nor embedded


def test_only_files_whose_size_or_date_changed_are_hashed(folder: Path, encoder: CountingEncoder, hashed: list[str]):
    update(folder, encoder)
    assert sorted(hashed) == ["noise.png", "rose.md", "whale.txt"]
    hashed.clear()
    update(folder, encoder)
    assert hashed == []
    os.utime(folder / "whale.txt", (LONG_AGO + 9, LONG_AGO + 9))
    assert update(folder, encoder).embedded == 0 and hashed == ["whale.txt"]
    hashed.clear()
    update(folder, encoder)
    assert hashed == []
    update(folder, encoder, verify=True)
    assert sorted(hashed) == ["noise.png", "rose.md", "whale.txt"] and encoder.embedded == []


def test_a_file_with_its_old_size_and_date_and_a_new_content_is_found_by_verifying(
    folder: Path, encoder: CountingEncoder
):
    update(folder, encoder)
    (folder / "whale.txt").write_text("The blue whale is the LARGEST animal.")
    age(folder)
    assert update(folder, encoder).embedded == 0
    assert update(folder, encoder, verify=True).embedded == 1


def test_a_file_that_changed_a_moment_ago_is_hashed_again(folder: Path, encoder: CountingEncoder):
    now = time.time_ns()
    (folder / "whale.txt").write_text("aaaa")
    os.utime(folder / "whale.txt", ns=(now, now))
    update(folder, encoder)
    (folder / "whale.txt").write_text("bbbb")
    os.utime(folder / "whale.txt", ns=(now, now))  # within the same tick of the clock
    assert update(folder, encoder).embedded == 1


def test_a_line_at_the_end_of_a_long_text_embeds_only_the_passages_that_changed(
    tmp_path: Path, encoder: CountingEncoder
):
    text = "\n\n".join(f"Paragraph {i}. " + f"Words about {i}. " * 40 for i in range(20))
    (tmp_path / "long.txt").write_text(text)
    first = update(tmp_path, encoder)
    before = rows_by_place(tmp_path / ".plume-index")
    (tmp_path / "long.txt").write_text(text + "\n\nOne more line.")
    report = update(tmp_path, encoder)
    assert first.num_items == 20 and report.embedded == 1 and report.reused == 19
    assert encoder.embedded[-1]["text"].endswith("One more line.")
    after = rows_by_place(tmp_path / ".plume-index")
    assert len(after) == report.num_items and len({row["content"] for row in after.values()}) == 1
    vectors = {row["digest"]: row["vector"] for row in before.values()}
    assert sum(vectors.get(row["digest"]) == row["vector"] for row in after.values()) == 19


def test_a_changed_comment_in_a_jpeg_embeds_nothing_and_a_changed_pixel_does(tmp_path: Path, encoder: CountingEncoder):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "x.jpg", comment=b"one")
    first = (tmp_path / "x.jpg").read_bytes()
    update(tmp_path, encoder)
    picture.save(tmp_path / "x.jpg", comment=b"another comment")
    assert (tmp_path / "x.jpg").read_bytes() != first
    report = update(tmp_path, encoder)
    assert encoder.embedded == [] and (report.embedded, report.reused, report.num_items) == (0, 1, 1)
    picture.putpixel((0, 0), (255, 0, 0))
    picture.save(tmp_path / "x.jpg", quality=100)
    assert update(tmp_path, encoder).embedded == 1


# What is unreadable


def test_unreadable_files_are_told_once_and_not_read_again(folder: Path, encoder: CountingEncoder, monkeypatch):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "empty.txt").touch()
    write_picture(folder / "thread.png", size=(2, 2000))  # the image processor refuses such a shape
    age(folder)
    reported: list[tuple[str, str]] = []
    first = update(folder, encoder, reported=reported)
    assert sorted(path for path, _ in reported) == ["broken.png", "empty.txt", "thread.png"]
    assert sorted(first.unreadable) == sorted(reported)
    from plume_embed.index import update as module

    monkeypatch.setattr(module, "read_items", lambda *_: pytest.fail("a file was read"))
    again = update(folder, encoder, reported=reported)
    assert len(reported) == 3 and sorted(again.unreadable) == sorted(first.unreadable)
    update(folder, encoder, reported=reported, tell_all=True)
    assert len(reported) == 6
    monkeypatch.undo()
    write_picture(folder / "broken.png", seed=5)
    report = update(folder, encoder, reported=reported)
    assert report.embedded == 1 and len(reported) == 6 and len(report.unreadable) == 2


# Several folders


def test_a_folder_inside_an_indexed_folder_uses_its_index(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    db = default_database(folder / "sub")
    assert db == folder / ".plume-index"
    (folder / "new.txt").write_text("outside of the part that is searched")
    (folder / "sub" / "new.txt").write_text("inside")
    report = update(folder / "sub", encoder, db)
    assert [item["text"] for item in encoder.embedded] == ["inside"] and report.num_items == 3
    assert not (folder / "sub" / ".plume-index").exists()
    query = encoder.encode(["The blue whale is the largest animal."], num_latent_steps=0)[0]
    hits = open_index(folder / "sub", db, encoder, 0).search(query, 9)
    assert sorted(hit.path for hit in hits) == ["new.txt", "noise.png", "rose.md"]
    whole = open_index(folder, db, encoder, 0).search(query, 9)
    assert whole[0].path == "whale.txt" and len(whole) == 4


def test_a_hidden_or_excluded_folder_has_an_index_of_its_own(folder: Path, encoder: CountingEncoder):
    update(folder, encoder, exclude=("left",))
    for name in (".hidden", "left"):
        (folder / name).mkdir()
        (folder / name / "x.txt").write_text("x")
    assert default_database(folder / ".hidden") == folder / ".hidden" / ".plume-index"
    with pytest.raises(ValueError, match="left out of the index of .* pass --to"):
        update(folder / "left", encoder, folder / ".plume-index")


def test_an_index_holds_several_folders(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    other, db = tmp_path / "other", tmp_path / "db"
    other.mkdir()
    (other / "whales.txt").write_text("Another whale.")
    (other / "copy.md").write_text("Roses grow in gardens.")
    update(folder, encoder, db)
    before = rows_by_place(db)
    report = update(other, encoder, db, add=True)
    assert (report.num_items, report.embedded, report.reused) == (2, 1, 1)
    assert update(folder, encoder, db).embedded == 0 and len(rows_by_place(db)) == len(before) + 2
    query = encoder.encode(["Roses grow in gardens."], num_latent_steps=0)[0]
    hits = open_index([folder, other], db, encoder, 0).search(query, 9)
    assert (hits[0].folder, hits[0].path) == (str(folder), "sub/rose.md") and hits[0].copies == ("copy.md",)
    assert len(hits) == 4
    assert [hit.path for hit in open_index(other, db, encoder, 0).search(query, 1)] == ["copy.md"]
    with pytest.raises(ValueError, match="contains .* in the index"):
        update(tmp_path, encoder, db, add=True)
    shutil.rmtree(other)
    other.mkdir()
    with pytest.raises(ValueError, match="--prune"):
        update(other, encoder, db)


# Rules


def test_rules_leave_files_out_and_are_remembered(folder: Path, encoder: CountingEncoder):
    for path in ("@eaDir/thumb.png", "node_modules/x.md", "System Volume Information/x.txt", "sub/drafts/a.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("left out") if path.endswith("txt") or path.endswith("md") else write_picture(
            folder / path
        )
    (folder / "sub" / ".plumeignore").write_text("# of this folder\ndrafts/\n*.md\n!rose.md\n")
    (folder / "sub" / "other.md").write_text("left out")
    age(folder)
    report = update(folder, encoder)
    assert report.num_items == 3 and report.num_excluded == 5
    report = update(folder, encoder, exclude=("*.png",))
    assert report.num_items == 2 and report.removed_files == 1
    assert update(folder, encoder).num_items == 2, "the pattern is remembered"
    assert update(folder, encoder, exclude=("",)).num_items == 3
    (folder / ".plumeignore").write_text("!node_modules/\n")
    assert update(folder, encoder).num_items == 4
    with pytest.raises(ValueError, match="--exclude: no valid pattern"):
        update(folder, encoder, exclude=("!",))


# Searching


def test_while_an_index_is_updated_it_can_be_searched_and_not_updated(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    db = folder / ".plume-index"
    with FileLock(db / ".lock"):
        with pytest.raises(BusyError, match="being updated by another process"):
            update(folder, encoder)
        query = encoder.encode(["The blue whale is the largest animal."], num_latent_steps=0)[0]
        assert open_index(folder, db, encoder, 0).search(query, 1)[0].path == "whale.txt"


def test_an_interrupted_update_shows_the_old_content_of_a_file_or_the_new_one_and_never_both(
    tmp_path: Path, encoder: CountingEncoder
):
    write_pdf(tmp_path / "x.pdf", num_pages=2)
    update(tmp_path, encoder)
    write_pdf(tmp_path / "x.pdf", num_pages=9)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    db = tmp_path / ".plume-index"
    with pytest.raises(KeyboardInterrupt):
        update_index(tmp_path, db, encoder, 0, batch_size=4, on_progress=stop)
    assert len(open_index(tmp_path, db, encoder, 0).rows()) == 2
    assert update(tmp_path, encoder).num_items == 9 and len(rows_by_place(db)) == 9
    assert len(open_index(tmp_path, db, encoder, 0).rows()) == 9


def test_kinds_and_a_least_score_narrow_a_search(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    query = encoder.encode(["The blue whale is the largest animal."], num_latent_steps=0)[0]
    opened = open_index(folder, folder / ".plume-index", encoder, 0)
    scores = {hit.path: hit.score for hit in opened.search(query, 9)}
    assert [hit.kind for hit in opened.search(query, 9, kinds=["image"])] == ["image"]
    assert {hit.kind for hit in opened.search(query, 9, kinds=["text", "video"])} == {"text"}
    least = sorted(scores.values())[1]
    assert {hit.path for hit in opened.search(query, 9, min_score=least - 1e-6)} == {
        path for path, score in scores.items() if score >= least
    }
    assert opened.search(query, 9, min_score=1.5) == []
