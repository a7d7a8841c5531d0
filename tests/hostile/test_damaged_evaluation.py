"""`evaluate` on damaged data: each benchmark names the file, or the task that failed, and never shows a traceback."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Damage, call, mutated, removed, write_pairs, written
from damaged_files import good_files, picture
from limits import part_slow
from mmeb_v2_data import write_picture, write_table

from plume_embed.evaluation.miniature.schema import Query, Side, Task, write_media, write_tasks


@pytest.fixture(autouse=True)
def _default_model(released_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUME_MODEL", str(released_model_dir))


def changed_json(name: str, change) -> Damage:
    """Changes what a JSON file of a folder holds."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def changed_table(name: str, change) -> Damage:
    """Changes a Parquet file of a folder: a function of the table."""
    return lambda folder: pq.write_table(change(pq.read_table(folder / name)), folder / name)


# Photographs


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    stamps = [{"file": f"stamps/{n}.png", "caption": caption, "captions": {}} for n, caption in enumerate("AB")]
    others = [{"file": f"sentences/{n}.png", "sentences": [f"boat {n}", f"ship {n}"]} for n in range(2)]
    for number, entry in enumerate(stamps + others):
        (tmp_path / entry["file"]).parent.mkdir(exist_ok=True)
        picture(number).save(tmp_path / entry["file"])
    (tmp_path / "photos.json").write_text(json.dumps({"stamps": stamps, "sentences": others, "imagenet_names": ["a"]}))
    (tmp_path / "peers").mkdir()
    keys = [f"text: {text} {n}" for text in ("boat", "ship") for n in range(2)]
    keys += [f"image: sentences/{n}.png" for n in range(2)]
    np.savez(tmp_path / "peers" / "peer.npz", keys=keys, vectors=np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]])
    return tmp_path


def stored(**arrays: object) -> Damage:
    """Another file of stored vectors."""
    return lambda folder: np.savez(folder / "peers" / "peer.npz", **arrays)


PHOTOS: dict[str, tuple[Damage, str]] = {
    "no list of photographs": (removed("photos.json"), "holds no photos.json: .*make photos"),
    "an empty list": (written("photos.json", ""), r"photos\.json"),
    "half a list": (mutated("photos.json", "cut-at-a-third"), r"photos\.json"),
    "a list of zeros": (mutated("photos.json", "all-zero"), r"photos\.json"),
    "Latin in the list": (written("photos.json", '{"stamps": "é"}'.encode("latin-1")), r"photos\.json"),
    "a list that is a number": (written("photos.json", "5"), r"photos\.json"),
    "a list in lists": (written("photos.json", "[" * 5000 + "]" * 5000), r"photos\.json"),
    "no stamps": (changed_json("photos.json", lambda content: content.pop("stamps")), r"photos\.json.*stamps"),
    "stamps of numbers": (changed_json("photos.json", lambda content: content.update(stamps=[1])), r"photos\.json"),
    "no stamp at all": (changed_json("photos.json", lambda content: content.update(stamps=[])), r"photos\.json"),
    "a stamp without a caption": (
        changed_json("photos.json", lambda content: content["stamps"][0].pop("caption")),
        r"photos\.json.*caption",
    ),
    "a caption that is a number": (
        changed_json("photos.json", lambda content: content["stamps"][0].update(caption=5)),
        r"photos\.json.*caption",
    ),
    "sentences that are a text": (
        changed_json("photos.json", lambda content: content["sentences"][0].update(sentences="a boat")),
        r"photos\.json.*sentences",
    ),
    "a file that is none": (
        changed_json("photos.json", lambda content: content["stamps"][1].update(file=None)),
        r"photos\.json.*file",
    ),
    "no photograph": (removed("stamps/1.png"), r"stamps/1\.png"),
    "half a photograph": (mutated("sentences/0.png", "cut-at-a-third"), r"sentences/0\.png"),
    "a photograph of nothing": (written("stamps/0.png", b""), r"stamps/0\.png"),
    "half a peer": (mutated("peers/peer.npz", "cut-at-nine-tenths"), r"peers/peer\.npz"),
    "a peer of nothing": (written("peers/peer.npz", b""), r"peers/peer\.npz"),
    "a peer that is a text": (written("peers/peer.npz", "vectors"), r"peers/peer\.npz"),
    "a peer without keys": (stored(vectors=np.eye(2)), r"peers/peer\.npz.*keys"),
    "a peer with fewer vectors than keys": (stored(keys=["a", "b"], vectors=np.eye(1)), r"peers/peer\.npz"),
    "a peer whose vectors are of no unit norm": (
        stored(keys=["text: a"], vectors=np.full((1, 2), 3.0)),
        r"peers/peer\.npz.*'text: a' has norm",
    ),
    "a peer of pickles": (stored(keys=np.array([{}]), vectors=np.eye(1)), r"peers/peer\.npz"),
    "a peer whose vectors are texts": (stored(keys=["a"], vectors=np.array([["b"]])), r"peers/peer\.npz"),
    "a peer of NaN": (stored(keys=["a"], vectors=np.full((1, 4), np.nan)), r"peers/peer\.npz"),
}


