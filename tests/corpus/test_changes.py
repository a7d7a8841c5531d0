"""plume-embed embed: what changed, or was asked for otherwise, is never taken for what it was."""

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from filelock import FileLock
from small_files import write_picture

from plume_embed.cli.main import main
from plume_embed.corpus import embed as module
from plume_embed.corpus import shards
from plume_embed.corpus.embed import EmbedOptions, EmbedReport, embed_corpus
from plume_embed.corpus.jsonl import JsonlSource
from plume_embed.corpus.rows import BadRow
from plume_embed.corpus.sources import open_source
from plume_embed.encode.encoder import Encoder
from plume_embed.index.table import BusyError

NAMES = [f"{n}.png" for n in range(4)]


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> Encoder:
    return Encoder(released_model_dir, device="cpu")


def of_jsonl(folder: Path) -> Path:
    (folder / "in.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in NAMES))
    return folder / "in.jsonl"


def of_parquet(folder: Path, images: list | None = None) -> Path:
    pq.write_table(pa.table({"image": images or NAMES}), folder / "in.parquet", row_group_size=3)
    return folder / "in.parquet"


def of_data_set(folder: Path) -> Path:
    Dataset.from_dict({"image": [str(folder / name) for name in NAMES]}).save_to_disk(folder / "saved")
    return folder / "saved"


SOURCES: dict[str, Callable[[Path], Path]] = {
    "a folder": lambda folder: folder,
    "JSONL": of_jsonl,
    "Parquet of paths": of_parquet,
    "Parquet of objects": lambda folder: of_parquet(folder, [{"bytes": None, "path": name} for name in NAMES]),
    "Parquet of lists": lambda folder: of_parquet(folder, [[{"path": name}] for name in NAMES]),
    "a data set": of_data_set,
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Four pictures that are named by their paths."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n, name in enumerate(NAMES):
        write_picture(folder / name, seed=n)
    return SOURCES[request.param](folder)


def embed(source: Path, encoder: Encoder, out: str = "out.parquet", keep=(), rows: int = 1, **options) -> EmbedReport:
    place = source if source.is_dir() and source.name == "in" else source.parent
    chosen = EmbedOptions(num_latent_steps=1, shard_rows=rows)
    return embed_corpus(open_source(str(source), keep), place.with_name(out), encoder, chosen, **options)


def picture(source: Path, name: str) -> Path:
    return (source if source.name == "in" else source.parent) / name


def check(source: Path, encoder: Encoder) -> None:
    """The output holds the vectors of what is there now."""
    place = picture(source, NAMES[0]).parent.with_name("out.parquet")
    found = np.array(pq.read_table(place)["embedding"].to_pylist(), np.float32)
    expected = encoder.encode([picture(source, name) for name in NAMES], num_latent_steps=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def stop_at(rows: int) -> Callable[[int, int], None]:
    def stop(done: int, total: int) -> None:
        if done == rows:
            raise KeyboardInterrupt

    return stop


def test_a_picture_that_changed_makes_another_input(source: Path, encoder: Encoder):
    embed(source, encoder)
    assert embed(source, encoder).resumed == 4
    write_picture(picture(source, "1.png"), seed=9, size=(50, 50))
    with pytest.raises(ValueError, match="comes from another input"):
        embed(source, encoder)


def test_the_shard_of_a_picture_that_changed_is_made_again_and_the_others_stay(source: Path, encoder: Encoder):
    with pytest.raises(KeyboardInterrupt):
        embed(source, encoder, on_progress=stop_at(2))
    write_picture(picture(source, "1.png"), seed=9, size=(50, 50))
    assert embed(source, encoder).resumed == 1
    check(source, encoder)


def test_a_picture_that_was_missing_is_another_input_when_it_is_there(source: Path, encoder: Encoder):
    picture(source, "3.png").rename(picture(source, "3.away"))
    assert embed(source, encoder).num_rows == 3
    picture(source, "3.away").rename(picture(source, "3.png"))
    with pytest.raises(ValueError, match="comes from another input"):
        embed(source, encoder)


def test_a_picture_that_changes_while_its_shard_is_made_is_refused(
    source: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    encode, calls = encoder.encode_readable, []

    def change(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            write_picture(picture(source, "3.png"), seed=9, size=(50, 50))
        return encode(*arguments)

    monkeypatch.setattr(encoder, "encode_readable", change)
    with pytest.raises(ValueError, match="changed while it was read; run again"):
        embed(source, encoder, rows=2)
    assert embed(source, encoder, rows=2).resumed == 2
    monkeypatch.undo()
    check(source, encoder)


def test_a_picture_that_may_not_be_read_is_tried_again_when_it_may(
    source: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    access, bad = os.access, list[BadRow]()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "1.png" and access(path, mode))
    with pytest.raises(KeyboardInterrupt):
        embed(source, encoder, on_progress=stop_at(3), rows=1)
    embed(source, encoder, on_bad=bad.append, out="whole.parquet")
    assert len(bad) == 1 and bad[0].reason.startswith("Permission denied")
    monkeypatch.undo()
    embed(source, encoder)
    check(source, encoder)
    with pytest.raises(ValueError, match="comes from another input"):
        embed(source, encoder, out="whole.parquet")


def test_another_number_of_rows_in_a_shard_makes_no_other_input(source: Path, encoder: Encoder):
    picture(source, "3.png").unlink()
    embed(source, encoder, rows=1)
    assert [embed(source, encoder, rows=rows).resumed for rows in (1, 2, 3, 256)] == [3] * 4


def test_a_source_by_a_link_to_its_folder_is_the_same_source(source: Path, encoder: Encoder, tmp_path: Path):
    picture(source, "3.png").unlink()  # where the row of it says where it is missing
    (tmp_path / "link").symlink_to(tmp_path / "in")
    linked = tmp_path / "link" / source.relative_to(tmp_path / "in")
    options = EmbedOptions(num_latent_steps=1, shard_rows=1)
    with pytest.raises(KeyboardInterrupt):
        embed(source, encoder, on_progress=stop_at(2))
    for resumed in (2, 3):
        report = embed_corpus(open_source(str(linked)), tmp_path / "out.parquet", encoder, options)
        assert report.resumed == resumed and report.num_rows == 3


def test_a_folder_of_datasets_by_a_link_is_the_same_source(tmp_path: Path):
    """`datasets` takes the path that it is given into its fingerprint."""
    texts(tmp_path / "in" / "train.jsonl", 2)
    (tmp_path / "in" / "dataset_infos.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    sources = [open_source(str(tmp_path / name)) for name in ("in", "link")]
    assert all(len(list(source.slices(1))) == 2 for source in sources)
    assert sources[0].digest() == sources[1].digest()


def of_strings(kind: pa.DataType) -> pa.Array:
    return pa.array(NAMES).cast(kind)


COLUMNS: dict[str, Callable[[], pa.Array]] = {
    "string_view": lambda: of_strings(pa.string_view()),
    "large_string": lambda: of_strings(pa.large_string()),
    "dictionary": lambda: pa.array(NAMES).dictionary_encode(),
    "json": lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(NAMES)),
    "list_view": lambda: pa.array([[name] for name in NAMES], pa.list_view(pa.string())),
    "large_list_view": lambda: pa.array([[name] for name in NAMES], pa.large_list_view(pa.string_view())),
    "large_list": lambda: pa.array([[name] for name in NAMES], pa.large_list(pa.large_string())),
    "fixed_size_list": lambda: pa.array([[name] for name in NAMES], pa.list_(pa.string(), 1)),
    "struct of views": lambda: pa.array(
        [{"bytes": None, "path": name} for name in NAMES],
        pa.struct({"bytes": pa.binary_view(), "path": pa.string_view()}.items()),
    ),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_change_of_a_picture_is_seen_whatever_the_type_of_its_column(tmp_path: Path, column: str):
    for n, name in enumerate(NAMES):
        write_picture(tmp_path / name, seed=n)
    pq.write_table(pa.table({"image": COLUMNS[column]()}), tmp_path / "in.parquet")
    source = open_source(str(tmp_path / "in.parquet"))
    specs = [draft.spec for draft in source.slices(1)]
    before = source.digest()
    write_picture(tmp_path / "1.png", seed=9, size=(50, 50))
    source.check(specs[0])
    with pytest.raises(ValueError, match="changed while it was read"):
        source.check(specs[1])
    assert len(list(source.slices(1))) == 4 and source.digest() != before


def test_another_limit_of_pixels_is_another_run(tmp_path: Path, released_model_dir: Path):
    (tmp_path / "in").mkdir()
    for n, name in enumerate(NAMES):
        write_picture(tmp_path / "in" / name, seed=n, size=(60, 60) if n else (30, 30))
    source = of_jsonl(tmp_path / "in")
    strict, wide = (Encoder(released_model_dir, "cpu", max_image_pixels=pixels) for pixels in (1000, 4000))
    with pytest.raises(KeyboardInterrupt):
        embed(source, strict, on_progress=stop_at(2))
    with pytest.raises(ValueError, match=r"another --max-image-pixels \(1000, not 4000\); delete it"):
        embed(source, wide)
    assert embed(source, strict).num_bad == 3
    with pytest.raises(ValueError, match=r"comes from another --max-image-pixels \(1000, not 4000\);"):
        embed(source, wide)
    assert embed(source, strict).num_bad == 3


def test_a_batch_size_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, encoder: Encoder):
    source = texts(tmp_path / "in" / "a.jsonl", 2)
    with pytest.raises(ValueError, match="batch_size must be a whole number above 0, got '8'"):
        embed_corpus(open_source(str(source), []), tmp_path / "out", encoder, EmbedOptions(batch_size="8"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_output_of_version_0_2_which_says_no_limit_of_pixels_is_found_done(tmp_path: Path, encoder: Encoder):
    source = texts(tmp_path / "in" / "a.jsonl", 2)
    embed(source, encoder, out="out")
    stamp = json.loads((tmp_path / "out" / "_plume.json").read_text())
    del stamp["origin"]["max_image_pixels"], stamp["origin"]["keep"]
    (tmp_path / "out" / "_plume.json").write_text(json.dumps(stamp))
    assert embed(source, encoder, out="out").resumed == 2
    with pytest.raises(
        ValueError, match="comes from another input, or this one before a change of it, or with another"
    ):
        embed(source, encoder, out="out", keep=["k"])


def test_a_file_beside_bytes_of_its_name_changes_nothing(tmp_path: Path, encoder: Encoder):
    (tmp_path / "in").mkdir()
    files = [write_picture(tmp_path / "in" / name, seed=n) for n, name in enumerate(NAMES)]
    source = of_parquet(tmp_path / "in", [{"bytes": file.read_bytes(), "path": file.name} for file in files])
    embed(source, encoder)
    write_picture(files[1], seed=9, size=(50, 50))
    assert embed(source, encoder).resumed == 4


def texts(path: Path, count: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": f"{path.stem} {n}"}) + "\n" for n in range(count)))
    return path


def test_a_second_run_that_is_refused_takes_nothing_from_one_that_plans(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    source, plain, refused = texts(tmp_path / "in" / "a.jsonl", 3), JsonlSource.slices, []

    def slices(own: JsonlSource, size: int):
        for draft in plain(own, size):
            with pytest.raises(BusyError, match="is being written by another process") as error:
                embed(source, encoder)
            refused.append(error)
            yield draft

    monkeypatch.setattr(JsonlSource, "slices", slices)
    assert embed(source, encoder).num_rows == 3 and len(refused) == 3
    assert [path.name for path in tmp_path.glob("out*")] == ["out.parquet"]


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("b", {}, r"another SOURCE \(.*a.jsonl, not .*b.jsonl\); delete it"),
        ("a", {"rows": 2}, r"another --shard-rows \(1, not 2\); delete it"),
        ("a", {"keep": ["k"]}, r"another --keep \(none, not k\); delete it"),
        ("a", {"keep": ["k"], "rows": 2}, r"another --keep \(.*\), --shard-rows \(1, not 2\); delete it"),
    ],
)
def test_the_shards_of_a_killed_run_stay_when_another_one_is_asked_for(
    tmp_path: Path, encoder: Encoder, name: str, other: dict, message: str
):
    sources = {one: texts(tmp_path / "in" / f"{one}.jsonl", 4) for one in "ab"}
    with pytest.raises(KeyboardInterrupt):
        embed(sources["a"], encoder, on_progress=stop_at(2))
    with pytest.raises(ValueError, match=message):
        embed(sources[name], encoder, **other)
    assert embed(tmp_path / "in" / ".." / "in" / "a.jsonl", encoder).resumed == 2


def test_a_data_set_is_opened_once_in_a_process_and_again_when_its_files_change(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    for n, name in enumerate(NAMES):
        write_picture(tmp_path / name, seed=n)
    source = open_source(str(of_data_set(tmp_path)))
    load, opened = datasets.load_from_disk, []
    monkeypatch.setattr(datasets, "load_from_disk", lambda name: opened.append(name) or load(name))
    embed_corpus(source, tmp_path / "out.parquet", encoder, EmbedOptions(1, shard_rows=1))
    assert len(opened) == 1
    assert len(pickle.dumps(source)) < 500
    (spec,) = (draft.spec for draft in source.slices(4))
    shutil.rmtree(tmp_path / "saved")
    Dataset.from_dict({"image": [str(tmp_path / "0.png")] * 4}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="changed while it was read; run again"):
        source.check(spec)


def test_a_lock_whose_folder_another_run_has_made_anew_is_no_lock(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    source, work = texts(tmp_path / "in" / "a.jsonl", 2), tmp_path / "out.parquet.partial"

    def late(file: Path) -> FileLock:
        """The run before ends, and the next one begins, while this one takes the lock."""
        lock = FileLock(file)
        lock.acquire()
        shutil.rmtree(work)
        work.mkdir()
        file.touch()
        return lock

    monkeypatch.setattr(module, "FileLock", late)
    with pytest.raises(BusyError, match="ended just now; run this again"):
        embed(source, encoder)
    assert work.is_dir(), "it is the next run's"
    monkeypatch.undo()
    assert embed(source, encoder).num_rows == 2


@pytest.mark.parametrize("content", ["[]", "5", "null"])
def test_the_job_of_a_run_that_holds_something_else_is_named(tmp_path: Path, encoder: Encoder, content: str):
    (tmp_path / "out.parquet.partial").mkdir()
    (tmp_path / "out.parquet.partial" / "job.json").write_text(content)
    with pytest.raises(ValueError, match=r"job.json is damaged or of another form. Delete .*out.parquet.partial to"):
        embed(texts(tmp_path / "in" / "a.jsonl", 2), encoder)


def test_what_a_run_of_an_older_version_left_is_refused(tmp_path: Path, encoder: Encoder):
    source = texts(tmp_path / "in" / "a.jsonl", 2)
    (tmp_path / "out.parquet.partial").mkdir()
    (tmp_path / "out.parquet.partial" / "job.json").write_text('{"fingerprint": "x", "num_latent_steps": 1}')
    with pytest.raises(ValueError, match=r"out.parquet.partial is left of a run of an older version; delete it"):
        embed(source, encoder)


@pytest.mark.parametrize("out", ["out.parquet", "out", "out.lance"])
def test_rows_that_were_skipped_are_counted_again_with_the_remedy(
    tmp_path: Path, released_model_dir: Path, capsys: pytest.CaptureFixture, out: str
):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{broken\n{}\n')
    for new in (1, 0):
        with pytest.raises(SystemExit):
            main(["embed", f"{tmp_path}/in.jsonl", "--to", f"{tmp_path}/{out}", "--model", str(released_model_dir)])
        said = capsys.readouterr().out
        assert f"{new} embedded now; {1 - new} there already; 2 rows skipped" in said
        bad = {"out": "out/_bad.parquet", "out.lance": "out.lance.bad.parquet"}.get(out, "out.bad.parquet")
        assert f"The reasons are in {tmp_path}/{bad}. To try these rows again, delete {tmp_path}/{out}" in said


def test_a_full_disk_is_an_error_that_names_the_output_and_the_run_goes_on(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    source = texts(tmp_path / "in" / "a.jsonl", 3)

    def full(done: int, total: int) -> None:
        def fail(*_):
            raise OSError(errno.ENOSPC, "Error writing bytes to file")

        if done == 1:
            monkeypatch.setattr(shards.pq, "write_table", fail)

    with pytest.raises(ValueError, match=r"out.parquet cannot be written: No space left on device\. Make room"):
        embed(source, encoder, on_progress=full)
    monkeypatch.undo()
    assert embed(source, encoder).resumed == 1
