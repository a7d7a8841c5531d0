"""The benchmark of approximate neighbours goes on with a table of its own settings, and with no other."""

import pickle
from pathlib import Path

import lancedb
import numpy as np
import pytest
import typer

from benchmarks import ann
from benchmarks.ann import make_table

ROWS, SIZE, QUERIES = 300, 16, 5


@pytest.fixture
def db(tmp_path: Path) -> Path:
    make_table(tmp_path / "db", ROWS, SIZE, QUERIES)
    return tmp_path / "db"


def test_a_table_in_pieces_is_that_of_one_call(db: Path, tmp_path: Path, monkeypatch):
    whole = make_table(db, ROWS, SIZE, QUERIES)
    monkeypatch.setattr(ann, "_COMMIT", 100)
    monkeypatch.setattr(ann, "_CHUNK", 100)
    at_once = make_table(tmp_path / "one", ROWS, SIZE, QUERIES)
    noted, write = [], ann.write_bytes

    def killed(path: Path, content: bytes) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(write(path, content))

    with monkeypatch.context() as patch:
        patch.setattr(ann, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            make_table(tmp_path / "two", ROWS, SIZE, QUERIES)
    again = make_table(tmp_path / "two", ROWS, SIZE, QUERIES)
    assert np.array_equal(again.nearest, at_once.nearest) and np.array_equal(again.rare, at_once.rare)
    assert again.num_rows == whole.num_rows == ROWS
    assert lancedb.connect(str(tmp_path / "two")).open_table("items").count_rows() == ROWS


@pytest.mark.parametrize(
    ("rows", "size", "queries", "differs"),
    [(200, SIZE, QUERIES, "rows"), (400, SIZE, QUERIES, "rows"), (ROWS, 32, QUERIES, "dim"), (ROWS, SIZE, 6, "quer")],
)
def test_a_table_of_other_settings_is_refused(rows: int, size: int, queries: int, differs: str, db: Path):
    with pytest.raises(typer.BadParameter, match=rf"holds a table of \d+ {differs}.*; give another --folder"):
        make_table(db, rows, size, queries)


def test_a_table_of_a_version_that_noted_no_settings_is_refused(db: Path):
    noted = db / "truth.pickle"
    noted.write_bytes(pickle.dumps(pickle.loads(noted.read_bytes())[1]))
    with pytest.raises(typer.BadParameter, match="of an unknown number of rows, not 300; give another --folder"):
        make_table(db, ROWS, SIZE, QUERIES)