def test_the_photographs_are_sound(photos: Path, capsys):
    assert call(capsys, "evaluate", "photos", "--data", photos, "--resamples", 10).code == 0


@pytest.mark.parametrize("name", part_slow(list(PHOTOS), 2))
def test_damaged_photographs_are_named(name: str, photos: Path, capsys):
    damage, pattern = PHOTOS[name]
    damage(photos)
    call(capsys, "evaluate", "photos", "--data", photos, "--resamples", 10).assert_refused(pattern)


# The miniature

QUERIES, CANDIDATES = "tasks/I-RET-pictures-known.queries.parquet", "tasks/I-RET-pictures-known.candidates.parquet"
MEDIA = "media/scenes-00000-of-00001.parquet"


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    media = {f"scenes/{n}": [_png(n)] for n in range(3)} | {"scenes/film": [_png(5), _png(6)]}
    queries = tuple(Query(Side(text=f"scene {n}"), (n,)) for n in range(3))
    candidates = tuple(Side(image=f"scenes/{n}") for n in range(3))
    words = tuple(Side(text=f"word {n}") for n in range(3))
    tasks = [
        Task("I-RET/pictures", "known", queries, candidates),
        Task("I-QA/words", "known", queries, words),
    ]
    write_tasks(tasks, tmp_path)
    write_media(media, tmp_path, "scenes")
    return tmp_path


