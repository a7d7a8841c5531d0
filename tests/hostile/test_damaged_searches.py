"""The command `search` on damaged queries, folders and indexes: right results, or one line that names the thing."""

import json
import random
import shutil
from pathlib import Path

import pytest
from command_line import Damage, Ended, call, mutated
from damaged_files import MUTATIONS, good_files, picture
from limits import part_slow

from plume_embed.cli.main import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, released_model_dir: Path) -> Path:
    """A folder of sound files beside damaged ones, with its index; read only."""
    where = tmp_path_factory.mktemp("search")
    (where / "folder").mkdir()
    for number in range(3):
        picture(number).save(where / "folder" / f"{number}.png")
    (where / "folder" / "boat.txt").write_text("A boat on the lake.")
    (where / "text.png").write_text("no picture")
    for name, mutation in (("still.jpg", "cut-at-a-third"), ("film.mp4", "all-zero"), ("pages.pdf", "cut-at-a-third")):
        data = MUTATIONS[mutation](good_files()[name], random.Random(name))
        (where / "folder" / f"damaged-{name}").write_bytes(data)
    with pytest.raises(SystemExit) as ended:
        main(["index", str(where / "folder"), "--to", str(where / "index"), "--model", str(released_model_dir)])
    assert ended.value.code == 0
    return where


def search(capsys, place: Path, model: Path, *query: object, index: Path | None = None) -> Ended:
    to = ("--to", index or place / "index", "--model", model)
    return call(capsys, "search", place / "folder", *query, *to)


def test_damaged_files_are_listed_by_json_and_the_others_found(place: Path, released_model_dir: Path, capsys):
    ended = search(capsys, place, released_model_dir, "A boat on the lake.", "--json")
    found = json.loads(ended.out)
    assert ended.code == 0 and {one["path"] for one in found["unreadable"]} == {
        "damaged-still.jpg",
        "damaged-film.mp4",
        "damaged-pages.pdf",
    }
    assert {one["path"] for one in found["results"]} == {"0.png", "1.png", "2.png", "boat.txt"}


QUERIES: dict[str, tuple[tuple, str]] = {
    "nothing": ((), "Give a query"),
    "an empty text": (("",), "Give a query"),
    "half a character": (("a \ud83d",), "not valid UTF-8"),
    "a text far too long": (("word " * 60_000,), "max_length"),
    "no picture": (("--image", "none.png"), r"none\.png"),
    "a text as a picture": (("--image", "text.png"), r"text\.png"),
    "half a picture": (("--image", "folder/damaged-still.jpg"), r"damaged-still\.jpg"),
    "a film of zeros": (("--video", "folder/damaged-film.mp4"), r"damaged-film\.mp4"),
    "a folder": (("--image", "folder"), "folder"),
    "a device": (("--image", "/dev/zero"), "/dev/zero"),
    "a NUL": (("--image", "a\0b"), "null|NUL|no such|not"),
    "a name too long": (("--image", "x" * 5000), "(?i)name too long"),
    "no result": (("a", "--top", 0), "--top"),
    "a score above one": (("a", "--min-score", 2), "--min-score"),
    "an unknown kind": (("a", "--kind", "sound"), "--kind"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_an_odd_query_is_refused(name: str, place: Path, released_model_dir: Path, capsys, monkeypatch):
    query, pattern = QUERIES[name]
    monkeypatch.chdir(place)
    search(capsys, place, released_model_dir, *query).assert_refused(pattern)


def every(pattern: str, mutation: str) -> Damage:
    """Damages all files of an index that match."""

    def damage(index: Path) -> None:
        files = sorted(file for file in index.rglob(pattern) if file.is_file())
        assert files
        for file in files:
            mutated(str(file.relative_to(index)), mutation)(index)

    return damage


INDEXES: dict[str, Damage] = {
    "cut manifests": every("*.manifest", "cut-at-a-third"),
    "empty manifests": every("*.manifest", "empty"),
    "manifests of zeros": every("*.manifest", "all-zero"),
    "cut tables": every("*.lance", "cut-at-a-third"),
    "empty tables": every("*.lance", "empty"),
    "tables of zeros": every("*.lance", "all-zero"),
    "tables with a hole": every("*.lance", "middle-zeroed"),
    "a file": lambda index: (shutil.rmtree(index), index.write_text("an index")),
}


@pytest.mark.parametrize("name", part_slow(list(INDEXES), 3))
def test_a_damaged_index_is_named_or_gives_what_is_right(name: str, place, released_model_dir, tmp_path, capsys):
    shutil.copytree(place / "index", tmp_path / "index")
    INDEXES[name](tmp_path / "index")
    ended = search(capsys, place, released_model_dir, "A boat on the lake.", "--paths", index=tmp_path / "index")
    if ended.code:
        ended.assert_refused(str(tmp_path / "index"))
    else:
        assert len(ended.out.splitlines()) == 4
