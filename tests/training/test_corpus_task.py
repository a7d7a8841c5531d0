"""A corpus as a task: what is no negative of what, and what diagnostics see of it."""

import json
from pathlib import Path

import torch
from datasets import Dataset
from small_files import write_picture

from plume_embed.training.data.corpus_task import CorpusTask
from plume_embed.training.loss.batch_loss import _Pool
from plume_embed.training.recipe import load_recipe


def side(text: str, image: object = None) -> dict:
    reply = "<think>It is a thing. It is it.</think><answer>x</answer>"
    human = f"<image>\n{text}" if image else text
    turns = [{"from": "human", "value": human}, {"from": "gpt", "value": reply}]
    return {"conversations": turns, "image": [image] if image else None}


def task_of(model: Path, *settings: str) -> CorpusTask:
    return CorpusTask(load_recipe("paper_2b", [f"model.path={model}", "workers=0", *settings]))


def rows_of(pairs: list[tuple[dict, dict]]) -> list[dict]:
    return [{"qry": query, "pos": target, "dataset_name": "a"} for query, target in pairs]


def test_two_targets_of_one_query_and_its_own_text_are_no_negatives(released_model_dir, tmp_path):
    pairs = [("q", "a"), ("q", "b"), ("z", "q"), ("y", "c")]
    lines = rows_of([(side(query), side(target)) for query, target in pairs])
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    task = task_of(released_model_dir, f"data.files=[{tmp_path / 'pairs.jsonl'}]", "batch_size=4", "chunk_size=4")
    pool = _Pool(task.batch(0, task.curriculum.at(0)))
    order = [task.corpus[index].target.item["text"] for index in task.batches[0]]
    places = torch.tensor([order.index(name) for name in "abqc"])
    positives = torch.eye(4, dtype=torch.bool)
    positives[:2, :2] = True
    assert torch.equal(pool.positives[places][:, places], positives)
    own = torch.zeros(4, 4, dtype=torch.bool)
    own[:2, 2] = True
    assert pool.ignored is not None and torch.equal(pool.ignored[places][:, places], own)


def test_a_data_set_of_undecoded_pictures_trains_on_either_side(released_model_dir, tmp_path):
    pictures = []
    for seed in range(4):
        write_picture(tmp_path / f"{seed}.png", seed=seed)
        pictures.append({"bytes": (tmp_path / f"{seed}.png").read_bytes(), "path": None})
    pairs = [(side("what?", picture), side(f"target {n}", picture)) for n, picture in enumerate(pictures)]
    Dataset.from_list(rows_of(pairs)).save_to_disk(tmp_path / "saved")
    task = task_of(released_model_dir, f"data.dataset={tmp_path / 'saved'}", "batch_size=4", "chunk_size=4")
    batch = task.batch(0, task.curriculum.at(0))
    assert all("pixel_values" in chunk.prefix for chunk in (*batch.queries, *batch.targets))
    assert len(set(batch.query_keys.tolist())) == len(set(batch.target_keys.tolist())) == 4


def test_samples_are_spread_over_the_whole_corpus(released_model_dir, tmp_path):
    lines = rows_of([(side(f"query {number}"), side(f"target {number}")) for number in range(19)])
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    task = task_of(released_model_dir, f"data.files=[{tmp_path / 'pairs.jsonl'}]", "batch_size=4", "chunk_size=4")
    numbers = [int(sample.query["text"].split()[1]) for sample in task.samples(10)]
    assert numbers == [0, 1, 3, 5, 7, 9, 11, 13, 15, 17]
    assert len(task.samples(99)) == 19
