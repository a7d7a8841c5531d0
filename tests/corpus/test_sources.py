"""Sources other than JSONL, and outputs other than one file: the same rows with the same vectors."""

import json
import os
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Value, load_from_disk
from datasets import Image as Picture
from PIL import Image
from small_files import write_pdf, write_picture

from plume_embed.corpus.embed import EmbedOptions, EmbedReport, embed_corpus
from plume_embed.corpus.jsonl import JsonlSource
from plume_embed.corpus.output import bad_file
from plume_embed.corpus.rows import hash_of
from plume_embed.corpus.sources import open_source
from plume_embed.corpus.tables import _batches_between
from plume_embed.encode.encoder import Encoder
from plume_embed.local_datasets import open_dataset
from plume_embed.outputs import holds_output


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> Encoder:
    return Encoder(released_model_dir, device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return [write_picture(tmp_path / f"{n}.png", seed=n) for n in range(3)]


def embed(source: Path | str, out: Path, encoder: Encoder, keep=(), **options) -> EmbedReport:
    chosen = EmbedOptions(**{"num_latent_steps": 1, "shard_rows": 2, **options})
    return embed_corpus(open_source(str(source), keep), out, encoder, chosen)


def rows_of(table: pa.Table) -> dict[str, np.ndarray]:
    return {row["id"]: np.array(row["embedding"], np.float32) for row in table.to_pylist()}


def check(rows: dict[str, np.ndarray], encoder: Encoder, items: dict[str, object]) -> None:
    assert list(rows) == list(items)
    expected = encoder.encode(list(items.values()), num_latent_steps=1)
    np.testing.assert_allclose(np.array(list(rows.values())), expected, atol=1e-5)


def test_parquet_holds_texts_paths_and_bytes(tmp_path: Path, encoder: Encoder, pictures: list[Path]):
    table = pa.table(
        {
            "id": ["a", "b", "c", "a", "e"],
            "text": ["one", None, "three", "four", None],
            "image": [None, {"bytes": pictures[1].read_bytes()}, {"path": "2.png"}, None, {"path": "none.png"}],
            "price": [1.5, 2.5, None, 4.5, 5.5],
            "unused": [1, 2, 3, 4, 5],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
    report = embed(tmp_path / "in.parquet", tmp_path / "out.parquet", encoder, keep=["price"])
    assert (report.num_rows, report.num_bad) == (3, 2)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["price"].to_pylist() == [1.5, 2.5, None]
    items = {"a": "one", "b": pictures[1], "c": {"text": "three", "image": pictures[2]}}
    check(rows_of(found), encoder, items)
    bad = pq.read_table(tmp_path / "out.bad.parquet").to_pylist()
    assert [row["id"] for row in bad] == ["a", "e"]
    assert "the id 'a' was used in row 0" in bad[0]["reason"] and "no such file" in bad[1]["reason"]


@pytest.mark.parametrize("kind", ["parquet", "data set"])
def test_an_id_that_is_the_number_of_a_row_without_one_is_bad_the_second_time(
    tmp_path: Path, encoder: Encoder, kind: str
):
    columns = {"id": ["1", None, "2", None, "0"], "text": list("abcde")}
    source = tmp_path / "in.parquet" if kind == "parquet" else tmp_path / "saved"
    if kind == "parquet":
        pq.write_table(pa.table(columns), source)
    else:
        Dataset.from_dict(columns).save_to_disk(source)
    report = embed(source, tmp_path / "out.parquet", encoder)
    assert (report.num_rows, report.num_bad) == (4, 1)
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == ["1", "2", "3", "0"]
    (bad,) = pq.read_table(tmp_path / "out.bad.parquet").to_pylist()
    assert bad["id"] == "1" and bad["reason"] == "the id '1' was used in row 0"


def test_the_number_of_a_row_without_an_id_is_no_second_use_of_an_id_of_another_file(tmp_path: Path, encoder: Encoder):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"id": ["1", "2", "3"], "text": list("abc")}), folder / "a.parquet")
    pq.write_table(pa.table({"text": list("de")}), folder / "b.parquet")
    assert embed(folder, tmp_path / "out.parquet", encoder).num_bad == 1
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == ["1", "2", "3", "4"]
    (bad,) = pq.read_table(tmp_path / "out.bad.parquet").to_pylist()
    assert bad["where"].endswith("b.parquet: row 0") and bad["reason"] == "the id '3' was used in row 2"


