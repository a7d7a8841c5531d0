"""Facts about the nine meta-tasks' evaluation, on a small benchmark of colours that is written as the real one is."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Picture
from typer.testing import CliRunner

from plume_embed.cli.evaluate.app import app
from plume_embed.cli.evaluate.contestants import ModelOptions, load_contestants, model_and_steps, parse_steps
from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder
from plume_embed.evaluation.miniature import report as miniature_report
from plume_embed.evaluation.miniature import run as miniature_run
from plume_embed.evaluation.miniature import thumbnails
from plume_embed.evaluation.miniature.media import MediaError, MediaStore
from plume_embed.evaluation.miniature.run import column_name
from plume_embed.evaluation.miniature.schema import META_TASKS, Query, Side, Task, digest_of, write_media, write_tasks
from plume_embed.evaluation.miniature.score import chance_scores, query_scores
from plume_embed.evaluation.miniature.stills import SPLITS, TRAIN_STYLES, label_text
from plume_embed.evaluation.mmeb_v2.score import Prediction, score
from plume_embed.evaluation.tradeoff import write_plot
from plume_embed.model.modeling_plume import PlumeModel

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
NAMES = tuple(COLOURS)


class ColourEmbedder:
    """The mean colour of what is shown, else the colour that the text ends in; counts what it embeds."""

    fingerprint, num_latent_steps, paradigm, written, dtype = "c", 2, "latent", None, "float32"

    def __init__(self, takes: tuple[str, ...] = ("text", "image", "video"), name: str = "colours") -> None:
        self.takes, self.name, self.seen = takes, name, []

    @property
    def documents(self):
        return self

    def supports(self, kinds):
        return set(kinds) <= set(self.takes)

    def embed_readable(self, inputs, batch_size):
        vectors, errors = [], {}
        for place, item in enumerate(inputs):
            frames = [item["image"]] if "image" in item else item.get("video", [])
            colours = [np.asarray(f.convert("RGB"), np.float32).reshape(-1, 3).mean(axis=0) for f in frames]
            if not frames and item["text"].endswith("?!"):
                errors[place] = "no colour at all"
            vectors.append(np.mean(colours, axis=0) if frames else COLOURS.get(item["text"].split()[-1], (1, 2, 3)))
            self.seen.append(tuple(sorted(item)))
        array = np.array(vectors, np.float32) + 1
        return array / np.linalg.norm(array, axis=1, keepdims=True), errors

    def embed(self, inputs, batch_size):
        return self.embed_readable(inputs, batch_size)[0]


class Wrong(ColourEmbedder):
    """Knows no yellow: it takes it for blue."""

    def embed_readable(self, inputs, batch_size):
        vectors, errors = super().embed_readable(inputs, batch_size)
        yellow = np.isclose(vectors[:, 0], vectors[:, 1]) & (vectors[:, 0] > vectors[:, 2])
        vectors[yellow] = np.array([1, 1, 256]) / np.linalg.norm([1, 1, 256])
        return vectors, errors


def png(colour: str, side: int = 30) -> bytes:
    buffer = io.BytesIO()
    Picture.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def task(meta: str, what: str, sides, candidates, concepts: str = "known", pools=None) -> Task:
    """Query i asks for candidate i."""
    pools = pools or [()] * len(sides)
    queries = tuple(Query(side, (n,), tuple(pool)) for n, (side, pool) in enumerate(zip(sides, pools, strict=True)))
    return Task(f"{meta}/{what}", concepts, queries, tuple(candidates))


def write_stills(data) -> None:
    """Two trained and two held-out colours, in the test style and in two training styles."""
    columns: dict[str, list] = {name: [] for name in ("image", "hexcode", "label", "tags", "group", "subgroup")}
    columns |= {name: [] for name in ("skin_tone", "gender", "family", "split_family", "style", "picture_hash")}
    for style, side in (("twemoji", 8), ("noto", 10), ("fluent-flat", 12)):
        for number, colour in enumerate(NAMES):
            row = {"image": Picture.new("RGB", (side, side), colour), "hexcode": colour, "label": f"all {colour}"}
            row |= {"tags": [], "group": "symbols", "subgroup": colour, "skin_tone": "", "gender": ""}
            row |= {"family": colour, "split_family": "train" if number < 2 else "test", "style": style}
            for name, value in (row | {"picture_hash": f"{style} {colour}"}).items():
                columns[name].append(value)
    features = {name: Value("string") for name in columns} | {"image": Image(), "tags": List(Value("string"))}
    Dataset.from_dict(columns, Features(features)).to_parquet(data / "stills.parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All nine meta-tasks; I-QA and V-MRET have pools of their own, I-RET has known and unseen concepts."""
    folder = tmp_path_factory.mktemp("miniature")
    write_stills(folder)
    write_media({f"crop/{name}": [png(name, 28)] for name in NAMES}, folder, "crop")
    write_media({f"clip/{name}": [png(name)] * 3 for name in NAMES}, folder, "clip", shard_rows=3)
    texts = [Side(name) for name in NAMES]
    stills = [Side(image=f"twemoji/{name}") for name in NAMES]
    clips = [Side(video=f"clip/{name}") for name in NAMES]
    crops = [Side(image=f"crop/{name}") for name in NAMES]
    pairs = [(0, 1), (1, 0), (2, 1), (0, 3)]
    write_tasks(
        [
            task("I-CLS", "picture to label", stills, texts),
            task("I-QA", "colour", [Side("which colour?", s.image) for s in stills], texts, pools=pairs),
            task("I-RET", "text to picture", [Side(f"all {name}") for name in NAMES[:2]], stills),
            task("I-RET", "text to picture", [Side(f"all {name}") for name in NAMES[::-1]], stills[::-1], "unseen"),
            task("I-GD", "crop", [Side(f"all {s.image[8:]}", s.image) for s in stills], crops),
            task("V-CLS", "clip to label", clips, texts),
            task("V-QA", "colour", [Side("which?", video=s.video) for s in clips], texts),
            task("V-RET", "text to clip", texts, clips),
            task("V-MRET", "moment", texts, clips, pools=[(0, 3), (1, 3), (2, 3), (3, 0)]),
            task("VisDoc", "page", texts, crops),
        ],
        folder,
    )
    return folder


