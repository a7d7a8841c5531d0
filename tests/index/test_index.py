"""The index of a folder follows the folder; nothing is embedded twice, lost or doubled."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock
from index_data import CountingEncoder, rows_by_place, write_texts
from PIL import Image
from small_files import write_encrypted_pdf, write_pdf, write_picture, write_video

from plume_embed.encode.encoder import Encoder
from plume_embed.index import table
from plume_embed.index.search import open_index
from plume_embed.index.store import Index
from plume_embed.index.table import Metadata, errors_named
from plume_embed.index.update import UpdateReport, update_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six items: two texts, a picture, a video, a PDF of two pages."""
    folder = write_texts(tmp_path / "folder")
    write_picture(folder / "noise.png")
    write_video(folder / "clip.mp4")
    write_pdf(folder / "report.pdf", num_pages=2)
    return folder


def update(folder: Path, encoder: CountingEncoder, **options) -> UpdateReport:
    return update_index(folder, folder / ".plume-index", encoder, num_latent_steps=2, batch_size=4, **options)


def test_every_type_is_indexed_with_the_vectors_of_the_encoder(folder: Path, encoder: CountingEncoder):
    report = update(folder, encoder)
    assert (report.num_files, report.num_items, report.embedded, report.unreadable) == (5, 6, 6, [])
    rows = rows_by_place(folder / ".plume-index")
    kinds = {place: row["kind"] for place, row in rows.items()}
    assert kinds == {
        ("whale.txt", ""): "text",
        ("sub/rose.md", ""): "text",
        ("noise.png", ""): "image",
        ("clip.mp4", ""): "video",
        ("report.pdf", "page=1"): "page",
        ("report.pdf", "page=2"): "page",
    }
    direct = encoder.encode([{"image": folder / "noise.png"}, {"video": folder / "clip.mp4"}], num_latent_steps=2)
    stored = np.array([rows["noise.png", ""]["vector"], rows["clip.mp4", ""]["vector"]])
    np.testing.assert_allclose(stored, direct, atol=1e-5)
    assert rows["whale.txt", ""]["snippet"] == "The blue whale is the largest animal."


