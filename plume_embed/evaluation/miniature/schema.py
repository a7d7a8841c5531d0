"""The files of the miniature benchmark: media, evaluation tasks and training pairs, as parquet that `datasets` reads.

Below the folder that `python -m evaluation.miniature.build` writes:

    STYLE-*.parquet                the stills, one row a picture (see `build.FEATURES`)
    media/GROUP-*.parquet          MEDIA: everything that was composed: scenes, crops, clips, films, windows, pages
    tasks/TASK.queries.parquet     QUERIES: what is asked, in which pool, what is correct
    tasks/TASK.candidates.parquet  SIDE: what can be found; a query's pool and positives number its rows
    train/SUBSET.parquet           PAIRS: what may be trained on, with rationales
    build.json                     versions, and by part what it wrote

A medium is named by an id: `STYLE/HEXCODE` for a still, `GROUP/...` for the rest. So a picture is stored once however
many queries, pools and pairs it is part of, and training reads the same files without importing this package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value

from plume_embed.stored import naming, read_json, read_rows

# The paper's nine families of tasks, in the order of the results table.
META_TASKS = ("I-CLS", "I-QA", "I-RET", "I-GD", "V-CLS", "V-QA", "V-RET", "V-MRET", "VisDoc")
# The metric that counts in the mean: as in MMEB-v2, Hit@1 for pictures and videos, NDCG@5 for documents.
METRICS = {task: "ndcg@5" if task == "VisDoc" else "hit@1" for task in META_TASKS}

SUMMARY = "build.json"  # what a build writes about itself, last of all
_REMEDY = "Run `make miniature` again."

_SIDE = {"text": Value("string"), "image": Value("string"), "video": Value("string")}
_TAUGHT = {**_SIDE, "rationale": Value("string"), "answer": Value("string")}

MEDIA = Features({"id": Value("string"), "frames": List(Image())})
SIDE = Features(_SIDE)
QUERIES = Features({**_SIDE, "pool": List(Value("int32")), "positives": List(Value("int32"))})
PAIRS = Features({"qry": _TAUGHT, "pos": _TAUGHT, "dataset_name": Value("string")})


@dataclass(frozen=True)
class Side:
    """One thing to embed: any combination of a text, one picture and one video; what is "" is not there.

    Attributes:
        text: As it stands; no prompt, no placeholder.
        image: Id of a medium of one frame.
        video: Id of a medium of several frames.
    """

    text: str = ""
    image: str = ""
    video: str = ""

    def __post_init__(self) -> None:
        if not (self.text or self.image or self.video):
            raise ValueError("a side needs a text, an image or a video.")


@dataclass(frozen=True)
class Query:
    """One query of an evaluation task.

    Attributes:
        side: What is embedded.
        positives: Numbers of all correct candidates; ascending, never empty, all within the pool.
        pool: Numbers of the candidates it is ranked against; empty: all of them.
    """

    side: Side
    positives: tuple[int, ...]
    pool: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    Attributes:
        name: `META/what`, e.g. `I-RET/text to picture`; META is one of META_TASKS.
        concepts: "known" (the family was in training) or "unseen" (it was held out). The stills and scenes that are
            tested are in a style that was not in training. Clips and films are in one that was: there is one moving
            style, the drawings of "fluent-3d" in motion.
        queries: Q queries.
        candidates: N candidates.
    """

    name: str
    concepts: str
    queries: tuple[Query, ...]
    candidates: tuple[Side, ...]

    @property
    def meta(self) -> str:
        """Its meta-task."""
        return self.name.partition("/")[0]

    def __post_init__(self) -> None:
        if self.meta not in META_TASKS:
            raise ValueError(f"task {self.name!r} starts with none of {', '.join(META_TASKS)}.")
        if not self.queries:
            raise ValueError(f"task {self.name!r} has no queries.")
        for number, query in enumerate(self.queries):
            pool = query.pool or range(len(self.candidates))
            if not query.positives:
                raise ValueError(f"task {self.name!r}: query {number} has no correct candidate.")
            if not set(query.positives) <= set(pool) or not set(pool) <= set(range(len(self.candidates))):
                raise ValueError(f"task {self.name!r}: query {number} names candidates outside its pool or the task.")


@dataclass(frozen=True)
class Taught:
    """One side of a training pair: what is embedded, and what the model learns to say about it.

    Attributes:
        side: What is embedded.
        rationale: Four to seven sentences; nothing that only the other side shows. "" for none.
        answer: The summary after the rationale; must not spell the target. "" for none.
    """

    side: Side
    rationale: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Pair:
    """One training pair; `subset` names the kind of pair, and batches are drawn from one subset at a time."""

    query: Taught
    target: Taught
    subset: str


