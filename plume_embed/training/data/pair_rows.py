"""Pairs of one's own: rows of a query, what it should find, and what it should not (JSONL, CSV, Parquet, `datasets`).

    {"query": "a red bicycle", "positive": {"image": "bike.jpg"}, "negatives": [{"image": "scooter.jpg"}]}

A side is a text, or a mapping with the keys text, image, video (a path, or a list of them) and page
(`FILE.pdf#page=N`). In a CSV file the keys are part of the column: `query`, `query_image`, `positive_image`,
`negative`, `negative_2_image`. Optional are `instruction`, which stands in front of the query's text, `score` (of the
positive) and `negative_scores`, larger being more alike: a negative that scores as high as the positive is none and is
left out.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from plume_embed.model.images_plume import is_undecoded, source_name
from plume_embed.reading.items import SourceFile, date_of
from plume_embed.reading.options import Options
from plume_embed.reading.read import read_items
from plume_embed.training.data.bad_rows import BadRows
from plume_embed.training.data.keys import KINDS, as_list
from plume_embed.training.data.undecoded import undecoded_rows

PAGES_AS_PICTURES = Options(num_frames=1, max_pixels=0)  # for who reads the words in them, or takes no words beside
_PAGE = re.compile(r"#page=([1-9]\d{0,5})$")  # no document has a million pages
_SHOWN = 60  # characters of a strange column
_COLUMN = re.compile(r"(query|positive|negative(?:_\d+)?)(?:_(text|image|video|page))?")
_KEYS = {"query", "positive", "negative", "negatives", "instruction", "score", "negative_scores"}


@dataclass(frozen=True)
class PairRow:
    """One row, checked; media are opened when they are needed.

    Args:
        query, positive (`dict`): Items with the keys text, image, video and page, where there are any.
        negatives (`tuple[dict]`): What the query should not find, besides the positives of other rows.
        where (`str`): File and line, for messages.
        instruction (`str`): What is to be found for the query; "" is none. It is no part of the query, which is the
            same item under every instruction.
    """

    query: dict[str, Any]
    positive: dict[str, Any]
    negatives: tuple[dict[str, Any], ...]
    where: str
    instruction: str = ""

    @property
    def question(self) -> dict[str, Any]:
        """The query as it is embedded: its instruction in front of its text."""
        if not self.instruction:
            return self.query
        text = f"{self.instruction}\n{self.query['text']}" if "text" in self.query else self.instruction
        return self.query | {"text": text}


def read_pairs(
    files: Sequence[Path],
    root: Path = Path(),
    max_bad_lines: int = 0,
    report: Callable[[str], None] = lambda message: None,
) -> list[PairRow]:
    """The rows of `.jsonl`, `.csv`, `.tsv` and `.parquet` files.

    Args:
        files (`Sequence[Path]`): The files, told apart by their suffix.
        root (`Path`): What paths of media are relative to; if it is no absolute path, below the folder of each file.
        max_bad_lines (`int`): With more bad rows than this in all files together, the data are refused.
        report: Called with a message for each bad row that is left out; it names file and line.

    Raises:
        ValueError: no such file, an unknown suffix, too many bad rows (the message names the last one), no rows.
    """
    rows = ((where, row, path.parent / root) for path in files for where, row in _rows(path))
    found = _parsed(rows, max_bad_lines, report)
    if not found:
        raise ValueError(f"There are no pairs in {', '.join(map(str, files)) or 'an empty list of files'}.")
    return found


def rows_of_dataset(
    dataset: Any,
    root: Path,
    max_bad_lines: int = 0,
    report: Callable[[str], None] = lambda message: None,
) -> list[PairRow]:
    """The rows of a `datasets.Dataset` with the columns of this module; pictures stay encoded until they are needed.

    Args:
        dataset (`datasets.Dataset`): The rows.
        root (`Path`): What paths of media are relative to.
        max_bad_lines, report: As in [`read_pairs`]; a row is named by its number, from 0.

    Raises:
        ValueError: too many bad rows, or no rows.
    """
    numbered = enumerate(undecoded_rows(dataset))
    rows = ((f"row {number}", _without_none(row), root) for number, row in numbered)
    found = _parsed(rows, max_bad_lines, report)
    if not found:
        raise ValueError("There are no pairs in the data set.")
    return found


def _parsed(rows: Iterable[tuple[str, Any, Path]], max_bad_lines: int, report: Callable[[str], None]) -> list[PairRow]:
    """Each row, with its place and the root of its media, checked; bad ones are counted and left out."""
    found, bad = [], BadRows(max_bad_lines, report)
    for where, row, root in rows:
        try:
            found.append(parse_row(row, root, where))
        except ValueError as error:
            bad.add(error)
    return found


def parse_row(row: Any, root: Path, where: str) -> PairRow:
    """A row, checked.

    Raises:
        ValueError: `where`, and what is wrong.
    """
    try:
        if isinstance(row, _Unreadable):
            raise ValueError(row.reason)
        if not isinstance(row, dict):
            raise ValueError("a row must be a mapping with query and positive")
        unknown = sorted(set(row) - _KEYS)
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
        query, positive = (_item(row.get(name), name, root) for name in ("query", "positive"))
        negatives = _negatives(row, root)
        instruction = row.get("instruction", "")
        if not isinstance(instruction, str):
            raise ValueError("instruction must be a text")
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from error
    return PairRow(query, positive, negatives, where, instruction)


def as_plain_row(row: PairRow) -> dict[str, Any]:
    """A row for JSON, which `read_pairs` reads again from any folder: paths are absolute.

    Raises:
        ValueError: a picture that is no file.
    """
    plain = {"query": _plain(row.query), "positive": _plain(row.positive)}
    plain |= {"instruction": row.instruction} if row.instruction else {}
    return plain | {"negatives": list(map(_plain, row.negatives))}


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for kind, value in item.items():
        if kind == "text":
            plain[kind] = value
        elif all(isinstance(entry, Path) for entry in value):
            plain[kind] = [str(entry.resolve()) for entry in value]
        else:
            raise ValueError("A file of pairs holds paths, and a row has a decoded picture: save it to a file first.")
    return plain


def _negatives(row: dict[str, Any], root: Path) -> tuple[dict[str, Any], ...]:
    given = [*as_list(row.get("negatives")), *as_list(row.get("negative"))]
    items = [_item(value, f"negative {number}", root) for number, value in enumerate(given, start=1)]
    scores = row.get("negative_scores")
    if scores is None:
        return tuple(items)
    if row.get("score") is None or len(as_list(scores)) != len(items):
        raise ValueError("negative_scores needs score, and as many values as there are negatives")
    try:
        least, *given = (float(score) for score in (row["score"], *as_list(scores)))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("score and negative_scores must be numbers") from error
    if not all(map(math.isfinite, (least, *given))):  # a comparison with NaN would leave every negative out
        raise ValueError("score and negative_scores must be finite numbers")
    return tuple(item for item, score in zip(items, given, strict=True) if score < least)


def _item(value: Any, name: str, root: Path) -> dict[str, Any]:
    """A side as an item: what is empty left out, paths below the root."""
    value = {"text": value} if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a text or a mapping with {', '.join(KINDS)}, got {type(value).__name__}")
    unknown = sorted(set(value) - set(KINDS))
    if unknown:
        raise ValueError(f"{name} has the unknown key {unknown[0]!r}; there are {', '.join(KINDS)}")
    item: dict[str, Any] = {}
    for kind, given in value.items():
        values = [entry for entry in as_list(given) if entry not in (None, "")]
        if kind == "text":
            if not all(isinstance(entry, str) for entry in values):
                raise ValueError(f"{name}: text must be a text")
            if values:
                item["text"] = "\n".join(values)
        elif values:
            item[kind] = [_medium(entry, kind, name, root) for entry in values]
    if not item:
        raise ValueError(f"{name} is empty: give a text, a picture, a video or a page")
    return item


def _medium(value: Any, kind: str, name: str, root: Path) -> Any:
    if is_undecoded(value) and not value.get("bytes"):
        value = value.get("path")  # a data set that names its files
    if isinstance(value, str | Path):
        file = str(value).partition("#page=")[0]
        if "://" in file:
            raise ValueError(f"{name}: {value} is an address; download it first")
        if kind == "page" and not _PAGE.search(str(value)):
            raise ValueError(f"{name}: a page is FILE.pdf#page=NUMBER, counted from 1, got {str(value)!r}")
        if not _is_file(root / file):
            raise ValueError(f"{name}: no such file: {source_name(root / file)}")
        return root / value
    if kind == "image" and (isinstance(value, Image.Image) or is_undecoded(value)):
        return value  # of a `datasets` object, decoded or not
    raise ValueError(f"{name}: {kind} must be a path, got {type(value).__name__}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that the system refuses
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each row of a file with its place."""
    if not path.is_file():
        raise ValueError(f"No such file: {path}")
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        yield from _rows_of_jsonl(path)
    elif suffix in (".csv", ".tsv"):
        yield from _rows_of_csv(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            for batch in pq.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", _without_none(row)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: damaged, or no Parquet file: {_first_line(error)}") from error
    else:
        raise ValueError(f"{path}: pairs are read from .jsonl, .csv, .tsv and .parquet files.")


