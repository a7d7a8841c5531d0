"""The corpus format: what is accepted, what is refused and how it is named, and the order of batches."""

import json
from pathlib import Path

import pytest
from datasets import Dataset, List, load_from_disk
from datasets import Image as DatasetImage
from PIL import Image

from plume_embed.model.prompt_plume import INSTRUCTION
from plume_embed.training.data.corpus import Corpus, SubsetBalancedBatches
from plume_embed.training.data.keys import item_key


def side(text="a cat", assistant="<think>It is. A cat.</think><answer>cat</answer>", **media) -> dict:
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": assistant}]
    return {"conversations": turns, **media}


def row(subset="A", **query) -> dict:
    return {"qry": side(**query), "pos": side(text="the cat"), "dataset_name": subset}


def write(path: Path, lines: list) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_file_is_read_with_paths_under_the_media_root(tmp_path):
    rows = [
        row(),
        row("B", text="<image>\n<image>\nCompare.", image=["a.png", "b/c.png"]),
        row("B", text=f"<video>\nWhat?\n<disc_emb>\n{INSTRUCTION}", video=["1.png", "2.png"]),
        row("C", text="<image>\n", image=["a.png"], assistant="<think></think><answer>x\n<gen_emb>"),
    ]
    corpus = Corpus.from_jsonl([write(tmp_path / "a.jsonl", [*rows[:2], "", *rows[2:]])], tmp_path / "media")
    media = tmp_path / "media"
    assert corpus.subsets == ["A", "B", "B", "C"]
    assert [corpus[i].query.item for i in range(4)] == [
        {"text": "a cat"},
        {"text": "Compare.", "image": [media / "a.png", media / "b/c.png"]},
        {"text": "What?", "video": [[media / "1.png", media / "2.png"]]},
        {"image": [media / "a.png"]},
    ]
    assert (corpus[0].query.rationale, corpus[0].query.answer) == ("It is. A cat.", "cat")
    assert (corpus[3].query.rationale, corpus[3].query.answer) == ("", "x")
    assert corpus[3].where == f"{tmp_path / 'a.jsonl'}:5"


BAD = {
    "not JSON": "{",
    'a row must be {"qry"': {"qry": 1},
    "qry: a side must be": {"qry": None, "pos": side(), "dataset_name": "A"},
    "pos: the conversations must be": {"qry": side(), "pos": {"conversations": [1, 2]}, "dataset_name": "A"},
    "qry: the text has 1 <image> and 0 <video>, the row 0 images": row(text="<image> x"),
    "qry: the text has 0 <image> and 0 <video>, the row 2 images": row(image=["a", "b"]),
    "qry: The assistant turn must read <think>": row(assistant="cat"),
    "qry: the side is empty": row(text=" "),
    "qry: the value of a turn must be a string": row(text=7),
}


@pytest.mark.parametrize("complaint", BAD)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, complaint):
    path, messages = write(tmp_path / "a.jsonl", [row(), BAD[complaint], row()]), []
    with pytest.raises(ValueError, match=r"a\.jsonl:2: ") as caught:
        Corpus.from_jsonl([path], tmp_path)
    assert f"{path}:2: {complaint}" in str(caught.value) and "max_bad_lines is 0" in str(caught.value)
    corpus = Corpus.from_jsonl([path], tmp_path, max_bad_lines=1, report=messages.append)
    assert len(corpus) == 2 and corpus[1].where == f"{path}:3"
    assert len(messages) == 1 and messages[0].startswith(f"{path}:2: {complaint}")


def test_bad_lines_over_the_limit_end_the_run(tmp_path):
    path = write(tmp_path / "a.jsonl", [row(), "{", "[", row(), "x"])
    with pytest.raises(ValueError, match=r"a\.jsonl:5: .*bad row 3, and max_bad_lines is 2"):
        Corpus.from_jsonl([path], tmp_path, max_bad_lines=2)


def test_files_that_are_missing_or_empty_are_named(tmp_path):
    with pytest.raises(ValueError, match="No such file: .*none.jsonl"):
        Corpus.from_jsonl([tmp_path / "none.jsonl"], tmp_path)
    with pytest.raises(ValueError, match="no pairs in .*empty.jsonl"):
        Corpus.from_jsonl([write(tmp_path / "empty.jsonl", [])], tmp_path)


