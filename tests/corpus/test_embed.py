"""plume-embed embed: every valid line becomes a row, once, whatever happens in between."""

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_files import write_picture, write_video
from transformers import BatchFeature

from plume_embed.cli.main import main
from plume_embed.corpus import plan as plans
from plume_embed.corpus.embed import EmbedOptions, EmbedReport, embed_corpus
from plume_embed.corpus.plan import MadeBy, make_plan
from plume_embed.corpus.sources import open_source
from plume_embed.encode.encoder import Encoder
from plume_embed.encode.read_out import ReadOut
from plume_embed.index.table import BusyError


class CountingEncoder(Encoder):
    def __init__(self, model: Path):
        super().__init__(model, device="cpu")
        self.num_embedded = 0

    def embed(self, batch: BatchFeature, num_latent_steps: int, read_out: ReadOut = "embedding") -> np.ndarray:
        self.num_embedded += len(batch["input_ids"])
        return super().embed(batch, num_latent_steps, read_out)


@pytest.fixture(scope="module")
def shared_encoder(released_model_dir: Path) -> CountingEncoder:
    return CountingEncoder(released_model_dir)


@pytest.fixture
def encoder(shared_encoder: CountingEncoder) -> CountingEncoder:
    shared_encoder.num_embedded = 0
    return shared_encoder


def write_lines(path: Path, *lines: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def embed(source: Path, encoder: Encoder, keep=(), steps: int = 2, out: str = "out.parquet", **options) -> EmbedReport:
    """In batches of two and shards of eight rows."""
    chosen = EmbedOptions(steps, batch_size=2, shard_rows=8)
    return embed_corpus(open_source(str(source), keep), source.with_name(out), encoder, chosen, **options)


def rows_of(source: Path) -> dict[str, list[float]]:
    table = pq.read_table(source.with_name("out.parquet"))
    return dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))