def _rows_of_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = _without_none(json.loads(line))
                    json.dumps(row, ensure_ascii=False).encode()
                except UnicodeEncodeError:
                    row = _Unreadable("a string holds half a surrogate pair, which is no character")
                except (ValueError, RecursionError) as error:
                    row = _Unreadable(f"not JSON: {error}")
                yield f"{path}:{number}", row


def _rows_of_csv(path: Path, delimiter: str) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            columns = {name: _COLUMN.fullmatch(name) for name in reader.fieldnames or () if name}
            strange = [name for name, match in columns.items() if match is None and name not in _KEYS]
            twice = [name for name, number in Counter(filter(None, reader.fieldnames or ())).items() if number > 1]
            if twice:
                raise ValueError(f"{path}: the first line has the column {twice[0][:_SHOWN]!r} twice; rename one.")
            if strange:
                shown = strange[0][:_SHOWN]
                raise ValueError(f"{path}: unknown column {shown!r}; see the list in docs/training.md.")
            for cells in reader:
                yield f"{path}:{reader.line_num}", _nested(cells, columns)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}:{reader.line_num + 1}: {error}.") from error


def _nested(cells: dict[Any, Any], columns: dict[str, re.Match | None]) -> Any:
    """`{"query": ..., "positive_image": ...}` -> a row with nested sides."""
    if None in cells or None in cells.values():
        return _Unreadable("the row has another number of cells than the first line")
    row: dict[str, Any] = {}
    sides: dict[str, dict[str, str]] = {}
    for name, value in cells.items():
        if value == "":
            continue
        if name == "":
            return _Unreadable("the row has a cell in a column without a name")
        match = columns[name]
        if match is None:
            row[name] = value
        else:
            sides.setdefault(match[1], {})[match[2] or "text"] = value
    negatives = [side for name, side in sorted(sides.items()) if name.startswith("negative")]
    row |= {name: sides[name] for name in ("query", "positive") if name in sides}
    return row | ({"negatives": negatives} if negatives else {})


