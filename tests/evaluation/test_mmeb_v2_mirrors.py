"""Facts about local mirrors of the data sets, and about the names that the released engine gives to candidates."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmeb_v2_data import task_named, write_frames

from plume_embed.evaluation.distributed import Ranks
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.run import Settings, evaluate

CLIPS = ("query", "positive", "negative_0", "negative_1")
MOMENT = {"query": "a goal", "video_path": "vid.mp4"}


def rows_of(name: str, root: Path, table: str = "") -> list[dict]:
    return Rows(task_named(name), "fixed", root / "hub", root, root / "cache").table(table).to_list()


def write_lines(root: Path, path: str, rows: list[dict]) -> None:
    file = root / "hub" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize(
    "path", ["momentseeker.jsonl", "data/rows.jsonl", "anything/at/all.json", "train-00000-of-00001.jsonl"]
)
@pytest.mark.parametrize("readme", [None, "---\nlicense: mit\n---\n# Moments"])
def test_the_only_data_file_of_a_mirror_is_read_whatever_it_is_called(tmp_path, path, readme):
    clip = {"output_path": "a/0.mp4"}
    row = {"query": "a goal", "positive_frames": [clip], "negative_frames": [clip], "input_frames": ""}
    write_lines(tmp_path, f"VLM2Vec/MomentSeeker/{path}", [row])
    if readme is not None:
        (tmp_path / "hub/VLM2Vec/MomentSeeker/README.md").write_text(readme)
    (found,) = rows_of("MomentSeeker", tmp_path)
    assert found["query"] == "a goal"


def test_the_only_configuration_of_a_data_set_is_read_from_its_only_file(tmp_path):
    row = {"video_idx": "v", "question": "q", "answer": "0", "question_idx": "1", "option": ["A. a", "B. b"]}
    write_lines(tmp_path, "VLM2Vec/EgoSchema/egoschema.jsonl", [row])
    assert rows_of("EgoSchema", tmp_path)[0]["question"] == "q"


def test_the_numbered_parts_of_one_file_are_one_table(tmp_path):
    for part in range(2):
        write_lines(tmp_path, f"VLM2Vec/QVHighlight/rows-0000{part}-of-00002.jsonl", [MOMENT | {"query": f"{part}"}])
    assert [row["query"] for row in rows_of("QVHighlight", tmp_path)] == ["0", "1"]


def test_another_task_of_the_same_data_set_is_never_read_in_its_place(tmp_path):
    row = {"qry_inst": "Name it", "qry_text": "", "qry_img_path": "a.jpg", "tgt_text": ["cat"]}
    write_lines(tmp_path, "ziyjiang/MMEB_Test_Instruct/ImageNet-1K.jsonl", [row])
    with pytest.raises(ValueError, match=r"under VOC2007/test\*.*; it holds ImageNet-1K.jsonl$"):
        rows_of("VOC2007", tmp_path)
    write_lines(tmp_path, "vidore/docvqa_test_subsampled_beir/queries.jsonl", [{"query-id": 0, "query": "q"}])
    with pytest.raises(ValueError, match=r"corpus.*; it holds queries.jsonl$"):
        rows_of("ViDoRe_docvqa", tmp_path, "corpus")


def test_the_error_names_what_the_mirror_holds(tmp_path):
    for name in ("first.jsonl", "second.jsonl"):
        write_lines(tmp_path, f"VLM2Vec/QVHighlight/{name}", [MOMENT])
    with pytest.raises(ValueError, match=r"no parquet or JSON files .* under test\*.*; it holds first.jsonl, second"):
        rows_of("QVHighlight", tmp_path)
    shutil.rmtree(tmp_path / "hub/VLM2Vec/QVHighlight")
    (tmp_path / "hub/VLM2Vec/QVHighlight").mkdir()
    with pytest.raises(ValueError, match="it holds no files"):
        rows_of("QVHighlight", tmp_path)


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("QVHighlight", "video-tasks/frames/video_mret/QVHighlight"),
        ("Charades-STA", "video-tasks/frames/video_mret/Charades_STA"),
        ("Charades-STA", "video-tasks/frames/video_mret/Charades-STA"),
        ("MomentSeeker", "video-tasks/frames/video_mret/MomentSeeker"),
    ],
)
@pytest.mark.parametrize("before", ["", "/data/MMEB-V2/", "../MMEB-V2/"])
def test_embeddings_of_the_released_engine_for_moments_of_a_video_are_scored(tmp_path, name, root, before):
    """Its keys are the media folder of its machine, the frame root of its layout, and the clip's folder."""
    if name == "MomentSeeker":
        clips = [f"video_frames/{number}" for number in range(3)]
        entries = [{"output_path": f"{number}.mp4"} for number in range(3)]
        row = {"query": "q", "positive_frames": entries[:1], "negative_frames": entries[1:], "input_frames": ""}
    else:
        clips, row = [f"vid/{clip}" for clip in ("positive", "negative_0", "negative_1")], MOMENT
        for clip in CLIPS:
            write_frames(tmp_path / root / "vid" / clip)
    write_lines(tmp_path, f"VLM2Vec/{name}/rows.jsonl", [row])
    stored = tmp_path / "stored"
    stored.mkdir()
    keys = [f"{before}{root}/{clip}" for clip in reversed(clips)]  # the order of a folder's listing is nobody's
    (stored / f"{name}_cand_keys.json").write_text(json.dumps(keys))
    vectors = np.eye(3, dtype=np.float32)
    np.savez(stored / f"{name}.npz", qry=vectors[2:], cand=vectors)
    (outcome,) = evaluate(
        [task_named(name)],
        Settings("fixed", tmp_path, tmp_path / "out", tmp_path / "hub", stored, cache_dir=tmp_path / "cache"),
        None,
        Ranks(),
    )
    assert outcome.failure is None and outcome.scores is not None and outcome.scores["hit@1"] == 1.0


def test_embeddings_of_other_clips_are_another_pool(tmp_path):
    for clip in CLIPS:
        write_frames(tmp_path / "video-tasks/frames/video_mret/QVHighlight/vid" / clip)
    write_lines(tmp_path, "VLM2Vec/QVHighlight/rows.jsonl", [MOMENT])
    keys = [f"video-tasks/frames/video_mret/QVHighlight/other/{clip}" for clip in CLIPS[1:]]
    (tmp_path / "QVHighlight_cand_keys.json").write_text(json.dumps(keys))
    np.savez(tmp_path / "QVHighlight.npz", qry=np.eye(3)[2:], cand=np.eye(3))
    settings = Settings("fixed", tmp_path, tmp_path / "out", tmp_path / "hub", tmp_path, cache_dir=tmp_path / "cache")
    (outcome,) = evaluate([task_named("QVHighlight")], settings, None, Ranks())
    assert outcome.failure is not None and "is of another pool: 3 of the task's candidates" in outcome.failure
