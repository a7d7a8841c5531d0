"""The video parsers: classification, question answering, retrieval, moments of a video.

A query about a video is written `VIDEO instruction text`; the questions have two blanks before the question, because
their instruction ends in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plume_embed.evaluation.mmeb_v2.items import IMAGE, VIDEO, Candidate, Item, Query
from plume_embed.evaluation.mmeb_v2.media import Media
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant, video_labels

Parsed = tuple[Iterator[Query], list[Candidate]]

SSV2_ROWS = 1000
YES_NO = ("yes", "no")
MVBENCH_SUBSETS = (
    "episodic_reasoning",
    "action_sequence",
    "action_prediction",
    "action_antonym",
    "fine_grained_action",
    "unexpected_action",
    "object_existence",
    "object_interaction",
    "object_shuffle",
    "moving_direction",
    "action_localization",
    "scene_transition",
    "action_count",
    "moving_count",
    "moving_attribute",
    "state_change",
    "fine_grained_pose",
    "character_order",
    "egocentric_navigation",
    "counterfactual_inference",
)


def parse_classification(task: Task, variant: Variant, rows: Rows, media: Media) -> Parsed:
    """video_classification: the labels of the rows, then those of the data set that no row has."""

    def queries() -> Iterator[Query]:
        for row in rows.table():
            label = row["pos_text"]
            query = _video(task.instruction(variant), "", row["video_id"], task, media)
            yield Query(query, (_text(label),), (label,))

    return queries(), [_text(label) for label in video_labels()[task.dataset_name]]


def parse_ssv2(task: Task, variant: Variant, rows: Rows, media: Media) -> Parsed:
    """ssv2: the candidates are the row's list, which holds the label too; the first thousand rows."""

    def queries() -> Iterator[Query]:
        table = rows.table()
        for number, row in enumerate(table.select(range(min(SSV2_ROWS, len(table))))):
            candidates = tuple(_text(text) for text in row["neg_text"] or ())
            query = _video(task.instruction(variant), "", row["video_id"], task, media)
            yield _checked(number, Query(query, candidates, (row["pos_text"],)))

    return queries(), []


def parse_question(task: Task, variant: Variant, rows: Rows, media: Media) -> Parsed:
    """mvbench, videomme, nextqa, egoschema, activitynetqa: a video and a question; the candidates are its answers."""
    reader = _READERS[task.parser]
    tables = rows.tables(MVBENCH_SUBSETS) if task.parser == "mvbench" else [("", rows.table())]

    def queries() -> Iterator[Query]:
        for subset, table in tables:
            for number, row in enumerate(table):
                frames, question, candidates, label = reader(subset, row)
                query = _video(f"{task.instruction(variant)} {question}", "", frames, task, media)
                yield _checked(number, Query(query, tuple(candidates), (label,)), subset)

    return queries(), []


def parse_retrieval(task: Task, variant: Variant, rows: Rows, media: Media) -> Parsed:
    """didemo, msrvtt, msvd, vatex, youcook2: a caption; the candidates are the videos of all rows."""
    video_of, caption_of = _RETRIEVAL[task.parser]

    def queries() -> Iterator[Query]:
        for row in rows.table():
            name, caption = video_of(row), caption_of(row)
            candidate = _video(task.target_instruction(variant), "", name, task, media)
            yield Query(Item(_joined(task.instruction(variant), caption)), (Candidate(name, candidate),), (name,))

    return queries(), []


def parse_moments(task: Task, variant: Variant, rows: Rows, media: Media) -> Parsed:
    """moment_retrieval: a video and a sentence; the candidates are the clips beside the video's folder "query".

    The key is the clip's folder with the frame root before it. The correct clip is the folder whose name starts with
    "positive"; where there are several, the last.
    """

    def queries() -> Iterator[Query]:
        for number, row in enumerate(rows.table()):
            video = Path(row["video_path"]).stem
            clips = [f"{video}/{name}" for name in media.subfolders(video) if name != "query"]
            keys = [f"{task.frame_root(variant)}/{clip}" for clip in clips]
            candidates = tuple(
                Candidate(key, _video(task.target_instruction(variant), "", clip, task, media))
                for key, clip in zip(keys, clips, strict=True)
            )
            positives = [key for key in keys if key.split("/")[-1].startswith("positive")]
            query = _video(task.instruction(variant), row["query"], f"{video}/query", task, media)
            if clips and not positives:
                media.lacking(f"row {number}: no clip of {video} is named positive*")
            parsed = Query(query, candidates, tuple(positives[-1:]))
            yield _checked(number, parsed) if media.missing is None else parsed

    return queries(), []


