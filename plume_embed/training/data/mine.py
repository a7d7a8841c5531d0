"""Hard negatives: what an index holds near a query that is not its answer.

A negative is a hit that is less alike to the query than the positive by a margin. What is nearer is likely an answer
that nobody has marked, and what equals the query or a positive of the same query is never taken.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plume_embed.atomic import replacing
from plume_embed.encode.encoder import Encoder
from plume_embed.index.listing import has_content
from plume_embed.index.search import Hit, OpenIndex
from plume_embed.outputs import check_output
from plume_embed.reading.options import Options
from plume_embed.reading.passages import read_text, text_at
from plume_embed.training.data.keys import item_key
from plume_embed.training.data.pair_rows import PairRow, as_plain_row, open_pages

_AT_ONCE = 256
_HITS_PER_NEGATIVE = 8  # how many hits are looked at for each negative that is wanted


@dataclass(frozen=True)
class MiningOptions:
    """What counts as a hard negative.

    Args:
        count (`int`): Most negatives of a query, with those that were given.
        margin (`float`): A negative's cosine to the query is below the positive's by at least this much.
        skip (`int`): How many of the nearest candidates are passed over, for data with many unmarked answers.

    Raises:
        ValueError: no negatives, fewer than none passed over, or a margin that is no difference of two cosines.
    """

    count: int = 4
    margin: float = 0.05
    skip: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.skip < 0:
            raise ValueError(f"count must be at least 1 and skip at least 0, got {self.count} and {self.skip}.")
        if math.isnan(self.margin) or not -2 <= self.margin <= 2:
            raise ValueError(f"margin must lie in -2..2, as a difference of two cosines does, got {self.margin}.")


@dataclass
class MiningReport:
    """What was written: rows, negatives in all, given ones too, rows without any, and hits that no pair can hold, by
    reason."""

    rows: int = 0
    negatives: int = 0
    without: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def mine(
    rows: Sequence[PairRow],
    index: OpenIndex,
    encoder: Encoder,
    out: Path,
    options: MiningOptions = MiningOptions(),
    num_latent_steps: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> MiningReport:
    """Writes the pairs with their negatives as JSONL, which `read_pairs` reads; the file appears whole or not at all.

    Its folder is made.

    Args:
        rows (`Sequence[PairRow]`): From `read_pairs`; negatives that they have are kept, come first and count.
        index ([`OpenIndex`]): What negatives are taken from, embedded by the same model.
        encoder ([`Encoder`]): The model.
        out (`Path`): The file to write, `.jsonl`.
        options ([`MiningOptions`]): What counts.
        num_latent_steps (`int`, *optional*): K, by default the model's own.
        on_progress: Called with rows done and rows in all.

    Raises:
        ValueError: an item that cannot be read, naming its row, a file that is not as it was indexed, or an output
            that is no JSONL file.
    """
    check_output(out, "out", suffix=".jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    report = MiningReport()
    answers: dict[int, set[int]] = defaultdict(set)
    candidates = _Candidates()
    for row in rows:
        answers[item_key(row.query)] |= {item_key(row.positive), item_key(row.query)}
    with replacing(out) as partial, partial.open("w", encoding="utf-8") as file:
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            queries = _encode(encoder, [(row.question, f"{row.where}: query") for row in part], num_latent_steps)
            of_documents = encoder.document_latent_steps(num_latent_steps)
            positives = _encode(encoder, [(row.positive, f"{row.where}: positive") for row in part], of_documents)
            for row, query, positive in zip(part, queries, positives, strict=True):
                score = float(query @ positive)
                found = list(_negatives(row, query, score, index, candidates, answers, options, report))
                file.write(json.dumps(_as_row(row, found, score), ensure_ascii=False) + "\n")
                report.rows += 1
                negatives = len(row.negatives) + len(found)
                report.negatives += negatives
                report.without += negatives == 0
                on_progress(report.rows, len(rows))
    return report


def _encode(
    encoder: Encoder, sides: Sequence[tuple[dict[str, Any], str]], num_latent_steps: int | None
) -> NDArray[np.float32]:
    """Vectors [N, D] of items; each comes with its name for messages, file and row."""
    opened, reading = [], Options.of(encoder.processor)
    for item, name in sides:
        try:
            opened.append(open_pages(item, reading))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    vectors, errors = encoder.encode_readable(opened, num_latent_steps=num_latent_steps)
    for place in sorted(errors):
        raise ValueError(f"{sides[place][1]}: {errors[place]}")
    return vectors


def _negatives(
    row: PairRow,
    query: NDArray[np.float32],
    score: float,
    index: OpenIndex,
    candidates: "_Candidates",
    answers: dict[int, set[int]],
    options: MiningOptions,
    report: MiningReport,
) -> Iterator[tuple[dict[str, Any], float]]:
    """The nearest items that are no answers and are not there yet, with their cosines, hardest first."""
    wanted, passed_over = options.count - len(row.negatives), options.skip
    taken = answers[item_key(row.query)] | set(map(item_key, row.negatives))
    for hit in index.search(query, top=_HITS_PER_NEGATIVE * (options.count + options.skip)):
        if wanted <= 0:
            return
        if hit.score > score - options.margin:
            continue
        item, reason = candidates.item_of(hit)
        if item is None:
            report.left_out[reason] += 1
        elif (key := item_key(item)) not in taken:
            taken.add(key)  # of equal files the index holds each
            if passed_over:
                passed_over -= 1
                continue
            wanted -= 1
            yield item, hit.score


class _Candidates:
    """Hits as sides of pairs. Each file is looked at once: whether it still is what was indexed and scored."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def item_of(self, hit: Hit) -> tuple[dict[str, Any] | None, str]:
        """A hit as a side of a pair, or why it is none.

        Raises:
            ValueError: its file is gone, or has changed.
        """
        path = (Path(hit.folder) / hit.path).resolve()
        is_page = hit.kind == "page" and path.suffix.lower() == ".pdf"
        if hit.locator and hit.kind != "text" and not is_page:
            return None, f"{hit.kind} inside a file ({hit.locator.partition('=')[0]}=...)"
        self._check(path, hit.content)
        if is_page:
            return {"page": [Path(f"{path}#{hit.locator}")]}, ""
        return {"text": text_at(read_text(path), hit.locator)} if hit.kind == "text" else {hit.kind: [path]}, ""

    def _check(self, path: Path, content: str) -> None:
        if self._known.get(path) == content:
            return
        try:
            is_same = has_content(path, content)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}. Index the folder again.") from error
        if not is_same:
            raise ValueError(f"{path} has changed since it was indexed. Index the folder again.")
        self._known[path] = content


def _as_row(row: PairRow, found: list[tuple[dict[str, Any], float]], score: float) -> dict[str, Any]:
    """A row of the file. Given negatives have no score and are kept whatever the positive's is."""
    written = as_plain_row(replace(row, negatives=(*row.negatives, *(item for item, _ in found))))
    if row.negatives:
        return written
    return written | {"score": round(score, 6), "negative_scores": [round(cosine, 6) for _, cosine in found]}