@pytest.mark.parametrize("kind", ["parquet", "data set", "jsonl"])
def test_a_bad_row_does_not_use_its_id(tmp_path: Path, encoder: Encoder, kind: str):
    columns = {
        "id": ["x", "x", "y", "x", "y", "y"],
        "text": [None, "a", None, "b", None, "c"],
        "image": [None, None, "none.png", None, "https://x.org/a.png", None],
    }
    names = {"parquet": "in.parquet", "data set": "saved", "jsonl": "in.jsonl"}
    source = tmp_path / names[kind]
    if kind == "parquet":
        pq.write_table(pa.table(columns), source)
    elif kind == "data set":
        Dataset.from_dict(columns).save_to_disk(source)
    else:
        source.write_text("".join(json.dumps(row) + "\n" for row in pa.table(columns).to_pylist()))
    embed(source, tmp_path / "out.parquet", encoder)
    found = rows_of(pq.read_table(tmp_path / "out.parquet"))
    check(found, encoder, {"x": "a", "y": "c"})
    reasons = [row["reason"] for row in pq.read_table(tmp_path / "out.bad.parquet").to_pylist()]
    used = "line 2" if kind == "jsonl" else "row 1"
    assert [r for r in reasons if "was used" in r] == [f"the id 'x' was used in {used}"] and len(reasons) == 4


@pytest.mark.parametrize("values", [[b"a\xff", b"b"], [1.0, None], [True, False]])
@pytest.mark.parametrize("kind", ["parquet", "data set"])
def test_an_id_is_a_string_or_a_whole_number(tmp_path: Path, encoder: Encoder, kind: str, values: list):
    source = tmp_path / "in.parquet" if kind == "parquet" else tmp_path / "saved"
    if kind == "parquet":
        pq.write_table(pa.table({"id": values, "text": ["a", "b"]}), source)
    else:
        Dataset.from_dict({"id": values, "text": ["a", "b"]}).save_to_disk(source)
    with pytest.raises(ValueError, match=r"a string or a whole number, and the column id holds \w+; cast it to string"):
        embed(source, tmp_path / "out.parquet", encoder)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.large_string(), pa.string_view(), "dictionary"])
def test_ids_of_any_type_of_strings_and_whole_numbers_are_taken(tmp_path: Path, kind: pa.DataType | str):
    ids = pa.array(["1", "2"]).dictionary_encode() if kind == "dictionary" else pa.array(["1", "2"]).cast(kind)
    pq.write_table(pa.table({"id": ids, "text": ["a", "b"]}), tmp_path / "in.parquet")
    (draft,) = open_source(str(tmp_path / "in.parquet")).slices(2)
    assert [key for _, key, _ in draft.ids] == [hash_of("1"), hash_of("2")]