def parse_momentseeker(task: Task, variant: Variant, rows: Rows, media: Media) -> Parsed:
    """momentseeker: a sentence with nothing, a picture or a clip; several of the row's clips may be correct.

    The key is the clip's folder with the frame root before it. All saved frames of a clip are used. The variant `plume`
    shows one frame of a clip where the row names one, and where the query's own medium is missing it shows the first
    correct clip's frame in its place: the answer leaks into the query, so its scores stand apart.
    """
    instructions = task.instruction(variant)
    as_released = variant == "plume"

    def key_of(entry: Mapping[str, Any]) -> str:
        return f"{task.frame_root(variant)}/{_clip_folder(entry['output_path'])}"

    def clip_frames(entry: Mapping[str, Any]) -> tuple[Path, ...]:
        if as_released and entry.get("frame_path"):
            return media.image(entry["frame_path"])
        return media.frames(_clip_folder(entry["output_path"]), None)

    def query_item(row: dict, positives: list[dict]) -> Item:
        medium = row["input_frames"] or ""
        if medium.endswith(".mp4"):
            kind, find = "video", lambda: media.frames(_clip_folder(medium), None)
        elif medium.endswith(".jpg"):
            kind, find = "image", lambda: media.image(f"query_{medium}")
        else:
            return Item(_joined(instructions["text"], row["query"]))
        try:
            found = find()
        except ValueError:
            leak = positives[0].get("frame_path") if as_released and positives else None
            if leak is None:
                raise
            found = media.image(leak)
        mark = VIDEO if kind == "video" else IMAGE
        return Item(f"{mark} {_joined(instructions[kind], row['query'])}", found, kind)

    def queries() -> Iterator[Query]:
        for number, row in enumerate(rows.table()):
            positives, negatives = list(row["positive_frames"] or ()), list(row["negative_frames"] or ())
            text = f"{VIDEO} {task.target_instruction(variant)}"
            candidates = tuple(
                Candidate(key_of(entry), Item(text, clip_frames(entry), "video")) for entry in positives + negatives
            )
            labels = tuple(dict.fromkeys(map(key_of, positives)))
            yield _checked(number, Query(query_item(row, positives), candidates, labels))

    return queries(), []


def _clip_folder(path: str) -> str:
    return f"video_frames/{path.replace('/', '_').split('.mp4')[0]}"


def _mvbench(subset: str, row: dict) -> tuple[str, str, Iterable[Candidate], str]:
    options = [f"({chr(ord('A') + index)}) {text}" for index, text in enumerate(row["candidates"] or ())]
    correct = [option for option, text in zip(options, row["candidates"] or (), strict=True) if text == row["answer"]]
    label = correct[-1] if correct else row["answer"]
    return f"{subset}/{row['video']}", _with_options(row["question"], options), map(_text, options), label


def _nextqa(subset: str, row: dict) -> tuple[str, str, Iterable[Candidate], str]:
    answers = [row[f"a{index}"] for index in range(5)]
    options = [f"({chr(ord('A') + index)}) {text}" for index, text in enumerate(answers)]
    label = _at(answers, int(row["answer"]))
    return str(row["video"]), _with_options(row["question"], options), map(_text, answers), label


def _videomme(subset: str, row: dict) -> tuple[str, str, Iterable[Candidate], str]:
    options = list(row["options"] or ())
    question = "\n".join([row["question"], *options])
    number = "ABCD".find(row["answer"]) if len(row["answer"]) == 1 else -1
    return row["videoID"], question, map(_lettered, options), _at(options, number)


def _egoschema(subset: str, row: dict) -> tuple[str, str, Iterable[Candidate], str]:
    options = list(row["option"] or ())
    return (
        row["video_idx"],
        row["question"] + " ".join(options),
        map(_lettered, options),
        _at(options, int(row["answer"])),
    )


def _activitynetqa(subset: str, row: dict) -> tuple[str, str, Iterable[Candidate], str]:
    return f"v_{row['video_name']}", f"{row['question']}? (A) yes; (B) no.", map(_text, YES_NO), row["answer"]


_READERS = {
    "mvbench": _mvbench,
    "videomme": _videomme,
    "nextqa": _nextqa,
    "egoschema": _egoschema,
    "activitynetqa": _activitynetqa,
}

# The video's name and the caption of a row.
_RETRIEVAL = {
    "didemo": (lambda row: Path(row["video"]).stem, lambda row: row["caption"]),
    "msrvtt": (lambda row: row["video_id"], lambda row: row["caption"]),
    "msvd": (lambda row: row["video_id"], lambda row: row["caption"][0]),
    "vatex": (lambda row: row["videoID"], lambda row: row["enCap"][0]),
    "youcook2": (lambda row: row["id"], lambda row: row["sentence"]),
}


def _with_options(question: str, options: list[str]) -> str:
    return "\n".join([question, "Options:", *options]).rstrip()


def _at(options: list[str], index: int) -> str:
    return options[index] if 0 <= index < len(options) else ""


def _lettered(option: str) -> Candidate:
    """`A. Apples.` is embedded as `Apples` and known by the whole string."""
    return Candidate(option, Item(option[max(option.find(". "), 0) :].strip(". ")))


def _text(text: str) -> Candidate:
    return Candidate(text, Item(text))


def _video(instruction: str | None, text: str, folder: Any, task: Task, media: Media) -> Item:
    frames = media.frames(str(folder), task.num_frames)
    return Item(f"{VIDEO} {_joined(instruction or '', text)}", frames, "video")


def _joined(instruction: str, text: str) -> str:
    return f"{instruction} {text}" if text else instruction


def _checked(number: int, query: Query, subset: str = "") -> Query:
    row = f"row {number}{f' of {subset}' if subset else ''}"
    if not query.candidates:
        raise ValueError(f"{row} has no candidates")
    if not query.labels:
        raise ValueError(f"{row} has no correct candidate")
    keys = {candidate.key for candidate in query.candidates}
    absent = [label for label in query.labels if label not in keys]
    if absent:
        raise ValueError(f"{row}: the correct answer {absent[0]!r} is not among its candidates")
    return query