@dataclass
class Built:
    """What one builder of tasks yields, before it is written.

    Attributes:
        media: Frames by id, each frame PNG or WebP bytes.
        tasks: Evaluation tasks.
        pairs: Training pairs.
        packages: The sha256 of each package that was read for it, by name and version; goes to `build.json`.
    """

    media: dict[str, list[bytes]] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)


def file_stem(task: Task) -> str:
    """`I-RET/text to picture`, known -> `I-RET-text-to-picture-known`."""
    return f"{task.name}-{task.concepts}".replace("/", "-").replace(" ", "-")


def write_tasks(tasks: Iterable[Task], out: Path) -> None:
    """Writes `tasks/*.parquet` below `out`."""
    (out / "tasks").mkdir(parents=True, exist_ok=True)
    for task in tasks:
        metadata = {"name": task.name, "concepts": task.concepts}
        queries = [
            {**asdict(query.side), "pool": list(query.pool), "positives": list(query.positives)}
            for query in task.queries
        ]
        stem = out / "tasks" / file_stem(task)
        Dataset.from_list([{**metadata, **row} for row in queries], features=_named(QUERIES)).to_parquet(
            f"{stem}.queries.parquet"
        )
        Dataset.from_list([asdict(side) for side in task.candidates], features=SIDE).to_parquet(
            f"{stem}.candidates.parquet"
        )


def digest_of(tasks: Sequence[Task]) -> str:
    """SHA-256 over queries, pools, positives and candidates: scores of two digests do not compare."""
    return hashlib.sha256(json.dumps([asdict(task) for task in tasks], sort_keys=True).encode()).hexdigest()


def read_tasks(data: Path) -> list[Task]:
    """All tasks below `data`, in the order of META_TASKS, then by name.

    Raises:
        FileNotFoundError: there are none, or one lacks its queries or candidates.
        ValueError: a file that is damaged or of an older build, or a build that was interrupted.
    """
    stems = sorted({file.name.split(".")[0] for file in (data / "tasks").glob("*.parquet")})
    if not stems:
        raise FileNotFoundError(f"{data / 'tasks'} holds no tasks: run `make miniature`.")
    if (data / SUMMARY).is_file():
        parts = read_json(data / SUMMARY, _REMEDY).get("parts", {})
        if {stem for part in parts.values() for stem in part["tasks"]} != {*stems}:
            raise ValueError(
                f"{data} lacks tasks or has others than {SUMMARY} names: its build has not ended. {_REMEDY}"
            )
    tasks = [_read_task(data / "tasks", stem) for stem in stems]
    return sorted(tasks, key=lambda task: (META_TASKS.index(task.meta), task.name, task.concepts))


def _read_task(folder: Path, stem: str) -> Task:
    asked, found = (folder / f"{stem}.{part}.parquet" for part in ("queries", "candidates"))
    for file in (asked, found):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing. {_REMEDY}")
    rows = read_rows(asked, _named(QUERIES).arrow_schema, _REMEDY)
    sides = read_rows(found, SIDE.arrow_schema, _REMEDY)
    with naming(found, _REMEDY):
        candidates = tuple(map(_side, sides))
    with naming(asked, _REMEDY):
        if not rows:
            raise ValueError("it has no rows")
        queries = tuple(Query(_side(row), tuple(row["positives"]), tuple(row["pool"])) for row in rows)
        return Task(rows[0]["name"], rows[0]["concepts"], queries, candidates)


def write_pairs(pairs: Iterable[Pair], out: Path) -> None:
    """Writes `train/SUBSET.parquet` below `out`."""
    (out / "train").mkdir(parents=True, exist_ok=True)
    by_subset: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_subset.setdefault(pair.subset, []).append(pair)
    for subset, members in by_subset.items():
        rows = [{"qry": _taught(p.query), "pos": _taught(p.target), "dataset_name": subset} for p in members]
        Dataset.from_list(rows, features=PAIRS).to_parquet(out / "train" / f"{subset}.parquet")


def write_media(media: dict[str, list[bytes]], out: Path, group: str, shard_rows: int = 4000) -> None:
    """Writes `media/GROUP-*.parquet` below `out`, replacing an earlier build's."""
    folder = out / "media"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{group}-*.parquet"):
        old.unlink()
    ids: Sequence[str] = sorted(media)
    shards = -(-len(ids) // shard_rows)
    for number in range(shards):
        part = ids[number * shard_rows : (number + 1) * shard_rows]
        rows = {"id": part, "frames": [[{"bytes": frame, "path": None} for frame in media[name]] for name in part]}
        Dataset.from_dict(rows, features=MEDIA).to_parquet(folder / f"{group}-{number:05d}-of-{shards:05d}.parquet")


def _named(features: Features) -> Features:
    return Features({"name": Value("string"), "concepts": Value("string"), **features})


def _side(row: dict) -> Side:
    return Side(row["text"], row["image"], row["video"])


def _taught(taught: Taught) -> dict[str, str]:
    return {**asdict(taught.side), "rationale": taught.rationale, "answer": taught.answer}
