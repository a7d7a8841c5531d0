"""The training corpus: UME-R1's JSONL format (paper, section 3), and `datasets` objects with the same columns.

One JSON object a line: `{"qry": side, "pos": side, "dataset_name": str}`, a side being
`{"conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": "<think>...</think>
<answer>...</answer>"}], "image": [paths], "video": [frame paths]}`. Paths are relative to a media root.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from plume_embed.model.images_plume import is_undecoded
from plume_embed.model.prompt_plume import ANCHOR_TOKEN, INSTRUCTION
from plume_embed.training.curriculum import parse_assistant_turn
from plume_embed.training.data.bad_rows import BadRows
from plume_embed.training.data.keys import as_list
from plume_embed.training.data.undecoded import undecoded_row, undecoded_rows

_PLACEHOLDER = re.compile(r"<(image|video)>\n?")
# The processor puts the anchor and the instruction there; some versions of the corpus carry them in the text too.
_PROTOCOL = re.compile(rf"\n?{re.escape(ANCHOR_TOKEN)}\n?|\n?{re.escape(INSTRUCTION)}")


@dataclass(frozen=True)
class Side:
    """One side of a pair: an item for PlumeProcessor and what is to be thought about it.

    Args:
        item (`dict`): `text`, `image` (a list), `video` (a list of one video, a list of frames), where there are any.
        rationale (`str`): "" where there is none.
        answer (`str`, *optional*): The summary.
    """

    item: dict[str, Any]
    rationale: str
    answer: str | None


@dataclass(frozen=True)
class Pair:
    """A query and its positive target; `where` names its place in the data for error messages."""

    query: Side
    target: Side
    subset: str
    where: str


def parse_side(side: Any, media_root: Path) -> Side:
    """A side of the corpus, checked.

    Raises:
        ValueError: what is wrong with it.
    """
    if not isinstance(side, dict) or not isinstance(side.get("conversations"), list):
        raise ValueError('a side must be {"conversations": [human turn, gpt turn], ...}')
    turns = side["conversations"]
    if [turn.get("from") for turn in turns if isinstance(turn, dict)] != ["human", "gpt"] or len(turns) != 2:
        raise ValueError("the conversations must be one human and one gpt turn")
    human, assistant = (turn.get("value") for turn in turns)
    if not isinstance(human, str) or not isinstance(assistant, str):
        raise ValueError("the value of a turn must be a string")
    item: dict[str, Any] = {}
    images, frames = (_media(side, kind, media_root) for kind in ("image", "video"))
    named = _PLACEHOLDER.findall(human)
    if named.count("image") != len(images) or named.count("video") != (1 if frames else 0):
        raise ValueError(
            f"the text has {named.count('image')} <image> and {named.count('video')} <video>, the row "
            f"{len(images)} images and {1 if frames else 0} videos"
        )
    text = _PROTOCOL.sub("", _PLACEHOLDER.sub("", human)).strip()
    if text:
        item["text"] = text
    if images:
        item["image"] = images
    if frames:
        item["video"] = [frames]
    if not item:
        raise ValueError("the side is empty: no text, image or video")
    rationale, answer = parse_assistant_turn(assistant)
    return Side(item, rationale, answer)


def _media(side: dict, kind: str, media_root: Path) -> list:
    """Paths under the media root; pictures of a `datasets` object as they are, encoded or not."""
    media = [
        entry.get("path") if is_undecoded(entry) and not entry.get("bytes") else entry
        for entry in as_list(side.get(kind))
    ]
    if None in media:
        raise ValueError(f"an entry of {kind} is empty: it has neither a path nor bytes")
    return [media_root / entry if isinstance(entry, str) else entry for entry in media]


def parse_pair(row: Any, media_root: Path, where: str) -> Pair:
    """A row of the corpus, checked.

    Raises:
        ValueError: `where`, and what is wrong.
    """
    if not isinstance(row, dict) or not isinstance(row.get("dataset_name"), str):
        name = f", dataset_name a text; it is {row.get('dataset_name')!r}" if isinstance(row, dict) else ""
        raise ValueError(f'{where}: a row must be {{"qry": ..., "pos": ..., "dataset_name": ...}}{name}.')
    sides = []
    for name in ("qry", "pos"):
        try:
            sides.append(parse_side(row.get(name), media_root))
        except ValueError as error:
            raise ValueError(f"{where}: {name}: {error}") from error
    return Pair(*sides, row["dataset_name"], where)


class Corpus:
    """Pairs by number; a file is read line by line on demand.

    Make one with [`Corpus.from_jsonl`] or [`Corpus.from_dataset`].

    Args:
        read: A function from a number to the pair.
        subsets (`list[str]`): `dataset_name` of every pair.
    """

    def __init__(self, read: Callable[[int], Pair], subsets: list[str]):
        self._read, self.subsets = read, subsets

    def __len__(self) -> int:
        return len(self.subsets)

    def __getitem__(self, index: int) -> Pair:
        return self._read(index)

    def texts(self, num_pairs: int) -> list[str]:
        """Every text of about so many pairs, spread over the corpus, for a tokenizer: items, rationales and answers."""
        pairs = [self[index] for index in range(0, len(self), max(1, len(self) // num_pairs))]
        sides = [side for pair in pairs for side in (pair.query, pair.target)]
        return [text for side in sides for text in (side.item.get("text"), side.rationale, side.answer) if text]

    @classmethod
    def from_jsonl(
        cls,
        files: Sequence[Path],
        media_root: Path,
        max_bad_lines: int = 0,
        report: Callable[[str], None] = lambda message: None,
    ) -> "Corpus":
        """Checks every line once; a bad one is reported by file and line number and left out.

        Args:
            files (`Sequence[Path]`): JSONL files.
            media_root (`Path`): What media paths are relative to. Media are opened when they are needed.
            max_bad_lines (`int`): With more bad lines than this in all files together, the data are refused.
            report: Called with a message for each bad line.

        Raises:
            ValueError: too many bad lines, naming the last one; no such file; no pairs at all.
        """
        places: list[tuple[Path, int, int]] = []  # file, line number, byte offset
        subsets, bad = [], BadRows(max_bad_lines, report)
        for path in files:
            if not path.is_file():
                raise ValueError(f"No such file: {path}")
            offset = 0
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    start, offset = offset, offset + len(line)
                    if not line.strip():
                        continue
                    try:
                        pair = _parse_line(line, media_root, f"{path}:{number}")
                    except ValueError as error:
                        bad.add(error)
                        continue
                    places.append((path, number, start))
                    subsets.append(pair.subset)
        if not subsets:
            raise ValueError(f"There are no pairs in {', '.join(map(str, files))}.")

        def read(index: int) -> Pair:
            path, number, start = places[index]
            with path.open("rb") as file:
                file.seek(start)
                return _parse_line(file.readline(), media_root, f"{path}:{number}")

        return cls(read, subsets)

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        media_root: Path = Path(),
        max_bad_lines: int = 0,
        report: Callable[[str], None] = lambda message: None,
    ) -> "Corpus":
        """Checks every row once, as [`Corpus.from_jsonl`] does; pictures stay encoded until they are needed.

        Args:
            dataset (`datasets.Dataset`): With the columns qry, pos and dataset_name; media are paths or pictures.
            media_root, max_bad_lines, report: As in [`Corpus.from_jsonl`]; a row is named by its number, from 0.

        Raises:
            ValueError: too many bad rows, naming the last one; no pairs at all.
        """
        numbers: list[int] = []
        subsets, bad = [], BadRows(max_bad_lines, report)
        for number, row in enumerate(undecoded_rows(dataset)):
            try:
                pair = parse_pair(row, media_root, f"row {number}")
            except ValueError as error:
                bad.add(error)
                continue
            numbers.append(number)
            subsets.append(pair.subset)
        if not subsets:
            raise ValueError("There are no pairs in the data set.")

        def read(index: int) -> Pair:
            number = numbers[index]
            return parse_pair(undecoded_row(dataset, number), media_root, f"row {number}")

        return cls(read, subsets)


def _parse_line(line: bytes, media_root: Path, where: str) -> Pair:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}.") from error
    return parse_pair(row, media_root, where)


def check_shares(batch_size: int, world_size: int) -> None:
    """Every process needs as many rows of a batch as any other.

    Raises:
        ValueError: they cannot be shared evenly.
    """
    if batch_size % world_size:
        raise ValueError(
            f"batch_size={batch_size} cannot be shared by {world_size} processes evenly; make it a multiple of that."
        )


class SubsetBalancedBatches:
    """Numbers of the pairs of each step. A batch comes from one sub-dataset: its negatives are the harder.

    In each epoch every sub-dataset is shuffled and cut into batches; what is left of each is pooled into mixed batches,
    and less than a batch is left out until the next epoch. A pure function of the seed and the step.

    Args:
        subsets (`Sequence[str]`): The sub-dataset of every pair.
        batch_size (`int`): Pairs in a batch.
        seed (`int`): Of the order.
        repeat (`Mapping[str, int]`): Sub-datasets that an epoch goes through so many times; the others once.

    Raises:
        ValueError: fewer pairs than a batch, a sub-dataset that there is not, or less than once.
    """

    def __init__(
        self, subsets: Sequence[str], batch_size: int, seed: int, repeat: Mapping[str, int] = MappingProxyType({})
    ):
        if len(subsets) < batch_size:
            raise ValueError(f"{len(subsets)} pairs are fewer than batch_size={batch_size}; lower it.")
        names = np.array(subsets)
        self.members = {name: np.flatnonzero(names == name).tolist() for name in sorted(set(subsets))}
        for name, times in repeat.items():
            if name not in self.members or times < 1:
                raise ValueError(f"data.repeat: {name}: {times}: must be one of {', '.join(self.members)}, at least 1.")
        self.batch_size, self.seed, self.repeat = batch_size, seed, repeat
        pairs = sum(len(members) * repeat.get(name, 1) for name, members in self.members.items())
        self.batches_per_epoch = pairs // batch_size
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def __getitem__(self, step: int) -> list[int]:
        epoch, index = divmod(step, self.batches_per_epoch)
        return self._epoch(epoch)[index]

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"batches {self.seed} {epoch}")
        batches, pooled = [], []
        for name, members in self.members.items():
            for _ in range(self.repeat.get(name, 1)):
                order = rng.sample(members, len(members))
                whole = len(order) - len(order) % self.batch_size
                batches += [order[start : start + self.batch_size] for start in range(0, whole, self.batch_size)]
                pooled += order[whole:]
        rng.shuffle(pooled)
        mixed = range(0, len(pooled) - self.batch_size + 1, self.batch_size)
        batches += [pooled[start : start + self.batch_size] for start in mixed]
        rng.shuffle(batches)
        return batches