def test_each_line_gets_the_vector_of_the_encoder_in_its_order(tmp_path: Path, encoder: CountingEncoder):
    picture, other = write_picture(tmp_path / "a.png"), write_picture(tmp_path / "b.png", seed=1)
    video = write_video(tmp_path / "v.mp4")
    source = write_lines(
        tmp_path / "in.jsonl",
        {"text": "a longer text than the others, to be sorted first or last", "id": "long"},
        {"image": "a.png", "id": 7},
        "",
        {"text": "with", "image": ["a.png", "b.png"]},
        {"video": "v.mp4", "text": None},
        {"video": ["a.png", "b.png"], "id": "frames"},
    )
    report = embed(source, encoder)
    assert (report.num_rows, report.embedded, report.resumed, report.num_bad) == (5, 5, 0, 0)
    expected = encoder.encode(
        [
            "a longer text than the others, to be sorted first or last",
            picture,
            {"text": "with", "image": [picture, other]},
            video,
            [picture, other],
        ],
        num_latent_steps=2,
    )
    rows = rows_of(source)
    assert list(rows) == ["long", "7", "4", "5", "frames"]
    np.testing.assert_allclose(np.array(list(rows.values())), expected, atol=1e-5)
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32(), encoder.dimension)
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.parquet"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "not JSON"),
        ("[1]", "not a JSON object but a list"),
        ("{}", "none of text, image, video"),
        ('{"txet": "x"}', r"unknown keys \['txet'\]"),
        ('{"text": 3}', "text must be a string"),
        ('{"image": []}', "image must be a string or a list"),
        ('{"image": "gone.png"}', "no such file: .*gone.png"),
        ('{"image": "empty.png"}', "empty: .*empty.png"),
        ('{"image": "' + "x" * 300 + '.png"}', "File name too long"),
        ('{"image": "a\\u0000b.png"}', "embedded null byte"),
        ('{"image": "."}', "no regular file"),
        ('{"image": "https://example.com/x.png"}', "a remote address, and nothing is downloaded"),
        ('{"text": "x", "id": true}', "the id must be"),
        ('{"text": "x", "id": "first"}', "the id 'first' was used in line 1"),
        ('{"text": "\\ud800"}', "half a surrogate pair"),
        ('{"image": "text.png"}', "Cannot read .*text.png as an image"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_skipped_with_its_number_and_reason(
    tmp_path: Path, encoder: CountingEncoder, line: str, reason: str
):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    source = write_lines(tmp_path / "in.jsonl", {"text": "good", "id": "first"}, line, {"text": "good too"})
    seen = []
    report = embed(source, encoder, on_bad=seen.append)
    assert report.num_bad == 1 and [bad.where for bad in seen] == [f"{source}:2"]
    assert re.search(reason, seen[0].reason)
    assert list(rows_of(source)) == ["first", "3"]
    assert pq.read_table(tmp_path / "out.bad.parquet").to_pylist() == [vars(seen[0])]


def test_what_could_not_be_embedded_is_listed_in_the_order_of_the_source(tmp_path: Path, encoder: CountingEncoder):
    """And a row whose picture turns out damaged when it is decoded has used its id."""
    (tmp_path / "damaged.png").write_text("not a picture")
    rows = (
        {"id": "x", "image": "damaged.png"},
        {"id": "x", "text": "a"},
        {"text": "good"},
        {},
        {"image": "damaged.png"},
    )
    source, seen = write_lines(tmp_path / "in.jsonl", *rows), []
    embed(source, encoder, on_bad=seen.append)
    assert list(rows_of(source)) == ["3"]
    assert [bad.where for bad in seen] == [f"{source}:{number}" for number in (1, 2, 4, 5)]
    assert seen[1].reason == "the id 'x' was used in line 1"
    assert pq.read_table(tmp_path / "out.bad.parquet").to_pylist() == [vars(bad) for bad in seen]


def test_an_interrupted_run_goes_on_and_the_output_appears_whole(tmp_path: Path, encoder: CountingEncoder):
    source = write_lines(tmp_path / "in.jsonl", *({"text": f"text {i}"} for i in range(50)))
    calls = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(source, encoder, on_progress=stop)
    assert calls == [(0, 50), (8, 50), (16, 50)] and not (tmp_path / "out.parquet").exists()
    report = embed(source, encoder)
    assert (report.resumed, report.embedded, report.num_rows) == (16, 34, 50)
    assert encoder.num_embedded == 50 and sorted(p.name for p in tmp_path.glob("out*")) == ["out.parquet"]
    whole = write_lines(tmp_path / "whole" / "in.jsonl", *source.read_text().splitlines())
    embed(whole, encoder)
    np.testing.assert_allclose(np.array(list(rows_of(source).values())), list(rows_of(whole).values()), atol=1e-5)
    assert list(rows_of(source)) == list(rows_of(whole)) == [str(i) for i in range(1, 51)]


def test_a_shard_whose_lines_changed_is_made_again_and_the_others_stay(tmp_path: Path, encoder: CountingEncoder):
    picture = write_picture(tmp_path / "a.png")
    texts = [{"text": f"text {i}"} for i in range(23)]
    source = write_lines(tmp_path / "in.jsonl", *texts[:20], {"image": "a.png"}, *texts[20:])

    def stop(done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(source, encoder, on_progress=stop)
    write_picture(picture, seed=9, size=(50, 50))
    write_lines(source, *texts[:10], {"text": "new"}, *texts[11:20], {"image": "a.png"}, *texts[20:])
    encoder.num_embedded = 0
    assert embed(source, encoder).resumed == 8
    assert encoder.num_embedded == 16  # the second shard has another text, and the third was not there
    items = [*(f"text {i}" for i in range(10)), "new", *(f"text {i}" for i in range(11, 20)), picture]
    expected = encoder.encode([*items, *(f"text {i}" for i in range(20, 23))], num_latent_steps=2)
    np.testing.assert_allclose(np.array(list(rows_of(source).values())), expected, atol=1e-5)


def test_equal_lines_are_embedded_once(tmp_path: Path, encoder: CountingEncoder):
    source = write_lines(tmp_path / "in.jsonl", *({"text": "same"} for _ in range(5)))
    assert embed(source, encoder).num_rows == 5
    assert encoder.num_embedded == 1


def test_a_finished_output_stays_and_a_foreign_one_is_refused(tmp_path: Path, encoder: CountingEncoder):
    source = write_lines(tmp_path / "in.jsonl", {"text": "one"}, {"text": "two"})
    embed(source, encoder)
    encoder.num_embedded = 0
    report = embed(source, encoder)
    assert encoder.num_embedded == 0 and (report.num_rows, report.resumed, report.embedded) == (2, 2, 0)
    with pytest.raises(ValueError, match=r"there already and comes from another K \(2, not 3\); delete it"):
        embed(source, encoder, steps=3)
    (tmp_path / "out.parquet").write_text("something else")
    with pytest.raises(ValueError, match="there already and is no output of `embed`, or a damaged one"):
        embed(source, encoder)


def test_the_shards_of_another_k_are_refused(tmp_path: Path, encoder: CountingEncoder):
    source = write_lines(tmp_path / "in.jsonl", *({"text": f"text {i}"} for i in range(20)))

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(source, encoder, on_progress=stop)
    with pytest.raises(ValueError, match=r"is left of a run with another K \(2, not 3\); delete it"):
        embed(source, encoder, steps=3)
    assert embed(source, encoder).resumed == 8


def test_what_version_0_1_left_is_refused_with_the_remedy(tmp_path: Path, encoder: CountingEncoder):
    source = write_lines(tmp_path / "in.jsonl", {"text": "one"})
    (tmp_path / "out.parquet.partial").write_bytes(b'{"plume_embed_journal": 1}\n')
    with pytest.raises(ValueError, match=r"left of a run of version 0.1; delete it"):
        embed(source, encoder)


def test_two_runs_on_one_output_are_refused_and_the_first_one_finishes(tmp_path: Path, encoder: CountingEncoder):
    source = write_lines(tmp_path / "in.jsonl", *({"text": f"text {i}"} for i in range(20)))
    refused = []

    def second(done: int, total: int) -> None:
        with pytest.raises(BusyError, match=r"out.parquet is being written by another process") as error:
            embed(source, encoder)
        refused.append(error)

    assert embed(source, encoder, on_progress=second).num_rows == 20 and len(refused) == 4
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.parquet"]


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([2**53 + 1, 1.5], ["9007199254740993", "1.5"]),
        ([-(2**53) - 1, 1.5], ["-9007199254740993", "1.5"]),
        ([2**53, 1.5], [2.0**53, 1.5]),
        ([2**63 - 1, 1], [2**63 - 1, 1]),
        ([2**53 + 1, -(2**63)], [2**53 + 1, -(2**63)]),
        ([2**53 + 1, True], ["9007199254740993", "true"]),
        ([2**64, 1], ["18446744073709551616", "1"]),
    ],
)
def test_a_kept_number_is_the_one_of_the_line_whatever_the_other_lines_hold(
    tmp_path: Path, encoder: CountingEncoder, values: list, kept: list
):
    lines = [{"text": str(number), "k": value} for number, value in enumerate(values)]
    embed(write_lines(tmp_path / "in.jsonl", *lines), encoder, keep=["k"])
    assert pq.read_table(tmp_path / "out.parquet")["k"].to_pylist() == kept


