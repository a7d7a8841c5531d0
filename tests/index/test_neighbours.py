"""An index of approximate neighbours finds what the exact scan finds, with its scores, and follows the table."""

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from index_data import CountingEncoder
from lancedb.table import Table

from benchmarks.ann import Clusters
from plume_embed.cli import index as cli_index
from plume_embed.cli.main import main
from plume_embed.index import search, store, update
from plume_embed.index.neighbours import (
    SHORT,
    AnnKind,
    AnnSettings,
    approximate,
    build_ann,
    exact,
    read_ann,
    with_short,
)
from plume_embed.index.place import ObjectStore, place_of
from plume_embed.index.search import OpenIndex, open_index
from plume_embed.index.update import update_ann, update_index

ROWS, SIZE = 3000, 64
ALL_SETTINGS = [*map(AnnSettings, AnnKind), AnnSettings(AnnKind.INT8, 32), AnnSettings(AnnKind.BINARY, 48)]


def rows_of(vectors: np.ndarray, start: int = 0) -> list[dict]:
    return [{"vector": v, "number": n, "kind": "page" if n % 50 == 0 else "text"} for n, v in enumerate(vectors, start)]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    schema = pa.schema({"vector": pa.list_(pa.float32(), SIZE), "number": pa.int64(), "kind": pa.string()}.items())
    rows = pa.Table.from_pylist(rows_of(Clusters(ROWS, SIZE).draw(ROWS, 0)), schema=schema)
    return lancedb.connect(str(tmp_path / "db")).create_table("items", rows)


@pytest.fixture
def queries() -> np.ndarray:
    return Clusters(ROWS, SIZE).draw(20, 1)


def numbers(rows: list[dict]) -> list[int]:
    return [row["number"] for row in rows]


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=str)
def test_candidates_are_ranked_by_their_exact_scores(settings: AnnSettings, table: Table, queries: np.ndarray):
    ann = build_ann(table, settings)
    assert (ann.settings, ann.trained_rows, ann.new_rows) == (settings, ROWS, 0)
    hits = 0
    for query in queries:
        wanted = {row["number"]: row["_distance"] for row in exact(table, query, 10, columns=["number"])}
        found = approximate(table, ann, query, 10, columns=["number"])
        assert [row["_distance"] for row in found] == sorted(row["_distance"] for row in found)
        hits += sum(number in wanted for number in numbers(found))
        for row in found:
            assert row["_distance"] == pytest.approx(wanted.get(row["number"], row["_distance"]), abs=1e-6)
    assert hits >= 0.95 * 10 * len(queries)


@pytest.mark.parametrize("settings", [AnnSettings(), AnnSettings(AnnKind.INT8, 32)], ids=str)
def test_a_filter_chooses_before_the_search(settings: AnnSettings, table: Table, queries: np.ndarray):
    ann = build_ann(table, settings)
    for query in queries[:5]:
        wanted, found = (
            numbers(ask(table, *more, query, 20, "kind = 'page'", ["number"]))
            for ask, more in ((exact, ()), (approximate, (ann,)))
        )
        assert len(found) == 20 and found[:10] == wanted[:10]


@pytest.mark.parametrize("settings", [AnnSettings(), AnnSettings(AnnKind.INT8, 32)], ids=str)
def test_new_rows_are_found_at_once_and_join_the_index(settings: AnnSettings, table: Table, queries: np.ndarray):
    ann = build_ann(table, settings)
    rows = with_short(rows_of(queries, start=ROWS), table.schema)
    table.add(pa.Table.from_pylist(rows, schema=table.schema))

    def found(**options: int) -> list[int]:
        return [numbers(approximate(table, ann, query, 1, columns=["number"], **options))[0] for query in queries]

    assert found() == [*range(ROWS, ROWS + len(queries))]  # rows outside the index are scanned
    table.optimize()
    # Inside it they lie where its training, which has no seed, puts them: so all of its partitions are searched.
    assert found(probes=ROWS) == [*range(ROWS, ROWS + len(queries))]
    held = read_ann(table)
    assert held is not None and held.new_rows == 0 and held.trained_rows == ROWS and held.name == ann.name


def test_rows_that_go_are_no_longer_found(table: Table, queries: np.ndarray):
    ann = build_ann(table, AnnSettings())
    gone = numbers(approximate(table, ann, queries[0], 5, columns=["number"]))
    table.delete(f"number IN ({', '.join(map(str, gone))})")
    assert not set(gone) & set(numbers(approximate(table, ann, queries[0], 5, columns=["number"])))


