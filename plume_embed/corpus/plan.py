"""The plan of a run: its slices, in a file, with the repeated ids of each.

It is made by going through the source once. What is held in memory is one slice, and of ids no more than a part: beyond
a million they wait on the disk, in parts that are looked through one by one.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from plume_embed.atomic import replacing
from plume_embed.corpus.rows import Draft, Slice, Source
from plume_embed.model.images_plume import MAX_PIXELS

_PARTS = 256
_IDS_IN_MEMORY = 1_000_000
# The two halves of the hash of an id, where its row is, and how that row is called.
_ID = np.dtype([("high", "<u8"), ("low", "<u8"), ("slice", "<i8"), ("place", "<i4"), ("name", "S24")])


# What tells one run, or one output, from another, and how a message calls it.
_CALLED = {
    "fingerprint": "model or precision",
    "num_latent_steps": "K",
    "dimensions": "--dimensions",
    "instruction": "--instruction",
    "max_image_pixels": "--max-image-pixels",
    "source": "SOURCE",
    "keep": "--keep",
    "shard_rows": "--shard-rows",
}


@dataclass(frozen=True)
class MadeBy:
    """What decides the vectors, and which rows have none, besides the rows.

    Args:
        fingerprint (`str`): Of the model, its prompt and its type.
        num_latent_steps (`int`): K.
        dimensions (`int`, *optional*): The first so many, of unit norm again; `None` for all.
        instruction (`str`): In front of every text; alone where there is none.
        max_image_pixels (`int`): Most pixels of a picture or a film's frame; a row with a larger one is skipped.
    """

    fingerprint: str
    num_latent_steps: int
    dimensions: int | None = None
    instruction: str = ""
    max_image_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Plan:
    """The slices of a run, in a file.

    Args:
        path (`Path`): One slice a line.
        num_slices, num_rows (`int`): How many there are; rows as far as they are known before they are read.
        columns (`dict[str, pa.DataType]`): The further columns.
        origin (`dict`): What the output says it comes from.
    """

    path: Path
    num_slices: int
    num_rows: int
    columns: dict[str, pa.DataType]
    origin: dict[str, Any]

    def slices(self) -> Iterator[Slice]:
        """One after the other, from the file."""
        with self.path.open(encoding="utf-8") as file:
            yield from map(Slice.from_json, file)


def called(name: str, found: Any, wanted: Any) -> str:
    """A setting that differs, such as "--keep (title, not none)"."""
    named = _CALLED[name]
    return named if name == "fingerprint" else f"{named} ({_shown(found)}, not {_shown(wanted)})"


def _shown(value: Any) -> str:
    if value in (None, "", []):
        return "none"
    return ", ".join(value) if isinstance(value, list) else str(value)


def make_plan(source: Source, made_by: MadeBy, size: int, path: Path) -> Plan:
    """Goes through the source and writes the plan.

    Args:
        source ([`Source`]): What is embedded.
        made_by ([`MadeBy`]): Part of every slice's digest.
        size (`int`): Rows (files, of a folder) of a slice.
        path (`Path`): The file of the plan; it appears whole.
    """
    ids, num_slices, num_rows = _Ids(), 0, 0
    with tempfile.TemporaryDirectory(prefix="plan-", dir=path.parent) as folder:
        drafts = Path(folder) / "drafts.jsonl"
        with drafts.open("w", encoding="utf-8") as file:
            for draft in source.slices(size):
                ids.add(num_slices, draft, Path(folder))
                file.write(json.dumps([draft.spec, draft.count, draft.digest]) + "\n")
                num_slices, num_rows = num_slices + 1, num_rows + draft.count
        columns = source.columns()
        of_all = json.dumps([asdict(made_by), {name: str(kind) for name, kind in columns.items()}])
        shared = ids.shared()
        repeated = _repeated(shared[~_are_bad(shared, source, drafts)])
        with replacing(path) as partial, partial.open("w", encoding="utf-8") as out, drafts.open() as lines:
            for number, line in enumerate(lines):
                spec, count, digest = json.loads(line)
                own = repeated.pop(number, {})
                name = hashlib.sha256(json.dumps([of_all, digest, own]).encode()).hexdigest()[:16]
                out.write(Slice(number, spec, count, name, own).as_json() + "\n")
    # An input's digest is of what is kept, too; `keep` stands beside it so that a message can tell which one differs.
    origin = {**asdict(made_by), "keep": source.asked()["keep"], "input": source.digest()}
    return Plan(path, num_slices, num_rows, columns, origin)


class _Ids:
    """Finds the ids that repeat."""

    def __init__(self):
        self._waiting: list[np.ndarray] = []
        self._count = 0
        self._files: list[Path] = []

    def add(self, number: int, draft: Draft, folder: Path) -> None:
        """The ids of a slice; they go to files in `folder` where they become many."""
        if draft.ids:
            rows = [
                (int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little"), number, place, name.encode())
                for place, key, name in draft.ids
            ]
            self._waiting.append(np.array(rows, dtype=_ID))
            self._count += len(rows)
        if self._count >= _IDS_IN_MEMORY:
            self._spill(folder)

    def _spill(self, folder: Path) -> None:
        self._files = self._files or [folder / f"ids-{part}" for part in range(_PARTS)]
        rows = np.concatenate(self._waiting)
        parts = _part_of(rows)
        order = np.argsort(parts, kind="stable")
        bounds = np.searchsorted(parts[order], np.arange(_PARTS + 1))
        for part, path in enumerate(self._files):
            with path.open("ab") as file:
                file.write(rows[order[bounds[part] : bounds[part + 1]]].tobytes())
        self._waiting, self._count = [], 0

    def shared(self) -> np.ndarray:
        """The rows whose id another row has too: those of one id together, in the order of the source."""
        found = [np.empty(0, _ID)]
        for rows in self._parts():
            rows = rows[np.lexsort((rows["place"], rows["slice"], rows["low"], rows["high"]))]
            is_new = _is_new(rows)
            found.append(rows[~(is_new & np.r_[is_new[1:], True])])
        return np.concatenate(found)

    def _parts(self) -> Iterator[np.ndarray]:
        waiting = np.concatenate(self._waiting) if self._waiting else np.empty(0, _ID)
        if not self._files and len(waiting):
            yield waiting
        for part, path in enumerate(self._files):
            rows = np.concatenate([np.frombuffer(path.read_bytes(), dtype=_ID), waiting[_part_of(waiting) == part]])
            if len(rows):
                yield rows


def _is_new(rows: np.ndarray) -> np.ndarray:
    """Of sorted rows, whether each one's id is another than that of the row before."""
    return np.r_[True, (rows["high"][1:] != rows["high"][:-1]) | (rows["low"][1:] != rows["low"][:-1])][: len(rows)]


def _are_bad(shared: np.ndarray, source: Source, drafts: Path) -> np.ndarray:
    """Which of the rows are bad, as the source says of each slice that has some."""
    rows, places = list(zip(shared["slice"].tolist(), shared["place"].tolist(), strict=True)), dict[int, set[int]]()
    for number, place in rows:
        places.setdefault(number, set()).add(place)
    with drafts.open() as lines:
        for number, line in enumerate(lines):
            if number in places:
                places[number] = source.bad_places(json.loads(line)[0], places[number])
    return np.array([place in places[number] for number, place in rows], bool)


def _repeated(shared: np.ndarray) -> dict[int, dict[int, str]]:
    """By slice and place the name of the first row with this id."""
    found: dict[int, dict[int, str]] = {}
    is_new = _is_new(shared)
    first = np.maximum.accumulate(np.where(is_new, np.arange(len(shared)), 0))
    for row in np.flatnonzero(~is_new):
        places = found.setdefault(int(shared["slice"][row]), {})
        places[int(shared["place"][row])] = bytes(shared["name"][first[row]]).decode()
    return found


def _part_of(rows: np.ndarray) -> np.ndarray:
    return rows["high"] % _PARTS