def _png(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def column_set(name: str, values: list | pa.Array) -> Damage:
    """Gives a column of the queries other values."""
    return changed_table(
        QUERIES,
        lambda table: table.set_column(table.column_names.index(name), name, pa.array(values)),
    )


MINIATURE: dict[str, tuple[Damage, str]] = {
    "no queries": (removed(QUERIES), r"candidates\.parquet|queries\.parquet"),
    "no candidates": (removed(CANDIDATES), r"candidates\.parquet"),
    "half of the queries": (mutated(QUERIES, "cut-at-a-third"), r"I-RET-pictures-known\.queries\.parquet"),
    "bits of the queries": (mutated(QUERIES, "middle-zeroed"), r"I-RET-pictures-known\.queries\.parquet"),
    "empty candidates": (mutated(CANDIDATES, "empty"), r"I-RET-pictures-known\.candidates\.parquet"),
    "candidates of zeros": (mutated(CANDIDATES, "all-zero"), r"I-RET-pictures-known\.candidates\.parquet"),
    "queries that are JSON": (written(QUERIES, "{}"), r"I-RET-pictures-known\.queries\.parquet"),
    "queries without positives": (
        changed_table(QUERIES, lambda table: table.drop_columns(["positives"])),
        r"I-RET-pictures-known\.queries\.parquet.*positives",
    ),
    "candidates without texts": (
        changed_table(CANDIDATES, lambda table: table.drop_columns(["text"])),
        r"I-RET-pictures-known\.candidates\.parquet.*text",
    ),
    "no row of queries": (changed_table(QUERIES, lambda table: table.slice(0, 0)), r"queries\.parquet"),
    "no row of candidates": (changed_table(CANDIDATES, lambda table: table.slice(0, 0)), r"pictures"),
    "positives that are numbers": (column_set("positives", [0, 1, 2]), r"queries\.parquet"),
    "positives that are texts": (column_set("positives", [["0"], ["1"], ["2"]]), r"queries\.parquet"),
    "positives of nobody": (column_set("positives", [None, None, None]), r"queries\.parquet"),
    "positives outside": (
        column_set("positives", pa.array([[9], [1], [2]], pa.list_(pa.int32()))),
        "0 names candidates",
    ),
    "texts that are numbers": (column_set("text", [1, 2, 3]), r"queries\.parquet.*text"),
    "a query of nothing": (column_set("text", ["", "a", "b"]), r"queries\.parquet|side"),
    "an unknown family": (column_set("name", ["X/y"] * 3), r"X/y"),
    "no media": (removed(MEDIA), "holds neither stills nor media"),
    "half of the media": (mutated(MEDIA, "cut-at-nine-tenths"), r"scenes-00000-of-00001\.parquet"),
    "media without ids": (
        changed_table(MEDIA, lambda table: table.drop_columns(["id"])),
        r"scenes-00000-of-00001\.parquet",
    ),
    "media without frames": (
        changed_table(MEDIA, lambda table: table.drop_columns(["frames"])),
        r"scenes-00000-of-00001\.parquet.*frames",
    ),
    "frames that are texts": (
        changed_table(MEDIA, lambda table: pa.table({"id": table.column("id"), "frames": ["a"] * len(table)})),
        r"scenes-00000-of-00001\.parquet.*frames",
    ),
    "a medium twice": (changed_table(MEDIA, lambda table: pa.concat_tables([table, table])), "scenes/0"),
}

FRAMES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def frames_set(value: object) -> Damage:
    """Gives the first medium other frames."""

    def change(table: pa.Table) -> pa.Table:
        frames = [value, *table.column("frames").to_pylist()[1:]]
        return pa.table({"id": table.column("id"), "frames": pa.array(frames, FRAMES)})

    return changed_table(MEDIA, change)


MINIATURE_IN_PART: dict[str, tuple[Damage, str]] = {
    "no frames": (frames_set([]), "scenes/0"),
    "frames of nobody": (frames_set(None), "scenes/0"),
    "a frame of nobody": (frames_set([{"bytes": None, "path": None}]), "scenes/0"),
    "a frame of zeros": (frames_set([{"bytes": bytes(40), "path": None}]), "scenes/0"),
    "half a frame": (frames_set([{"bytes": good_files()["still.png"][:200], "path": None}]), "scenes/0"),
    "no such medium": (
        changed_table(CANDIDATES, lambda t: t.set_column(1, "image", pa.array(["scenes/x", "scenes/1", "scenes/2"]))),
        "scenes/x",
    ),
    "a film as a picture": (
        changed_table(
            CANDIDATES, lambda t: t.set_column(1, "image", pa.array(["scenes/film", "scenes/1", "scenes/2"]))
        ),
        "scenes/film",
    ),
}


def evaluate_miniature(capsys, data: Path, *more: object):
    quick = ("--resamples", 10, "--latency-rounds", 0, "--latent-steps", 1)
    return call(capsys, "evaluate", "miniature", "--data", data, *quick, *more)


def test_the_miniature_is_sound(miniature: Path, capsys):
    assert evaluate_miniature(capsys, miniature).code == 0


@pytest.mark.parametrize("name", MINIATURE)
def test_a_damaged_miniature_is_named(name: str, miniature: Path, capsys):
    damage, pattern = MINIATURE[name]
    damage(miniature)
    evaluate_miniature(capsys, miniature, "--tasks", "I-RET/pictures").assert_refused(pattern)


@pytest.mark.parametrize("name", part_slow(list(MINIATURE_IN_PART), 4))
def test_a_damaged_medium_fails_its_task_alone(name: str, miniature: Path, capsys, tmp_path: Path):
    damage, pattern = MINIATURE_IN_PART[name]
    damage(miniature)
    report = tmp_path / "report.json"
    evaluate_miniature(capsys, miniature, "--json", report).assert_failed_in_part(pattern)
    model, *_ = json.loads(report.read_text())["models"]
    assert set(model["failed"]) == {"I-RET/pictures (known)"}, model["failed"]


@pytest.mark.parametrize("data", part_slow([b"{", b"5", b"", b"{}", b'{"scores": {"a": 1}, "written": null}'], 5))
def test_damaged_kept_scores_are_named(data: bytes, miniature: Path, capsys, tmp_path: Path):
    kept = ("--tasks", "I-QA/words", "--keep", tmp_path / "kept")
    assert evaluate_miniature(capsys, miniature, *kept).code == 0
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(data)
    evaluate_miniature(capsys, miniature, *kept).assert_refused(file.stem)


# MMEB-v2

IMAGES, TABLE = "ziyjiang/MMEB_Test_Instruct", "ImageNet-1K"
ROWS = f"hub/{IMAGES}/{TABLE}/test-00000-of-00001.parquet"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    for task in (TABLE, "OK-VQA"):
        rows = [
            {
                "qry_inst": "<|image_1|>\nName it",
                "qry_text": f"{number}",
                "qry_img_path": f"{task}/{number}.jpg",
                "tgt_text": ["cat", "dog", "cow"],
            }
            for number in range(2)
        ]
        write_table(tmp_path / "hub", IMAGES, task, "test", rows)
        for number in range(2):
            write_picture(tmp_path / f"media/image-tasks/MMEB/{task}/{number}.jpg", number)
    return tmp_path


def rows_set(name: str, values: list) -> Damage:
    """Gives a column of the mirrored rows other values."""
    return changed_table(ROWS, lambda t: t.set_column(t.column_names.index(name), name, pa.array(values)))


PICTURE = f"media/image-tasks/MMEB/{TABLE}/1.jpg"
MIRRORS: dict[str, tuple[Damage, str]] = {
    "half of the rows": (mutated(ROWS, "cut-at-a-third"), "cannot read the rows"),
    "rows of zeros": (mutated(ROWS, "all-zero"), "cannot read the rows"),
    "no rows": (mutated(ROWS, "empty"), "cannot read the rows"),
    "no file": (removed(ROWS), "no parquet or JSON files in"),
    "another column": (changed_table(ROWS, lambda t: t.drop_columns(["tgt_text"])), "lacks the column tgt_text"),
    "no row": (changed_table(ROWS, lambda t: t.slice(0, 0)), "has no rows"),
    "answers that are numbers": (rows_set("tgt_text", [1, 2]), "row 0: .*another kind"),
    "answers of nobody": (rows_set("tgt_text", [None, ["a"]]), "row 0 has no candidates"),
    "no answers": (rows_set("tgt_text", [[], ["a"]]), "row 0|query 0"),
    "no picture": (removed(PICTURE), r"1\.jpg"),
    "half a picture": (mutated(PICTURE, "cut-at-a-third"), r"1\.jpg"),
    "a picture of zeros": (mutated(PICTURE, "all-zero"), r"1\.jpg"),
    "a picture's path of nobody": (rows_set("qry_img_path", [None, f"{TABLE}/1.jpg"]), "path of a picture"),
    "a picture's path outside": (rows_set("qry_img_path", ["/etc/passwd", "../../x"]), "passwd|x"),
}


def evaluate_mirror(capsys, folder: Path, tasks: str, *more: object):
    where = ("--hub-dir", folder / "hub", "--media-dir", folder / "media", "--out", folder / "out")
    steps = () if "--embeddings-dir" in more else ("--latent-steps", 1)
    return call(capsys, "evaluate", "mmeb-v2", "--tasks", tasks, *where, *steps, *more)


@pytest.mark.parametrize("name", part_slow(list(MIRRORS), 6))
def test_a_damaged_mirror_fails_its_task_alone(name: str, mirror: Path, capsys):
    damage, pattern = MIRRORS[name]
    damage(mirror)
    ended = evaluate_mirror(capsys, mirror, f"{TABLE},OK-VQA")
    ended.assert_failed_in_part(f"^{TABLE}: FAILED: .*(?:{pattern})")
    assert "OK-VQA: hit@1" in ended.out


@pytest.mark.parametrize("data", part_slow([b"5", b"", b"{"], 3))
def test_damaged_scores_of_an_earlier_run_are_named(data: bytes, mirror: Path, capsys):
    assert evaluate_mirror(capsys, mirror, TABLE).code == 0
    (file,) = (mirror / "out").glob("*/*_score.json")
    file.write_bytes(data)
    evaluate_mirror(capsys, mirror, TABLE).assert_refused(file.name)


@pytest.mark.parametrize("data", part_slow([b"{}", b"", b"{"], 3))
def test_damaged_records_of_the_cache_are_made_again(data: bytes, mirror: Path, capsys):
    assert evaluate_mirror(capsys, mirror, TABLE).code == 0
    (record,) = (mirror / "out").glob(f"embeddings/*/{TABLE}.json")
    record.write_bytes(data)
    assert evaluate_mirror(capsys, mirror, TABLE).code == 0


def test_folders_that_are_not_there_are_named(mirror: Path, capsys):
    gone = ("--media-dir", mirror / "none")
    call(capsys, "evaluate", "mmeb-v2", "--check", "--tasks", TABLE, *gone).assert_refused("No such folder: .*none")
    (mirror / "stored").mkdir()
    ended = evaluate_mirror(capsys, mirror, TABLE, "--embeddings-dir", mirror / "stored")
    ended.assert_failed_in_part(rf"{TABLE}: FAILED: no stored embeddings: .*{TABLE}\.npz")


# Pairs


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path, 4)


