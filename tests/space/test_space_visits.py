"""A visit belongs to its session, ends with it, and leaves nothing behind."""

import time
from dataclasses import replace

import numpy as np
import pytest

from space.content.items import Item, merged, ranked
from space.content.sessions import Visits
from space.settings import Settings


@pytest.fixture
def visits(tmp_path):
    return Visits(Settings(data=tmp_path / "data", visits=3), tmp_path / "uploads")


def uploaded(visits, name="cat.png", folder="ab12"):
    path = visits.upload_folder / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def item(*vector: float, label="x") -> Item:
    return Item(label, "image", np.array(vector, np.float32), lambda: "data:,", is_own=True)


def test_a_visit_is_its_sessions_and_nobody_elses(visits):
    visits.of("one").items.append(item(1, 0))
    assert len(visits.of("one").items) == 1
    assert visits.of("two").items == []
    with pytest.raises(ValueError, match="belongs to no session"):
        visits.of(None)


def test_the_end_of_a_visit_deletes_its_uploads_and_forgets_its_items(visits):
    visit, path = visits.of("one"), uploaded(visits)
    visit.items.append(item(1, 0))
    visit.uploads.add(path)
    visits.end("one")
    assert not path.exists() and not path.parent.exists()
    assert visit.items == [] and len(visits) == 0
    visits.end("one")
    visits.end(None)


def test_a_file_that_another_visit_shows_stays_until_that_one_ends(visits):
    path = uploaded(visits)
    visits.of("one").uploads.add(path)
    visits.of("two").uploads.add(path)
    visits.end("one")
    assert path.is_file()
    visits.end("two")
    assert not path.exists()


def test_nothing_outside_the_upload_folder_is_ever_deleted(visits, tmp_path):
    outside = tmp_path / "precious.txt"
    outside.write_text("x")
    visits.upload_folder.mkdir(parents=True)
    (visits.upload_folder / "loose.txt").write_text("x")
    visits.delete_upload(outside)
    visits.delete_upload(visits.upload_folder / ".." / "precious.txt")
    visits.delete_upload(visits.upload_folder / "loose.txt")
    assert outside.is_file() and (visits.upload_folder / "loose.txt").is_file()


def test_too_many_visits_push_out_the_one_seen_longest_ago(visits):
    path = uploaded(visits)
    visits.of("one").uploads.add(path)
    for name in ("two", "three", "one", "four"):
        visits.of(name)
    assert len(visits) == 3 and path.is_file()
    assert visits.of("one").uploads == {path}
    for name in ("five", "six", "seven"):
        visits.of(name)
    assert not path.exists()


def test_a_visit_without_a_sign_of_life_is_forgotten(tmp_path):
    visits = Visits(replace(Settings(data=tmp_path), visit_seconds=0), tmp_path / "uploads")
    old = visits.of("one")
    time.sleep(0.01)
    visits.of("two")
    assert len(visits) == 1
    assert visits.of("one") is not old


def test_own_items_and_bundled_ones_are_ranked_together():
    items = [item(1, 0, label="east"), item(0, 1, label="north"), item(0.6, 0.8, label="between")]
    hits = ranked(items, np.array([0, 1], np.float32), top=2)
    assert [(hit.item.label, round(hit.score, 3)) for hit in hits] == [("north", 1.0), ("between", 0.8)]
    both = merged(hits, ranked([item(0.1, 0.9, label="other")], np.array([0, 1], np.float32), 5), top=2)
    assert [hit.item.label for hit in both] == ["north", "other"]
    assert ranked([], np.array([0, 1], np.float32), 3) == []
