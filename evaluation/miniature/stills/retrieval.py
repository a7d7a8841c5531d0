"""The retrieval tasks over the stills: text -> picture, picture -> picture in another style, picture -> label.

Each task comes for two sorts of query: "known" concepts, whose family was in training, though not in the test style,
and "unseen" concepts, whose family was held out. Both face the same pool of candidates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import PIL.Image
from datasets import Dataset, load_dataset

from plume_embed.evaluation.miniature.stills import COUNTRY_FLAGS, SPLITS, TEST_STYLE, Row, label_text

# A text, or the row number of a picture in the data set: so that each picture needs to be embedded only once.
Item = str | int


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, candidates and what is correct.

    Attributes:
        name: "text -> picture", "picture -> picture" or "picture -> label".
        split: "known" or "unseen", a key of SPLITS.
        queries: The queries, Q items.
        candidates: The pool, N items.
        positives: For each query the numbers of all correct candidates, ascending and never empty.
    """

    name: str
    split: str
    queries: list[Item]
    candidates: list[Item]
    positives: list[list[int]]


def load(data: Path) -> tuple[Dataset, list[Row]]:
    """Open the data set that `evaluation.miniature.build` wrote.

    Returns:
        The data set, whose column "image" decodes to PIL pictures, and its rows without the pictures, in one order.

    Raises:
        FileNotFoundError: If the folder holds no shards.
    """
    shards = sorted(str(path) for path in data.glob("*.parquet"))
    if not shards:
        raise FileNotFoundError(f"{data} holds no *.parquet: run `python -m evaluation.miniature.build --out {data}`.")
    pictures = load_dataset("parquet", data_files=shards, split="train")
    columns = pictures.select_columns([field.name for field in fields(Row)])
    return pictures, [Row(**columns_of_one) for columns_of_one in columns.to_list()]


def inputs(items: Sequence[Item], pictures: Dataset) -> list[str | PIL.Image.Image]:
    """Items as a model takes them: texts as they are, row numbers as pictures."""
    return [item if isinstance(item, str) else pictures[item]["image"] for item in items]


def text_to_picture(rows: Sequence[Row], split: str, country_flags: bool = True) -> RetrievalTask:
    """A concept's label; all untoned pictures of the test style."""
    candidates = _pool(rows, TEST_STYLE, country_flags)
    queries = [row for row in candidates if rows[row].split_family == SPLITS[split]]
    positives = _Positives(rows, candidates)
    return RetrievalTask(
        "text -> picture",
        split,
        [rows[query].label for query in queries],
        list(candidates),
        [positives.of(rows[query]) for query in queries],
    )


def picture_to_picture(
    rows: Sequence[Row], split: str, country_flags: bool = True, query_style: str = "noto"
) -> RetrievalTask:
    """A concept's picture in a training style; all untoned pictures of the test style that the query style has too."""
    drawn = _pool(rows, query_style, country_flags)
    hexcodes = {rows[row].hexcode for row in drawn}
    candidates = [row for row in _pool(rows, TEST_STYLE, country_flags) if rows[row].hexcode in hexcodes]
    in_pool = {rows[row].hexcode for row in candidates}
    drawn = [row for row in drawn if rows[row].hexcode in in_pool]
    queries = [row for row in drawn if rows[row].split_family == SPLITS[split]]
    # Where one query picture serves several concepts, each of them is an answer.
    twins: dict[str, list[Row]] = defaultdict(list)
    for row in drawn:
        twins[rows[row].picture_hash].append(rows[row])
    positives = _Positives(rows, candidates)
    found = [{n for twin in twins[rows[query].picture_hash] for n in positives.of(twin)} for query in queries]
    return RetrievalTask("picture -> picture", split, list(queries), list(candidates), [sorted(n) for n in found])


def picture_to_label(rows: Sequence[Row], split: str, country_flags: bool = True) -> RetrievalTask:
    """An untoned picture of the test style; all subgroups as texts."""
    return _picture_to_name("picture -> label", rows, split, country_flags, lambda row: label_text(row.subgroup))


def picture_to_text(rows: Sequence[Row], split: str, country_flags: bool = True) -> RetrievalTask:
    """An untoned picture of the test style; the labels of all of them."""
    return _picture_to_name("picture -> text", rows, split, country_flags, lambda row: row.label)


def _picture_to_name(
    task: str, rows: Sequence[Row], split: str, country_flags: bool, name_of: Callable[[Row], str]
) -> RetrievalTask:
    """Untoned pictures of the test style, and what they are called; equal pictures have each other's names."""
    pool = _pool(rows, TEST_STYLE, country_flags)
    names = sorted({name_of(rows[row]) for row in pool})
    number = {name: n for n, name in enumerate(names)}
    meanings: dict[str, set[int]] = defaultdict(set)
    for row in pool:
        meanings[rows[row].picture_hash].add(number[name_of(rows[row])])
    queries = [row for row in pool if rows[row].split_family == SPLITS[split]]
    positives = [sorted(meanings[rows[query].picture_hash]) for query in queries]
    return RetrievalTask(task, split, list(queries), list(names), positives)


def all_tasks(rows: Sequence[Row], country_flags: bool = True) -> list[RetrievalTask]:
    """The three tasks for known, then for unseen concepts: one table's rows.

    Args:
        rows: As `load` returns them.
        country_flags: Keep the 259 country flags; they are many, and easy by colour alone.
    """
    makers = (text_to_picture, picture_to_picture, picture_to_label)
    return [maker(rows, split, country_flags) for split in SPLITS for maker in makers]


def _pool(rows: Sequence[Row], style: str, country_flags: bool) -> list[int]:
    """The numbers of one style's untoned rows."""
    return [
        number
        for number, row in enumerate(rows)
        if row.style == style and not row.skin_tone and (country_flags or row.subgroup != COUNTRY_FLAGS)
    ]


class _Positives:
    """Finds all candidates that show a concept: its own picture, those with equal pixels and those of equal label."""

    def __init__(self, rows: Sequence[Row], candidates: Sequence[int]) -> None:
        self._by_hash: dict[str, set[int]] = defaultdict(set)
        self._hashes: dict[str, set[str]] = defaultdict(set)
        for number, candidate in enumerate(candidates):
            row = rows[candidate]
            self._by_hash[row.picture_hash].add(number)
            self._hashes[row.label].add(row.picture_hash)

    def of(self, row: Row) -> list[int]:
        return sorted({number for digest in self._hashes[row.label] for number in self._by_hash[digest]})
