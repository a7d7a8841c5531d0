"""Fine-tuning on pairs of one's own: batches, losses with given negatives, the evaluation, and a whole run."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset, Features, Value
from datasets import Image as DatasetImage
from PIL import Image, ImageDraw

from plume_embed import PlumeModel
from plume_embed.encode.encoder import Encoder, fingerprint
from plume_embed.evaluation.embedders import PlumeEmbedder
from plume_embed.index.search import open_index
from plume_embed.index.update import update_index
from plume_embed.training.data.keys import item_key
from plume_embed.training.data.pair_rows import PairRow, parse_row, read_pairs
from plume_embed.training.data.pair_scores import PairPool, mean_scores
from plume_embed.training.data.pairs_report import check_truncation, embed_with
from plume_embed.training.data.pairs_task import PairsTask
from plume_embed.training.log import read_log
from plume_embed.training.loss.batch_loss import LossWeights, TrainingBatch, _Pool, batch_losses
from plume_embed.training.loss.losses import info_nce
from plume_embed.training.objective import SideOutput
from plume_embed.training.recipe import load_recipe
from plume_embed.training.run import run
from training.hops import HOPS

DOCUMENTS = Path(__file__).parents[2] / "space" / "collection" / "documents"
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple", "brown", "pink", "cyan", "olive")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve squares with their names, each with another colour as a negative; one name twice."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for number, colour in enumerate(COLOURS):
        image = Image.new("RGB", (56, 56), "grey")
        ImageDraw.Draw(image).rectangle((8, 8, 48, 48), fill=colour)
        image.save(folder / f"{colour}.png")
        other = COLOURS[(number + 1) % len(COLOURS)]
        rows.append(
            {
                "query": f"a {colour} square",
                "positive": {"image": f"{colour}.png"},
                "negatives": [{"image": f"{other}.png"}],
            }
        )
    rows.append({"query": "a red square", "positive": {"image": "orange.png"}})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(data: Path, model: Path, *settings: str):
    own = [f"data.files=[{data / 'pairs.jsonl'}]", f"model.path={model}", "batch_size=4", "curriculum.max_steps=6"]
    own += ["curriculum.num_latent_steps=2", "logging_steps=1", "early_stopping.every=2", "pairs.held_out=0.2"]
    return load_recipe("pairs", [*own, *settings])


def test_what_is_held_out_shares_no_query_and_no_positive_with_training(data, released_model_dir):
    for seed in range(6):
        task = PairsTask(recipe(data, released_model_dir, f"seed={seed}"))
        parts = (task.train_rows, task.validation, task.held_out)
        for one, other in itertools.combinations([items_of(rows) for rows in parts], 2):
            assert not one & other
        assert sum(map(len, parts)) == len(COLOURS) + 1
        assert len(task.held_out) >= 3 and len(task.validation) >= 1


def items_of(rows: list[PairRow]) -> set[int]:
    return {item_key(item) for row in rows for item in (row.query, row.positive)}


def write(folder: Path, rows: list[dict], name: str = "pairs.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


@pytest.mark.parametrize("instruction", ["", "Find a duplicate:"])
def test_a_pair_is_not_held_out_where_its_mirror_is_trained(instruction, released_model_dir, tmp_path):
    pairs = [(f"question {number}", f"answer {number}") for number in range(20)]
    mirrored = [(one, other) for pair in pairs for one, other in (pair, pair[::-1])]
    write(tmp_path, [{"query": one, "positive": other, "instruction": instruction} for one, other in mirrored])
    for seed in range(4):
        task = PairsTask(recipe(tmp_path, released_model_dir, f"seed={seed}"))
        assert task.held_out and task.validation
        trained, others = (
            [pair_of(row) for row in rows] for rows in (task.train_rows, task.held_out + task.validation)
        )
        assert not set(trained) & set(others)


def pair_of(row: PairRow) -> frozenset[str]:
    """Its two texts as they stand in the file, whatever is put in front of the query."""
    return frozenset(side["text"].splitlines()[-1] for side in (row.query, row.positive))


def test_pairs_of_a_held_out_file_are_not_trained_on_under_another_instruction(released_model_dir, tmp_path):
    rows = [{"query": f"q {number}", "positive": f"p {number}", "instruction": "Find it:"} for number in range(12)]
    write(tmp_path, rows)
    held = write(tmp_path, [{"query": f"q {n}", "positive": f"other {n}"} for n in range(3)], "held.jsonl")
    task = PairsTask(recipe(tmp_path, released_model_dir, f"pairs.held_out_files=[{held}]", "early_stopping=null"))
    assert len(task.train_rows) == 9


def test_an_instruction_decides_what_answers_a_query_and_not_what_the_query_is(released_model_dir, tmp_path):
    """A query under two instructions, twice under one of them, and its own text as the positive of another row."""
    rows = [
        {"query": "q", "positive": "a", "instruction": "Find one:"},
        {"query": "q", "positive": "b", "instruction": "Find one:"},
        {"query": "q", "positive": "c", "instruction": "Find another:"},
        {"query": "z", "positive": "q", "instruction": "Find one:"},
    ]
    write(tmp_path, rows)
    chosen = recipe(tmp_path, released_model_dir, "early_stopping=null", "pairs.held_out=0")
    task = PairsTask(chosen)
    pool = _Pool(task.batch(0, chosen.curriculum.at(0)))
    order = [task.train_rows[index].positive["text"] for index in task.batches[0]]
    places = torch.tensor([order.index(name) for name in "abcq"])
    assert pool.positives[places][:, places].tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]
    own = torch.zeros(4, 4, dtype=torch.bool)
    own[:3, 3] = True
    assert pool.ignored is not None and torch.equal(pool.ignored[places][:, places], own)


def test_a_query_is_embedded_behind_its_instruction_everywhere(data, released_model_dir, tmp_path):
    row = {"query": "a red square", "positive": {"image": str(data / "red.png")}, "instruction": "Find it:"}
    file = write(tmp_path, [row, {"query": "x", "positive": "y"}])
    expected = Encoder(released_model_dir).encode(["Find it:\na red square"])[0]
    chosen = recipe(tmp_path, released_model_dir, "early_stopping=null", "pairs.held_out=0", "batch_size=2")
    task = PairsTask(chosen)
    place = [row.positive.keys() for row in map(task.train_rows.__getitem__, task.batches[0])].index({"image"})
    trained = task.batch(0, chosen.curriculum.at(0)).queries[0].prefix["input_ids"][place]
    assert "Find it:\na red square" in task.processor.tokenizer.decode(trained)
    assert np.abs(Encoder(released_model_dir).encode([task.samples(2)[0].query])[0] - expected).max() < 1e-5
    PairsTask(recipe(data, released_model_dir, f"pairs.held_out_files=[{file}]")).keep_held_out(tmp_path)
    for kept in (file, tmp_path / "held_out.jsonl"):
        pool = PairPool.of(read_pairs([kept]))
        (asked, _), _ = pool.embedded(*[embed_with(PlumeEmbedder(released_model_dir), 8)] * 2)
        assert np.abs(asked - expected).max() < 1e-5


def test_samples_are_spread_over_all_held_out_pairs(released_model_dir, tmp_path):
    held = write(tmp_path, [{"query": f"h {number}", "positive": f"p {number}"} for number in range(20)], "held.jsonl")
    write(tmp_path, [{"query": f"q {number}", "positive": f"a {number}"} for number in range(8)])
    task = PairsTask(recipe(tmp_path, released_model_dir, f"pairs.held_out_files=[{held}]", "early_stopping=null"))
    assert [sample.query["text"] for sample in task.samples(4)] == ["h 0", "h 5", "h 10", "h 15"]


def test_given_negatives_are_drawn_alike_wherever_the_file_lies(released_model_dir, tmp_path):
    rows = [
        {"query": f"q {number}", "positive": f"p {number}", "negatives": [f"n {number} {n}" for n in range(6)]}
        for number in range(8)
    ]
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, rows)
        chosen = recipe(tmp_path / name, released_model_dir, "early_stopping=null", "pairs.held_out=0")
        task = PairsTask(chosen)
        drawn.append([task.batch(step, chosen.curriculum.at(step)).negative_keys.tolist() for step in range(4)])
    assert drawn[0] == drawn[1] and len({key for step in drawn[0] for (key,) in step}) > 8


@pytest.mark.parametrize(
    ("of", "shared"), [("positive", {"positive": "yes"}), ("query", {"query": "what?"})], ids=["positive", "query"]
)
def test_pairs_that_share_all_their_positives_or_queries_are_refused(of, shared, released_model_dir, tmp_path):
    write(tmp_path, [{"query": f"q {number}", "positive": f"p {number}"} | shared for number in range(8)])
    alike = recipe(tmp_path, released_model_dir, "early_stopping=null", "pairs.held_out=0")
    with pytest.raises(ValueError, match=f"The 8 pairs to train on all have the same {of}"):
        PairsTask(alike)


def test_labels_of_which_the_training_keeps_one_are_refused_and_the_remedy_trains_on_all(released_model_dir, tmp_path):
    write(tmp_path, [{"query": f"text {number}", "positive": f"label {number % 3}"} for number in range(60)])
    said: list[str] = []
    with pytest.raises(ValueError, match=r"all have the same positive.*pairs\.held_out=0 and early_stopping=null"):
        PairsTask(recipe(tmp_path, released_model_dir), report=said.append)
    assert said[0] == "60 pairs: 20 to train on, 20 held out, 20 for early stopping."
    assert said[1].startswith("pairs.held_out is 0.2 and 20 of 60 pairs were taken")
    assert said[2].startswith("pairs.validation is 0.1 and 20 of 40 pairs were taken")
    said.clear()
    remedied = recipe(tmp_path, released_model_dir, "early_stopping=null", "pairs.held_out=0")
    task = PairsTask(remedied, report=said.append)
    assert len({row.positive["text"] for row in task.train_rows}) == 3
    assert said == ["60 pairs: 60 to train on, 0 held out, 0 for early stopping."]


@pytest.mark.parametrize("decode", [True, False])
def test_a_data_set_of_pairs_is_checked_row_by_row_and_keeps_pictures_encoded(
    decode, data, released_model_dir, tmp_path
):
    rows = {
        "query": [f"a {colour} square" for colour in COLOURS],
        "positive": [{"image": str(data / f"{colour}.png")} for colour in COLOURS],
    }
    rows["query"][5] = ""
    features = Features({"query": Value("string"), "positive": {"image": DatasetImage(decode=decode)}})
    Dataset.from_dict(rows, features).save_to_disk(tmp_path / "saved")
    settings = ["data.files=[]", f"data.dataset={tmp_path / 'saved'}", "early_stopping=null", "pairs.held_out=0"]
    with pytest.raises(ValueError, match=r"^row 5: query is empty.*bad row 1, and max_bad_lines is 0"):
        PairsTask(recipe(data, released_model_dir, *settings))
    said: list[str] = []
    chosen = recipe(data, released_model_dir, *settings, "data.max_bad_lines=1")
    task = PairsTask(chosen, report=said.append)
    assert len(task.train_rows) == 11 and said[0].startswith("row 5: query is empty")
    assert not any(isinstance(row.positive["image"][0], Image.Image) for row in task.train_rows)
    assert "pixel_values" in task.batch(0, chosen.curriculum.at(0)).targets[0].prefix


def test_without_early_stopping_all_but_the_held_out_pairs_are_trained_on(data, released_model_dir):
    task = PairsTask(recipe(data, released_model_dir, "early_stopping=null"))
    assert task.validation == [] and len(task.train_rows) + len(task.held_out) == len(COLOURS) + 1


@pytest.mark.parametrize(("kind", "columns"), [("pandas", None), ("torch", ["positive"])])
def test_a_format_that_a_data_set_was_saved_with_changes_no_row(data, released_model_dir, tmp_path, kind, columns):
    rows = [{"query": f"a {colour} square", "positive": {"image": f"{colour}.png"}} for colour in COLOURS]
    Dataset.from_list(rows).with_format(kind, columns).save_to_disk(tmp_path / "saved")
    settings = [f"data.dataset={tmp_path / 'saved'}", f"data.media_root={data}"]
    task = PairsTask(recipe(data, released_model_dir, "data.files=[]", *settings))
    parts = (*task.train_rows, *task.validation, *task.held_out)
    assert {row.query["text"]: row.positive for row in parts} == {
        row["query"]: {"image": [data / row["positive"]["image"]]} for row in rows
    }


def test_a_batch_is_a_function_of_seed_and_step_and_holds_the_given_negatives(data, released_model_dir):
    chosen = recipe(data, released_model_dir)
    one, two = (PairsTask(chosen).batch(3, chosen.curriculum.at(3)) for _ in range(2))
    assert torch.equal(one.targets[0].prefix["input_ids"], two.targets[0].prefix["input_ids"])
    assert one.num_latent_steps == 2 and one.queries[0].suffix_ids is not None
    there = one.negatives >= 0
    assert torch.equal(one.negatives[there], torch.arange(4, 4 + there.sum()))
    assert len(one.targets[0]) == 4 + there.sum()


def test_sampled_steps_draw_k_anew_and_zero_is_a_single_pass(data, released_model_dir):
    chosen = recipe(data, released_model_dir, "pairs.sampled_steps=[0,1,3]", "curriculum.max_steps=30")
    task = PairsTask(chosen)
    drawn = [task.batch(step, chosen.curriculum.at(step)) for step in range(12)]
    assert {batch.num_latent_steps for batch in drawn} == {0, 1, 3}
    assert all((batch.queries[0].suffix_ids is None) == (batch.num_latent_steps == 0) for batch in drawn)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.path=null", "give its folder with --set model.path"),
        ("curriculum.stages=[0,4]", "only the last stage"),
        ("data.files=[]", "come from data.files or data.dataset"),
        (
            "batch_size=64",
            r"^13 pairs: 3 held out, 1 for early stopping, 9 to train on; lower batch_size \(now 64\), or bring more\.",
        ),
        ("pairs.held_out=1.5", "must lie in"),
        ("pairs.validation=0", "chooses by pairs.validation"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_remedy(data, released_model_dir, setting, message):
    with pytest.raises(ValueError, match=message):
        PairsTask(recipe(data, released_model_dir, setting))


def test_a_pool_in_which_a_hit_says_nothing_is_reported(data, released_model_dir, tmp_path):
    said = []
    PairsTask(recipe(data, released_model_dir), report=said.append)
    assert said[0] == "13 pairs: 9 to train on, 3 held out, 1 for early stopping." and len(said) == 2
    assert "candidates: among so few, Hit@1 says next to nothing. Raise pairs.held_out" in said[1]
    write(tmp_path, [{"query": f"q {number}", "positive": f"p {number}"} for number in range(100)])
    said.clear()
    PairsTask(recipe(tmp_path, released_model_dir), report=said.append)
    assert said == ["100 pairs: 72 to train on, 20 held out, 8 for early stopping."]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("pairs.truncate=[16,999]", r"pairs\.truncate must lie in 1\.\.63, .* got 999"),
        ("pairs.truncate=[64]", r"pairs\.truncate must lie in 1\.\.63"),
        ("loss.dimensions=[999]", r"loss\.dimensions must lie in 1\.\.63"),
        ("curriculum.num_latent_steps=99", r"curriculum\.num_latent_steps must lie in 0\.\.32, .* got 99"),
        ("pairs.sampled_steps=[2,99]", r"pairs\.sampled_steps must lie in 0\.\.32"),
    ],
)
def test_settings_beyond_the_model_are_refused_before_anything_is_evaluated(
    data, released_model_dir, setting, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(PairsTask, "evaluate", lambda *arguments: pytest.fail("evaluated"))
    with pytest.raises(ValueError, match=message):
        run(recipe(data, released_model_dir, setting, f"output_dir={tmp_path}"))
    assert not (tmp_path / "recipe.json").exists()


def test_a_dimension_that_is_too_large_is_refused_after_one_item(data, released_model_dir):
    embedder, asked = PlumeEmbedder(released_model_dir), []
    whole = embedder.embed
    embedder.embed = lambda inputs, batch_size: asked.extend(inputs) or whole(inputs, batch_size)
    pool = PairPool.of(read_pairs([data / "pairs.jsonl"]))
    check_truncation(embedder, pool, [16, 63])
    with pytest.raises(ValueError, match=r"--truncate must lie in 1\.\.63 for .*, got 999"):
        check_truncation(embedder, pool, [16, 999])
    assert len(asked) == 2


def test_pages_are_trained_on_and_evaluated_as_an_index_embeds_them(data, released_model_dir, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(released_model_dir, model)
    settings = json.loads((model / "processor_config.json").read_text()) | {"page_words": 3}
    (model / "processor_config.json").write_text(json.dumps(settings))
    document = {"page": f"{DOCUMENTS / 'garden.pdf'}#page=1"}
    write(tmp_path, [{"query": f"flower {n}", "positive": document, "negatives": ["a stone"]} for n in range(6)])
    pages = shutil.copytree(DOCUMENTS, tmp_path / "documents")
    update_index(pages, tmp_path / "index", Encoder(model))
    indexed = open_index(pages, tmp_path / "index", Encoder(model)).rows()
    page = next(row for row in indexed if (row.path, row.locator) == ("garden.pdf", "page=1"))

    pool = PairPool.of(read_pairs([tmp_path / "pairs.jsonl"]))
    _, (evaluated, _) = pool.embedded(*[embed_with(PlumeEmbedder(model), 8)] * 2)
    chosen = recipe(data, model, f"data.files=[{tmp_path / 'pairs.jsonl'}]", "early_stopping=null", "pairs.held_out=0")
    task = PairsTask(chosen)
    sampled = Encoder(model).encode([task.samples(1)[0].target])[0]
    for vector in (evaluated, sampled):
        assert np.abs(vector - page.vector).max() < 1e-5
    trained = task.batch(0, chosen.curriculum.at(0)).targets[0].prefix["input_ids"][0]
    assert " ".join(page.snippet.split()[:3]) in task.processor.tokenizer.decode(trained)


@pytest.mark.parametrize("instruction", ["", "Find a duplicate:"])
@pytest.mark.parametrize(
    ("rows", "angles"),
    [
        (["ab", "ba", "cd", "dc"], {"a": 0, "b": 0.1, "c": 0.5, "d": 0.6}),  # mirrored
        (["ab", "bc", "cd"], {"a": 0, "b": 0.3, "c": 0.5, "d": 0.6}),  # a chain
    ],
)
def test_a_querys_own_item_in_the_pool_does_not_compete_with_its_positive(rows, angles, instruction):
    given = [{"query": query, "positive": positive, "instruction": instruction} for query, positive in rows]
    pool = PairPool.of([parse_row(row, Path(), "row") for row in given])

    def embed(items, where):  # nearest to each query, besides itself, is its positive
        found = [angles[item["text"].splitlines()[-1]] for item in items]
        return np.stack([np.cos(found), np.sin(found)], axis=1).astype(np.float32)

    found = mean_scores(pool.scores(*pool.embedded(embed, embed)))
    assert found["hit_at_1"] == found["ndcg_at_10"] == 1


def test_a_query_that_is_its_own_answer_is_found_first():
    rows = [PairRow({"text": name}, {"text": name}, (), name) for name in ("a", "b")]
    found = PairPool.of(rows).scores(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    assert found["hit_at_1"] == [1, 1]


@pytest.mark.parametrize("value", [np.nan, 0])
def test_vectors_that_cannot_be_ranked_are_refused(value):
    pool = PairPool.of([PairRow({"text": "a"}, {"text": "b"}, (), "a"), PairRow({"text": "c"}, {"text": "d"}, (), "c")])
    with pytest.raises(ValueError, match="embedding of candidate 0 is NaN or infinite"):
        pool.scores(np.eye(2, dtype=np.float32), np.full((2, 2), value, dtype=np.float32))


def test_a_model_that_maps_everything_to_one_point_finds_nothing_first():
    pool = PairPool.of([PairRow({"text": f"q{n}"}, {"text": f"p{n}"}, (), str(n)) for n in range(4)])
    assert pool.scores(*[np.ones((4, 2), dtype=np.float32)] * 2)["hit_at_1"] == [0] * 4


# Losses


def outputs(rows: torch.Tensor) -> SideOutput:
    rows = F.normalize(rows, dim=-1)
    return SideOutput(rows, rows, torch.zeros(len(rows)), None)


def batch_of(
    count: int, negatives: list[list[int]], keys: list[int], negative_keys: list[list[int]], **more
) -> TrainingBatch:
    return TrainingBatch(
        [],
        [],
        torch.arange(count),
        torch.tensor(keys),
        1,
        negatives=torch.tensor(negatives),
        negative_keys=torch.tensor(negative_keys),
        **more,
    )


def by_hand(queries, pool, positives, ignored, temperature=0.05) -> float:
    """Both directions, term by term, as the docstring of `info_nce` says."""
    q, t = (F.normalize(rows, dim=-1) for rows in (queries, pool))
    logits = (q @ t.T / temperature).tolist()

    def one_way(row, positive, skipped):
        negative = [x for x, p, s in zip(row, positive, skipped, strict=True) if not p and not s]
        losses = [
            -(torch.tensor(x) - torch.tensor([x, *negative]).logsumexp(0))
            for x, p in zip(row, positive, strict=True)
            if p
        ]
        return sum(losses) / len(losses)

    rows = [one_way(*r) for r in zip(logits, positives.tolist(), ignored.tolist(), strict=True)]
    columns = zip(zip(*logits, strict=True), positives.T.tolist(), ignored.T.tolist(), strict=True)
    columns = [one_way(row, positive, skipped) for row, positive, skipped in columns if any(positive)]
    return float((sum(rows) / len(rows) + sum(columns) / len(columns)) / 2)


def test_given_negatives_count_and_what_is_not_there_does_not():
    torch.manual_seed(0)
    queries, targets = torch.randn(3, 8), torch.randn(5, 8)
    batch = batch_of(3, [[3], [-1], [4]], [1, 2, 3], [[7], [0], [1]])  # the last negative equals the first positive
    _, terms = batch_losses(outputs(queries), outputs(targets), batch, LossWeights(temperature=0.05))
    pool = targets[[0, 1, 2, 3, 0, 4]]
    positives = torch.tensor([[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]], dtype=torch.bool)
    ignored = torch.zeros(3, 6, dtype=torch.bool)
    ignored[:, 4] = True
    assert terms["nce_gen"].item() == pytest.approx(by_hand(queries, pool, positives, ignored), rel=1e-5)


def test_a_target_that_equals_the_query_or_is_nearer_than_its_positive_is_no_negative():
    torch.manual_seed(1)
    queries, targets = torch.randn(4, 8), torch.randn(4, 8)
    targets[2] = queries[0] + 0.01 * torch.randn(8)
    keys, query_keys = torch.tensor([1, 2, 3, 4]), torch.tensor([9, 4, 8, 7])
    batch = TrainingBatch([], [], torch.arange(4), keys, 1, query_keys=query_keys)
    weights = LossWeights(temperature=0.05, false_negative_margin=0.1)
    _, terms = batch_losses(outputs(queries), outputs(targets), batch, weights)
    cosines = F.normalize(queries, dim=-1) @ F.normalize(targets, dim=-1).T
    ignored = cosines > cosines.diagonal().unsqueeze(1) + 0.1
    assert ignored[0, 2]
    ignored[1, 3] = True
    assert terms["nce_gen"].item() == pytest.approx(
        by_hand(queries, targets, torch.eye(4, dtype=torch.bool), ignored), rel=1e-5
    )


def test_false_negatives_are_the_same_in_mixed_precision():
    torch.manual_seed(0)
    queries, targets = torch.randn(64, 32), torch.randn(64, 32)
    batch = TrainingBatch([], [], torch.arange(64), torch.arange(64), 1, query_keys=torch.arange(64) + 64)
    weights = LossWeights(temperature=0.05, false_negative_margin=0.1)
    _, exact = batch_losses(outputs(queries), outputs(targets), batch, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, mixed = batch_losses(outputs(queries), outputs(targets), batch, weights)
    assert mixed["nce_gen"].item() == exact["nce_gen"].item()


def test_all_positives_of_a_query_count_for_every_row_that_asks_it():
    torch.manual_seed(3)
    queries, targets = torch.randn(3, 8), torch.randn(4, 8)
    queries[1] = queries[0]
    batch = batch_of(3, [[-1], [-1], [3]], [1, 2, 3], [[0], [0], [2]], question_keys=torch.tensor([7, 7, 8]))
    _, terms = batch_losses(outputs(queries), outputs(targets), batch, LossWeights(temperature=0.05))
    pool = targets[[0, 1, 2, 0, 0, 3]]  # the third row's given negative equals the second's positive
    positives = torch.tensor([[1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]], dtype=torch.bool)
    ignored = torch.zeros(3, 6, dtype=torch.bool)
    ignored[:, 3:5] = True
    assert terms["nce_gen"].item() == pytest.approx(by_hand(queries, pool, positives, ignored), rel=1e-5)


def test_matryoshka_is_the_mean_over_the_dimensions_and_too_many_are_refused():
    torch.manual_seed(2)
    queries, targets, eye = torch.randn(4, 8), torch.randn(4, 8), torch.eye(4, dtype=torch.bool)
    batch = TrainingBatch([], [], torch.arange(4), torch.arange(4), 1)
    _, terms = batch_losses(outputs(queries), outputs(targets), batch, LossWeights(temperature=0.05, dimensions=(2, 4)))
    each = [info_nce(*(F.normalize(r[:, :size], dim=-1) for r in (queries, targets)), eye, 0.05) for size in (8, 2, 4)]
    assert terms["nce_gen"].item() == pytest.approx(float(sum(each) / 3), rel=1e-5)
    with pytest.raises(ValueError, match=r"loss.dimensions must lie in 1..7, got 8"):
        batch_losses(outputs(queries), outputs(targets), batch, LossWeights(dimensions=(8,)))


def test_a_row_whose_every_other_target_is_ignored_has_a_finite_gradient():
    queries = torch.randn(2, 8, requires_grad=True)
    ignored = torch.tensor([[False, True], [True, False]])
    loss = info_nce(
        F.normalize(queries, dim=-1),
        F.normalize(torch.randn(2, 8), dim=-1),
        torch.eye(2, dtype=torch.bool),
        0.05,
        ignored,
    )
    loss.backward()
    assert torch.isfinite(queries.grad).all() and loss.item() == pytest.approx(0, abs=1e-6)


# Runs


def test_a_run_evaluates_before_and_after_and_early_stopping_chooses_by_other_pairs(data, released_model_dir, tmp_path):
    out = tmp_path / "run"
    chosen = recipe(
        data,
        released_model_dir,
        f"output_dir={out}",
        "curriculum.max_steps=20",
        "early_stopping.patience=1",
        "pairs.truncate=[16]",
        "pairs.sampled_steps=[2,0]",
    )
    results = run(chosen)
    evaluations = read_log(out, having="evaluation")
    scores = [entry["evaluation"]["ndcg_at_10"] for entry in evaluations]
    best = max(range(len(scores)), key=lambda n: (scores[n], -n))
    task, kept = PairsTask(chosen), PlumeModel.from_pretrained(out / "model")
    assert task.validate(kept)["ndcg_at_10"] == pytest.approx(scores[best], abs=1e-6)
    assert task.evaluate(kept)["ndcg_at_10"] == pytest.approx(results["ndcg_at_10"], abs=1e-6)
    assert evaluations[0]["evaluation"].keys() >= {"ndcg_at_10"} and results["queries"] == len(task.held_out)
    assert len(scores) == best + 2 or evaluations[-1]["step"] == 20
    assert results["before"]["queries"] == results["queries"] >= 3
    assert set(results["variants"]) == {"K=0", "K=2, 16 dimensions"}


def test_lora_leaves_an_ordinary_model_that_scores_as_the_run_says(data, released_model_dir, tmp_path):
    rows = (data / "pairs.jsonl").read_text().splitlines()
    (data / "held.jsonl").write_text("\n".join(rows[:4]) + "\n")
    out = tmp_path / "run"
    settings = ["lora.rank=2", "curriculum.max_steps=2", f"pairs.held_out_files=[{data / 'held.jsonl'}]"]
    results = run(recipe(data, released_model_dir, f"output_dir={out}", *settings))
    assert results["queries"] == 4 and (out / "model" / "adapter_config.json").is_file()
    pool = PairPool.of(read_pairs([out / "held_out.jsonl"]))
    embed = embed_with(PlumeEmbedder(out / "merged", num_latent_steps=2), 8)
    scores = mean_scores(pool.scores(*pool.embedded(embed, embed)))
    assert scores == pytest.approx({name: results[name] for name in scores})
    assert Encoder(out / "merged").fingerprint != Encoder(released_model_dir).fingerprint


def test_a_run_that_was_killed_resumes_to_the_same_weights_and_keeps_its_before(data, released_model_dir, tmp_path):
    settings = ["curriculum.max_steps=6", "early_stopping.patience=9", "chunk_size=2"]
    whole = run(recipe(data, released_model_dir, f"output_dir={tmp_path / 'whole'}", *settings))
    killed = recipe(data, released_model_dir, f"output_dir={tmp_path / 'killed'}", *settings)
    run(killed, stop_after=4)
    resumed = run(killed, resume=True)
    assert resumed["before"] == whole["before"] and resumed["ndcg_at_10"] == whole["ndcg_at_10"]
    logs = [[e["loss"] for e in read_log(tmp_path / name, having="loss")] for name in ("whole", "killed")]
    assert logs[0] == logs[1]


def test_a_resumed_run_goes_on_counting_how_long_nothing_became_better(data, released_model_dir, tmp_path):
    """With a rate of zero nothing ever does: three evaluations behind the first one end the run."""
    still = ["curriculum.learning_rates=[0,0,0,0,0]", "curriculum.max_steps=20", "early_stopping.patience=3"]
    chosen = recipe(data, released_model_dir, f"output_dir={tmp_path}", *still, "early_stopping.every=1")
    run(chosen, stop_after=3)
    run(chosen, resume=True)
    assert [entry["step"] for entry in read_log(tmp_path, having="evaluation")] == [1, 2, 3, 4]


def test_a_run_killed_behind_its_early_stop_resumes_without_another_step(data, released_model_dir, tmp_path):
    settings = ["curriculum.max_steps=20", "early_stopping.patience=1", "early_stopping.every=1"]
    settings.append("curriculum.learning_rates=[0.01,0.01,0.01,0.01,0.01]")
    chosen = recipe(data, released_model_dir, f"output_dir={tmp_path}", *settings)
    whole = run(chosen)
    log, saved = read_log(tmp_path), (tmp_path / "model" / "model.safetensors").read_bytes()
    assert log[-1]["step"] < 20
    (tmp_path / "results.json").unlink()
    shutil.rmtree(tmp_path / "model")
    resumed = run(chosen, resume=True)
    assert read_log(tmp_path) == log
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == saved
    assert resumed["ndcg_at_10"] == whole["ndcg_at_10"]


def test_scores_of_a_run_that_never_made_a_step_are_not_taken_over(data, released_model_dir, tmp_path):
    (tmp_path / "before.json").write_text('{"hit_at_1": 0.99, "queries": 7, "pool": 9, "variants": {}}')
    results = run(recipe(data, released_model_dir, f"output_dir={tmp_path}", "curriculum.max_steps=1"))
    assert results["before"]["queries"] == results["queries"] != 7


def test_results_say_by_a_digest_which_files_a_run_began_with(data, released_model_dir, tmp_path):
    results = run(recipe(data, released_model_dir, f"output_dir={tmp_path}", "curriculum.max_steps=1"))
    assert results["began_with"] == fingerprint(released_model_dir)


def test_early_stopping_is_refused_for_a_task_that_keeps_nothing_to_choose_by():
    with pytest.raises(ValueError, match=r"early_stopping is for task: pairs.*hops.*set it to null"):
        load_recipe(HOPS, ["early_stopping.metric=hit_at_1"])
