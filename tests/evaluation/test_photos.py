"""The benchmark of photographs: its tasks, ranks, report and stored peers, on six tiny pictures."""

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plume_embed.evaluation.embedders import InputError
from plume_embed.evaluation.photos import report
from plume_embed.evaluation.photos.benchmark import (
    IN_IMAGENET,
    NOT_IN_IMAGENET,
    RankingTask,
    digest,
    names_a_class,
    read_tasks,
)
from plume_embed.evaluation.photos.report import CHANCE, MEDIAN, Contestant
from plume_embed.evaluation.photos.run import evaluate, stored_peers

CAPTIONS = ["A frog.", "A yak.", "A yak.", "Two apples."]
SENTENCES = [["a red boat"], ["my cat", "a pet"]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    stamps = [{"file": f"stamps/{n}.png", "caption": caption, "captions": {}} for n, caption in enumerate(CAPTIONS)]
    photos = [{"file": f"sentences/{n}.png", "sentences": sentences} for n, sentences in enumerate(SENTENCES)]
    content = {"stamps": stamps, "sentences": photos, "imagenet_names": ["apple", "frog", "two apple"]}
    for number, entry in enumerate(stamps + photos):
        (tmp_path / entry["file"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / entry["file"])
    (tmp_path / "photos.json").write_text(json.dumps(content))
    return tmp_path


class OneHot:
    """An embedder that sees which picture it is, and knows which caption belongs to which."""

    num_latent_steps, paradigm, dtype = 8, "latent", "float32"

    def __init__(self, wrong: bool = False):
        self.wrong, self.batches = wrong, []
        self.name, self.fingerprint = ("wrong", "w") if wrong else ("one-hot", "o")

    @property
    def documents(self):
        return self

    def supports(self, kinds):
        return True

    def embed(self, inputs, batch_size):
        self.batches.append(len(inputs))
        rows = []
        for item in inputs:
            if "image" in item:
                number = int(np.asarray(Image.open(item["image"]))[0, 0, 0])
                number = {2: 1}.get(number, number)
            else:
                meanings = {"A frog.": 0, "A yak.": 1, "Two apples.": 3, "a red boat": 4, "my cat": 5, "a pet": 5}
                number = meanings[item["text"]]
            rows.append(np.eye(6, dtype=np.float32)[(number + self.wrong * ("text" in item)) % 6])
        return np.stack(rows)


def test_photographs_with_one_caption_are_all_right_and_captions_are_told_apart_by_imagenet(data):
    tasks = {task.name: task for task in read_tasks(data)}
    assert [item["text"] for item in tasks["captions -> photos"].queries] == ["A frog.", "A yak.", "Two apples."]
    assert tasks["captions -> photos"].gold == [[0], [1, 2], [3]]
    assert tasks["photos -> captions"].gold == [[0], [1], [1], [2]]
    assert [item["text"] for item in tasks[IN_IMAGENET].queries] == ["A frog.", "Two apples."]
    assert [item["text"] for item in tasks[NOT_IN_IMAGENET].queries] == ["A yak."]
    assert tasks["sentences -> photos"].gold == [[0], [1], [1]]
    assert tasks["photos -> sentences"].gold == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("caption", "is_name"),
    [("A tench.", True), ("Two tench", False), ("Some goldfishes", False), ("A pair of clogs.", True)],
)
def test_a_caption_names_a_class_without_article_full_stop_and_plural(caption, is_name):
    assert names_a_class(caption, {"tench", "goldfish", "clog"}) is is_name


def test_a_tie_counts_as_the_last_place_and_the_best_right_candidate_counts():
    task = RankingTask("", [{}] * 2, [{}] * 4, [[0], [1, 3]])
    same = np.ones((1, 1), dtype=np.float32)
    assert task.ranks(same.repeat(2, 0), same.repeat(4, 0)).tolist() == [4, 3]
    one = np.random.default_rng(0).normal(size=(1, 256)).astype(np.float32)
    for count in (3, 13, 98, 403):  # at the end of a matrix product rows are summed in another order
        collapsed = RankingTask("", [{}], [{}] * count, [[count - 1]])
        assert collapsed.ranks(one, one.repeat(count, 0)).tolist() == [count]
    candidates = np.eye(4, dtype=np.float32)
    queries = np.array([[0.1, 0.9, 0.2, 0.0], [0.5, 0.1, 0.0, 0.4]], dtype=np.float32)
    assert task.ranks(queries, candidates).tolist() == [3, 2]


def test_chance_is_the_share_of_random_orders_with_a_right_candidate_in_front():
    task = RankingTask("", [{}], [{}] * 7, [[0, 1]])
    wanted = [1 - comb(5, k) / comb(7, k) for k in range(1, 8)]
    assert task.chance_ranks()[0] == pytest.approx(wanted)


def test_a_model_that_knows_all_has_100_percent_and_one_that_is_wrong_none(data):
    tasks = read_tasks(data)
    embedders = [OneHot(), OneHot(wrong=True)]
    found = report.as_dict(tasks, evaluate(tasks, embedders, batch_size=2), {}, resamples=20)
    right, wrong, chance = found["models"]
    assert all(scores["R@1"] == [1, 1, 1] and scores[MEDIAN] == [1, 1, 1] for scores in right["scores"].values())
    assert wrong["scores"]["sentences -> photos"]["R@1"][0] == 0
    assert chance["model"] == CHANCE and chance["scores"]["sentences -> photos"]["R@1"][0] == 0.5
    assert sum(embedders[0].batches) == 6 + 6  # every text and every picture once, however many tasks it is in


def test_stored_peers_rank_what_they_have_vectors_for(data):
    (data / "peers").mkdir()
    keys = [f"text: {text}" for text in ("a red boat", "my cat", "a pet")] + [
        "image: sentences/0.png",
        "image: sentences/1.png",
    ]
    vectors = np.eye(2, dtype=np.float32)[[0, 1, 1, 0, 1]]
    np.savez(data / "peers" / "a peer.npz", keys=keys, vectors=vectors)
    (peer,) = stored_peers(read_tasks(data), data)
    assert peer.name == "a peer" and set(peer.ranks) == {"sentences -> photos", "photos -> sentences"}
    assert peer.ranks["sentences -> photos"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("factor", "reason"), [(20, "'text: a red boat' has norm 20.000; normalise"), (np.nan, "is NaN or infinite")]
)
def test_a_stored_vector_that_cannot_be_ranked_is_refused_by_file_and_key(data, factor, reason):
    (data / "peers").mkdir()
    keys = ["text: my cat", "text: a red boat"]
    np.savez(data / "peers" / "odd.npz", keys=keys, vectors=np.array([[1, 0], [factor, 0]], dtype=np.float32))
    with pytest.raises(ValueError, match=rf"odd\.npz is damaged or of another form: the vector of .*{reason}"):
        stored_peers(read_tasks(data), data)


def test_a_model_that_takes_no_pictures_ranks_nothing_and_the_others_go_on(data):
    class Texts(OneHot):
        def __init__(self):
            super().__init__()
            self.name = "texts"

        def supports(self, kinds):
            return kinds == ("text",)

        def embed(self, inputs, batch_size):
            pytest.fail("embedded")

    seen = []
    tasks = read_tasks(data)
    whole, texts = evaluate(tasks, [OneHot(), Texts()], 4, lambda done, total: seen.append((done, total)))
    assert set(whole.ranks) == {task.name for task in tasks} and texts.ranks == {}
    assert seen[-1] == (12, 12)
    (table, *_) = report.tables(report.as_dict(tasks, [whole, texts], {}, resamples=20))
    assert list(table.columns[1].cells)[1] == "-"


def test_vectors_that_are_not_finite_are_no_ranks_and_neither_are_tasks_without_answers():
    rows, task = np.eye(2, dtype=np.float32), RankingTask("", [{}] * 2, [{}] * 2, [[0], [1]])
    with pytest.raises(ValueError, match="embedding of query 0 is NaN or infinite"):
        task.ranks(np.full((2, 2), np.nan, dtype=np.float32), rows)
    with pytest.raises(ValueError, match="query 1 has no correct candidate"):
        RankingTask("", [{}] * 2, [{}] * 2, [[0], []]).ranks(rows, rows)


def test_a_photograph_without_a_sentence_is_refused_in_words(data):
    content = json.loads((data / "photos.json").read_text())
    content["sentences"][1]["sentences"] = []
    (data / "photos.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"sentences of a photograph must be a list of at least one text, got \[\]"):
        read_tasks(data)


def test_an_item_that_cannot_be_embedded_is_named_by_what_it_is(data):
    class Refuses(OneHot):
        def embed(self, inputs, batch_size):
            for place, item in enumerate(inputs):
                if item.get("text") == "my cat":
                    raise InputError(place, "too short")
            return super().embed(inputs, batch_size)

    with pytest.raises(InputError, match="text: my cat: too short"):
        evaluate(read_tasks(data), [Refuses()], batch_size=1)


def test_stored_peers_are_found_however_the_folder_is_named(data, monkeypatch):
    (data / "peers").mkdir()
    files = [entry["file"] for entry in json.loads((data / "photos.json").read_text())["sentences"]]
    keys = ["text: a red boat", "text: my cat", "text: a pet", *(f"image: {file}" for file in files)]
    np.savez(data / "peers" / "peer.npz", keys=keys, vectors=np.eye(2, dtype=np.float32)[[0, 1, 1, 0, 1]])
    monkeypatch.chdir(data)
    for folder in (Path(), Path("peers/..")):
        (peer,) = stored_peers(read_tasks(folder), folder)
        assert set(peer.ranks) == {"sentences -> photos", "photos -> sentences"}


def test_models_that_a_table_could_not_tell_apart_are_refused_before_they_embed(data):
    embedders = [OneHot(), OneHot()]
    with pytest.raises(ValueError, match="one-hot K=8 is named twice; name it once"):
        evaluate(read_tasks(data), embedders, batch_size=2)
    embedders[1].fingerprint = "of other weights"
    with pytest.raises(ValueError, match="Two models would be called one-hot K=8; give their folders names"):
        evaluate(read_tasks(data), embedders, batch_size=2)
    assert not embedders[0].batches


def test_intervals_hold_the_value_and_the_table_names_every_model():
    ranks = np.array([1, 2, 3, 50, 1, 7, 12, 1])
    tasks = [RankingTask("t", [{}] * 8, [{}] * 60, [[0]] * 8)]
    found = report.as_dict(tasks, [Contestant("m", 4, {"t": ranks})], {}, resamples=200)
    scores = found["models"][0]["scores"]["t"]
    assert [scores[f"R@{k}"][0] for k in (1, 5, 10)] == [0.375, 0.625, 0.75] and scores[MEDIAN][0] == 2.5
    assert all(low <= value <= high for value, low, high in scores.values())
    table = report.markdown(found)
    assert "m (K = 4)" in table and "chance" in table and "37.5 [" in table


def test_reports_of_several_runs_are_joined_with_peers_last_and_other_benchmarks_are_refused():
    def one(name: str, benchmark: str = "b") -> dict:
        models = [{"model": name, "num_latent_steps": 8, "scores": {}}, {"model": "peer", "num_latent_steps": None}]
        return {"conditions": {"benchmark": benchmark}, "tasks": {}, "models": models}

    found = report.joined([one("first"), one("second"), one("first")])
    assert [model["model"] for model in found["models"]] == ["first", "second", "peer"]
    with pytest.raises(ValueError, match="different benchmarks"):
        report.joined([one("first"), one("second", "c")])
    first, other = one("first"), one("first")
    first["models"][0]["fingerprint"], other["models"][0]["fingerprint"] = "a", "b"
    with pytest.raises(ValueError, match=r"first \(K = 8\) has other weights or another precision"):
        report.joined([first, other])


@pytest.mark.parametrize("fingerprints", [(None, None), ("a", None), (None, "b")])
def test_without_fingerprints_a_model_is_the_same_only_if_its_scores_are(fingerprints):
    def one(fingerprint: str | None, score: float) -> dict:
        scores = {"captions -> photos": {"R@1": [score, 0.1, 0.3]}}
        model = {"model": "m", "num_latent_steps": 8, "fingerprint": fingerprint, "scores": scores}
        return {"conditions": {"benchmark": "b"}, "tasks": {}, "models": [model]}

    first, other = fingerprints
    assert len(report.joined([one(first, 0.2), one(other, 0.2)])["models"]) == 1
    with pytest.raises(ValueError, match=r"m \(K = 8\) has other weights or another precision"):
        report.joined([one(first, 0.2), one(other, 0.25)])


def test_the_digest_changes_with_a_pixel(data):
    before = digest(data)
    Image.new("RGB", (4, 4), (0, 9, 0)).save(data / "stamps" / "0.png")
    assert digest(data) != before


def test_a_benchmark_that_was_not_built_says_how(tmp_path):
    with pytest.raises(ValueError, match="make photos"):
        read_tasks(tmp_path)


def test_a_model_that_is_read_elsewhere_says_so_in_its_row():
    ranks = {"t": np.array([1, 2])}
    task = RankingTask("t", [{}] * 2, [{}] * 4, [[0], [1]])
    kinds = (("latent", 8), ("single", 0), ("anchor", 0), ("state", 3), ("cot", 0), ("single", None))
    found = report.as_dict([task], [Contestant("m", steps, ranks, name) for name, steps in kinds], {}, resamples=20)
    (table,) = report.tables(found)
    rows = list(table.columns[0].cells)
    assert rows[:6] == ["m (K = 8)", "m (K = 0)", "m (anchor)", "m (z(3))", "m (CoT)", "m"]
