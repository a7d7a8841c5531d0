"""Facts about the nine meta-tasks' evaluation, on a small benchmark of colours that is written as the real one is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from miniature_colours import COLOURS, NAMES, ColourEmbedder, Wrong, png, run, task

from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder, column_name
from plume_embed.evaluation.miniature import report as miniature_report
from plume_embed.evaluation.miniature import run as miniature_run
from plume_embed.evaluation.miniature import thumbnails
from plume_embed.evaluation.miniature.media import MediaError, MediaStore
from plume_embed.evaluation.miniature.schema import META_TASKS, Query, Side, Task, digest_of, write_media
from plume_embed.evaluation.miniature.score import chance_scores, query_scores
from plume_embed.evaluation.miniature.stills import SPLITS, TRAIN_STYLES, label_text
from plume_embed.evaluation.mmeb_v2.score import Prediction, score


def of_task(report: dict, model: int, name: str, metric: str = "hit@1"):
    """The figure of one model on the first task of that name."""
    number = [task["task"] for task in report["tasks"]].index(name)
    return report["models"][model]["scores"][number][metric]


# Scores


@pytest.mark.parametrize("seed", range(20))
def test_hit_and_ndcg_of_a_query_are_those_of_the_mmeb_scorer(seed):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 12))
    similarity = generator.normal(size=count)
    correct = np.zeros(count, dtype=bool)
    correct[generator.choice(count, size=int(generator.integers(1, count + 1)), replace=False)] = True
    keys = np.argsort(-similarity).tolist()[:10]
    expected = score([Prediction(keys, tuple(np.flatnonzero(correct).tolist()), None)])
    assert query_scores([similarity], [correct])[0].tolist() == pytest.approx(
        (expected["hit@1"], expected["ndcg_linear@5"])
    )


def test_ties_count_against_the_query():
    assert query_scores([np.zeros(6)], [np.array([1, 0, 0, 0, 0, 0], bool)]).tolist() == [[0, 0]]
    assert query_scores([np.zeros(2)], [np.array([1, 0], bool)])[0].tolist() == pytest.approx((0, 1 / np.log2(3)))


@pytest.mark.parametrize(("num_correct", "count"), [(1, 3), (2, 8), (7, 9)])
def test_chance_is_the_mean_over_random_orders(num_correct, count):
    generator, correct = np.random.default_rng(0), np.arange(count) < num_correct
    found = query_scores([generator.permutation(count) for _ in range(4000)], [correct] * 4000).mean(axis=0)
    assert chance_scores(num_correct, count) == pytest.approx(found, abs=0.03)


# Media


def test_media_are_found_by_id_in_stills_and_in_shards(data):
    store = MediaStore(data)
    assert len(store) == 12 + 4 + 4 and "noto/blue" in store and "noto/pink" not in store
    assert store.image("noto/blue").convert("RGB").getpixel((0, 0)) == COLOURS["blue"]
    assert [f.size for f in store.frames("clip/yellow")] == [(30, 30)] * 3
    item = store.model_input(Side("x", "crop/red", "clip/lime"))
    assert list(item) == ["image", "video", "text"] and len(item["video"]) == 3
    with pytest.raises(MediaError, match="no medium 'noto/pink'"):
        store.image("noto/pink")
    with pytest.raises(MediaError, match="'clip/red' has 3 frames"):
        store.image("clip/red")


def test_a_medium_in_the_last_row_group_of_a_long_shard_is_the_right_one(tmp_path):
    colours = {f"c/{n:04d}": [png(f"rgb({n % 256},{n // 256},9)", 1)] for n in range(700)}
    write_media(colours, tmp_path, "c")
    store = MediaStore(tmp_path)
    for name in ("c/0000", "c/0699", "c/0100", "c/0257"):
        n = int(name[2:])
        assert store.image(name).getpixel((0, 0)) == (n % 256, n // 256, 9)


def test_an_id_in_two_files_is_refused(tmp_path):
    write_media({"a/1": [png("red")]}, tmp_path, "a")
    write_media({"a/1": [png("red")]}, tmp_path, "b")
    with pytest.raises(ValueError, match="'a/1' stands in a-00000.* and again in b-00000"):
        MediaStore(tmp_path)


def test_without_data_the_command_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run `make miniature`"):
        MediaStore(tmp_path)


# The run


def test_a_model_that_knows_all_colours_has_every_point_of_all_nine_meta_tasks(data):
    tasks, _, report = run(data, ColourEmbedder())
    assert [task.meta for task in tasks] == sorted((t.meta for t in tasks), key=META_TASKS.index) and len(tasks) == 10
    assert report["models"][0]["means"]["mean"] == pytest.approx([1, 1, 1]) and report["missing"] == {}


def test_each_distinct_side_is_embedded_once(data):
    embedder = ColourEmbedder()
    run(data, embedder)
    # 4 of each: colour words, "all colour", stills, crops, clips, questions over stills and over clips, phrases.
    assert len(embedder.seen) == 8 * 4
    assert embedder.seen.count(("text",)) == 8 and embedder.seen.count(("text", "video")) == 4


def test_a_query_is_ranked_in_its_own_pool_only(data):
    _, _, report = run(data, Wrong())
    # Yellow becomes blue: wrong among all, but right beside red alone, and a tie where blue is in the pool.
    assert of_task(report, 0, "V-RET/text to clip")[0] == 0.5
    assert of_task(report, 0, "V-MRET/moment")[0] == 0.75
    assert of_task(report, 0, "I-QA/colour")[0] == 1.0


def test_documents_count_by_ndcg_and_the_rest_by_hits(data):
    _, _, report = run(data, Wrong())
    means, pages = report["models"][0]["means"], of_task(report, 0, "VisDoc/page", "ndcg@5")
    assert 0.5 < pages[0] < 1 and means["VisDoc"][0] == pages[0]
    assert means["V-RET"][0] == 0.5 and of_task(report, 0, "V-RET/text to clip", "ndcg@5")[0] == pages[0]


def test_a_meta_task_is_the_mean_of_its_tasks_and_the_mean_that_of_the_nine(data):
    _, _, report = run(data, Wrong())
    model = report["models"][0]
    known, unseen = (
        s["hit@1"][0] for t, s in zip(report["tasks"], model["scores"], strict=True) if t["meta"] == "I-RET"
    )
    assert (known, unseen) == (1.0, 0.5) and model["means"]["I-RET"][0] == 0.75
    assert model["means"]["mean"][0] == pytest.approx(np.mean([model["means"][meta][0] for meta in META_TASKS]))
    assert model["means"]["mean, unseen concepts (1 meta-tasks)"][0] == 0.5


def test_a_difference_is_paired(data):
    _, _, report = run(data, ColourEmbedder(), Wrong(name="no yellow"), Wrong(name="the same again"))
    first, second, third = report["models"]
    assert first["difference"] is None
    assert second["difference"]["V-RET"][0] == -0.5 and second["difference"] == third["difference"]
    _, _, swapped = run(data, Wrong(), Wrong(name="the same again"))
    # Unpaired, two equal models would differ by chance; here every draw of queries is the same for both.
    assert swapped["models"][1]["difference"]["mean"] == [0.0, 0.0, 0.0]
    low, high = report["models"][1]["means"]["V-RET"][1:]
    assert low < 0.5 < high


def test_a_model_that_takes_no_pictures_has_no_mean(data):
    tasks, contestants, report = run(data, ColourEmbedder(), ColourEmbedder(("text", "video"), "blind"))
    scored = {tasks[number].meta for number in contestants[1].scores}
    assert scored == {"V-CLS", "V-QA", "V-RET", "V-MRET"} and contestants[1].failures == {}
    means = report["models"][1]["means"]
    assert means["mean"] is None and means["I-CLS"] is None and means["V-RET"] == [1.0, 1.0, 1.0]
    assert report["models"][1]["difference"]["mean"] is None


def test_a_damaged_picture_stops_its_tasks_and_no_others(data, tmp_path):
    media = {f"crop/{name}": [png(name, 28)] for name in NAMES} | {"crop/lime": [png("lime")[:60]]}
    for file in [*data.glob("*.parquet"), *data.glob("*/*.parquet")]:
        (tmp_path / file.relative_to(data)).parent.mkdir(exist_ok=True)
        (tmp_path / file.relative_to(data)).write_bytes(file.read_bytes())
    write_media(media, tmp_path, "crop")
    _, _, report = run(tmp_path, ColourEmbedder())
    failed = report["models"][0]["failed"]
    assert set(failed) == {"I-GD/crop (known)", "VisDoc/page (known)"}
    assert failed["VisDoc/page (known)"].startswith("candidate 1: the medium 'crop/lime' is damaged: ")
    means = report["models"][0]["means"]
    assert means["mean"] is None and means["VisDoc"] is None and means["I-RET"] == [1.0, 1.0, 1.0]
    (line,) = miniature_report.notes(report)[:1]
    assert line.startswith("FAILED colours K=2: 2 tasks, I-GD/crop (known) first: candidate 1: ")


def test_an_item_that_the_model_refuses_and_a_nan_vector_fail_by_name(data, tmp_path):
    class Broken(ColourEmbedder):
        def embed_readable(self, inputs, batch_size):
            vectors, errors = super().embed_readable(inputs, batch_size)
            vectors[["video" in item and "text" in item for item in inputs]] = np.nan
            return vectors, errors

    (tmp_path / "media").mkdir()
    for file in [*data.glob("*.parquet"), *data.glob("media/*")]:
        (tmp_path / file.relative_to(data)).write_bytes(file.read_bytes())
    texts, clips = [Side("red"), Side("lime ?!")], [Side("a", video="clip/red"), Side("b", video="clip/lime")]
    good = [Side(video="clip/red"), Side(video="clip/lime")]
    named = [task("V-RET", "x", texts, good), task("V-QA", "y", clips, texts[:1] * 2), task("V-CLS", "z", good, good)]
    _, _, report = run(tmp_path, Broken(), tasks=named)
    assert report["models"][0]["failed"] == {
        "V-RET/x (known)": "query 1: no colour at all",
        "V-QA/y (known)": "query 0: its embedding is NaN or infinite",
    }
    assert report["models"][0]["means"]["V-CLS"] == [1.0, 1.0, 1.0]


def test_a_choice_of_tasks_has_no_mean_and_says_what_is_missing(data):
    everything = miniature_run.read_tasks(data)
    chosen = miniature_run.select(everything, None, ["V-RET", "I-QA"])
    tasks, contestants = miniature_run.evaluate(data, [ColourEmbedder()], chosen, latency_rounds=0)
    report = miniature_report.as_dict(tasks, contestants, everything)
    means = report["models"][0]["means"]
    assert means["mean"] is None and means["V-RET"] == [1.0, 1.0, 1.0] and means["I-CLS"] is None
    assert report["missing"]["I-RET"] == (0, 2) and "I-QA" not in report["missing"]
    assert miniature_report.notes(report)[-1].startswith("Incomplete, no mean: I-CLS (0 of 1 tasks evaluated), ")
    with pytest.raises(ValueError, match=r"No meta-task named V-CAT; there are: I-CLS"):
        miniature_run.select(everything, None, ["V-CAT"])
    with pytest.raises(ValueError, match="No task has both"):
        miniature_run.select(everything, ["I-QA/colour"], ["V-QA"])


def test_the_digest_sees_pools_and_texts(data):
    tasks = miniature_run.read_tasks(data)
    others = [t for t in tasks if t.meta != "I-QA"] + [t for t in tasks if t.meta == "I-QA"]
    bare = [Task(t.name, t.concepts, tuple(Query(q.side, q.positives) for q in t.queries), t.candidates) for t in tasks]
    digests = {digest_of(some) for some in (tasks, others, bare)}
    assert len(digests) == 3 and digest_of(miniature_run.read_tasks(data)) in digests


# The pixel baseline


def test_thumbnails_find_equal_pictures_by_picture_by_name_and_by_label(data):
    """Each still asks for itself; where pictures or names are equal, any of the equal ones is right."""
    store = MediaStore(data)
    found = thumbnails.Thumbnails(store)
    names = [name for name, row in store.stills.items() if row.style == TRAIN_STYLES[0]]
    pictures, labels = (
        tuple(Side(image=name) for name in names),
        tuple(Side(store.stills[name].label) for name in names),
    )
    for sides in (pictures, labels):
        queries = tuple(Query(side, (number,)) for number, side in enumerate(sides))
        scores = found.similarity(Task("I-RET/a", "known", queries, pictures))
        best = scores.max(axis=1)
        np.testing.assert_allclose(scores[np.arange(len(names)), np.arange(len(names))], best, atol=1e-6)
    subgroups = sorted({label_text(row.subgroup) for row in store.stills.values()})
    trained = [name for name in names if store.stills[name].split_family == SPLITS["known"]]
    queries = tuple(
        Query(Side(image=name), (subgroups.index(label_text(store.stills[name].subgroup)),)) for name in trained
    )
    scores = found.similarity(Task("I-CLS/c", "known", queries, tuple(map(Side, subgroups))))
    right = [scores[number, query.positives[0]] for number, query in enumerate(queries)]
    np.testing.assert_allclose(right, scores.max(axis=1), atol=1e-6)
    assert len(trained) > 0


def test_pixels_have_no_score_where_they_mean_nothing(data):
    tasks, contestants, report = run(data, ColourEmbedder(), with_pixels=True)
    assert contestants[1].name == thumbnails.NAME and report["models"][1]["means"]["mean"] is None
    assert {tasks[number].name for number in contestants[1].scores} == {
        "I-CLS/picture to label",
        "I-RET/text to picture",
    }


# PLUME models and the command


def test_batching_changes_no_ranking_of_a_plume_model(data, released_model_dir):
    embedder = PlumeEmbedder(released_model_dir, num_latent_steps=2, device="cpu")
    singly, together = (run(data, embedder, batch_size=size)[1][0] for size in (1, 16))
    assert len(singly.scores) == 10 and singly.failures == {}
    for number, found in singly.scores.items():
        np.testing.assert_array_equal(found, together.scores[number])


def test_batch_1_and_batch_16_rank_the_bundled_pictures_alike():
    root = Path(__file__).parent.parent.parent
    folder = root / "examples"
    concepts = json.loads((folder / "concepts.json").read_text())
    embedder = PlumeEmbedder(root / "checkpoints" / "plume-tiny", device="cpu")
    pictures = [{"image": folder / "pictures" / concept["file"]} for concept in concepts]
    names = [{"text": concept["label"]} for concept in concepts]
    orders = []
    for size in (1, 16):
        starts = range(0, len(concepts), size)
        queries, documents = (
            np.concatenate([embedder.embed(items[start : start + size], size) for start in starts])
            for items in (names, pictures)
        )
        orders.append(np.argsort(-(queries @ documents.T), axis=1, kind="stable"))
    np.testing.assert_array_equal(*orders)


def test_plume_through_sentence_transformers_is_a_peer_with_the_same_scores(data, released_model_dir):
    ours = PlumeEmbedder(released_model_dir, device="cpu")
    peer = SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True)
    assert (ours.name, column_name(ours), column_name(peer)) == ("released_tiny", "released_tiny K=8", "released_tiny")
    _, (one, other), report = run(data, ours, peer)
    assert (one.failures, other.failures) == ({}, {}) and set(one.scores) == set(other.scores) == set(range(10))
    for number, found in one.scores.items():
        np.testing.assert_array_equal(found, other.scores[number])
    assert report["models"][1]["difference"]["mean"] == [0.0, 0.0, 0.0]


def test_one_unreadable_picture_costs_a_peer_only_its_own_row(data, released_model_dir):
    peer = SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True)
    items = [{"text": "red"}, {"image": "nowhere.png"}, {"image": MediaStore(data).image("noto/red")}, {"text": "blue"}]
    vectors, errors = peer.embed_readable(items, 2)
    assert list(errors) == [1] and "nowhere.png" in errors[1] and np.isnan(vectors[1]).all()
    np.testing.assert_allclose(vectors[[0, 2, 3]], peer.embed([items[0], items[2], items[3]], 1), atol=1e-5)
    assert peer.embed_readable(items[1:2], 2)[0].shape == (1, 0)


def test_a_model_in_a_runs_folder_is_called_by_the_run(released_model_dir, tmp_path):
    copied = shutil.copytree(released_model_dir, tmp_path / "seed-2" / "model")
    assert PlumeEmbedder(copied, device="cpu").name == "seed-2"