def run(data, *embedders, **settings):
    settings = {"latency_rounds": 0, "with_pixels": False} | settings
    tasks, contestants = miniature_run.evaluate(data, embedders, **settings)
    return tasks, contestants, miniature_report.as_dict(tasks, contestants, resamples=50)


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


def command(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["miniature", *arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_the_command_compares_steps_writes_figures_and_draws_them(data, released_model_dir, tmp_path):
    where = ["--data", str(data), "--model", str(released_model_dir), "--device", "cpu"]
    out = ["--json", str(tmp_path / "new" / "figures.json"), "--plot", str(tmp_path / "figure.svg")]
    printed = command(*where, *out, "--resamples", "50", "--steps", "0,2", "--latency-rounds", "1")
    assert "released_tiny single pass" in printed and "ms per item, batch 1 " in printed
    report = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert [(m["paradigm"], m["num_latent_steps"]) for m in report["models"]] == [
        ("single", 0),
        ("latent", 2),
        (None, None),
    ]
    assert report["conditions"]["threads"] == 1 and report["conditions"]["batch_size"] == 32
    assert all(set(m["ms_per_item"]) == {"1", "28"} for m in report["models"][:2])
    assert report["models"][0]["num_items"] == 32
    readme = miniature_report.markdown(report)
    assert readme.splitlines()[0] == "|  | chance | released_tiny single pass | released_tiny K=2 | 16x16 thumbnails |"
    assert "| **mean** |" in readme and "| VisDoc (NDCG@5) |" in readme
    drawn = (tmp_path / "figure.svg").read_text()
    assert "<!-- K=2 -->" in drawn and "<!-- K=0 -->" in drawn and "<!-- CoT -->" not in drawn


def test_a_model_may_bring_its_own_steps(data, released_model_dir, tmp_path):
    out = ["--json", str(tmp_path / "figures.json"), "--resamples", "20", "--latency-rounds", "0"]
    command("--data", str(data), "--device", "cpu", *out, "--model", f"{released_model_dir}@0,2", "--steps", "4")
    models = json.loads((tmp_path / "figures.json").read_text())["models"]
    assert [model["num_latent_steps"] for model in models] == [0, 2, None]
    assert model_and_steps("runs/a@b") == ("runs/a@b", None) and model_and_steps(None) == (None, None)
    assert model_and_steps("runs/a@b@cot") == ("runs/a@b", "cot")
    assert model_and_steps("runs/a@anchor,z1,8") == ("runs/a", "anchor,z1,8")
    assert parse_steps("0,anchor,z1,8,cot") == [
        ("single", None),
        ("anchor", None),
        ("state", 1),
        ("latent", 8),
        ("cot", None),
    ]
    with pytest.raises(ValueError, match="takes whole numbers, cot, anchor and z1"):
        parse_steps("0,y1")


def test_read_outs_have_columns_of_their_own(released_model_dir):
    found = [
        PlumeEmbedder(released_model_dir, paradigm, steps, device="cpu")
        for paradigm, steps in (("latent", 2), ("state", 2), ("anchor", None), ("single", None))
    ]
    heads = [column_name(embedder).split(maxsplit=1)[1] for embedder in found]
    assert heads == ["K=2", "z(2)", "anchor", "single pass"]
    assert len({embedder.fingerprint for embedder in found}) == 4
    vectors = [embedder.embed([{"text": "a red bicycle"}], 1) for embedder in found]
    cosines = [float((one * other).sum()) for n, one in enumerate(vectors) for other in vectors[:n]]
    assert max(cosines) < 0.999 and all(abs(float(np.linalg.norm(one)) - 1) < 1e-5 for one in vectors)


def test_kept_scores_are_taken_for_the_same_model_data_and_tasks_only(data, released_model_dir, tmp_path, monkeypatch):
    where = ["--data", str(data), "--model", f"{released_model_dir}@2", "--device", "cpu", "--resamples", "20"]
    where += ["--latency-rounds", "0", "--keep", str(tmp_path / "kept"), "--json"]
    command(*where, str(tmp_path / "first.json"))
    assert len(list((tmp_path / "kept").iterdir())) == 1

    def refuse(*args):
        pytest.fail("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(PlumeEmbedder, "embed_readable", refuse)
        command(*where, str(tmp_path / "second.json"))
    reports = [json.loads((tmp_path / name).read_text()) for name in ("first.json", "second.json")]
    assert reports[0] == reports[1]
    command(*where, str(tmp_path / "third.json"), "--meta", "I-CLS")
    where[3] = f"{released_model_dir}@0"
    command(*where, str(tmp_path / "fourth.json"))
    assert len(list((tmp_path / "kept").iterdir())) == 3
    redrawn = tmp_path / "redrawn"
    shutil.copytree(data, redrawn)
    write_media({f"crop/{name}": [png(name, 56)] for name in NAMES}, redrawn, "crop")
    where[1] = str(redrawn)
    command(*where, str(tmp_path / "fifth.json"))
    assert len(list((tmp_path / "kept").iterdir())) == 4


def test_a_written_rationale_stands_beside_the_latent_steps_with_its_latency_and_length(
    data, released_model_dir, tmp_path, monkeypatch
):
    def ends_at_once(model, states):
        vocabulary = model.config.get_text_config().vocab_size
        return torch.arange(vocabulary).eq(model.config.embedding_token_id).float().expand(*states.shape[:-1], -1)

    monkeypatch.setattr(PlumeModel, "next_token_logits", ends_at_once)
    where = ["--data", str(data), "--model", str(released_model_dir), "--device", "cpu", "--latency-rounds", "1"]
    out = ["--json", str(tmp_path / "figures.json"), "--plot", str(tmp_path / "figure.svg"), "--resamples", "20"]
    printed = command(*where, *out, "--steps", "2,cot")
    assert "- released_tiny CoT wrote 1.0 tokens an item." in printed
    explicit = json.loads((tmp_path / "figures.json").read_text())["models"][1]
    assert (explicit["paradigm"], explicit["num_latent_steps"]) == ("cot", 0)
    assert explicit["rationales"] == {"num_rows": 32, "num_tokens": 32, "num_cut": 0}
    assert explicit["means"]["mean"] is not None and explicit["ms_per_item"]["1"] > 0
    assert "<!-- CoT -->" in (tmp_path / "figure.svg").read_text()


def test_two_columns_of_one_name_are_refused(data):
    with pytest.raises(ValueError, match="Two models would be called colours K=2"):
        run(data, ColourEmbedder(), ColourEmbedder())


def test_a_folder_whose_name_ends_as_steps_do_is_a_folder(data, released_model_dir, tmp_path):
    folder = tmp_path / "plume@2"
    shutil.copytree(released_model_dir, folder)
    assert model_and_steps(str(folder)) == (str(folder), None)
    assert model_and_steps(f"{folder}@0") == (str(folder), "0")


def test_the_dtype_reaches_peers_and_is_said_of_each_where_they_differ(released_model_dir):
    options = ModelOptions("cpu", "auto")
    found, conditions = load_contestants([str(released_model_dir)], [], [("latent", 2), ("single", None)], options)
    assert [embedder.dtype for embedder in found] == ["float32"] * 2 and conditions["dtype"] == "float32"
    peer = SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True, dtype="bfloat16")
    whole = SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True)
    assert (peer.dtype, whole.dtype) == ("bfloat16", "float32") and peer.fingerprint != whole.fingerprint
    with pytest.raises(ValueError, match="dtype of a peer is one of auto, float32, bfloat16, float16, got 'int8'"):
        SentenceTransformerEmbedder(str(released_model_dir), "cpu", True, "int8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--meta", "I-CLS,I-QA"], "mean of all nine meta-tasks, or one whole"),
        (["--tasks", "I-RET/text to picture", "--meta", "V-RET"], "No task has both"),
        (["--tasks", "I-QA/colour", "--tasks", "V-QA/colour"], "mean of all nine meta-tasks, or one whole"),
        (["--latency-rounds", "0"], "give --latency-rounds a number from 1"),
    ],
)
def test_a_plot_that_could_only_fail_is_refused_before_a_model_is_loaded(data, tmp_path, options, said):
    where = ["--data", str(data), "--model", str(tmp_path / "none"), "--plot", str(tmp_path / "figure.svg")]
    result = CliRunner().invoke(app, ["miniature", *where, *options])
    assert isinstance(result.exception, ValueError) and said in str(result.exception)