def test_a_second_update_embeds_nothing(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    encoder.embedded.clear()
    report = update(folder, encoder)
    assert encoder.embedded == [] and report.embedded == report.reused == report.removed_files == 0
    assert report.num_items == 6


def test_only_changed_and_new_files_are_embedded_and_lost_ones_removed(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    encoder.embedded.clear()
    (folder / "whale.txt").write_text("Another text.")
    (folder / "new.txt").write_text("A new file.")
    (folder / "noise.png").unlink()
    report = update(folder, encoder)
    assert sorted(item["text"] for item in encoder.embedded) == ["A new file.", "Another text."]
    assert report.removed_files == 2
    places = rows_by_place(folder / ".plume-index")
    assert ("noise.png", "") not in places and len(places) == 6
    assert places["whale.txt", ""]["snippet"] == "Another text."


def test_moved_copied_and_swapped_files_keep_their_vectors(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    before = rows_by_place(folder / ".plume-index")
    encoder.embedded.clear()
    (folder / "report.pdf").rename(folder / "sub" / "it's [bold]moved\n.pdf")
    (folder / "copy.png").write_bytes((folder / "noise.png").read_bytes())
    whale, rose = (folder / "whale.txt").read_text(), (folder / "sub" / "rose.md").read_text()
    (folder / "whale.txt").write_text(rose)
    (folder / "sub" / "rose.md").write_text(whale)
    report = update(folder, encoder)
    assert encoder.embedded == [] and report.reused == 5
    after = rows_by_place(folder / ".plume-index")
    assert len(after) == 7
    for new, old in (
        (("sub/it's [bold]moved\n.pdf", "page=2"), ("report.pdf", "page=2")),
        (("copy.png", ""), ("noise.png", "")),
        (("whale.txt", ""), ("sub/rose.md", "")),
        (("sub/rose.md", ""), ("whale.txt", "")),
    ):
        assert after[new]["vector"] == before[old]["vector"]
        assert after[new]["embedded_at"] == before[old]["embedded_at"]


def test_equal_files_are_embedded_once_and_found_twice(tmp_path: Path, encoder: CountingEncoder):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same text")
    report = update(tmp_path, encoder)
    assert len(encoder.embedded) == 1 and report.num_items == 2 and report.reused == 1


def test_the_same_bytes_read_as_another_type_are_another_item(tmp_path: Path, encoder: CountingEncoder):
    (tmp_path / "x.png").write_text("this is text")
    (tmp_path / "x.txt").write_text("this is text")
    report = update(tmp_path, encoder)
    assert [path for path, _ in report.unreadable] == ["x.png"] and report.num_items == 1


def test_hostile_files_are_skipped_with_their_reasons(folder: Path, encoder: CountingEncoder):
    (folder / "empty.txt").touch()
    (folder / "zero.mp4").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "cut.png").write_bytes((folder / "noise.png").read_bytes()[:80])
    write_encrypted_pdf(folder / "secret.pdf")
    write_picture(folder / "thread.png", size=(2, 2000))  # the image processor refuses such a shape
    seen = []
    report = update(folder, encoder, on_unreadable=lambda path, reason: seen.append((path, reason)))
    assert report.num_items == 6 and report.unreadable == seen
    reasons = dict(seen)
    assert set(reasons) == {"empty.txt", "zero.mp4", "text.png", "cut.png", "secret.pdf", "thread.png"}
    assert reasons["empty.txt"] == reasons["zero.mp4"] == "empty"
    assert "password" in reasons["secret.pdf"] and "aspect ratio" in reasons["thread.png"]


def test_an_item_that_the_model_refuses_does_not_take_its_batch_along(tmp_path: Path, encoder: CountingEncoder):
    pictures = [write_picture(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    thread = write_picture(tmp_path / "thread.png", size=(2, 2000))
    items = [*pictures[:2], thread, pictures[2]]
    vectors, errors = encoder.encode_readable(items, batch_size=4)
    assert list(errors) == [2] and np.isnan(vectors[2]).all()
    np.testing.assert_allclose(vectors[[0, 1, 3]], encoder.encode(pictures), atol=1e-5)
    with pytest.raises(ValueError, match=r"^Item 2: "):
        encoder.encode(items)


def test_nothing_readable_is_an_error(tmp_path: Path, encoder: CountingEncoder):
    (tmp_path / "x.exe").write_text("x")
    with pytest.raises(ValueError, match="Nothing readable"):
        update(tmp_path, encoder)
    assert not (tmp_path / ".plume-index").exists()
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="1 unreadable, 1 of other types"):
        update(tmp_path, encoder)


@pytest.mark.parametrize("batch_size", ["8", 2.5, 0])
def test_a_batch_size_that_is_none_is_refused_before_an_index_is_made(
    folder: Path, encoder: CountingEncoder, batch_size: object
):
    with pytest.raises(ValueError, match="batch_size must be a whole number above 0"):
        update_index(folder, folder / ".plume-index", encoder, batch_size=batch_size)
    assert not (folder / ".plume-index").exists()


def test_an_index_of_another_model_or_k_or_folder_is_refused(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    db = tmp_path / "db"
    update_index(folder, db, encoder, num_latent_steps=2)
    with pytest.raises(ValueError, match=r"K = 2 .* pass --latent-steps 2"):
        update_index(folder, db, encoder, num_latent_steps=3)
    (tmp_path / "another").mkdir()
    with pytest.raises(ValueError, match="index of another folder .*--to, --moved .* --also"):
        update_index(tmp_path / "another", db, encoder, num_latent_steps=2)
    with pytest.raises(ValueError, match="another model .* pass that one as --model"):
        Metadata("a" * 64, 2, "m").check(Metadata("b" * 64, 2, "n"), db)


def test_an_index_of_another_precision_is_refused_by_the_precisions_name(
    folder: Path, encoder: CountingEncoder, tmp_path: Path, released_model_dir: Path
):
    update_index(folder, tmp_path / "db", encoder, num_latent_steps=2)
    other = Encoder(released_model_dir, device="cpu", dtype="bfloat16")
    for command in (update_index, open_index):
        with pytest.raises(ValueError, match="made with this model in float32, not bfloat16; pass --dtype float32"):
            command(folder, tmp_path / "db", other, num_latent_steps=2)


def test_an_index_in_which_films_had_no_times_is_refused_where_the_model_sees_them(
    folder: Path, encoder: CountingEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    update_index(folder, tmp_path / "old", encoder, num_latent_steps=2)
    monkeypatch.setattr(type(encoder.processor), "sees_times", True)
    for command in (update_index, open_index):
        with pytest.raises(ValueError, match="made by another version .* delete it to index anew"):
            command(folder, tmp_path / "old", encoder, num_latent_steps=2)
    update_index(folder, tmp_path / "new", encoder, num_latent_steps=2)
    assert update_index(folder, tmp_path / "new", encoder, num_latent_steps=2).embedded == 0


def test_an_index_of_version_0_1_is_refused_with_the_remedy(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    said = {"fingerprint": "a", "num_latent_steps": 2, "model": "m", "root": "..", "format": 1}
    columns = pa.schema([("vector", pa.list_(pa.float32(), 4))], metadata={"plume_index": json.dumps(said)})
    lancedb.connect(str(tmp_path / "db")).create_table("items", schema=columns)
    for command in (update_index, open_index):
        with pytest.raises(ValueError, match=r"made by version 0.1 .* delete it to index anew, or pass another --to"):
            command(folder, tmp_path / "db", encoder)


def test_folder_and_index_inside_may_move_together(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    update(folder, encoder)
    encoder.embedded.clear()
    assert update(folder.rename(tmp_path / "elsewhere"), encoder).num_items == 6
    assert encoder.embedded == []


@pytest.mark.parametrize("is_moved", [False, True])
def test_an_index_that_goes_while_it_is_written_is_called_gone_and_not_damaged(
    folder: Path, encoder: CountingEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_moved: bool
):
    db, add_items = tmp_path / "db", Index.add_items

    def gone(index: Index, rows: list[dict]) -> None:
        if db.exists():
            db.rename(tmp_path / "elsewhere") if is_moved else shutil.rmtree(db)
        add_items(index, rows)

    monkeypatch.setattr(Index, "add_items", gone)
    with pytest.raises(ValueError, match=r"/db was deleted or moved while it was in use\. Delete what is left"):
        update_index(folder, db, encoder, 2)


def test_an_index_that_goes_while_it_is_searched_is_called_gone(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    db = tmp_path / "db"
    update_index(folder, db, encoder, 2)
    (db / "snapshot.json").unlink()
    opened = open_index(folder, db, encoder, 2)

    def rows_of_one_that_is_gone() -> None:
        with errors_named(db):
            shutil.rmtree(db)
            opened.rows()

    with pytest.raises(ValueError, match="/db was deleted or moved while it was in use"):
        rows_of_one_that_is_gone()


def test_a_missing_folder_of_temporary_files_is_named(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"temporary file .*/nowhere/\.tmp\w+ \(No such file .*set TMPDIR"):
        update(folder, encoder)
    inside = 'lance error: Permission denied (os error 13) at path "/x/items.lance/data/.tmpx05lK6", src/io.rs'
    with pytest.raises(ValueError, match="cannot be read or written: Permission denied"), errors_named(tmp_path):
        raise RuntimeError(inside)


def test_a_path_that_is_not_utf8_is_named_with_the_remedy(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    odd = folder.rename(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff"))
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "x.txt").write_text("x")
    for indexed, db in ((odd, odd / ".plume-index"), (odd, tmp_path / "db"), (plain, odd / "db")):
        for command in (update_index, open_index):
            with pytest.raises(ValueError, match=r"^/.*/odd\\udcff\S* is not valid UTF-8.*: rename what has \\udc"):
                command(indexed, db, encoder)


def test_an_index_that_cannot_be_written_can_be_searched_as_it_is(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    update(folder, encoder)

    def refused(db: Path) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(table, "lock_file", refused)
    with pytest.raises(
        ValueError, match=r"\(Read-only file system\); search it as it is with --no-update, or pass --to"
    ):
        update(folder, encoder)
    with pytest.raises(ValueError, match=r"\(Read-only file system\); pass --to"):
        update_index(folder, folder / "new.index", encoder)


def test_two_updates_at_once_are_refused(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    with (
        FileLock(folder / ".plume-index" / ".lock"),
        pytest.raises(ValueError, match="being updated by another process"),
    ):
        update(folder, encoder)


def test_a_damaged_or_foreign_database_is_named(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    with pytest.raises(ValueError, match="no index in .* make it with"):
        open_index(folder, tmp_path / "gone", encoder)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="Cannot write .* pass --to"):
        update_index(folder, tmp_path / "file", encoder)
    versions = tmp_path / "bad" / "items.lance" / "_versions"
    versions.mkdir(parents=True)
    (versions / "1.manifest").write_bytes(b"junk")
    with pytest.raises(ValueError, match="damaged"):
        update_index(folder, tmp_path / "bad", encoder)
    with pytest.raises(ValueError, match="must not be the indexed folder"):
        update_index(folder, folder, encoder)


def test_an_unfinished_pdf_goes_on_at_the_page_where_it_stopped(tmp_path: Path, encoder: CountingEncoder):
    write_pdf(tmp_path / "x.pdf", num_pages=4)
    rows = []

    def stop_after_one_batch(done: int, total: int) -> None:
        rows.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(tmp_path, tmp_path / "db", encoder, 2, batch_size=3, on_progress=stop_after_one_batch)
    assert rows == [(3, 4)] and len(encoder.embedded) == 3
    report = update_index(tmp_path, tmp_path / "db", encoder, 2, batch_size=3)
    assert report.embedded == 1 and len(encoder.embedded) == 4
    assert sorted(locator for _, locator in rows_by_place(tmp_path / "db")) == [f"page={i}" for i in (1, 2, 3, 4)]


def test_a_killed_index_run_goes_on_where_it_was(tmp_path: Path, encoder: CountingEncoder, released_model_dir: Path):
    folder, db = tmp_path / "folder", tmp_path / "db"
    folder.mkdir()
    for i in range(60):
        write_picture(folder / f"{i:02}.png", seed=i, size=(200, 200))
    command = [sys.executable, "-m", "plume_embed", "index", folder, "--to", db, "--model", released_model_dir]
    process = subprocess.Popen([*command, "--batch-size", "1"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while len(list((db / "items.lance" / "data").glob("*.lance"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    before = rows_by_place(db)
    embedded = lancedb.connect(str(db)).open_table("items").count_rows()
    assert 1 <= len(before) <= embedded < 60, "killed too early or too late to say anything"
    report = update_index(folder, db, encoder)
    assert report.embedded == len(encoder.embedded) == 60 - embedded
    after = rows_by_place(db)
    assert all(after[place] == row for place, row in before.items())

    update_index(folder, tmp_path / "whole", encoder)
    whole = rows_by_place(tmp_path / "whole")
    assert after.keys() == whole.keys()
    for place, row in whole.items():
        np.testing.assert_allclose(after[place].pop("vector"), row.pop("vector"), atol=1e-5)
        assert {**after[place], "embedded_at": None} == {**row, "embedded_at": None}


def test_search_is_exact_and_equal_contents_are_one_hit_under_their_first_path(
    tmp_path: Path, encoder: CountingEncoder
):
    for i in range(30):
        (tmp_path / f"{i:02}.txt").write_text(f"text {i % 10}")  # each three times
    db = tmp_path / "db"
    update_index(tmp_path, db, encoder, num_latent_steps=2)
    opened = open_index(tmp_path, db, encoder, num_latent_steps=2)
    query = encoder.encode(["text 3"], num_latent_steps=2)[0]
    rows = rows_by_place(db)
    scores = {path: float(np.dot(row["vector"], query)) for (path, _), row in rows.items() if path < "10"}
    assert len(rows) == 30 and len(scores) == 10
    for top in (1, 2, 3, 4, 10, 100):
        hits = opened.search(query, top)
        assert [hit.path for hit in hits] == sorted(scores, key=lambda path: (-round(scores[path], 6), path))[:top]
        np.testing.assert_allclose([hit.score for hit in hits], [scores[hit.path] for hit in hits], atol=1e-5)
        assert all(hit.copies == (f"1{hit.path[1:]}", f"2{hit.path[1:]}") for hit in hits)


def test_ties_come_in_the_order_of_their_paths_and_the_rest_is_cut(tmp_path: Path, encoder: CountingEncoder):
    """Two hundred rows with one and the same vector and different digests: far more than a first query asks for."""
    for i in reversed(range(200)):
        (tmp_path / f"{i:03}.txt").write_text(f"text {i}")
    db = tmp_path / "db"
    update_index(tmp_path, db, encoder, num_latent_steps=0)
    query = encoder.encode(["query"], num_latent_steps=0)[0]
    lancedb.connect(str(db)).open_table("items").update(values={"vector": query.tolist()})
    opened = open_index(tmp_path, db, encoder, num_latent_steps=0)
    assert [hit.path for hit in opened.search(query, 3)] == ["000.txt", "001.txt", "002.txt"]


def test_a_file_counts_as_done_only_with_all_its_items(tmp_path: Path, encoder: CountingEncoder):
    write_pdf(tmp_path / "x.pdf", num_pages=3)
    update_index(tmp_path, tmp_path / "db", encoder, num_latent_steps=0)
    lancedb.connect(str(tmp_path / "db")).open_table("items").delete("item = 1")
    assert update_index(tmp_path, tmp_path / "db", encoder, num_latent_steps=0).embedded == 1
    assert len(rows_by_place(tmp_path / "db")) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_names_the_remedy(folder: Path, encoder: CountingEncoder):
    folder.chmod(0o500)
    with pytest.raises(ValueError, match="pass --to"):
        update(folder, encoder)


def test_only_damage_is_called_damage(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    def files(pattern: str) -> list[Path]:
        return list((tmp_path / "db" / "items.lance").glob(pattern))

    for pattern, content in (("data/*", b"junk" * 10), ("data/*", None), ("_versions/*", b"junk")):
        shutil.rmtree(tmp_path / "db", ignore_errors=True)
        update_index(folder, tmp_path / "db", encoder, 2)
        for path in files(pattern):
            path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged; delete it to index anew"), errors_named(tmp_path / "db"):
            open_index(folder, tmp_path / "db", encoder, 2).rows()
    with pytest.raises(RuntimeError, match="something else"), errors_named(tmp_path):
        raise RuntimeError("something else")
    with (
        pytest.raises(ValueError, match="LanceDB cannot go on with the index .*: a new kind of error"),
        errors_named(tmp_path),
    ):
        raise RuntimeError("lance error: a new kind of error")


def _a_long_text(folder: Path) -> None:
    (folder / "long.txt").write_text("\n\n".join(f"Paragraph {i}. " + "words " * 150 for i in range(200)))


def _pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(16):
        Image.fromarray(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.mark.parametrize(
    ("fill", "limit", "reason"),
    [
        (_a_long_text, 6000, "File too large"),
        (_pictures, 3000, "did not arrive whole"),  # of a file that is cut short at its end LanceDB says nothing
    ],
)
def test_a_full_disk_is_called_a_full_disk_and_the_next_run_goes_on(
    tmp_path: Path, released_model_dir: Path, fill: Callable[[Path], None], limit: int, reason: str
):
    """As a full disk does, a limit on the size of files fails a write in the middle; the error has another number."""
    folder = tmp_path / "folder"
    folder.mkdir()
    fill(folder)
    program = """
import resource, sys
from plume_embed.cli.main import main
from plume_embed.encode.encoder import Encoder
load = Encoder.__init__
def limited(self, *arguments, **options):
    load(self, *arguments, **options)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
Encoder.__init__ = limited
main(sys.argv[2:])
"""
    command = ["index", str(folder), "--model", str(released_model_dir)]
    failed = subprocess.run([sys.executable, "-c", program, str(limit), *command], capture_output=True, text=True)
    assert failed.returncode == 2, failed.stderr
    assert reason in failed.stderr and "damaged" not in failed.stderr and failed.stderr.count("\n") == 1
    assert main_code(command) == 0


def main_code(arguments: list[str]) -> int:
    from plume_embed.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code