def test_further_keys_are_kept_as_columns(tmp_path: Path, encoder: CountingEncoder):
    source = write_lines(
        tmp_path / "in.jsonl",
        {"text": "a", "title": "A", "price": 1, "is_new": True, "tags": ["x"], "mixed": 1, "large": 2**70},
        {"text": "b", "price": 2.5, "mixed": "one", "title": None},
        {"text": "c", "other": 1},
    )
    names = ("title", "price", "is_new", "tags", "mixed", "large", "gone")
    bad = []
    report = embed(source, encoder, keep=names, on_bad=bad.append)
    assert report.num_bad == 1 and "unknown keys ['other']" in bad[0].reason
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", *names, "embedding"]
    assert table.drop_columns(["id", "embedding"]).to_pylist() == [
        {
            "title": "A",
            "price": 1.0,
            "is_new": True,
            "tags": '["x"]',
            "mixed": "1",
            "large": str(2**70),
            "gone": None,
        },
        {
            "title": None,
            "price": 2.5,
            "is_new": None,
            "tags": None,
            "mixed": '"one"',
            "large": None,
            "gone": None,
        },
    ]
    kept = ", ".join(names)
    with pytest.raises(ValueError, match=rf"comes from another --keep \({kept}, not none\); delete it"):
        embed(source, encoder)
    with pytest.raises(ValueError, match="--keep takes further keys; id is used"):
        embed(source, encoder, keep=["id"])


