"""Hard negatives out of an index: what is taken, what never is, and that training reads what was written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_files import write_pdf, write_picture

from plume_embed.cli.main import main
from plume_embed.encode.encoder import Encoder
from plume_embed.index.listing import list_folder
from plume_embed.index.search import open_index
from plume_embed.index.update import update_index
from plume_embed.reading.passages import read_passages
from plume_embed.training.data.keys import item_key
from plume_embed.training.data.mine import MiningOptions, mine
from plume_embed.training.data.pair_rows import read_pairs

DOCUMENTS = Path(__file__).parents[2] / "space" / "collection" / "documents"


@pytest.fixture(scope="module")
def encoder(released_model_dir) -> Encoder:
    return Encoder(str(released_model_dir), device="cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, encoder) -> Path:
    """Pictures, texts and a page; one picture is there twice, and pairs over them."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    for number in range(6):
        noise = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    write_picture(folder / "picture.png")
    write_pdf(folder / "report.pdf", num_pages=2)
    for name, text in (("whale", "The blue whale is the largest animal."), ("long", "Many words stand here. " * 120)):
        (folder / f"{name}.txt").write_text(text)
    update_index(folder, folder / ".plume-index", encoder)
    return folder


def mined(corpus: Path, encoder: Encoder, out: Path, rows: list[dict], **options) -> list[dict]:
    (out / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = open_index(corpus, corpus / ".plume-index", encoder)
    mine(read_pairs([out / "pairs.jsonl"]), index, encoder, out / "mined.jsonl", MiningOptions(**options))
    return [json.loads(line) for line in (out / "mined.jsonl").read_text().splitlines()]


def test_negatives_are_the_nearest_below_the_margin_and_never_an_answer(corpus, encoder, tmp_path):
    rows = [
        {"query": {"image": str(corpus / "0.png")}, "positive": {"image": str(corpus / f"{n}.png")}} for n in (1, 2)
    ]
    found = mined(corpus, encoder, tmp_path, rows, count=20, margin=-2.0)
    index = open_index(corpus, corpus / ".plume-index", encoder)
    answers = {item_key({"image": [corpus / f"{n}.png"]}) for n in (0, 1, 2)}
    for written in read_pairs([tmp_path / "mined.jsonl"]):
        assert not answers & {item_key(item) for item in written.negatives}
    ranked = index.search(encoder.encode([{"image": corpus / "0.png"}])[0], top=99)
    expected = [hit.score for hit in ranked if hit.path not in ("0.png", "1.png", "2.png")][:20]
    assert found[0]["negative_scores"] == pytest.approx(expected, abs=1e-5) and len(expected) > 5
    closer = mined(corpus, encoder, tmp_path, rows[:1], count=20, margin=0.02)[0]
    assert all(score <= closer["score"] - 0.02 + 1e-6 for score in closer["negative_scores"])
    assert len(closer["negative_scores"]) < len(expected)


def test_texts_passages_and_pages_are_written_so_that_training_reads_them(corpus, encoder, tmp_path):
    rows = [{"query": "a whale", "positive": {"text": "Something else."}}]
    mined(corpus, encoder, tmp_path, rows, count=50, margin=-2.0)
    (row,) = read_pairs([tmp_path / "mined.jsonl"])
    kinds = {kind for item in row.negatives for kind in item}
    assert kinds == {"text", "image", "page"}
    texts = [item["text"] for item in row.negatives if "text" in item]
    assert "The blue whale is the largest animal." in texts and any(t.startswith("Many words") for t in texts)


def test_a_page_of_a_pair_has_the_score_that_the_index_gives_it(encoder, monkeypatch, tmp_path):
    monkeypatch.setattr(encoder.processor, "page_words", 20)
    page = shutil.copy(DOCUMENTS / "garden.pdf", tmp_path)
    update_index(tmp_path, tmp_path / ".plume-index", encoder)
    (row,) = mined(tmp_path, encoder, tmp_path, [{"query": "a flower", "positive": {"page": f"{page}#page=1"}}])
    hits = open_index(tmp_path, tmp_path / ".plume-index", encoder).search(encoder.encode(["a flower"])[0])
    assert row["score"] == pytest.approx(next(hit.score for hit in hits if hit.locator == "page=1"), abs=1e-5)


@pytest.fixture
def texts(encoder, tmp_path) -> Path:
    """A folder of texts, indexed."""
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = "".join(f"Line {number} of a long text.\r\n" for number in range(200))
    (folder / "long.txt").write_bytes(lines.encode("utf-8-sig"))
    (folder / "short.txt").write_bytes(b"  A short one.\r\n")
    update_index(folder, folder / ".plume-index", encoder)
    return folder


def test_passages_are_those_that_were_indexed_whatever_ends_their_lines(texts, encoder, tmp_path):
    mined(texts, encoder, tmp_path, [{"query": "a", "positive": "b"}], count=50, margin=-2.0)
    (row,) = read_pairs([tmp_path / "mined.jsonl"])
    (file,) = (file for file in list_folder(texts).files if file.path == "long.txt")
    passages = [item.content["text"] for item in read_passages(file, encoder.fits, frozenset())]
    assert len(passages) > 3 and {item["text"] for item in row.negatives} == {*passages, "A short one."}


@pytest.mark.parametrize("change", [lambda file: file.write_text("Another text."), Path.unlink])
def test_a_file_that_is_not_as_it_was_indexed_is_named(change, texts, encoder, tmp_path):
    change(texts / "short.txt")
    with pytest.raises(ValueError, match=r"short\.txt(: No such file| has changed since).*Index the folder again"):
        mined(texts, encoder, tmp_path, [{"query": "a", "positive": "b"}], count=50, margin=-2.0)


def test_a_picture_that_has_changed_since_it_was_indexed_is_named(encoder, tmp_path):
    write_picture(tmp_path / "a.png")
    update_index(tmp_path, tmp_path / ".plume-index", encoder)
    write_picture(tmp_path / "a.png", seed=1)
    with pytest.raises(ValueError, match=r"a\.png has changed since it was indexed"):
        mined(tmp_path, encoder, tmp_path, [{"query": "a", "positive": "b"}], margin=-2.0)


def test_given_negatives_stay_and_the_nearest_can_be_passed_over(corpus, encoder, tmp_path):
    rows = [
        {"query": "a whale", "positive": "Something else.", "negatives": ["given"]},
        {"query": "x", "positive": "y"},
    ]
    plain = mined(corpus, encoder, tmp_path, rows, count=3, margin=-2.0)
    assert plain[0]["negatives"][0] == {"text": "given"} and "score" not in plain[0] and len(plain[0]["negatives"]) == 3
    skipped = mined(corpus, encoder, tmp_path, rows, count=2, margin=-2.0, skip=1)
    assert skipped[1]["negatives"] == plain[1]["negatives"][1:]


def test_what_has_been_mined_is_not_mined_again(corpus, encoder, tmp_path):
    first = mined(corpus, encoder, tmp_path, [{"query": "a whale", "positive": "b"}], count=2, margin=-2.0)[0]
    given = {name: first[name] for name in ("query", "positive", "negatives")}
    assert mined(corpus, encoder, tmp_path, [given], count=2, margin=-2.0)[0]["negatives"] == first["negatives"]
    more = mined(corpus, encoder, tmp_path, [given], count=4, margin=-2.0)[0]["negatives"]
    assert more[:2] == first["negatives"] and len({json.dumps(item) for item in more}) == len(more) == 4


def test_equal_files_of_an_index_are_one_negative(encoder, tmp_path):
    folder = tmp_path / "twins"
    folder.mkdir()
    for name, text in (("a", "One text."), ("twin", "One text."), ("b", "Another.")):
        (folder / f"{name}.txt").write_text(text)
    update_index(folder, folder / ".plume-index", encoder)
    (row,) = mined(folder, encoder, tmp_path, [{"query": "x", "positive": "y"}], count=5, margin=-2.0)
    assert sorted(item["text"] for item in row["negatives"]) == ["Another.", "One text."]


def test_an_instruction_is_kept_and_the_querys_own_text_is_no_negative(encoder, tmp_path):
    folder = tmp_path / "knots"
    folder.mkdir()
    for name, text in (("own", "how to tie a knot"), ("other", "a red square")):
        (folder / f"{name}.txt").write_text(text)
    update_index(folder, folder / ".plume-index", encoder)
    rows = [{"query": "how to tie a knot", "positive": "tying knots", "instruction": "Find a duplicate:"}]
    (row,) = mined(folder, encoder, tmp_path, rows, margin=-2.0)
    assert row["negatives"] == [{"text": "a red square"}] and row["instruction"] == "Find a duplicate:"
    asked, positive = encoder.encode(["Find a duplicate:\nhow to tie a knot", "tying knots"])
    assert row["score"] == pytest.approx(float(asked @ positive), abs=1e-5)


def test_the_command_says_what_it_found_and_names_a_bad_row(corpus, released_model_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PLUME_MODEL", str(released_model_dir))
    (tmp_path / "p.csv").write_text("query,positive\na whale,Something else.\n")
    arguments = ["mine", str(tmp_path / "p.csv"), "--corpus", str(corpus), "--out", str(tmp_path / "m.jsonl")]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--margin", "-2", "--count", "2"])
    assert ended.value.code == 0 and "2 negatives for 1 row in" in capsys.readouterr().out
    (tmp_path / "p.csv").write_text("query,positive\na whale,\n")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "p.csv:2: positive must be a text" in error and error.count("\n") == 1


@pytest.mark.parametrize("side", ["query", "positive"])
def test_a_broken_picture_is_named_with_its_file_and_row(side, corpus, encoder, tmp_path):
    (tmp_path / "broken.png").write_bytes((corpus / "0.png").read_bytes()[:200])
    rows = [{"query": "a", "positive": "b"}, {"query": "c", "positive": "d"} | {side: {"image": "broken.png"}}]
    with pytest.raises(ValueError, match=rf"pairs\.jsonl:2: {side}: .*broken\.png") as refused:
        mined(corpus, encoder, tmp_path, rows)
    assert "Item" not in str(refused.value) and not (tmp_path / "mined.jsonl").exists()


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), 3.0])
def test_a_margin_that_is_no_difference_of_cosines_is_refused(margin):
    with pytest.raises(ValueError, match=r"margin must lie in -2\.\.2"):
        MiningOptions(margin=margin)


def test_pairs_are_mined_into_a_new_folder_and_never_into_another_format(corpus, encoder, tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"query": "a whale", "positive": "Something else."}\n')
    rows, index = read_pairs([tmp_path / "pairs.jsonl"]), open_index(corpus, corpus / ".plume-index", encoder)
    mine(rows, index, encoder, tmp_path / "new" / "mined.jsonl", MiningOptions(margin=-2.0))
    assert (tmp_path / "new" / "mined.jsonl").is_file()
    with pytest.raises(ValueError, match=r"must end in \.jsonl"):
        mine(rows, index, encoder, tmp_path / "mined.csv")
