"""An index never destroys work: what has moved is found again, and what is the same is not embedded again."""

import os
import shutil
import time
from pathlib import Path

import lancedb
import numpy as np
import pytest
from filelock import FileLock
from index_data import LONG_AGO, CountingEncoder, age, rows_by_place, update
from PIL import Image
from small_files import write_pdf, write_picture

from plume_embed.index.folders import default_database
from plume_embed.index.search import open_index
from plume_embed.index.table import BusyError
from plume_embed.index.update import UpdateOptions, update_index

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


def test_a_file_with_a_date_that_no_table_holds_is_indexed_like_any_other(
    folder: Path, encoder: CountingEncoder, hashed: list[str]
):
    os.utime(folder / "whale.txt", (2**34 - 1, 2**34 - 1))  # in the year 2514, or the last that the file system has
    if (folder / "whale.txt").stat().st_mtime_ns < 2**63:
        pytest.skip("this file system has no such dates")
    assert update(folder, encoder).num_items == 3
    hashed.clear()
    assert update(folder, encoder).num_items == 3 and hashed == []


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


def test_what_an_earlier_edition_could_not_read_is_tried_again(
    folder: Path, encoder: CountingEncoder, hashed: list[str]
):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    age(folder)
    update(folder, encoder)
    lancedb.connect(str(folder / ".plume-index")).open_table("files").update(values={"version": "0.2.0"})
    for tried in (["broken.png"], []):
        hashed.clear()
        assert [path for path, _ in update(folder, encoder).unreadable] == ["broken.png"]
        assert sorted(set(hashed)) == tried


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
    assert (hits[0].folder, hits[0].path) == (str(folder), "sub/rose.md") and hits[0].copies == (
        str(other / "copy.md"),
    )
    assert len(hits) == 4
    assert [hit.path for hit in open_index(other, db, encoder, 0).search(query, 1)] == ["copy.md"]
    with pytest.raises(ValueError, match="contains .* in the index"):
        update(tmp_path, encoder, db, add=True)
    shutil.rmtree(other)
    other.mkdir()
    with pytest.raises(ValueError, match="--prune"):
        update(other, encoder, db)


# Rules


def test_a_file_in_two_of_the_folders_is_found_once_and_a_copy_elsewhere_with_its_folder(
    folder: Path, encoder: CountingEncoder, tmp_path: Path
):
    other = tmp_path / "other"
    (folder / "sub").mkdir(exist_ok=True)
    other.mkdir()
    for place in (folder / "a.txt", folder / "sub" / "a.txt", other / "a.txt"):
        place.write_text("a text that is there three times")
    update(folder, encoder, tmp_path / "db")
    update(other, encoder, tmp_path / "db", add=True)
    (query,) = encoder.encode(["a text that is there three times"], num_latent_steps=0)
    for folders, copies in (
        ([folder, folder / "sub"], ("sub/a.txt",)),
        ([folder, other], ("sub/a.txt", str(other / "a.txt"))),
    ):
        opened = open_index(folders, tmp_path / "db", encoder, 0)
        places = [(row.path, row.item) for row in opened.rows()]
        assert places.count(("a.txt", 0)) == len(folders) - (other not in folders)
        (hit,) = opened.search(query, top=1)
        assert (hit.folder, hit.path, hit.copies) == (str(folder), "a.txt", copies)


def test_a_folder_that_became_a_link_is_gone(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    (folder / "old").mkdir()
    (folder / "old" / "x.txt").write_text("a red ferry")
    update_index(folder, tmp_path / "db", encoder)
    (folder / "old").rename(folder / "new")
    (folder / "old").symlink_to("new")
    (folder / "new" / "x.txt").write_text("quantum physics")
    report = update_index(folder, tmp_path / "db", encoder)
    assert report.kept_files == 0
    paths = {row.path for row in open_index(folder, tmp_path / "db", encoder).rows()}
    assert "new/x.txt" in paths and "old/x.txt" not in paths


def test_a_rule_that_leaves_out_all_that_was_indexed_is_followed(tmp_path: Path, encoder: CountingEncoder):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.txt").write_text("a red ferry")
    update_index(tmp_path / "folder", tmp_path / "db", encoder)
    write_picture(tmp_path / "folder" / "p.png")
    update_index(tmp_path / "folder", tmp_path / "db", encoder, options=UpdateOptions(exclude=("*.txt",)))
    assert {row.path for row in open_index(tmp_path / "folder", tmp_path / "db", encoder).rows()} == {"p.png"}


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
    report = update(folder, encoder, exclude=("# pictures", "*.png"))
    assert report.num_items == 2 and (report.left_out_files, report.removed_files) == (1, 0)
    assert report.excluded == {"": 5, "*.png": 1}
    assert update(folder, encoder).num_items == 2, "the pattern is remembered"
    assert update(folder, encoder, exclude=("",)).num_items == 3
    (folder / ".plumeignore").write_text("!node_modules/\n")
    assert update(folder, encoder).num_items == 4
    with pytest.raises(ValueError, match="--exclude: no valid pattern"):
        update(folder, encoder, exclude=("!",))


def test_what_embed_has_written_leaves_an_index_that_an_earlier_version_read_it_into(
    folder: Path, encoder: CountingEncoder
):
    assert update(folder, encoder).num_items == 3
    (folder / "sub" / "_plume.json").write_text("{}")  # now it is an output, and always was for such a version
    report = update(folder, encoder)
    assert (report.num_items, report.left_out_files, report.removed_files) == (1, 2, 0)


def test_a_file_that_is_gone_is_not_newly_left_out(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    (folder / "whale.txt").unlink()
    report = update(folder, encoder, exclude=("*.txt",))
    assert (report.num_items, report.left_out_files, report.removed_files) == (2, 0, 1)


# The place of an index


def test_an_index_is_not_written_among_other_files(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (own / name).write_text("somebody's own")
    with pytest.raises(ValueError, match="own is not empty and holds no index, but a.txt, b.txt, c.txt and 1 more"):
        update(folder, encoder, own)
    assert len(list(own.iterdir())) == 4


def test_an_empty_folder_an_index_and_one_whose_first_run_was_killed_take_an_index(
    folder: Path, encoder: CountingEncoder, tmp_path: Path
):
    db = tmp_path / "db"
    db.mkdir()
    (db / ".DS_Store").write_text("hidden")
    assert update(folder, encoder, db).embedded == 3
    (db / "letter.txt").write_text("put there by hand")
    assert update(folder, encoder, db).embedded == 0
    for path in db.iterdir():  # the tables come last that make it an index
        if path.name not in (".lock", "files.lance"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (db / "letter.txt").write_text("put there by hand")
    assert update(folder, encoder, db).embedded == 3


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