def test_a_file_that_changes_while_it_is_embedded_is_refused(tmp_path: Path, encoder: CountingEncoder):
    source = write_lines(tmp_path / "in.jsonl", *({"text": f"text {i}"} for i in range(20)))

    def change(done: int, total: int) -> None:
        if done == 8:
            source.write_text(source.read_text().replace("text 9", "TEXT 9"))

    with pytest.raises(ValueError, match="changed while it was read; run again"):
        embed(source, encoder, on_progress=change)
    assert embed(source, encoder).num_rows == 20


def test_the_memory_of_a_plan_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plans, "_IDS_IN_MEMORY", 2000)
    peaks = []
    for count in (5_000, 40_000):
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as file:
            ids = (i if i != count - 1 else 7 for i in range(count))
            file.writelines(json.dumps({"text": f"{i} {'x' * 200}", "id": f"the id {i}"}) + "\n" for i in ids)
        tracemalloc.start()
        plan = make_plan(open_source(str(path)), MadeBy("x", 8), 256, tmp_path / "plan.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert plan.num_rows == count
        assert [one.repeated for one in plan.slices() if one.repeated] == [{(count - 1) % 256: "line 8"}]
    assert peaks[1] < 1.5 * peaks[0] and peaks[1] < 3_000_000


def test_nothing_to_embed_is_an_error_and_leaves_nothing_behind(tmp_path: Path, encoder: CountingEncoder):
    (tmp_path / "text.png").write_text("not a picture")
    for lines, reason in (
        (["{}"], r"can be embedded \(1 bad\)"),
        ([{"image": "text.png"}], r"can be embedded \(1 bad\)"),
        ([""], "source is empty"),
    ):
        with pytest.raises(ValueError, match=reason):
            embed(write_lines(tmp_path / "in.jsonl", *lines), encoder)
    assert not list(tmp_path.glob("out*"))


def test_the_command_reports_and_resumes(tmp_path: Path, released_model_dir: Path, capsys: pytest.CaptureFixture):
    source = write_lines(tmp_path / "in.jsonl", {"text": "one"}, "{broken", {"text": "two"})
    command = ["embed", str(source), "--to", str(tmp_path / "out.parquet"), "--model", str(released_model_dir)]
    with pytest.raises(SystemExit) as end:
        main(command)
    out, err = capsys.readouterr()
    assert end.value.code == 0 and err == ""
    assert f"skipped: {source}:2: not JSON" in out and "2 rows in" in out and "1 row skipped" in out
    with pytest.raises(SystemExit) as end:
        main([*command[:2], "--to", str(tmp_path / "gone" / "out.parquet"), *command[4:]])
    assert end.value.code == 2 and "No such folder" in capsys.readouterr().err
