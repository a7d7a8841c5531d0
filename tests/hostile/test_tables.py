"""Damaged tables and odd lines: `embed`, pairs for training, mirrors of MMEB-v2, and queries of `search`."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from damaged_files import MUTATIONS, damaged_files, good_files
from limits import within_limits

from plume_embed import Encoder
from plume_embed.corpus.embed import EmbedOptions, EmbedReport, embed_corpus
from plume_embed.corpus.sources import open_source
from plume_embed.training.data.pair_rows import PAGES_AS_PICTURES, open_pages, read_pairs

TABLES = [(name, data) for name, data in damaged_files() if "-rows." in name]
DEEP = b"[" * 5000 + b"]" * 5000


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> Encoder:
    return Encoder(released_model_dir, device="cpu")


def line(**record) -> bytes:
    return json.dumps(record).encode()


def embed(source: Path, encoder: Encoder, reasons: dict[int, str], steps: int | None = None) -> EmbedReport:
    """Embeds the lines of a file; `reasons` gets those that are skipped, by their number."""

    def tell(bad) -> None:
        reasons[int(bad.where.rpartition(":")[2])] = bad.reason

    out = source.with_name("out.parquet")
    return embed_corpus(open_source(str(source)), out, encoder, EmbedOptions(steps), on_bad=tell)


# Lines of `embed`: what is odd about them, and the one reason; without a reason they have a vector.
LINES: dict[str, tuple[bytes, str]] = {
    "a text": (line(text="a cat"), ""),
    "a text of nothing": (line(text=""), ""),
    "NULs": (line(text="a\0b"), ""),
    "right to left": (line(text="שלום \u202eabc"), ""),
    "control tokens": (line(text="<bot><disc_emb><|image_pad|>"), ""),
    "the mark of a cut": (line(text="\U000f0000"), ""),
    "an address as a text": (line(text="http://127.0.0.1/x.png"), ""),
    "a path as a text": (line(text="/etc/passwd"), ""),
    "a byte order mark": ("\ufeff".encode() + line(text="a"), ""),
    "several texts": (line(text=["a", "b"]), ""),
    "a number as its id": (line(text="a", id=-5), ""),
    "nobody under a key": (line(text="a", image=None, id=None), ""),
    "a key twice": (b'{"text": "a", "text": "b"}', ""),
    "a picture": (line(image="still.png"), ""),
    "a film and a text": (line(video="film.mp4", text="a"), ""),
    "frames of a film": (line(video=["still.png", "still.png"]), ""),
    "a number": (b"5", "not a JSON object"),
    "a list": (b"[]", "not a JSON object"),
    "half a line": (b'{"text": "a', "not JSON"),
    "single quotes": (b"{'text': 'a'}", "not JSON"),
    "zeros": (bytes(40), "not JSON"),
    "Latin": ('{"text": "Straße"}'.encode("latin-1"), "not JSON|utf-8"),
    "UTF-16": (line(text="a").decode().encode("utf-16-le").replace(b"\n", b""), "not JSON"),
    "half a character": (b'{"text": "a \\ud83d"}', "half a surrogate pair"),
    "deep": (DEEP, "not JSON"),
    "deep inside": (b'{"text": ' + DEEP + b"}", "not JSON|must be a string"),
    "a large number": (b'{"text": ' + b"9" * 5000 + b"}", "not JSON|must be a string"),
    "not a number": (b'{"text": NaN}', "must be a string"),
    "a truth value as its id": (line(text="a", id=True), "the id must be"),
    "a fraction as its id": (line(text="a", id=1.5), "the id must be"),
    "an object as its id": (line(text="a", id={}), "the id must be"),
    "no key": (b"{}", "none of text, image, video"),
    "nobody": (line(text=None), "none of text, image, video"),
    "an unknown key": (line(txt="a"), "unknown keys"),
    "a text of numbers": (line(text=5), "must be a string"),
    "nobody among texts": (line(text=["a", None]), "must be a string"),
    "no texts": (line(text=[]), "must be a string"),
    "a picture in an object": (line(image={"path": "still.png"}), "must be a string"),
    "no picture": (line(image=""), "no regular file"),
    "no such picture": (line(image="no.png"), "no such file"),
    "a folder": (line(image="."), "no regular file"),
    "a device": (line(image="/dev/zero"), "no regular file"),
    "a path with a NUL": (line(image="a\0b.png"), "null|NUL|no such file"),
    "a path too long": (line(image="x" * 5000), "name too long"),
    "a path through a file": (line(image="still.png/x.png"), "no such file"),
    "an address": (line(image="https://127.0.0.1/x.png"), "a remote address"),
    "data in an address": (line(image="data:image/png;base64,AAAA"), "a remote address"),
    "a damaged picture": (line(image="half.png"), "Cannot read"),
    "a text as a picture": (line(image="text.txt"), "cannot identify"),
    "a picture as a film of nothing": (line(video="text.txt"), "as a video"),
    "too long": (line(text="word " * 60_000), "over the processor's max_length"),
}


def test_odd_lines_have_a_vector_or_a_reason_and_touch_no_other(encoder: Encoder, tmp_path: Path):
    for name in ("still.png", "film.mp4", "text.txt"):
        (tmp_path / name).write_bytes(good_files()[name])
    (tmp_path / "half.png").write_bytes(good_files()["still.png"][:200])
    neighbour = line(text="a boat on the lake")
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"".join(data.replace(b"\n", b" ") + b"\n" + neighbour + b"\n" for data, _ in LINES.values()))
    reasons: dict[int, str] = {}
    with within_limits("odd lines", items=5):
        embed(source, encoder, reasons)
    for number, (name, (_, reason)) in enumerate(LINES.items()):
        said = reasons.pop(2 * number + 1, "")
        assert bool(reason) == bool(said), f"{name}: {said}"
        assert re.search(reason, said, re.IGNORECASE) and "\n" not in said and len(said) < 500, f"{name}: {said}"
    assert not reasons, "a neighbour was skipped"
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    vectors = np.array([row["embedding"] for row in rows])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    ids = {row["id"] for row in rows}
    beside = {str(2 * number + 2) for number in range(len(LINES))}
    assert beside <= ids and len(ids) == len(LINES) + sum(not reason for _, reason in LINES.values())
    alone = encoder.encode(["a boat on the lake"])[0]
    np.testing.assert_allclose(
        [row["embedding"] for row in rows if row["id"] in beside], [alone] * len(LINES), atol=1e-5
    )


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_damaged_jsonl_file_is_embedded_as_far_as_it_holds_lines(mutation: str, encoder: Encoder, tmp_path: Path):
    import random

    rows = b"".join(line(text=f"number {n}", id=f"row {n}") + b"\n" for n in range(12))
    (tmp_path / "rows.jsonl").write_bytes(MUTATIONS[mutation](rows, random.Random(mutation)))
    reasons: dict[int, str] = {}
    with within_limits(mutation):
        try:
            report = embed(tmp_path / "rows.jsonl", encoder, reasons, steps=1)
        except ValueError as error:
            refusal = str(error)
            report = None
    if report is None:
        assert re.search("can be embedded|source is empty", refusal) and not (tmp_path / "out.parquet").exists()
        return
    assert pq.read_table(tmp_path / "out.parquet").num_rows == report.num_rows
    assert len(reasons) == report.num_bad


@pytest.mark.parametrize(("name", "data"), TABLES, ids=[name for name, _ in TABLES])
def test_damaged_pairs_are_read_or_refused_by_file(name: str, data: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(data)
    refusal, rows = "", []
    with within_limits(name):
        try:
            rows = read_pairs([tmp_path / name], Path(), max_bad_lines=3)
        except ValueError as error:
            refusal = str(error)
    if refusal:
        assert str(tmp_path / name) in refusal and "\n" not in refusal and len(refusal) < 600, refusal
    assert bool(rows) != bool(refusal)
    assert all(row.query["text"] and row.positive["text"] for row in rows)


PAIRS: dict[str, tuple[bytes, str]] = {
    "deep": (DEEP, "not JSON"),
    "deep inside": (b'{"query": ' + DEEP + b', "positive": "b"}', "not JSON|must be a text"),
    "half a character": (b'{"query": "a \\ud83d", "positive": "b"}', "half a character|surrogate"),
    "a path too long": (line(query="a", positive={"image": "x" * 5000}), "too long|no such file"),
    "a path with a NUL": (line(query="a", positive={"image": "a\0.png"}), "no such file|null"),
    "a device": (line(query="a", positive={"image": "/dev/zero"}), "no such file"),
    "an address": (line(query="a", positive={"image": "https://127.0.0.1/x.png"}), "is an address"),
    "a page that is none": (line(query="a", positive={"page": "text.txt#page=x"}), "counted from 1"),
    "nobody": (line(query=None, positive="b"), "must be a text or a mapping"),
    "numbers": (line(query=1, positive=2), "must be a text or a mapping"),
    "negatives that are none": (line(query="a", positive="b", negatives=5), "negative 1 must be"),
    "a list": (b"[1, 2]", "must be a mapping"),
    "spaces": (line(query="", positive="b"), "is empty"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_an_odd_pair_is_refused_by_file_and_line(name: str, tmp_path: Path):
    data, reason = PAIRS[name]
    (tmp_path / "text.txt").write_text("a")
    (tmp_path / "rows.jsonl").write_bytes(line(query="a", positive="b") + b"\n" + data + b"\n")
    told: list[str] = []
    assert len(read_pairs([tmp_path / "rows.jsonl"], Path(), max_bad_lines=1, report=told.append)) == 1
    assert len(told) == 1 and f"{tmp_path / 'rows.jsonl'}:2: " in told[0] and re.search(reason, told[0])
    assert "\n" not in told[0] and len(told[0]) < 6000


@pytest.mark.parametrize("number", ["0", "99", "9" * 30])
def test_a_page_that_is_not_there_is_named(number: str, tmp_path: Path):
    (tmp_path / "x.pdf").write_bytes(good_files()["pages.pdf"])
    with pytest.raises(ValueError, match="x.pdf#page"):
        open_pages({"page": [tmp_path / f"x.pdf#page={number}"]}, PAGES_AS_PICTURES)
