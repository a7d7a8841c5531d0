"""Pairs of one's own: what is read, and what is refused by file and line."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image
from small_files import write_pdf

from plume_embed.training.data.keys import item_key
from plume_embed.training.data.pair_rows import (
    PAGES_AS_PICTURES,
    as_plain_row,
    open_pages,
    read_pairs,
    rows_of_dataset,
)

DOCUMENTS = Path(__file__).parents[2] / "space" / "collection" / "documents"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    return tmp_path


ROW = {"query": "a red square", "positive": {"image": "a.png"}, "negatives": [{"image": "b.png", "text": "blue"}]}


def test_jsonl_csv_parquet_and_datasets_give_the_same_rows(folder):
    (folder / "p.jsonl").write_text(json.dumps(ROW) + "\n\n")
    (folder / "p.csv").write_text(
        "query,positive_image,negative,negative_image\na red square,a.png,blue,b.png\n", encoding="utf-8-sig"
    )
    (folder / "p.tsv").write_text(
        "query\tpositive_image\tnegative_text\tnegative_image\na red square\ta.png\tblue\tb.png\n"
    )
    nested = ROW | {"positive": {"image": "a.png", "text": None}}
    pq.write_table(pa.Table.from_pylist([nested]), folder / "p.parquet")
    read = {suffix: read_pairs([folder / f"p.{suffix}"])[0] for suffix in ("jsonl", "csv", "tsv", "parquet")}
    read["datasets"] = rows_of_dataset(Dataset.from_list([nested]), folder)[0]
    for suffix, row in read.items():
        assert row.query == {"text": "a red square"}, suffix
        assert row.positive == {"image": [folder / "a.png"]}, suffix
        assert row.negatives == ({"image": [folder / "b.png"], "text": "blue"},), suffix
    assert read["csv"].where == f"{folder / 'p.csv'}:2" and read["jsonl"].where == f"{folder / 'p.jsonl'}:1"


def test_several_negatives_stand_in_numbered_columns(folder):
    (folder / "p.csv").write_text("query,positive,negative,negative_2,negative_3\nq,p,n1,,n3\n")
    assert read_pairs([folder / "p.csv"])[0].negatives == ({"text": "n1"}, {"text": "n3"})


def test_an_instruction_stands_in_front_of_the_query(folder):
    (folder / "p.jsonl").write_text(
        json.dumps({"query": "q", "positive": "p", "instruction": "Find it."})
        + "\n"
        + json.dumps({"query": {"image": "a.png"}, "positive": "p", "instruction": "Find it."})
    )
    first, second = read_pairs([folder / "p.jsonl"])
    assert first.query == {"text": "q"} and first.question == {"text": "Find it.\nq"}
    assert second.query == {"image": [folder / "a.png"]}
    assert second.question == {"image": [folder / "a.png"], "text": "Find it."}
    (folder / "again.jsonl").write_text("".join(json.dumps(as_plain_row(row)) + "\n" for row in (first, second)))
    again = read_pairs([folder / "again.jsonl"])
    assert [row.question for row in again] == [first.question, second.question]


def test_a_negative_that_scores_as_high_as_the_positive_is_left_out(folder):
    row = {
        "query": "q",
        "positive": "p",
        "negatives": ["n", "m", "o"],
        "score": 0.8,
        "negative_scores": [0.8, 0.2, 0.9],
    }
    (folder / "p.jsonl").write_text(json.dumps(row))
    assert read_pairs([folder / "p.jsonl"])[0].negatives == ({"text": "m"},)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ('["a"]', "a row must be a mapping"),
        ('{"query": "q"}', "positive must be a text or a mapping"),
        ('{"query": "", "positive": "p"}', "query is empty"),
        ('{"query": "q", "positive": "p", "label": 1}', "unknown key 'label'"),
        ('{"query": "q", "positive": {"picture": "a.png"}}', "positive has the unknown key 'picture'"),
        ('{"query": "q", "positive": {"image": "gone.png"}}', "no such file: .*gone.png"),
        ('{"query": "q", "positive": {"image": "https://a.example/x.png"}}', "is an address; download it first"),
        ('{"query": "q", "positive": {"image": 3}}', "image must be a path, got int"),
        ('{"query": "q", "positive": {"page": "a.png"}}', "a page is FILE.pdf#page=NUMBER"),
        ('{"query": {"text": 3}, "positive": "p"}', "query: text must be a text"),
        ('{"query": "q", "positive": "p", "negatives": ["n"], "negative_scores": [0.1]}', "needs score"),
        (
            '{"query": "q", "positive": "p", "negatives": ["n"], "score": "x", "negative_scores": [1]}',
            "must be numbers",
        ),
        (
            '{"query": "q", "positive": "p", "negatives": ["n"], "score": NaN, "negative_scores": [1]}',
            "must be finite numbers",
        ),
        (
            '{"query": "q", "positive": "p", "negatives": ["n"], "score": 1, "negative_scores": [1e999]}',
            "must be finite numbers",
        ),
        ('{"query": ' + "[" * 700 + "]" * 700 + ', "positive": "p"}', "not JSON|must be a text or a mapping"),
        ('{"query": "q", "positive": "p", "instruction": 3}', "instruction must be a text"),
    ],
    ids=lambda value: value[:60],
)
def test_a_bad_row_is_named_with_file_and_line(folder, row, message):
    path = folder / "p.jsonl"
    path.write_text(json.dumps(ROW) + f"\n{row}\n" + json.dumps(ROW))
    with pytest.raises(ValueError, match=message) as error:
        read_pairs([path])
    assert str(error.value).startswith(f"{path}:2: ") and "max_bad_lines is 0" in str(error.value)
    messages: list[str] = []
    assert len(read_pairs([path], max_bad_lines=1, report=messages.append)) == 2
    assert len(messages) == 1 and messages[0].startswith(f"{path}:2: ")


def test_a_csv_row_with_too_few_cells_and_an_unknown_column_are_named(folder):
    (folder / "p.csv").write_text("query,positive\nq,p\nonly one\n")
    with pytest.raises(ValueError, match=r"p\.csv:3: the row has another number of cells"):
        read_pairs([folder / "p.csv"])
    (folder / "q.csv").write_text("query,positive,colour\nq,p,red\n")
    with pytest.raises(ValueError, match=r"q\.csv: unknown column 'colour'"):
        read_pairs([folder / "q.csv"])


def test_a_column_that_stands_twice_is_refused_and_one_without_a_name_must_be_empty(folder):
    (folder / "twice.csv").write_text("query,positive,positive\nq,p,other\n")
    with pytest.raises(ValueError, match=r"twice\.csv: the first line has the column 'positive' twice"):
        read_pairs([folder / "twice.csv"])
    (folder / "commas.csv").write_text("query,positive,,\nq,p,,\n")
    assert read_pairs([folder / "commas.csv"])[0].positive == {"text": "p"}
    (folder / "cell.csv").write_text("query,positive,\nq,p,more\n")
    with pytest.raises(ValueError, match=r"cell\.csv:2: the row has a cell in a column without a name"):
        read_pairs([folder / "cell.csv"])


@pytest.mark.parametrize(("name", "message"), [("gone.csv", "No such file"), ("p.xlsx", "are read from .jsonl, .csv")])
def test_a_file_that_cannot_be_read_is_refused(folder, name, message):
    if name != "gone.csv":
        (folder / name).touch()
    with pytest.raises(ValueError, match=message):
        read_pairs([folder / name])
    (folder / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="There are no pairs"):
        read_pairs([folder / "empty.jsonl"])


def test_equal_items_have_equal_keys_wherever_their_files_lie(folder):
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    same = item_key({"image": [folder / "a.png"], "text": "x"})
    assert item_key({"text": "x", "image": [folder / "copy.png"]}) == same
    encoded = {"bytes": (folder / "a.png").read_bytes(), "path": None}
    assert item_key({"text": "x", "image": [encoded]}) == same
    wide, tall = (item_key({"image": [Image.new("L", size)]}) for size in ((8, 2), (2, 8)))
    assert wide != tall
    assert item_key({"text": "x", "image": [folder / "b.png"]}) != same != item_key({"image": [folder / "a.png"]})


def test_a_page_becomes_a_picture_and_one_that_is_not_there_is_named(folder):
    write_pdf(folder / "p.pdf", num_pages=2)
    (folder / "p.jsonl").write_text(json.dumps({"query": "q", "positive": {"page": "p.pdf#page=2", "image": "a.png"}}))
    item = open_pages(read_pairs([folder / "p.jsonl"])[0].positive, PAGES_AS_PICTURES)
    assert set(item) == {"image"} and item["image"][0] == folder / "a.png" and max(item["image"][1].size) == 1400
    with pytest.raises(ValueError, match=r"p.pdf#page=3: there is no such page"):
        open_pages({"page": [folder / "p.pdf#page=3"]}, PAGES_AS_PICTURES)
    (folder / "p.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(ValueError, match=r"p.pdf#page=1: "):
        open_pages({"page": [folder / "p.pdf#page=1"]}, PAGES_AS_PICTURES)


def test_the_words_of_pages_stand_behind_the_text_that_an_item_has():
    pages = [DOCUMENTS / f"garden.pdf#page={number}" for number in (1, 2)]
    options = replace(PAGES_AS_PICTURES, page_words=2)
    alone, both = open_pages({"page": pages}, options), open_pages({"page": pages, "text": "Find it."}, options)
    first, second = alone["text"].split("\n")
    assert len(first.split()) == len(second.split()) == 2 and first != second
    assert both["text"] == f"Find it.\n{first}\n{second}" and len(both["image"]) == 2
    assert set(open_pages({"page": pages}, PAGES_AS_PICTURES)) == {"image"}