@pytest.mark.parametrize(
    "kind", [pa.time64("ns"), pa.list_(pa.time64("ns")), pa.struct({"t": pa.time64("ns")}.items())]
)
def test_times_whose_nanoseconds_would_be_lost_are_not_kept(tmp_path: Path, encoder: Encoder, kind: pa.DataType):
    pq.write_table(pa.table({"text": ["a"], "at": pa.nulls(1, kind)}), tmp_path / "in.parquet")
    with pytest.raises(ValueError, match=r"would cut them to microseconds; cast the column to time64\[us\]"):
        embed(tmp_path / "in.parquet", tmp_path / "out.parquet", encoder, keep=["at"])
    assert embed(tmp_path / "in.parquet", tmp_path / "out.parquet", encoder).num_rows == 1


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_row_may_hold_a_list_of_texts(tmp_path: Path, encoder: Encoder, suffix: str):
    rows = [{"text": ["one", "two"]}, {"text": ["three"]}, {"text": []}]
    source = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([*rows, {"text": ["four", None]}]), source)
    else:
        source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": ["four", None]}]))
    report = embed(source, tmp_path / "out.parquet", encoder)
    assert (report.num_rows, report.num_bad) == (2, 2)
    found = np.array(pq.read_table(tmp_path / "out.parquet")["embedding"].to_pylist(), np.float32)
    expected = encoder.encode([{"text": ["one", "two"]}, "three"], num_latent_steps=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    bad = pq.read_table(tmp_path / "out.bad.parquet").to_pylist()
    assert all("text must be a string or a list of strings" in row["reason"] for row in bad)


def test_a_folder_of_parquet_and_a_data_set_give_the_rows_of_one_file(tmp_path: Path, encoder: Encoder):
    rows = {"text": [f"text {n}" for n in range(7)]}
    items = {str(n): text for n, text in enumerate(rows["text"])}
    (tmp_path / "parts").mkdir()
    for number, some in enumerate((slice(0, 3), slice(3, 7))):
        pq.write_table(pa.table({"text": rows["text"][some]}), tmp_path / "parts" / f"{number}.parquet")
    pictures = [Image.new("RGB", (40, 40), (30 * n, 0, 0)) for n in range(7)]
    features = Features({"text": Value("string"), "image": Picture()})
    Dataset.from_dict(rows | {"image": pictures}, features).save_to_disk(tmp_path / "saved")
    embed(tmp_path / "parts", tmp_path / "a.parquet", encoder)
    check(rows_of(pq.read_table(tmp_path / "a.parquet")), encoder, items)
    embed(tmp_path / "saved", tmp_path / "b.parquet", encoder)
    both = {str(n): {"text": text, "image": pictures[n]} for n, text in enumerate(rows["text"])}
    check(rows_of(pq.read_table(tmp_path / "b.parquet")), encoder, both)


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas", "arrow", None])
@pytest.mark.parametrize("columns", [None, ["label"]])
def test_a_format_that_a_data_set_was_saved_with_changes_nothing(
    tmp_path: Path, encoder: Encoder, kind: str | None, columns: list[str] | None
):
    data = Dataset.from_dict({"id": [7, 8, 7], "text": ["a", "b", None], "label": [1, 2, 3]})
    data.with_format(kind, columns).save_to_disk(tmp_path / "saved")
    embed(tmp_path / "saved", tmp_path / "out.parquet", encoder, keep=["label"])
    found = pq.read_table(tmp_path / "out.parquet")
    check(rows_of(found), encoder, {"7": "a", "8": "b"})
    assert found["label"].to_pylist() == [1, 2]
    (bad,) = pq.read_table(tmp_path / "out.bad.parquet").to_pylist()
    assert bad["id"] == "7" and "none of text, image, video" in bad["reason"]


def test_a_data_set_without_a_format_keeps_its_fingerprint(tmp_path: Path):
    """By which the outputs of earlier versions are found done."""
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    saved = str(tmp_path / "saved")
    assert open_dataset(saved)._fingerprint == load_from_disk(saved)._fingerprint


def test_of_several_splits_that_were_saved_together_train_is_embedded(tmp_path: Path, encoder: Encoder):
    splits = {name: Dataset.from_dict({"text": [name]}) for name in ("test", "train")}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    embed(tmp_path / "saved", tmp_path / "out.parquet", encoder)
    check(rows_of(pq.read_table(tmp_path / "out.parquet")), encoder, {"0": "train"})
    DatasetDict({"test": splits["test"], "dev": splits["train"]}).save_to_disk(tmp_path / "others")
    with pytest.raises(ValueError, match=r"others has no split train but test, dev; .* as in .*others/test\."):
        embed(tmp_path / "others", tmp_path / "none.parquet", encoder)
    embed(tmp_path / "others" / "test", tmp_path / "one.parquet", encoder)
    check(rows_of(pq.read_table(tmp_path / "one.parquet")), encoder, {"0": "test"})


def test_a_folder_of_media_gives_an_item_for_each_page(tmp_path: Path, encoder: Encoder):
    folder = tmp_path / "media"
    folder.mkdir()
    picture = write_picture(folder / "a.png")
    write_pdf(folder / "b.pdf", num_pages=2)
    (folder / "c.txt").write_text("a text")
    (folder / "d.png").write_text("no picture")
    report = embed(folder, tmp_path / "out", encoder)
    assert (report.num_rows, report.num_bad) == (4, 1)
    rows = rows_of(pq.read_table(tmp_path / "out"))
    assert list(rows) == ["a.png", "b.pdf#page=1", "b.pdf#page=2", "c.txt"]
    check({name: rows[name] for name in ("a.png", "c.txt")}, encoder, {"a.png": picture, "c.txt": "a text"})
    (bad,) = pq.read_table(bad_file(tmp_path / "out")).to_pylist()
    assert bad["id"] == "d.png" and bad["reason"]


@pytest.mark.parametrize("name", ["out.parquet", "out", "out.lance"])
def test_an_output_that_is_there_stays_and_another_run_into_it_is_refused(
    tmp_path: Path, encoder: Encoder, pictures: list[Path], name: str
):
    pq.write_table(pa.table({"id": list("abc"), "image": [path.name for path in pictures]}), tmp_path / "in.parquet")
    out = tmp_path / name
    assert embed(tmp_path / "in.parquet", out, encoder).embedded == 3
    items = dict(zip("abc", pictures, strict=True))
    if name == "out.lance":
        check(rows_of(lancedb.connect(tmp_path).open_table("out").to_arrow()), encoder, items)
    else:
        check(rows_of(pq.read_table(out)), encoder, items)
    again = embed(tmp_path / "in.parquet", out, encoder)
    assert (again.num_rows, again.embedded, again.resumed) == (3, 0, 3)
    for other, named in (
        ({"num_latent_steps": 2}, r"K \(\d+, not 2\);"),
        ({"dimensions": 16}, r"--dimensions \(none, not 16\);"),
        ({"instruction": "Find it."}, r"--instruction \(none, not Find it.\);"),
    ):
        with pytest.raises(ValueError, match=f"is there already and comes from another {named}"):
            embed(tmp_path / "in.parquet", out, encoder, **other)
    assert sorted(path.name for path in tmp_path.glob("out*")) == [name]


def test_an_instruction_stands_in_front_and_dimensions_cut(tmp_path: Path, encoder: Encoder, pictures: list[Path]):
    pq.write_table(pa.table({"text": ["a", None], "image": [None, pictures[0].name]}), tmp_path / "in.parquet")
    embed(tmp_path / "in.parquet", tmp_path / "out.parquet", encoder, instruction="Find it.", dimensions=16)
    found = np.array(list(rows_of(pq.read_table(tmp_path / "out.parquet")).values()))
    items = ["Find it.\na", {"text": "Find it.", "image": pictures[0]}]
    expected = encoder.encode(items, num_latent_steps=1)[:, :16]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    with pytest.raises(ValueError, match=r"dimensions must lie in 1\.\.63, got 64"):
        embed(tmp_path / "in.parquet", tmp_path / "more.parquet", encoder, dimensions=64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.jsonl", "No such file"),
        ("in.txt", "a corpus is a .jsonl or .parquet file"),
        ("other.parquet", "no column"),
    ],
)
def test_what_is_no_corpus_is_refused(tmp_path: Path, encoder: Encoder, name: str, message: str):
    (tmp_path / "in.txt").write_text("x")
    pq.write_table(pa.table({"caption": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=message):
        embed(tmp_path / name, tmp_path / "out.parquet", encoder)


@pytest.mark.parametrize("out", ["v.parquet", "v", "v.lance", "v.PARQUET"])
@pytest.mark.parametrize("kind", ["media", "parts"])
def test_an_embed_never_reads_what_embed_has_written(tmp_path: Path, encoder: Encoder, kind: str, out: str):
    folder = tmp_path / "in"
    folder.mkdir()
    if kind == "media":
        (folder / "a.txt").write_text("a text")
        (folder / "b.png").write_text("no picture")
    else:
        pq.write_table(pa.table({"text": ["a text", None]}), folder / "p.parquet")
    for _ in range(2):  # then with the other output, and what a killed run has left, in it
        embed(folder, folder / "other.parquet", encoder, shard_rows=1)
        report = embed(folder, folder / out, encoder, shard_rows=1)
        assert (report.num_rows, report.num_bad) == (1, 1)
        (folder / "killed.parquet.partial").mkdir(exist_ok=True)
        for name in (".lock", "plan.jsonl", "job.json"):
            (folder / "killed.parquet.partial" / name).write_text("{}")
    assert report.resumed == 1


def test_an_output_that_was_given_a_column_to_embed_is_a_source(tmp_path: Path, encoder: Encoder):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"id": ["a"], "text": ["one"]}), folder / "a.parquet")
    embed(folder, folder / "b.parquet", encoder)
    assert embed(folder, tmp_path / "c.parquet", encoder).num_rows == 1
    table = pq.read_table(folder / "b.parquet").drop_columns("id")
    pq.write_table(table.append_column("text", pa.array(["two"])), folder / "b.parquet")
    report = embed(folder, tmp_path / "d.parquet", encoder)
    check(rows_of(pq.read_table(tmp_path / "d.parquet")), encoder, {"a": "one", "1": "two"})
    assert report.num_bad == 0


