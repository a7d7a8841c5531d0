"""Embeddings on disk: a cache by task and model that a killed run goes on from, and stored embeddings of any origin.

A finished task is `<task>.npz` (arrays qry and cand) with `<task>_cand_keys.json`; `--embeddings-dir` reads the same. A
task in progress is a folder of numbered parts. What a part holds depends on the task alone, never on the number of
processes: they take turns at whole parts, so one and four processes give the same vectors bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plume_embed.atomic import replacing, write_json
from plume_embed.evaluation.distributed import Ranks
from plume_embed.evaluation.embedders import Embedder, InputError
from plume_embed.evaluation.mmeb_v2.candidates import Pool
from plume_embed.evaluation.mmeb_v2.items import Item, Key
from plume_embed.evaluation.mmeb_v2.tasks import Task
from plume_embed.evaluation.similarity import unfit
from plume_embed.stored import naming, read_arrays, read_json

ITEMS_PER_PART = 256
# The parsers whose keys are paths with the media's root in them.
PATH_KEYS = ("moment_retrieval", "momentseeker")


@dataclass(frozen=True)
class Embeddings:
    """A task's vectors in the order of its pool.

    Attributes:
        queries: `[Q, D]`, float32, unit norm.
        candidates: `[N, D]`.
        ms_per_item: Mean time of embedding one item in one process, decoding included; None where it is not known.
            What a process embeds first is left out where there is more: it pays for starting up.
        batch_size: Most items in a pass when that was measured.
        num_cut: Rationales that were cut at the token limit; None for a model that writes none.
    """

    queries: NDArray[np.float32]
    candidates: NDArray[np.float32]
    ms_per_item: float | None = None
    batch_size: int | None = None
    num_cut: int | None = None


class EmbeddingCache:
    """The embeddings of one model in one benchmark version.

    Args:
        folder: Where they lie.
        media_dir: The media folder, so that the cache does not depend on where that stands.
        embedder: The model.
        ranks: The processes that share the work.
    """

    def __init__(self, folder: Path, media_dir: Path, embedder: Embedder, ranks: Ranks) -> None:
        self.folder, self.media_dir, self.embedder, self.ranks = folder, media_dir, embedder, ranks
        self._is_warm = False

    def get(self, pool: Pool, batch_size: int, on_progress: Callable[[int, int], None]) -> Embeddings:
        """A task's vectors: from the cache, or embedded by all processes together.

        Raises:
            ValueError: an input that cannot be embedded, or a vector that is not finite or not of unit norm, naming it.
        """
        name, items = pool.task.name, pool.items
        digest = self.ranks.together(lambda: digest_of(items, self.media_dir))
        record = self.folder / f"{name}.json"
        files = stored_files(self.folder, name)
        if not self.ranks.together(lambda: _is_finished(record, digest) and all(file.is_file() for file in files)):
            parts = self.folder / f"{name}.parts"
            self.ranks.together(lambda: self._prepare(parts, digest) if self.ranks.is_main else None)
            self.ranks.together(lambda: self._embed(pool, items, parts, batch_size, on_progress))
            facts = {"digest": digest, "batch_size": batch_size}
            self.ranks.together(lambda: self._finish(pool, parts, record, facts) if self.ranks.is_main else None)
        stored = self.ranks.together(lambda: load_stored(self.folder, pool))
        facts = read_json(record)
        values = (facts[name] for name in ("ms_per_item", "batch_size", "num_cut"))
        return Embeddings(stored.queries, stored.candidates, *values)

    def _prepare(self, parts: Path, digest: str) -> None:
        plan = parts / "plan.json"
        if parts.is_dir() and not _is_of(plan, digest):
            shutil.rmtree(parts)  # other items than those of today
        parts.mkdir(parents=True, exist_ok=True)
        write_json(plan, {"digest": digest}, indent=None)

    def _embed(
        self, pool: Pool, items: Sequence[Item], parts: Path, batch_size: int, on_progress: Callable[[int, int], None]
    ) -> None:
        starts, num_queries = range(0, len(items), ITEMS_PER_PART), len(pool.queries)
        for number in range(self.ranks.rank, len(starts), self.ranks.size):
            file, chunk = parts / f"{number:06d}.npz", items[starts[number] : starts[number] + ITEMS_PER_PART]
            if not file.is_file():
                begun, cut_before = time.perf_counter(), self._num_cut()
                try:
                    vectors = self._vectors(chunk, max(0, num_queries - starts[number]), batch_size)
                except InputError as error:
                    raise ValueError(f"{_place(pool, starts[number] + error.index)}: {error.reason}") from error
                for place, reason in unfit(vectors).items():
                    raise ValueError(f"{_place(pool, starts[number] + place)}: its embedding {reason}")
                seconds, cut = np.float64(time.perf_counter() - begun), np.int64(self._num_cut() - cut_before)
                _save_whole(file, vectors=vectors, seconds=seconds, cut=cut, warm=np.bool_(self._is_warm))
                self._is_warm = True
            on_progress(min((number + 1) * ITEMS_PER_PART, len(items)), len(items))

    def _vectors(self, chunk: Sequence[Item], num_queries: int, batch_size: int) -> NDArray[np.float32]:
        """Of a chunk whose first `num_queries` items are queries, the others candidates."""
        inputs = [item.model_input() for item in chunk]
        if self.embedder.documents is self.embedder or num_queries >= len(inputs):
            return self.embedder.embed(inputs, batch_size)
        found = [self.embedder.embed(inputs[:num_queries], batch_size)] if num_queries else []
        try:
            return np.concatenate([*found, self.embedder.documents.embed(inputs[num_queries:], batch_size)])
        except InputError as error:
            raise InputError(num_queries + error.index, error.reason) from error

    def _num_cut(self) -> int:
        return 0 if self.embedder.written is None else self.embedder.written.num_cut

    def _finish(self, pool: Pool, parts: Path, record: Path, facts: dict[str, Any]) -> None:
        remedy = f"Remove {parts}: the task is then embedded again."
        loaded = [
            read_arrays(file, "vectors", "seconds", "cut", "warm", remedy=remedy)
            for file in sorted(parts.glob("[0-9]*.npz"))  # not what a killed process left of one
        ]
        vectors = np.concatenate([part[0] for part in loaded])
        timed = [part for part in loaded if part[3]] or loaded
        seconds = float(sum(part[1] for part in timed)) / sum(len(part[0]) for part in timed)
        count = len(pool.queries)
        file, keys_file = stored_files(self.folder, pool.task.name)
        _save_whole(file, qry=vectors[:count], cand=vectors[count:])
        write_json(keys_file, pool.keys, indent=None)
        # Last: its presence says that the two others are whole.
        num_cut = None if self.embedder.written is None else int(sum(part[2] for part in loaded))
        facts = facts | {"num_items": len(vectors), "ms_per_item": 1000 * seconds, "num_cut": num_cut}
        write_json(record, facts | {"model": self.embedder.name}, indent=None)
        shutil.rmtree(parts)


def stored_files(folder: Path, task: str) -> tuple[Path, Path]:
    """Where a task's stored embeddings lie: its vectors, and the keys of its candidates."""
    return folder / f"{task}.npz", folder / f"{task}_cand_keys.json"