def test_a_table_has_one_index_and_no_column_that_it_does_not_need(table: Table):
    for settings in (AnnSettings(AnnKind.INT8, 32), AnnSettings(AnnKind.INT8, 16), AnnSettings()):
        build_ann(table, settings)
        ann = read_ann(table)
        assert ann is not None and ann.settings == settings and len(list(table.list_indices())) == 1
    assert SHORT not in table.schema.names


def test_what_cannot_be_built_is_refused_with_the_numbers(table: Table):
    with pytest.raises(ValueError, match=r"must lie in 8\.\.63, got 64"):
        build_ann(table, AnnSettings(AnnKind.INT8, 64))
    table.delete("number >= 255")
    with pytest.raises(ValueError, match="needs 256 rows to learn from, and there are 255"):
        build_ann(table, AnnSettings())


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> CountingEncoder:
    return CountingEncoder(released_model_dir)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoder: CountingEncoder) -> Path:
    """A folder of 300 texts with its index."""
    folder = tmp_path_factory.mktemp("texts")
    for number in range(300):
        (folder / f"{number}.txt").write_text(f"number {number}")
    update_index(folder, folder / ".plume-index", encoder, num_latent_steps=1)
    return folder


def opened(folder: Path, encoder: CountingEncoder) -> OpenIndex:
    return open_index(folder, folder / ".plume-index", encoder, 1)


def test_a_large_index_is_searched_by_its_ann_index_and_a_small_one_is_scanned(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    db, query = folder / ".plume-index", encoder.encode(["number 7"], num_latent_steps=1)[0]
    used: list[str] = []
    for name in ("exact", "approximate"):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *a, _real=real, _name=name: used.append(_name) or _real(*a))
    from_snapshot = opened(folder, encoder).search(query)
    (db / "snapshot.arrow").unlink()
    scanned = opened(folder, encoder).search(query)
    assert opened(folder, encoder).remedy() is None and set(used) == {"exact"}
    assert [hit.path for hit in scanned] == [hit.path for hit in from_snapshot]
    with pytest.raises(ValueError, match="has no ANN index; `plume-embed index --ann` makes one"):
        opened(folder, encoder).search(query, is_exact=False)
    assert update_ann(db, encoder, 1) is None  # too few rows
    monkeypatch.setattr(search, "ANN_ROWS", 300)
    assert "scans all 300 vectors; `plume-embed index --ann`" in (opened(folder, encoder).remedy() or "")
    made = update_ann(db, encoder, 1, min_rows=300)
    assert made is not None and update_ann(db, encoder, 1, min_rows=300) == made  # not trained again
    assert opened(folder, encoder).remedy() is None
    used.clear()
    assert opened(folder, encoder).search(query) == scanned and set(used) == {"approximate"}
    used.clear()
    assert opened(folder, encoder).search(query, is_exact=True) == scanned and set(used) == {"exact"}


def test_an_update_brings_new_items_into_the_ann_index_and_one_that_is_outgrown_is_trained_anew(
    folder: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
):
    db = folder / ".plume-index"
    update_ann(db, encoder, 1, AnnKind.INT8, 8, min_rows=1)
    for number in range(300, 600):
        (folder / f"{number}.txt").write_text(f"the number {number} of many")
    update_index(folder, db, encoder, num_latent_steps=1)
    held = read_ann(lancedb.connect(str(db)).open_table("items"))
    assert held is not None and (held.new_rows, held.trained_rows) == (0, 300)
    query = encoder.encode(["the number 444 of many"], num_latent_steps=1)[0]
    assert opened(folder, encoder).search(query, 1, is_exact=False)[0].path == "444.txt"
    monkeypatch.setattr(search, "ANN_ROWS", 300)
    (db / "snapshot.arrow").unlink()  # a large index has none
    assert "trained on 300 of 600 vectors" in (opened(folder, encoder).remedy() or "")
    made = update_ann(db, encoder, 1, min_rows=1)
    assert made is not None and made.trained_rows == 600 and made.settings == AnnSettings(AnnKind.INT8, 8)