def test_rows_behind_a_slice_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pq.write_table(pa.table({"text": [str(n) for n in range(1000)]}), tmp_path / "in.parquet")
    plain, decoded = pq.ParquetFile.iter_batches, []

    def counted(*arguments, **options):
        for batch in plain(*arguments, **options):
            decoded.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    batches = _batches_between(pq.ParquetFile(tmp_path / "in.parquet"), 60, 68, ["text"])
    assert [row["text"] for batch in batches for row in batch.to_pylist()] == [str(n) for n in range(60, 128)]
    assert sum(decoded) == 128


def test_a_folder_that_the_system_does_not_enter_holds_no_output():
    for name in ("x", "x.partial", "x.lance"):
        assert not holds_output(Path("a" * 5000, name))


def test_a_file_whose_name_is_no_utf8_is_skipped_as_index_skips_it(tmp_path: Path, encoder: Encoder):
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("a text")
    (folder / "a.txt").write_text("a text")
    assert embed(folder, tmp_path / "out.parquet", encoder).num_bad == 1
    (bad,) = pq.read_table(tmp_path / "out.bad.parquet").to_pylist()
    assert bad == {"id": r"caf\udce9.txt", "where": r"caf\udce9.txt", "reason": "its name is not valid UTF-8"}


def test_a_folder_whose_name_is_no_utf8_is_read_or_refused_by_its_name(tmp_path: Path, encoder: Encoder):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "a.txt").write_text("a text")
    (folder / "in.jsonl").write_text('{"text": "a"}\n{broken\n')
    assert embed(folder / "in.jsonl", tmp_path / "a.parquet", encoder).num_bad == 1
    assert embed(folder, tmp_path / "b.parquet", encoder).num_rows == 2
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "in.parquet")
    (tmp_path / "in.parquet").rename(folder / "in.parquet")
    for source, out in (("in.parquet", tmp_path / "c.parquet"), ("in.jsonl", folder / "c.parquet")):
        with pytest.raises(ValueError, match=r"caf.udce9\S* is not valid UTF-8, and Parquet and LanceDB take"):
            embed(folder / source, out, encoder)


