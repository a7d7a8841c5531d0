"""A JSONL file as a source: one object a line, with text, image, video and an id."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from plume_embed.corpus.media import MEDIA_KEYS, content_key, local_path
from plume_embed.corpus.rows import BadRow, Draft, Row, hash_of
from plume_embed.encode.prepare import Preparer

KNOWN_KEYS = ("id", "text", *MEDIA_KEYS)
_LARGEST_IN_A_FLOAT = 2**53  # whole numbers beyond it have neighbours that are the same float
# The columns that hold values of some kinds, see `_kind`, without a change of any.
_TYPES = {
    frozenset({"str"}): pa.string(),
    frozenset({"bool"}): pa.bool_(),
    frozenset({"int"}): pa.int64(),
    frozenset({"long"}): pa.int64(),
    frozenset({"int", "long"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"int", "float"}): pa.float64(),
}


@dataclass
class JsonlSource:
    """The lines of a file.

    Args:
        path (`Path`): The file; paths in it are relative to its folder.
        keep: Further keys that become columns.
    """

    path: Path
    keep: tuple[str, ...] = ()
    _kinds: dict[str, set[str]] = field(default_factory=dict)
    _digest: str = ""

    def asked(self) -> dict[str, Any]:
        """See [`Source`]."""
        return {"source": str(self.path.resolve()), "keep": list(self.keep)}

    def slices(self, size: int) -> Iterator[Draft]:
        """See [`Source`]; a blank line is passed over."""
        self._kinds = {name: set() for name in self.keep}
        whole, part = hashlib.sha256(json.dumps(self.keep).encode()), hashlib.sha256()
        draft, offset = Draft({"offset": 0, "line": 1, "lines": 0}, 0, ""), 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                offset += len(line)
                draft.spec["lines"] += 1
                if line.strip():
                    row = self._parsed(line, number, draft.count)
                    part.update(_identity(row))
                    whole.update(_identity(row))
                    if isinstance(row, Row):
                        draft.ids.append((row.place, hash_of(row.id), f"line {number}"))
                        for name, value in row.kept.items():
                            self._kinds[name].add(_kind(value))
                    draft.count += 1
                if draft.count == size:
                    yield _closed(draft, part.hexdigest())
                    draft, part = Draft({"offset": offset, "line": number + 1, "lines": 0}, 0, ""), hashlib.sha256()
        if draft.count:
            yield _closed(draft, part.hexdigest())
        self._digest = whole.hexdigest()

    def digest(self) -> str:
        """See [`Source`]: of ids, contents, the state of media, and kept values."""
        return self._digest

    def columns(self) -> dict[str, pa.DataType]:
        """See [`Source`]; values of several kinds become JSON texts."""
        return {name: _type(kinds) for name, kinds in self._kinds.items()}

    def read(self, spec: dict[str, Any], preparer: Preparer) -> Iterator[Row | BadRow]:
        """See [`Source`]."""
        found = self._unchanged(spec)
        as_json = {name for name, kinds in self._kinds.items() if _type(kinds) == pa.string() and kinds != {"str"}}
        for row in found:
            yield replace(row, kept=_as_texts(row.kept, as_json)) if isinstance(row, Row) and as_json else row

    def bad_places(self, spec: dict[str, Any], places: set[int]) -> set[int]:
        """See [`Source`]: its drafts name ids of rows that parse, and no others."""
        return set()

    def check(self, spec: dict[str, Any]) -> None:
        """See [`Source`]."""
        self._unchanged(spec)

    def _unchanged(self, spec: dict[str, Any]) -> list[Row | BadRow]:
        """The rows of a slice.

        Raises:
            ValueError: they are others than those of the plan.
        """
        found, digest = [], hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(spec["offset"])
            for number in range(spec["line"], spec["line"] + spec["lines"]):
                line = file.readline()
                if line.strip():
                    found.append(self._parsed(line, number, len(found)))
                    digest.update(_identity(found[-1]))
        if digest.hexdigest() != spec["digest"]:
            raise ValueError(f"{self.path} or a file in it changed while it was read; run again.")
        return found

    def _parsed(self, line: bytes, number: int, place: int) -> Row | BadRow:
        try:
            return parse_line(line, number, place, self.path, self.keep)
        except ValueError as error:
            return BadRow(str(number), f"{self.path}:{number}", str(error))


def check_keep(keep: Sequence[str]) -> None:
    """Refuses further keys that have a meaning of their own."""
    taken = sorted({*KNOWN_KEYS, "embedding"} & set(keep))
    if taken:
        raise ValueError(f"--keep takes further keys; {', '.join(taken)} {'is' if len(taken) == 1 else 'are'} used.")


def parse_line(line: bytes, number: int, place: int, path: Path, keep: Sequence[str] = ()) -> Row:
    """A line of a file as a row.

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
        values = [local_path(one, path.parent) for one in values] if name in MEDIA_KEYS else values
        content[name] = values if isinstance(value, list) else values[0]
    if not content:
        raise ValueError("none of text, image, video")
    kept = {name: record[name] for name in keep if record.get(name) is not None}
    own_id = str(number) if row_id is None else str(row_id)
    return Row(place, own_id, f"{path}:{number}", content, content_key(content), kept)


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


def _identity(row: Row | BadRow) -> bytes:
    if isinstance(row, BadRow):
        return hash_of([row.id, row.reason])
    return row.key + hash_of([row.id, row.kept])


def _closed(draft: Draft, digest: str) -> Draft:
    draft.digest = draft.spec["digest"] = digest
    return draft


def _as_texts(kept: dict[str, Any], names: set[str]) -> dict[str, Any]:
    texts = {name: json.dumps(kept[name], ensure_ascii=False) for name in names & set(kept)}
    return kept | texts


def _kind(value: Any) -> str:
    """The name of a value's type; a whole number beyond those of a float is "long", and beyond 64 bits "large"."""
    if isinstance(value, bool) or not isinstance(value, int):
        return type(value).__name__
    if abs(value) <= _LARGEST_IN_A_FLOAT:
        return "int"
    return "long" if -(2**63) <= value < 2**63 else "large"


def _type(kinds: set[str]) -> pa.DataType:
    """The type of a column whose values are of these kinds; a string, of JSON, where they have no other in common."""
    return _TYPES.get(frozenset(kinds), pa.string())