def test_a_datasets_object_is_read_the_same_way(tmp_path):
    rows = [row(), row("B", text="<image>\nx", image=["a.png"]), row("B")]
    for entry in rows:
        for name in ("qry", "pos"):
            entry[name].setdefault("image", None)
    corpus = Corpus.from_dataset(Dataset.from_list(rows), tmp_path)
    assert corpus.subsets == ["A", "B", "B"]
    assert corpus[1].query.item == {"text": "x", "image": [tmp_path / "a.png"]}
    assert corpus[2].target.item == {"text": "the cat"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"qry": side(assistant="no rationale")}, "qry: The assistant turn must read <think>"),
        ({"dataset_name": None}, "a row must be .*dataset_name a text; it is None"),
    ],
    ids=["a turn", "no name"],
)
def test_a_bad_row_of_a_datasets_object_is_named_before_the_training(change, complaint):
    dataset, messages = Dataset.from_list([row(), row("B") | change, row("C")]), []
    with pytest.raises(ValueError, match=rf"^row 1: {complaint}.*bad row 1, and max_bad_lines is 0"):
        Corpus.from_dataset(dataset)
    corpus = Corpus.from_dataset(dataset, max_bad_lines=1, report=messages.append)
    assert corpus.subsets == ["A", "C"] and corpus[1].subset == "C" and corpus[1].where == "row 2"
    assert len(messages) == 1 and messages[0].startswith("row 1: ")
    with pytest.raises(ValueError, match="no pairs in the data set"):
        Corpus.from_dataset(dataset.select([]))


@pytest.mark.parametrize("decode", [True, False])
def test_pictures_of_a_datasets_object_stay_encoded_and_have_keys(decode, tmp_path):
    for name, colour in (("a", "red"), ("twin", "red"), ("b", "blue")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    rows = [row(text="<image>", image=[str(tmp_path / f"{name}.png")]) for name in ("a", "twin", "b")]
    dataset = Dataset.from_list(rows)
    features = dataset.features.copy()
    features["qry"]["image"] = List(DatasetImage(decode=decode))
    named = dataset.cast(features)
    named.save_to_disk(tmp_path / "saved")
    for source in (named, load_from_disk(tmp_path / "saved")):
        corpus = Corpus.from_dataset(source)
        assert not any(isinstance(corpus[index].query.item["image"][0], Image.Image) for index in range(3))
        a, twin, b = (item_key(corpus[index].query.item) for index in range(3))
        assert a == twin != b


def test_equal_targets_have_equal_keys_whatever_their_names(tmp_path):
    for name, colour in (("a", "red"), ("twin", "red"), ("b", "blue")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    rows = [row(text="<image>", image=[f"{name}.png"]) for name in ("a", "twin", "b")] + [row(), row(), row(text="b")]
    corpus = Corpus.from_jsonl([write(tmp_path / "a.jsonl", rows)], tmp_path)
    a, twin, b, text, same, other = (item_key(corpus[i].query.item) for i in range(6))
    assert a == twin and text == same
    assert len({a, b, text, other}) == 4
    assert -(2**63) <= a < 2**63


class TestBatches:
    SUBSETS = ["A"] * 10 + ["B"] * 7 + ["C"] * 3

    def test_a_batch_comes_from_one_subset_or_from_what_was_left_of_several(self):
        batches = SubsetBalancedBatches(self.SUBSETS, 4, seed=0)
        assert batches.batches_per_epoch == 5
        for epoch in range(3):
            rows = [batches[epoch * 5 + i] for i in range(5)]
            assert all(len(set(batch)) == 4 for batch in rows)
            pure = [batch for batch in rows if len({self.SUBSETS[i] for i in batch}) == 1]
            assert len(pure) >= 3
            assert len({i for batch in rows for i in batch}) == 20  # each pair once an epoch

    def test_the_order_is_a_function_of_seed_and_step(self):
        first, again = (SubsetBalancedBatches(self.SUBSETS, 4, seed=0) for _ in range(2))
        assert [first[step] for step in range(12)] == [again[step] for step in reversed(range(12))][::-1]
        other = SubsetBalancedBatches(self.SUBSETS, 4, seed=1)
        assert [first[step] for step in range(5)] != [other[step] for step in range(5)]
        assert [first[step] for step in range(5)] != [first[step] for step in range(5, 10)]

    def test_a_repeated_subset_comes_so_often_in_an_epoch(self):
        batches = SubsetBalancedBatches(["a"] * 10 + ["b"] * 7, 4, 0, {"b": 2})
        assert batches.batches_per_epoch == 6  # 24 pairs
        for epoch in range(2):
            drawn = [index for step in range(6) for index in batches[6 * epoch + step]]
            assert len(drawn) == 24 and all(drawn.count(index) == 1 for index in range(10))
            assert all(drawn.count(index) == 2 for index in range(10, 17))
        assert [batches[step] for step in range(6)] != [batches[step] for step in range(6, 12)]

    @pytest.mark.parametrize("repeat", [{"c": 2}, {"a": 0}])
    def test_a_repeated_subset_that_there_is_not_or_never_is_refused(self, repeat):
        with pytest.raises(ValueError, match=r"data\.repeat: .: .: must be one of a, b"):
            SubsetBalancedBatches(["a"] * 10 + ["b"] * 7, 4, 0, repeat)

    def test_fewer_pairs_than_a_batch_are_refused(self):
        with pytest.raises(ValueError, match="20 pairs are fewer than batch_size=21"):
            SubsetBalancedBatches(self.SUBSETS, 21, seed=0)