def test_a_plot_of_one_meta_task_is_drawn_into_a_folder_that_is_new(data, released_model_dir, tmp_path):
    where = ["--data", str(data), "--model", str(released_model_dir), "--device", "cpu", "--resamples", "20"]
    out = tmp_path / "new" / "folder" / "figure.svg"
    printed = command(*where, "--meta", "I-CLS", "--latency-rounds", "1", "--steps", "0,2", "--plot", str(out))
    assert "<!-- I-CLS, % -->" in out.read_text() and f"written: {out}" in printed.replace("\n", "")


def test_a_model_that_writes_no_rationale_fails_in_one_clear_sentence_and_the_others_go_on(data, released_model_dir):
    where = ["--data", str(data), "--model", str(released_model_dir), "--device", "cpu", "--latency-rounds", "0"]
    printed = command(*where, "--steps", "2,cot", "--max-new-tokens", "3", "--resamples", "20", code=1)
    assert "FAILED released_tiny CoT: 10 tasks, I-CLS/picture to label (known) first: None of 32 rationales" in printed


def test_a_plot_without_points_or_of_an_unknown_format_is_refused(data, tmp_path):
    _, _, report = run(data, ColourEmbedder())
    with pytest.raises(ValueError, match="nothing to plot"):
        write_plot(report, tmp_path / "figure.svg")
    _, _, report = run(data, ColourEmbedder(), latency_rounds=1)
    with pytest.raises(ValueError, match="A plot is one of .*svg.*, got figure.nothing"):
        write_plot(report, tmp_path / "figure.nothing")
    assert write_plot(report, tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("slowest", [3.0, 300.0])
def test_a_paradigm_that_is_far_off_is_drawn_on_a_logarithmic_axis(data, tmp_path, slowest):
    _, _, report = run(data, ColourEmbedder(), ColourEmbedder(name="others"))
    for model, paradigm, ms in zip(report["models"], ("latent", "cot"), (2.0, slowest), strict=True):
        model |= {"paradigm": paradigm, "ms_per_item": {"1": ms}, "weights": "one"}
    drawn = write_plot(report, tmp_path / "figure.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("ms per item, batch 1", "CoT", "explicit CoT"))
    assert ("<!-- 10 -->" in drawn and "<!-- 100 -->" in drawn) == (slowest > 100)
    report["models"][1]["weights"] = "two"
    named = write_plot(report, tmp_path / "named.svg").read_text()
    assert f"<!-- {report['models'][1]['model']} -->" in named and "<!-- CoT -->" not in named
    alone = write_plot(report, tmp_path / "alone.svg", of="V-RET").read_text()
    assert "<!-- V-RET, % -->" in alone
