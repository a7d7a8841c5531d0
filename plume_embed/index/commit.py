"""Batches with their vectors -> rows of the index; what is whole is handed on."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from plume_embed.index.look import Unreadable
from plume_embed.index.pipeline import Batch, Part, Work
from plume_embed.index.store import Index, StoredVector

# Every commit lists all data files, so the work of committing grows with their number; compacting keeps it small.
_COMMITS_PER_COMPACTION = 200

OnProgress = Callable[[int, int], None]


@dataclass
class Done:
    """A content as far as it has come.

    Args:
        work ([`Work`])
        num_items (`int`): Its rows in the index.
        unreadable: (locator, reason) of what cannot be read of it; the locator is "" for the rest of the file.
        embedded, reused (`int`): Items whose vectors were computed, or were there already.
        failure (`str`): Why the rest of the file could not be read.
        lost: By path, why files could not be read that have not this content any more.
        is_cut_short (`bool`): Something outside ended the reading; the next update shall try again.
    """

    work: Work
    num_items: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    embedded: int = 0
    reused: int = 0
    failure: str = ""
    is_cut_short: bool = False
    lost: dict[str, str] = field(default_factory=dict)


class Progress:
    """Counts items, of which files have more than one, as it turns out when they are opened."""

    def __init__(self, num_works: int, on_progress: OnProgress):
        self.done, self.total, self._on_progress = 0, num_works, on_progress
        self._seen = 0  # of the current content
        self._expected = 1

    def add(self, part: Part) -> None:
        """Counts a part; the end of a content settles what was expected and did not come."""
        if part.item is None:
            self.done += max(0, self._expected - self._seen)
            self._seen, self._expected = 0, 1
            return
        if self._seen == 0:
            self._expected = part.item.count - len(part.work.skip)
            self.total += self._expected - 1
        self._seen += 1
        self.done += 1

    def tell(self) -> None:
        """Reports where it stands."""
        self._on_progress(self.done, self.total)


def commit_batches(
    batches: Iterable[Batch], index: Index, unreadable: Unreadable, progress: Progress
) -> Iterator[list[Done]]:
    """Writes batch after batch, each in one commit, and gives the contents that are whole after it.

    Args:
        batches: From [`embed_contents`].
        index ([`Index`])
        unreadable ([`Unreadable`]): Gets the items that cannot be read or embedded.
        progress ([`Progress`])
    """
    current: Done | None = None
    for number, batch in enumerate(batches, start=1):
        vectors, reasons = _outcome(batch, index)
        now = datetime.now(UTC)
        rows, ended = [], []
        for place, part in enumerate(batch.parts):
            if current is None:
                current = Done(part.work, num_items=len(part.work.skip))
            progress.add(part)
            if part.item is None:
                current.failure, current.is_cut_short, current.lost = part.failure, part.is_cut_short, part.lost
                ended.append(current)
                current = None
            elif place in reasons:
                current.unreadable.append((part.item.locator, reasons[place]))
                for file in part.work.files:
                    unreadable.add(file.path, reasons[place], part.item.locator)
            else:
                rows.append(_row(part, vectors[place], now))
                current.num_items += 1
                current.embedded += not part.is_known
                current.reused += part.is_known
        if rows:
            index.add_items(rows)
        if number % _COMMITS_PER_COMPACTION == 0:
            index.compact()
        yield ended
        progress.tell()


def _outcome(batch: Batch, index: Index) -> tuple[dict[int, np.ndarray | StoredVector], dict[int, str]]:
    """The vectors of a batch's items, and why there is none, by their places in the batch."""
    vectors: dict[int, np.ndarray | StoredVector] = {}
    reasons: dict[int, str] = {}
    stored = index.vectors_of([part.digest for part in batch.parts if part.is_known])
    embedded = 0
    for place, part in enumerate(batch.parts):
        if part.is_to_embed:
            if embedded in batch.errors:
                reasons[place] = batch.errors[embedded]
            else:
                vectors[place] = batch.vectors[embedded]
            embedded += 1
        elif part.is_known:
            vectors[place] = stored[part.digest]
        elif part.item is not None:
            reasons[place] = part.item.reason
    return vectors, reasons


def _row(part: Part, vector: np.ndarray | StoredVector, now: datetime) -> dict:
    is_stored = isinstance(vector, StoredVector)
    return {
        "vector": vector.vector if is_stored else vector,
        "content": part.work.content,
        "item": part.item.number,
        "kind": part.item.kind,
        "locator": part.item.locator,
        "snippet": part.item.snippet,
        "digest": part.digest,
        "embedded_at": vector.embedded_at if is_stored else now,
    }
