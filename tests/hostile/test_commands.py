"""Commands that are killed, run out of disk or meet another one lose no row; a process that goes on does not grow."""

from pathlib import Path

import pytest

from docs.committed import read
from scripts import kills, soak
from scripts.faults.company import reader_beside_writer, two_writers
from scripts.faults.disks import full_disk, read_only
from scripts.faults.killing import Tally, kill_embed, kill_index


@pytest.mark.slow  # of an index and a JSONL file, tests/index has a single kill and an interruption
def test_an_embed_that_is_killed_goes_on_with_no_row_lost_or_done_twice(tmp_path: Path, released_model_dir: Path):
    *_, tally = kill_embed(tmp_path, released_model_dir, kills=2, size=24, seed=0)
    assert tally.kills == 2 and tally.rows == 24 * tally.rounds and kills.is_right("kill_embed", vars(tally)), tally
    assert tally.behind_a_write == 2 and len(tally.moments) == 2


@pytest.mark.slow
def test_an_index_that_is_killed_goes_on_with_no_row_lost_or_done_twice(tmp_path: Path, released_model_dir: Path):
    *_, tally = kill_index(tmp_path, released_model_dir, kills=3, size=24, seed=0)
    assert tally.kills == 3 and tally.rows > 20 and kills.is_right("kill_index", vars(tally)), tally
    assert tally.behind_a_write > 0 and len(tally.moments) == 3


@pytest.mark.parametrize("missing", ["behind_a_write", "at_end"])
def test_kills_that_came_behind_no_write_or_never_at_the_end_prove_nothing(missing: str):
    tally = {**vars(Tally("index")), "kills": 6, "behind_a_write": 4, "at_end": 2}
    assert kills.is_right("kill_index", tally)
    assert not kills.is_right("kill_index", {**tally, missing: 0})
    assert not kills.is_right("kill_index", {**tally, "left_over": 1})


def test_the_committed_kills_came_behind_writes_and_lost_nothing():
    found = read("docs/results/kills.json")
    assert found.keys() == kills.PARTS.keys()
    assert all(kills.is_right(part, result) for part, result in found.items())


@pytest.mark.slow
def test_a_full_disk_is_named_and_with_room_the_same_command_goes_on(tmp_path: Path, released_model_dir: Path):
    rows = full_disk(tmp_path, released_model_dir, 24, sizes=(0.3,))
    assert [row["command"] for row in rows] == ["index", "embed"] and all(row["is_right"] for row in rows), rows
    assert any(row["code"] == 2 for row in rows)


@pytest.mark.slow
def test_a_read_only_disk_is_named_and_what_is_there_can_be_searched(tmp_path: Path, released_model_dir: Path):
    rows = read_only(tmp_path, released_model_dir, 16)
    if not rows:
        pytest.skip("no file system can be mounted here")
    assert all(row["is_right"] for row in rows), rows


@pytest.mark.slow
def test_of_two_writers_one_goes_through(tmp_path: Path, released_model_dir: Path):
    rows = two_writers(tmp_path, released_model_dir, 24, times=2)
    assert all(row["is_right"] for row in rows) and sum(row["refused"] for row in rows) > 0, rows


@pytest.mark.slow
def test_a_reader_beside_a_writer_gets_right_answers(tmp_path: Path, released_model_dir: Path):
    row = reader_beside_writer(tmp_path, released_model_dir, 40, searches=1)
    assert row["is_right"] and row["reads"] > 0, row


def test_rounds_of_updating_searching_and_encoding_move_no_vector(released_model_dir: Path):
    result = soak.soak(seconds=2, size=12, model=released_model_dir, seed=0)
    assert result["moved"] == 0 and result["searches"] == 4 * result["rounds"] > 0
    assert result["embedded"] >= 12 and result["points"][-1]["files"] <= result["points"][0]["files"] + 8