def test_the_suffix_of_an_output_counts_in_any_case(tmp_path: Path, encoder: Encoder):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{broken\n')
    embed(tmp_path / "in.jsonl", tmp_path / "X.PARQUET", encoder)
    assert pq.ParquetFile(tmp_path / "X.PARQUET").metadata.num_rows == 1 and (tmp_path / "X.bad.parquet").is_file()
    with pytest.raises(ValueError, match=r"ends in \.lance; write to .*X\.lance"):
        embed(tmp_path / "in.jsonl", tmp_path / "X.LANCE", encoder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my vectors.lance", 'no name of a table: Invalid table name \\("my vectors"\\)'),
        ("b\u00fccher.lance", "no name of a table: Invalid table name"),
        ("x.partial", "has the name of what `embed` writes beside an output"),
        ("x.bad.parquet", "has the name of what `embed` writes beside an output"),
        ("x.lance.bad.parquet", "has the name of what `embed` writes beside an output"),
        ("gone", "is a link to nothing; remove it"),
        ("gone.lance", "is a link to nothing; remove it"),
        ("notes.parquet", r"notes\.bad\.parquet is where what cannot be embedded is listed, and something else"),
        (f"{'x' * 231}.parquet", r"cannot be written \(File name too long\)"),
        (f"{'x' * 231}.lance", r"cannot be written \(File name too long\)"),
    ],
)
def test_a_name_or_place_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, encoder: Encoder, name: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "notes.bad.parquet").write_text("somebody's")
    for link in ("gone", "gone.lance"):
        (tmp_path / link).symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(JsonlSource, "slices", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(ValueError, match=message):
        embed(tmp_path / "in.jsonl", tmp_path / name, encoder)
    assert (tmp_path / "notes.bad.parquet").read_text() == "somebody's"


@pytest.mark.parametrize(("name", "kind"), [("tags", pa.list_view(pa.string())), ("a.b", pa.string())])
def test_columns_that_lancedb_cannot_store_are_refused_before_the_work(
    tmp_path: Path, encoder: Encoder, name: str, kind: pa.DataType
):
    pq.write_table(pa.table({"text": ["a"], name: pa.array([None], kind)}), tmp_path / "in.parquet")
    options = EmbedOptions(num_latent_steps=1)
    source = open_source(str(tmp_path / "in.parquet"), [name])
    with pytest.raises(ValueError, match=r"LanceDB cannot store these columns \(.*\): cast those of --keep"):
        embed_corpus(source, tmp_path / "x.lance", encoder, options, lambda *_: pytest.fail("the work has begun"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
    assert embed_corpus(source, tmp_path / "x.parquet", encoder, options).num_rows == 1


def test_a_folder_that_may_not_be_read_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match=r"may not be read; give yourself the right to \(chmod u\+rX\)"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, encoder: Encoder, place: str):
    source = tmp_path / "in.parquet" if place == "file" else tmp_path
    (tmp_path / "in.parquet").write_text("PAR1 and nothing behind it")
    with pytest.raises(ValueError, match=r"in.parquet is no Parquet file, or not whole"):
        embed(source, tmp_path / "out.parquet", encoder)


def test_every_output_of_one_folder_has_a_table_of_its_own_for_what_could_not_be_embedded(
    tmp_path: Path, encoder: Encoder
):
    (tmp_path / "good.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{broken\n')
    assert embed(tmp_path / "bad.jsonl", tmp_path / "x.parquet", encoder).num_bad == 1
    assert embed(tmp_path / "bad.jsonl", tmp_path / "x.lance", encoder).num_bad == 1
    assert embed(tmp_path / "good.jsonl", tmp_path / "y.parquet", encoder).num_bad == 0
    assert sorted(path.name for path in tmp_path.glob("*.bad.parquet")) == ["x.bad.parquet", "x.lance.bad.parquet"]
    assert embed(tmp_path / "bad.jsonl", tmp_path / "y.lance", encoder).num_bad == 1
    (tmp_path / "y.parquet").unlink()
    embed(tmp_path / "good.jsonl", tmp_path / "y.parquet", encoder)  # has no bad rows, and takes no other table away
    assert pq.read_metadata(bad_file(tmp_path / "y.lance")).num_rows == 1
