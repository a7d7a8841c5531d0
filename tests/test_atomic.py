"""Files are written whole or not at all, and the log of a run is read in one place."""

import os
from pathlib import Path

import pytest

from plume_embed.atomic import replacing, write_json, write_text
from plume_embed.training.log import LOG_FILE, append_log, cut_log, read_log


def test_a_file_that_cannot_be_finished_leaves_the_old_one_and_nothing_else(tmp_path: Path):
    write_text(tmp_path / "x.txt", "old")

    def interrupted() -> None:
        with replacing(tmp_path / "x.txt") as partial:
            partial.write_text("half of the ne")
            assert (tmp_path / "x.txt").read_text() == "old" and partial.suffix == ".txt"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.txt", "old")]


def test_a_finished_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append((tmp_path / "sub" / "x.json").exists()))
    write_json(tmp_path / "sub" / "x.json", {"a": 1})
    assert order == [False] and (tmp_path / "sub" / "x.json").read_text() == '{\n "a": 1\n}\n'


def test_a_log_with_half_a_last_line_is_read_and_one_with_half_a_line_inside_is_refused(tmp_path: Path):
    assert read_log(tmp_path) == []
    for step in (1, 2, 3):
        append_log(tmp_path, {"step": step, "loss": 0.5})
    append_log(tmp_path, {"step": 3, "warning": "w"})
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"step": 4, "lo')
    assert [entry["step"] for entry in read_log(tmp_path, having="loss")] == [1, 2, 3]
    cut_log(tmp_path, 2)
    assert read_log(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}]
    (tmp_path / LOG_FILE).write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl:1 is not an entry of a log"):
        read_log(tmp_path)