def test_an_ann_index_keeps_its_codes_until_others_are_asked_for(folder: Path, encoder: CountingEncoder):
    db = folder / ".plume-index"
    for kind, dimensions, expected in (
        (AnnKind.BINARY, None, AnnSettings(AnnKind.BINARY)),
        (AnnKind.INT8, 8, AnnSettings(AnnKind.INT8, 8)),
        (None, None, AnnSettings(AnnKind.INT8, 8)),
        (None, 16, AnnSettings(AnnKind.INT8, 16)),
        (AnnKind.INT8, None, AnnSettings(AnnKind.INT8)),
    ):
        made = update_ann(db, encoder, 1, kind, dimensions, min_rows=1)
        assert made is not None and made.settings == expected


def test_index_ann_without_a_kind_asks_for_none(folder: Path, encoder: CountingEncoder, monkeypatch):
    asked = []
    monkeypatch.setattr(cli_index, "choose_encoder", lambda *options: encoder)
    monkeypatch.setattr(update, "update_ann", lambda db, encoder, steps, *wanted: asked.append(wanted))
    for options in ((), ("--ann-kind", "int8"), ("--ann-dimensions", "16")):
        with pytest.raises(SystemExit):
            main(["index", str(folder), "--latent-steps", "1", "--ann", *options])
    assert asked == [(None, None), (AnnKind.INT8, None), (None, 16)]


def test_where_is_sql_over_the_columns_of_an_item(folder: Path, encoder: CountingEncoder):
    query = encoder.encode(["number 7"], num_latent_steps=1)[0]
    index = opened(folder, encoder)
    found = index.search(query, 20, where="snippet LIKE 'number 2_' OR kind = 'page'")
    assert sorted(hit.path for hit in found) == [f"{number}.txt" for number in range(20, 30)]
    assert index.search(query, 20, kinds=["image"], where="kind = 'text' OR true") == []
    for wrong in ("colour = 'red'", "kind = ", "DELETE FROM items"):
        with pytest.raises(ValueError, match="is not understood"):
            index.search(query, where=wrong)


@pytest.mark.parametrize(
    "where",
    [
        "1=1) OR (1=1",
        "1=1) OR (1=1) --",
        "1=1) AS x, CAST((1=1",
        "true AS BOOLEAN) OR CAST(true",
        "kind = 'text') OR kind IN ('image', 'text'",
        "1=1 -- x",
        "(kind = 'text'); DROP",
        "kind = 'text' true",
    ],
)
def test_where_is_one_whole_condition_so_that_the_kinds_stay_in_force(
    where: str, folder: Path, encoder: CountingEncoder
):
    query = encoder.encode(["number 7"], num_latent_steps=1)[0]
    with pytest.raises(ValueError, match="The filter .* is not understood: it is not one whole condition"):
        opened(folder, encoder).search(query, 20, kinds=["image"], where=where)


@pytest.mark.parametrize("where", ["snippet <> 'a)b'", "kind = 'text' /* ) */", "(kind = 'text') -- )\n", "(true)"])
def test_parentheses_and_comments_that_close_are_taken(where: str, folder: Path, encoder: CountingEncoder):
    query = encoder.encode(["number 7"], num_latent_steps=1)[0]
    index = opened(folder, encoder)
    assert len(index.search(query, 20, kinds=["text"], where=where)) == 20
    assert index.search(query, 20, kinds=["image"], where=where) == []


@pytest.mark.parametrize("is_exact", [None, False])
def test_more_results_than_a_number_of_32_bits_are_all_of_them(
    is_exact: bool | None, folder: Path, encoder: CountingEncoder
):
    query = encoder.encode(["number 7"], num_latent_steps=1)[0]
    if is_exact is False:
        update_ann(folder / ".plume-index", encoder, 1, AnnKind.INT8, 8, min_rows=1)
    found = opened(folder, encoder).search(query, 10**12, where="kind = 'text'", is_exact=is_exact)
    assert len(found) == len(list(folder.glob("*.txt")))


def test_a_place_is_a_folder_or_an_address_of_a_known_kind():
    assert place_of("a/b") == Path("a/b") and place_of("s3://bucket/index/") == ObjectStore("s3://bucket/index")
    with pytest.raises(ValueError, match="s3://, gs://, az://: http://host/index"):
        place_of("http://host/index")


def test_options_of_an_ann_index_without_one_are_refused_before_any_work(tmp_path: Path, capsys):
    (tmp_path / "a.txt").write_text("a red bicycle")
    for option in (("--ann-kind", "int8"), ("--ann-dimensions", "16")):
        with pytest.raises(SystemExit) as ended:
            main(["index", str(tmp_path), *option])
        assert ended.value.code == 2 and "add --ann" in capsys.readouterr().err
    assert not (tmp_path / ".plume-index").exists()
