"""The lines of a JSONL file: one by one as items, and all of them as a few numbers a line.

A file may have ten million lines, so nothing else of a line is kept than where it begins and three hashes.
"""

import hashlib
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MEDIA_KEYS = ("image", "video")
KNOWN_KEYS = ("id", "text", *MEDIA_KEYS)
HASH_BYTES = 16
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")

OnSkipped = Callable[[int, str], None]


@dataclass(frozen=True)
class JsonlRow:
    """A valid line.

    Args:
        line (`int`): Its number, from 1.
        id (`str`): The "id" of the line, or its number.
        content (`dict`): What the processor takes, media as paths.
        key (`bytes` of length 16): Hash of the content, with size and date of media: the same key, the same vector.
        kept (`dict`): The values of the further keys that were asked for.
    """

    line: int
    id: str
    content: dict[str, Any]
    key: bytes
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lines:
    """The valid lines of a file, in their order.

    Args:
        source (`Path`)
        numbers (`np.ndarray` [N]): From 1.
        offsets (`np.ndarray` [N]): Where they begin in the file, in bytes.
        keys (`np.ndarray` [N], of 16 bytes): See [`JsonlRow`].
        kept: The further keys that were asked for, with the kinds of their values: str, int, float, bool and others.
        digest (`str`): Of ids, contents and kept values in their order, as hex.
    """

    source: Path
    numbers: np.ndarray
    offsets: np.ndarray
    keys: np.ndarray
    kept: dict[str, set[str]]
    digest: str

    def read(self, places: Iterable[int]) -> Iterator[JsonlRow]:
        """The lines at these places.

        Raises:
            ValueError: the file has changed since it was scanned.
        """
        with self.source.open("rb") as file:
            for place in places:
                file.seek(self.offsets[place])
                try:
                    row = parse_line(file.readline(), int(self.numbers[place]), self.source.parent, tuple(self.kept))
                except ValueError:
                    row = None
                if row is None or row.key != self.keys[place].tobytes():
                    raise ValueError(f"{self.source} or a file in it changed while it was read; run again.")
                yield row


def scan_lines(source: Path, keep: Sequence[str], skipped: OnSkipped) -> Lines:
    """Reads a file once; blank lines are passed over, bad ones go to `skipped` with number and reason.

    Raises:
        ValueError: no such file, or a key to keep that has a meaning of its own.
    """
    if not source.is_file():
        raise ValueError(f"No such file: {source}")
    taken = sorted({*KNOWN_KEYS, "embedding"} & set(keep))
    if taken:
        raise ValueError(f"--keep takes further keys; {', '.join(taken)} {'is' if len(taken) == 1 else 'are'} used.")
    numbers, offsets, keys, ids, values = array("q"), array("q"), bytearray(), bytearray(), bytearray()
    kinds: dict[str, set[str]] = {name: set() for name in keep}
    offset = 0
    with source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            try:
                row = parse_line(line, number, source.parent, keep)
            except ValueError as error:
                skipped(number, str(error))
                continue
            numbers.append(number)
            offsets.append(start)
            keys += row.key
            ids += _hash(row.id)
            values += _hash(row.kept)
            for name, value in row.kept.items():
                kinds[name].add(_kind(value))
    scanned = Lines(source, np.array(numbers), np.array(offsets), _hashes(keys), kinds, "")
    return _without_repeated_ids(scanned, _hashes(ids), _hashes(values), skipped)


def parse_line(line: bytes, number: int, folder: Path, keep: Sequence[str] = ()) -> JsonlRow:
    """A line as an item.

    Raises:
        ValueError: the reason why it is none.
    """
    record = _record(line)
    unknown = sorted(set(record) - {*KNOWN_KEYS, *keep})
    if unknown:
        raise ValueError(f"unknown keys {unknown}; the keys are text, image, video and id, and those of --keep")
    row_id = record.get("id")
    if isinstance(row_id, bool) or not isinstance(row_id, str | int | None):
        raise ValueError(f"the id must be a string or a whole number, got {row_id!r}")
    content: dict[str, Any] = {}
    for name in ("text", *MEDIA_KEYS):
        value = record.get(name)
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(one, str) for one in values):
            raise ValueError(f"{name} must be a string or a list of strings")
        values = [_local_path(one, folder) for one in values] if name in MEDIA_KEYS else values
        content[name] = values if isinstance(value, list) else values[0]
    if not content:
        raise ValueError("none of text, image, video")
    kept = {name: record[name] for name in keep if record.get(name) is not None}
    return JsonlRow(number, str(number) if row_id is None else str(row_id), content, _key(content), kept)


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string holds half a surrogate pair, which is no character") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"not a JSON object but a {type(record).__name__}")
    return record


def _local_path(path: str, folder: Path) -> Path:
    if _REMOTE.match(path):
        raise ValueError(f"a remote address, and nothing is downloaded: {path[:100]}; fetch the file and name its path")
    return folder / path


def _key(content: dict[str, Any]) -> bytes:
    parts: list[Any] = [content.get("text")]
    for name in MEDIA_KEYS:
        value = content.get(name, [])
        for path in value if isinstance(value, list) else [value]:
            try:
                status = path.stat()
                if not path.is_file():
                    raise ValueError(f"no regular file: {path}")
            except (FileNotFoundError, NotADirectoryError) as error:
                raise ValueError(f"no such file: {path}") from error
            except OSError as error:  # the name is too long, or the disk fails
                raise ValueError(f"{error.strerror}: {str(path)[:100]}") from error
            parts.append([name, str(path), status.st_size, status.st_mtime_ns])
    return _hash(parts)


def _without_repeated_ids(lines: Lines, ids: np.ndarray, values: np.ndarray, skipped: OnSkipped) -> Lines:
    _, first, place_of_first = np.unique(ids, return_index=True, return_inverse=True)
    is_first = first[place_of_first] == np.arange(len(ids))
    for place in np.flatnonzero(~is_first):
        (row,) = lines.read([place])
        skipped(row.line, f"the id {row.id!r} was used in line {lines.numbers[first[place_of_first[place]]]}")
    digest = hashlib.sha256(json.dumps(list(lines.kept)).encode())
    for hashes in (ids, lines.keys, values):
        digest.update(hashes[is_first].tobytes())
    return Lines(
        lines.source,
        lines.numbers[is_first],
        lines.offsets[is_first],
        lines.keys[is_first],
        lines.kept,
        digest.hexdigest(),
    )


def _kind(value: Any) -> str:
    is_too_large = isinstance(value, int) and not -(2**63) <= value < 2**63
    return "large" if is_too_large else type(value).__name__


def _hash(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value).encode()).digest()[:HASH_BYTES]


def _hashes(joined: bytearray) -> np.ndarray:
    return np.frombuffer(bytes(joined), dtype=f"V{HASH_BYTES}")
