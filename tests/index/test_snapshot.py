"""A search from cold reads the snapshot of an index: what it finds is what the tables hold, or it is not used."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from index_data import CountingEncoder
from small_files import write_picture

from benchmarks.start import measure_start
from plume_embed import atomic
from plume_embed.index import snapshot
from plume_embed.index.search import OpenIndex, describe, open_index
from plume_embed.index.snapshot import Snapshot, read_snapshot
from plume_embed.index.store import Index
from plume_embed.index.update import UpdateReport, update_index

FILES = ("snapshot.arrow", "snapshot.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "whale.txt").write_text("The blue whale is the largest animal.")
    (folder / "sub" / "same.txt").write_text("The blue whale is the largest animal.")
    (folder / "sub" / "rose.md").write_text("Roses grow in gardens.\n\n" * 200)
    (folder / "broken.png").write_bytes(b"no picture")
    write_picture(folder / "noise.png")
    return folder


def update(folder: Path, encoder: CountingEncoder, **options) -> UpdateReport:
    return update_index(folder, folder / ".plume-index", encoder, **options)


def both(folder: Path, encoder: CountingEncoder, searched: Path | None = None) -> tuple[OpenIndex, OpenIndex]:
    """The index by its snapshot, and by its tables."""
    db = folder / ".plume-index"
    by_snapshot = open_index(searched or folder, db, encoder)
    assert isinstance(by_snapshot._index, Snapshot)
    index = Index(db, describe(encoder))
    return by_snapshot, OpenIndex(index, by_snapshot._scopes, lambda: index)


def test_equal_vectors_are_equally_near_wherever_they_stand():
    rng, (rows, size) = np.random.default_rng(0), (62, 384)
    for _ in range(20):  # with most of them the last rows of a matrix product differ from the first
        query, vector = (one / np.linalg.norm(one) for one in rng.standard_normal((2, size)).astype(np.float32))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(vector, rows)), size)
        items = pa.table({"vector": vectors, "item": np.arange(rows)})
        found = Snapshot(Path("x"), items, pa.table({}), pa.table({})).nearest(query, rows, (), ["item"])
        assert [row["item"] for row in found] == list(range(rows)) and len({row["_distance"] for row in found}) == 1
        assert found[0]["_distance"] == pytest.approx(1 - float(vector.astype(float) @ query.astype(float)), abs=1e-6)


def test_half_a_snapshot_of_a_killed_update_is_written_over(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as kill:
        kill.setattr(atomic, "to_disk", killed)
        kill.setattr(atomic, "partial_beside", lambda path: path.with_name(f".{path.name}.1.partial"))
        kill.setattr(Path, "unlink", lambda *_, **__: None)  # who is killed cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            update(folder, encoder)
    left = [path.name for path in (folder / ".plume-index").glob("*.partial")]
    update(folder, encoder)
    assert len(left) == 1 and not list((folder / ".plume-index").glob("*.partial"))
    assert isinstance(open_index(folder, folder / ".plume-index", encoder)._index, Snapshot)


def test_a_snapshot_gives_what_the_tables_give(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    query = encoder.encode(["a whale"])[0]
    for searched in (folder, folder / "sub"):
        ours, tables = both(folder, encoder, searched)
        for options in ({}, {"top": 1}, {"kinds": ["text"]}, {"kinds": ["image"]}, {"min_score": 0.3}, {"top": 100}):
            found, expected = ours.search(query, **options), tables.search(query, **options)
            assert [(hit.path, hit.locator, hit.copies) for hit in found] == [
                (hit.path, hit.locator, hit.copies) for hit in expected
            ]
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-6)
        own, stored = ours.rows(), tables.rows()
        assert [(row.path, row.item) for row in own] == [(row.path, row.item) for row in stored]
        assert all((one.vector == other.vector).all() for one, other in zip(own, stored, strict=True))


def test_an_update_that_finds_nothing_new_reports_as_one_by_the_tables(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    _pass_the_clock(folder)
    update(folder, encoder)
    told: list[tuple[str, str]] = []
    by_snapshot = update(folder, encoder, on_unreadable=lambda *one: told.append(one))
    _remove(folder)
    assert update(folder, encoder) == by_snapshot and told == []
    assert [path for path, _ in by_snapshot.unreadable] == ["broken.png"]


def test_a_snapshot_of_tables_that_have_changed_is_not_read(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    update(folder, encoder)
    for name in FILES:
        shutil.copy2(folder / ".plume-index" / name, tmp_path / name)
    (folder / "new.txt").write_text("A red bicycle.")
    update(folder, encoder)
    assert read_snapshot(folder / ".plume-index", describe(encoder)) is not None
    for name in FILES:
        shutil.copy2(tmp_path / name, folder / ".plume-index" / name)
    assert read_snapshot(folder / ".plume-index", describe(encoder)) is None
    opened = open_index(folder, folder / ".plume-index", encoder)
    assert opened.search(encoder.encode(["A red bicycle."])[0], top=1)[0].path == "new.txt"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "gone"])
def test_a_damaged_snapshot_is_not_read_and_the_next_update_writes_it_anew(
    folder: Path, encoder: CountingEncoder, name: str, damage: str
):
    update(folder, encoder)
    file = folder / ".plume-index" / name
    whole = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        middle = len(whole) // 2
        changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes({"cut": whole[:middle], "changed": changed, "emptied": b""}[damage])
    db = folder / ".plume-index"
    assert read_snapshot(db, describe(encoder)) is None
    assert open_index(folder, db, encoder).search(encoder.encode(["whale"])[0])
    update(folder, encoder)
    assert read_snapshot(db, describe(encoder)) is not None


def test_a_moved_index_keeps_its_snapshot(folder: Path, encoder: CountingEncoder, tmp_path: Path):
    update(folder, encoder)
    folder.rename(tmp_path / "elsewhere")
    ours, tables = both(tmp_path / "elsewhere", encoder)
    query = encoder.encode(["whale"])[0]
    assert [hit.path for hit in ours.search(query)] == [hit.path for hit in tables.search(query)]


def test_a_large_index_has_no_snapshot(folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "MOST_BYTES", 0)
    update(folder, encoder)
    assert not any((folder / ".plume-index" / name).exists() for name in FILES)


def test_a_disk_that_is_full_costs_the_snapshot_and_not_the_update(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, partial: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "replacing", full)
    assert update(folder, encoder).num_items > 0
    assert read_snapshot(folder / ".plume-index", describe(encoder)) is None


def test_a_snapshot_of_another_model_is_refused_with_the_remedy(folder: Path, encoder: CountingEncoder):
    update(folder, encoder)
    with pytest.raises(ValueError, match="pass --latent-steps"):
        read_snapshot(folder / ".plume-index", describe(encoder, 3))


def test_a_search_of_a_ready_index_imports_no_table_engine_and_no_decoder(
    folder: Path, encoder: CountingEncoder, released_model_dir: Path
):
    update(folder, encoder)
    _pass_the_clock(folder)
    update(folder, encoder)
    start = measure_start(["search", str(folder), "a whale", "--model", str(released_model_dir), "--paths"])
    assert start.code == 0 and Path(start.out.splitlines()[-1]).is_relative_to(folder)
    unused = {"lancedb", "lance_namespace", "av", "pypdfium2", "sentence_transformers", "sklearn", "datasets", "gradio"}
    assert not unused & set(start.heavy)


def _pass_the_clock(folder: Path) -> None:
    """Gives the files a date that no later change can share, so that they need not be read again."""
    for file in folder.rglob("*"):
        if file.is_file() and ".plume-index" not in file.parts:
            os.utime(file, (1_700_000_000, 1_700_000_000))


def _remove(folder: Path) -> None:
    for name in FILES:
        (folder / ".plume-index" / name).unlink()
