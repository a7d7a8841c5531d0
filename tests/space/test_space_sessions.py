"""A session belongs to its session, ends with it, and leaves nothing behind."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from space.content import holders
from space.content.items import Item, merged, ranked
from space.content.sessions import Sessions, Turns
from space.settings import Settings


@pytest.fixture
def sessions(tmp_path):
    return Sessions(Settings(data=tmp_path / "data", sessions=3), tmp_path / "uploads")


def uploaded(sessions, name="cat.png", folder="ab12"):
    path = sessions.upload_folder / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def item(*vector: float, label="x") -> Item:
    return Item(label, "image", np.array(vector, np.float32), lambda: "data:,", is_own=True)


def test_a_session_is_its_sessions_and_nobody_elses(sessions):
    sessions.of("one").items["drawings"] = [item(1, 0)]
    assert len(sessions.of("one").own("drawings")) == 1
    assert sessions.of("two").own("drawings") == []
    with pytest.raises(ValueError, match="belongs to no session"):
        sessions.of(None)


def test_the_end_of_a_session_deletes_its_uploads_and_forgets_its_items(sessions):
    session, path = sessions.of("one"), uploaded(sessions)
    session.items["drawings"] = [item(1, 0)]
    sessions.hold(session, path)
    sessions.end("one")
    assert not path.exists() and not path.parent.exists()
    assert session.items == {} and len(sessions) == 0
    sessions.end("one")
    sessions.end(None)


def test_a_file_that_another_session_shows_stays_until_that_one_ends(sessions):
    path = uploaded(sessions)
    sessions.hold(sessions.of("one"), path)
    sessions.hold(sessions.of("two"), path)
    sessions.end("one")
    assert path.is_file()
    sessions.end("two")
    assert not path.exists()


def test_a_file_that_another_visitor_has_just_uploaded_stays_for_the_call_that_comes_with_it(sessions):
    path = uploaded(sessions)
    for _ in range(2):  # the same content twice: Gradio gives both the same path
        with sessions.holders.arriving() as arrived:
            arrived(path)
    sessions.hold(sessions.of("one"), path)
    sessions.end("one")
    assert path.is_file(), "the second upload has not been asked for yet"
    sessions.hold(sessions.of("two"), path)
    sessions.end("two")
    assert not path.exists()


def test_a_file_stays_while_an_upload_that_may_be_of_the_same_file_arrives(sessions):
    path = uploaded(sessions)
    sessions.hold(sessions.of("one"), path)
    with sessions.holders.arriving() as arrived:
        sessions.end("one")
        assert path.is_file()
        arrived(path)
    assert path.is_file()
    sessions.hold(sessions.of("two"), path)
    with sessions.holders.arriving():
        sessions.end("two")
    assert not path.exists()


def test_an_upload_that_nothing_asks_for_is_not_awaited_for_ever(sessions, monkeypatch):
    path = uploaded(sessions)
    for _ in range(2):
        with sessions.holders.arriving() as arrived:
            arrived(path)
    sessions.hold(sessions.of("one"), path)
    monkeypatch.setattr(holders, "UNUSED_SECONDS", 0)
    sessions.end("one")
    assert not path.exists()


def test_uploads_that_nothing_has_asked_for_in_time_are_deleted_and_those_of_a_live_session_stay(sessions, monkeypatch):
    asked, unasked, other = (uploaded(sessions, folder=name) for name in ("ab12", "cd34", "ef56"))
    with sessions.holders.arriving() as arrived:
        for path in (asked, unasked, other):
            arrived(path)
    sessions.hold(sessions.of("one"), asked)
    sessions.tidy()
    assert unasked.is_file() and other.is_file(), "the calls that they were made for may still come"
    monkeypatch.setattr(holders, "UNUSED_SECONDS", 0)
    sessions.hold(sessions.of("two"), other)
    sessions.tidy()
    assert not unasked.parent.exists() and asked.is_file() and other.is_file()
    sessions.end("one")
    assert not asked.exists()


def test_what_gradio_leaves_of_an_upload_that_broke_off_is_deleted_in_time_and_one_under_way_is_not(sessions):
    folder = sessions.upload_folder
    folder.mkdir(parents=True)
    left, under_way, loose = (folder / name for name in ("tmp1a2b3c", "tmp4d5e6f", "loose.txt"))
    for path in (left, under_way, loose):
        path.write_bytes(b"x")
    for path in (left, loose):
        os.utime(path, (0, 0))
    sessions.tidy()
    assert not left.exists() and under_way.is_file() and loose.is_file()


def test_an_upload_that_never_ends_holds_up_no_deletion_for_ever(sessions, monkeypatch):
    path = uploaded(sessions)
    sessions.hold(sessions.of("one"), path)
    with sessions.holders.arriving():
        sessions.end("one")
        assert path.is_file()
        monkeypatch.setattr(holders, "UNUSED_SECONDS", 0)
        sessions.tidy()
        assert not path.exists()


def test_a_session_that_has_ended_holds_nothing(sessions):
    session, path = sessions.of("one"), uploaded(sessions)
    sessions.end("one")
    sessions.hold(session, path)  # by a run that went on
    assert not path.exists() and session.uploads == set()


def test_nothing_outside_the_upload_folder_is_ever_deleted(sessions, tmp_path):
    outside = tmp_path / "precious.txt"
    outside.write_text("x")
    sessions.upload_folder.mkdir(parents=True)
    (sessions.upload_folder / "loose.txt").write_text("x")
    for path in (outside, sessions.upload_folder / ".." / "precious.txt", sessions.upload_folder / "loose.txt"):
        sessions.hold(sessions.of("one"), path)
    sessions.end("one")
    assert outside.is_file() and (sessions.upload_folder / "loose.txt").is_file()


def test_too_many_sessions_push_out_the_one_seen_longest_ago(sessions):
    path = uploaded(sessions)
    sessions.hold(sessions.of("one"), path)
    for name in ("two", "three", "one", "four"):
        sessions.of(name)
    assert len(sessions) == 3 and path.is_file()
    assert sessions.of("one").uploads == {path}
    for name in ("five", "six", "seven"):
        sessions.of(name)
    assert not path.exists()


def test_a_session_without_a_sign_of_life_is_forgotten(tmp_path):
    sessions = Sessions(replace(Settings(data=tmp_path), session_seconds=0), tmp_path / "uploads")
    old = sessions.of("one")
    time.sleep(0.01)
    sessions.of("two")
    assert len(sessions) == 1
    assert sessions.of("one") is not old


def test_a_silent_session_ends_without_another_visitor(tmp_path):
    sessions = Sessions(replace(Settings(data=tmp_path), session_seconds=0), tmp_path / "uploads")
    path = uploaded(sessions)
    sessions.hold(sessions.of("one"), path)
    time.sleep(0.01)
    sessions.tidy()
    assert len(sessions) == 0 and not path.exists()


def test_own_items_and_bundled_ones_are_ranked_together():
    items = [item(1, 0, label="east"), item(0, 1, label="north"), item(0.6, 0.8, label="between")]
    hits = ranked(items, np.array([0, 1], np.float32), top=2)
    assert [(hit.item.label, round(hit.score, 3)) for hit in hits] == [("north", 1.0), ("between", 0.8)]
    both = merged(hits, ranked([item(0.1, 0.9, label="other")], np.array([0, 1], np.float32), 5), top=2)
    assert [hit.item.label for hit in both] == ["north", "other"]
    assert ranked([], np.array([0, 1], np.float32), 3) == []


def test_of_several_runs_the_newest_goes_on_and_an_older_one_stops():
    turns = Turns()
    with turns.take(1) as is_newest:
        assert is_newest and turns.is_newest(1)
        turns._newest = 2  # the second event has arrived
        assert not turns.is_newest(1)
    with turns.take(3) as is_newest:
        assert is_newest
    with turns.take(2) as is_newest:
        assert not is_newest, "it arrived late: the third event came before it"


def test_a_newer_run_begins_only_when_the_older_one_has_sent_its_last_message():
    turns, order = Turns(), []
    may_end, has_begun = threading.Event(), threading.Event()

    def older():
        with turns.take(1):
            has_begun.set()
            may_end.wait(20)
            order.append("older, newest" if turns.is_newest(1) else "older, overtaken")

    def newer():
        with turns.take(2):
            order.append("newer")

    threads = [threading.Thread(target=run) for run in (older, newer)]
    threads[0].start()
    assert has_begun.wait(20)
    threads[1].start()
    while turns.is_newest(1):
        time.sleep(0.001)
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert order == ["older, overtaken", "newer"]


def test_the_media_of_prepared_queries_outlive_the_sessions_that_show_them(sessions):
    path = sessions.examples_folder / "png" / "fox.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    sessions.hold(sessions.of("one"), path)
    sessions.end("one")
    assert path.is_file()