PAIRS: dict[str, tuple[Damage, str]] = {
    "no file": (removed("pairs.jsonl"), r"pairs\.jsonl"),
    "no rows": (mutated("pairs.jsonl", "empty"), r"pairs\.jsonl"),
    "half a file": (mutated("pairs.jsonl", "cut-at-nine-tenths"), r"pairs\.jsonl:4: "),
    "zeros": (mutated("pairs.jsonl", "all-zero"), r"pairs\.jsonl:1: "),
    "another key": (written("pairs.jsonl", b'{"question": "a"}\n'), r"pairs\.jsonl:1: .*question"),
    "no picture": (removed("2.png"), r"pairs\.jsonl:3: .*2\.png"),
    "half a picture": (mutated("2.png", "cut-at-a-third"), r"pairs\.jsonl:3: positive: .*2\.png"),
    "a picture of zeros": (mutated("2.png", "all-zero"), r"pairs\.jsonl:3: positive: .*2\.png"),
}


@pytest.mark.parametrize("name", part_slow(list(PAIRS), 3))
def test_damaged_pairs_are_named_by_evaluate(name: str, pairs: Path, capsys):
    damage, pattern = PAIRS[name]
    damage(pairs)
    call(capsys, "evaluate", "pairs", pairs / "pairs.jsonl", "--resamples", 10).assert_refused(pattern)