class _Unreadable:
    """Stands for a row that is no row, so that it is counted and named like any other bad one."""

    def __init__(self, reason: str):
        self.reason = reason


def _without_none(value: Any) -> Any:
    """Parquet and `datasets` fill absent keys with None: not there."""
    if isinstance(value, dict):
        return {name: _without_none(entry) for name, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list) else value


def open_pages(item: dict[str, Any], options: Options) -> dict[str, Any]:
    """The item as PlumeProcessor takes it: pages as `index` reads them, behind the pictures and the text that it has.

    Args:
        options ([`Options`]): Of the processor, see [`Options.of`], or `PAGES_AS_PICTURES`.

    Raises:
        ValueError: a page that cannot be read, by name.
    """
    if "page" not in item:
        return item
    pages = [_content_of_page(page, options) for page in item["page"]]
    opened = {kind: value for kind, value in item.items() if kind != "page"}
    opened["image"] = [*item.get("image", []), *(page["image"] for page in pages)]
    texts = [one["text"] for one in (item, *pages) if "text" in one]
    return opened | ({"text": "\n".join(texts)} if texts else {})


def _content_of_page(page: Path, options: Options) -> dict[str, Any]:
    match = _PAGE.search(str(page))
    if match is None:
        raise ValueError(f"{page}: there is no such page")
    path, number = Path(str(page)[: match.start()]), match[1]
    skip = frozenset(range(int(number) - 1))
    try:
        status = path.stat()
        file = SourceFile(path.name, path, "page", status.st_size, date_of(status))
        with closing(read_items(file, lambda text: True, options, skip)) as items:
            found = next(items, None)
    except (ValueError, OSError) as error:
        raise ValueError(f"{page}: {error}") from error
    if found is None or found.content is None:
        raise ValueError(f"{page}: {found.reason if found else 'there is no such page'}")
    return found.content