def load_stored(folder: Path, pool: Pool) -> Embeddings:
    """Stored embeddings, put into the order of the pool by their keys.

    Raises:
        ValueError: files missing or broken, or not of this task: another number of queries, other keys.
    """
    file, keys_file = stored_files(folder, pool.task.name)
    for needed in (file, keys_file):
        if not needed.is_file():
            raise ValueError(f"no stored embeddings: {needed} is missing")
    stored, keys = read_arrays(file, "qry", "cand"), read_json(keys_file)
    with naming(file):
        queries, candidates = (np.asarray(vectors, dtype=np.float32) for vectors in stored)
    if not isinstance(keys, list):
        raise ValueError(f"{keys_file} holds no list of keys")
    if len(queries) != len(pool.queries):
        raise ValueError(f"{file} holds {len(queries)} queries, the task has {len(pool.queries)}")
    if len(keys) != len(candidates):
        raise ValueError(f"{keys_file} holds {len(keys)} keys for the {len(candidates)} candidates of {file.name}")
    keys, wanted = ([below_media_root(key, pool.task) for key in some] for some in (keys, pool.keys))
    rows = {key: row for row, key in enumerate(keys)}
    missing = [key for key in wanted if key not in rows]
    if missing or len(rows) != len(wanted) or len(rows) != len(keys):
        values = (
            f"{len(missing)} of the task's candidates are missing, the first is {missing[0]!r}"
            if missing
            else (f"it has {len(keys)} keys, {len(rows)} of them different, and the task {len(wanted)} candidates")
        )
        raise ValueError(f"{keys_file} is of another pool: {values}")
    return Embeddings(queries, candidates[[rows[key] for key in wanted]])


def below_media_root(key: Key, task: Task) -> Key:
    """A candidate's key without the folders before its media.

    The keys of moments of a video are paths: the released engine writes them with the media folder in front, which is
    another one on every machine, and the two known layouts name the frame root differently. What follows the root
    tells the candidates apart.
    """
    if not isinstance(key, str) or task.parser not in PATH_KEYS:
        return key
    for root in task.media_roots:
        _, found, after = f"/{key}".rpartition(f"/{root}/")
        if found:
            return after
    return key


def digest_of(items: Sequence[Item], media_dir: Path) -> str:
    """SHA-256 of texts, of media paths below the media folder, and of the files' sizes and times of writing.

    Changes when the inputs do. A file that was copied anew, with a time of its own, counts as another one.
    """
    digest = hashlib.sha256()
    for item in items:
        files = [(path, path.stat()) for path in item.media]
        media = [(os.path.relpath(path, media_dir), stat.st_size, stat.st_mtime_ns) for path, stat in files]
        digest.update(json.dumps([item.kind, item.text, media]).encode())
    return digest.hexdigest()


def _is_finished(record: Path, digest: str) -> bool:
    return _is_of(record, digest)


def _is_of(file: Path, digest: str) -> bool:
    """Whether a file names this digest; one that is damaged names none, and what it belongs to is made again."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("digest") == digest


def _place(pool: Pool, index: int) -> str:
    count = len(pool.queries)
    return f"query {index}" if index < count else f"candidate {pool.candidates[index - count].key!r}"


def _save_whole(file: Path, **arrays: NDArray | np.generic) -> None:
    with replacing(file) as partial:
        np.savez(partial, **arrays)
