"""What cannot be looked at is not gone: items of folders that are away or closed, and of files that fail, are kept."""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from index_data import LONG_AGO, CountingEncoder, age, rows_by_place, update
from killed_decoders import kill_decoders
from small_files import write_pdf

from plume_embed.index import listing, look
from plume_embed.reading.items import SourceFile
from plume_embed.reading.read import read_items


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


def ignore_case(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Lets the system find names inside a folder in small and capital letters alike, as those of macOS and Windows."""
    status = os.stat

    def in_any_case(path, **options):
        try:
            return status(path, **options)
        except FileNotFoundError:
            found = root
            for part in Path(path).relative_to(root).parts:
                same = [name for name in os.listdir(found) if name.lower() == part.lower()]
                if not same:
                    raise
                found /= same[0]
            return status(found, **options)

    monkeypatch.setattr(os, "stat", in_any_case)
    monkeypatch.setattr(os, "lstat", lambda path: in_any_case(path, follow_symlinks=False))


def test_a_name_in_other_letters_is_another_one_where_the_system_finds_it_by_both(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    update(folder, encoder)
    ignore_case(monkeypatch, folder)
    (folder / "whale.txt").rename(folder / "Whale.txt")
    (folder / "sub").rename(folder / "Sub")
    report = update(folder, encoder)
    assert (report.num_items, report.embedded, report.removed_files) == (3, 0, 3)
    paths = {path for path, _ in rows_by_place(folder / ".plume-index")}
    assert paths == {"Whale.txt", "Sub/noise.png", "Sub/rose.md"}


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


def test_a_picture_whose_decoder_the_system_kills_is_read_again_at_once_and_else_by_the_next_update(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    reported: list[tuple[str, str]] = []
    for _ in range(2):
        kill_decoders(monkeypatch, [0, 0])
        report = update(folder, encoder, reported=reported)
        assert (report.num_items, report.unreadable) == (2, reported)
    ((path, reason),) = reported
    assert path == "sub/noise.png" and "ended from outside" in reason
    kill_decoders(monkeypatch, [0])
    report = update(folder, encoder)
    assert (report.num_items, report.embedded, report.unreadable) == (3, 1, [])
    assert update(folder, encoder).embedded == 0


def test_a_page_whose_decoder_the_system_kills_is_all_that_the_next_update_reads(
    folder: Path, encoder: CountingEncoder, hashed: list[str], monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(folder / "sub")
    write_pdf(folder / "x.pdf", num_pages=4)
    age(folder)
    kill_decoders(monkeypatch, [3, 1])
    report = update(folder, encoder)
    assert report.num_items == 4 and [place for place, _ in report.unreadable] == ["x.pdf#page=3"]
    report = update(folder, encoder)
    assert (report.num_items, report.embedded, report.unreadable) == (5, 1, [])
    hashed.clear()
    assert update(folder, encoder).num_items == 5 and hashed == []


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


def test_a_copy_of_a_file_that_goes_while_it_is_read_is_read_on(
    tmp_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    from plume_embed.index import update as module

    folder = tmp_path / "copies"
    folder.mkdir()
    write_pdf(folder / "a.pdf", num_pages=3)
    shutil.copy(folder / "a.pdf", folder / "b.pdf")
    age(folder)

    def lost_behind_its_first_page(file, *arguments):
        for item in read_items(file, *arguments):
            yield item
            if file.path == "a.pdf":
                file.absolute.unlink()

    reported: list[tuple[str, str]] = []
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_items", lost_behind_its_first_page)
        report = update(folder, encoder, reported=reported)
    assert reported == report.unreadable == [("a.pdf", "No such file or directory")]
    assert (report.num_files, report.num_items, report.embedded, report.reused) == (1, 3, 3, 0)
    assert list(rows_by_place(folder / ".plume-index")) == [("b.pdf", f"page={number}") for number in (1, 2, 3)]
    report = update(folder, encoder)
    assert (report.num_items, report.embedded, report.unreadable) == (3, 0, [])


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
