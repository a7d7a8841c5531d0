"""The index of a folder: a LanceDB table in a directory, kept in step with the folder by content hash.

An item is known by the hash of its file's bytes, so a moved or copied file brings its vectors along. Each batch is one
atomic commit: after a kill at any moment the next run does what is missing and nothing else.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from lancedb.table import Table

from plume_embed.encode.batching import BATCH_SIZE, TOKEN_BUDGET, read_ahead
from plume_embed.encode.encoder import Encoder
from plume_embed.index.files import Listing, content_hash, list_folder
from plume_embed.index.table import (
    Entry,
    Metadata,
    compact,
    damage_named,
    delete_rows,
    locked,
    numbers_by_entry,
    open_table,
    root_label,
    rows_of,
)
from plume_embed.reading.items import FileItem, SourceFile, UnreadableError
from plume_embed.reading.read import Options, read_items

# Texts first: they are the quickest, and a person sees at once that the run goes on.
_KIND_ORDER = {"text": 0, "image": 1, "page": 2, "video": 3}
# Every commit lists all data files, so the work of committing grows with their number; compacting keeps it small.
_COMMITS_PER_COMPACTION = 200
_FILES_PER_COPY = 100

OnProgress = Callable[[int, int], None]
OnUnreadable = Callable[[str, str], None]


@dataclass
class UpdateReport:
    """What an update found and did.

    Args:
        num_files (`int`): Files that can be read, by their hash at least.
        num_items (`int`): Rows in the index now.
        embedded (`int`): Items whose vectors were computed.
        reused (`int`): Rows of moved or copied files, whose vectors were there already.
        removed_files (`int`): Files, or former contents of files, that are gone from the index.
        unreadable: (path, reason) of what was skipped; with "#page=3" for a page.
        num_other (`int`): Files of other types.
        num_links (`int`): Links not followed.
    """

    num_files: int = 0
    num_items: int = 0
    embedded: int = 0
    reused: int = 0
    removed_files: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    num_other: int = 0
    num_links: int = 0


@dataclass(frozen=True)
class Hit:
    """A search result; `score` is the cosine similarity."""

    score: float
    path: str
    locator: str
    kind: str
    snippet: str


@dataclass(frozen=True)
class _Work:
    """A content to embed: one of the files that have it, all of their entries, and the items that are there already."""

    file: SourceFile
    entries: list[Entry]
    skip: frozenset[int]


def update_index(
    folder: Path,
    db: Path,
    encoder: Encoder,
    num_latent_steps: int | None = None,
    batch_size: int = BATCH_SIZE,
    on_progress: OnProgress = lambda done, total: None,
    on_unreadable: OnUnreadable = lambda path, reason: None,
) -> UpdateReport:
    """Brings the index of a folder up to date: embeds what is new or changed, removes what is gone.

    Args:
        folder (`Path`): What to index.
        db (`Path`): The database, a directory, made if it is not there.
        encoder ([`Encoder`]): The model.
        num_latent_steps (`int`, *optional*): K, by default the model's own.
        batch_size (`int`): Most items per pass of the model and per commit: what a kill can cost.
        on_progress: Called with items done and items in all; the latter grows as files are opened.
        on_unreadable: Called with path and reason of whatever is skipped.

    Raises:
        ValueError: no such folder, nothing readable in it, or an index of something else, with the remedy.
    """
    folder, db = Path(folder), Path(db)
    listing = list_folder(folder, excluded=db)
    if db.resolve() == folder.resolve():
        raise ValueError("--to must not be the indexed folder itself; a folder inside it is fine.")
    if not listing.files and not db.exists():
        raise ValueError(_nothing_readable(folder, listing, len(listing.unreadable)))
    report = UpdateReport(num_other=listing.num_other, num_links=listing.num_links)

    def skipped(path: str, reason: str) -> None:
        report.unreadable.append((path, reason))
        on_unreadable(path, reason)

    for path, reason in listing.unreadable:
        skipped(path, reason)
    with locked(db), damage_named(db):
        table = open_table(db, describe(folder, db, encoder, num_latent_steps), encoder.dimension)
        files = _hash_files(listing.files, skipped)
        present = numbers_by_entry(table)
        report.num_files = len(files)
        report.reused = _copy_known(table, files, present)
        # Only now that every vector which is still good has its new name may the old ones go.
        stale = [entry for entry in present if entry not in files]
        delete_rows(table, stale)
        report.removed_files = len(stale)
        embedding = _Embedding(table, encoder, num_latent_steps, batch_size, report, on_progress, skipped)
        embedding.run(_missing(files, present))
        if stale or report.reused or report.embedded:
            compact(table)
        report.num_items = table.count_rows()
    if report.num_items == 0:
        raise ValueError(_nothing_readable(folder, listing, len(report.unreadable)))
    return report


def search_index(table: Table, query_vector: np.ndarray, top: int = 5) -> list[Hit]:
    """The items nearest to a query, by an exact scan of all vectors; ties in the order of their paths.

    Args:
        table (`Table`): From [`open_index`].
        query_vector (`np.ndarray` of shape [D]): Unit norm.
        top (`int`): How many.
    """
    limit = top + 16
    while True:
        query = table.search(query_vector, vector_column_name="vector").distance_type("dot").bypass_vector_index()
        columns = ["path", "locator", "kind", "snippet", "item", "_distance"]
        rows = query.select(columns).limit(limit).to_arrow().to_pylist()
        # If a tie goes over the end, which of its rows came is left to chance: ask for more.
        if len(rows) < limit or rows[-1]["_distance"] > rows[top - 1]["_distance"]:
            break
        limit *= 4
    rows.sort(key=lambda row: (row["_distance"], row["path"], row["item"]))
    return [Hit(1.0 - row["_distance"], row["path"], row["locator"], row["kind"], row["snippet"]) for row in rows[:top]]


def open_index(folder: Path, db: Path, encoder: Encoder, num_latent_steps: int | None = None) -> Table:
    """The table of an index as it stands.

    Raises:
        ValueError: there is none, or it comes from another model, K or folder, with the remedy.
    """
    return open_table(Path(db), describe(Path(folder), Path(db), encoder, num_latent_steps))


def describe(folder: Path, db: Path, encoder: Encoder, num_latent_steps: int | None = None) -> Metadata:
    """What an index of this folder by this model says about itself."""
    return Metadata(
        fingerprint=encoder.fingerprint,
        num_latent_steps=encoder.latent_steps(num_latent_steps),
        model=encoder.name,
        root=root_label(folder, db),
    )


def _hash_files(files: list[SourceFile], skipped: OnUnreadable) -> dict[Entry, SourceFile]:
    found = {}
    for file in files:
        try:
            found[Entry(file.path, content_hash(file), file.kind)] = file
        except UnreadableError as error:
            skipped(file.path, str(error))
    return found


def _copy_known(table: Table, files: dict[Entry, SourceFile], present: dict[Entry, tuple[set[int], int]]) -> int:
    """Gives files whose content the index knows under another path their rows; `present` is brought up to date.

    Returns:
        The number of rows added.
    """
    donors: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in present:
        donors[entry.file_hash, entry.kind].append(entry)
    known = [
        entry for entry in _incomplete(files, present) if donors.get((entry.file_hash, entry.kind), [entry]) != [entry]
    ]
    added = 0
    for start in range(0, len(known), _FILES_PER_COPY):
        chunk = known[start : start + _FILES_PER_COPY]
        sources = {donor: None for entry in chunk for donor in donors[entry.file_hash, entry.kind]}
        rows = rows_of(table, list(sources))
        by_content: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)  # -> number of the item -> row
        names = zip(*(rows[name].to_pylist() for name in ("file_hash", "kind", "item")), strict=True)
        for row, (file_hash, kind, number) in enumerate(names):
            by_content[file_hash, kind][number] = row
        taken: list[tuple[int, Entry]] = []
        for entry in chunk:
            has, _ = present.get(entry, (set(), 0))
            there = by_content[entry.file_hash, entry.kind]
            taken += [(row, entry) for number, row in there.items() if number not in has]
            count = present[donors[entry.file_hash, entry.kind][0]][1]
            present[entry] = (has | there.keys(), count)
        if taken:
            copies = rows.take([row for row, _ in taken])
            for name, values in (("path", [e.path for _, e in taken]), ("entry", [e.id for _, e in taken])):
                copies = copies.set_column(copies.schema.get_field_index(name), name, pa.array(values, pa.string()))
            table.add(copies)
            added += len(taken)
    return added


def _missing(files: dict[Entry, SourceFile], present: dict[Entry, tuple[set[int], int]]) -> list[_Work]:
    """What is left to embed, each content once, like next to like so that batches need little padding."""
    by_content: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in _incomplete(files, present):
        by_content[entry.file_hash, entry.kind].append(entry)
    work = [
        _Work(files[entries[0]], entries, frozenset(present.get(entries[0], (set(), 0))[0]))
        for entries in by_content.values()
    ]
    return sorted(work, key=lambda w: (_KIND_ORDER[w.file.kind], w.file.size, w.file.path))


def _incomplete(files: dict[Entry, SourceFile], present: dict[Entry, tuple[set[int], int]]) -> list[Entry]:
    return [entry for entry in files if entry not in present or len(present[entry][0]) < present[entry][1]]


class _Embedding:
    """Embeds contents batch by batch; each batch is in the table, for good, before the next one is read."""

    def __init__(
        self,
        table: Table,
        encoder: Encoder,
        num_latent_steps: int | None,
        batch_size: int,
        report: UpdateReport,
        on_progress: OnProgress,
        skipped: OnUnreadable,
    ):
        self.table, self.encoder, self.num_latent_steps, self.batch_size = table, encoder, num_latent_steps, batch_size
        self.report, self.on_progress, self.skipped = report, on_progress, skipped
        self.done = self.total = self.commits = 0

    def run(self, work: list[_Work]) -> None:
        self.total = len(work)
        pending: deque[list[tuple[_Work, FileItem]]] = deque()

        def contents() -> Iterator[list[dict]]:
            for batch in self._batches(work):
                pending.append(batch)
                yield [item.content for _, item in batch]

        with closing(self.encoder.encode_batches(contents(), self.num_latent_steps)) as results:
            for vectors, errors in results:
                self._commit(pending.popleft(), vectors, errors)
        self.on_progress(self.done, self.total)

    def _batches(self, work: list[_Work]) -> Iterator[list[tuple[_Work, FileItem]]]:
        """What can be read, in batches that keep to the number of items and to the token budget."""
        batch: list[tuple[_Work, FileItem]] = []
        longest, expected, seen, current = 0.0, 1, 0, None
        with closing(read_ahead(self._read(work), ahead=self.batch_size)) as items:
            for one, read in items:
                if one is not current:
                    expected, seen, current = 1, 0, one
                if isinstance(read, UnreadableError):
                    self.done += expected - seen
                    for entry in one.entries:
                        self.skipped(entry.path, str(read))
                    continue
                if seen == 0:
                    expected = read.count - len(one.skip)
                    self.total += expected - 1
                seen += 1
                if read.content is None:
                    self.done += 1
                    self._skip(one, read, read.reason)
                    continue
                size = self.encoder.num_tokens(read.content)
                longest = max(longest, size)
                if batch and (len(batch) == self.batch_size or longest * (len(batch) + 1) > TOKEN_BUDGET):
                    yield batch
                    batch, longest = [], size
                batch.append((one, read))
        if batch:
            yield batch

    def _read(self, work: list[_Work]) -> Iterator[tuple[_Work, FileItem | UnreadableError]]:
        """Runs in a thread of its own: the items of all files as they are decoded."""
        options = Options.of(self.encoder.processor)
        for one in work:
            try:
                for item in read_items(one.file, self.encoder.fits, options, one.skip):
                    yield one, item
            except UnreadableError as error:
                yield one, error

    def _skip(self, one: _Work, item: FileItem, reason: str) -> None:
        for entry in one.entries:
            self.skipped(f"{entry.path}#{item.locator}" if item.locator else entry.path, reason)

    def _commit(self, batch: list[tuple[_Work, FileItem]], vectors: np.ndarray, errors: dict[int, str]) -> None:
        for place, reason in errors.items():
            self._skip(*batch[place], reason)
        good = [place for place in range(len(batch)) if place not in errors]
        rows = [
            _row(entry, item, vectors[place])
            for place, (one, item) in enumerate(batch)
            if place not in errors
            for entry in one.entries
        ]
        if rows:
            self.table.add(pa.Table.from_pylist(rows, schema=self.table.schema))
            self.commits += 1
            if self.commits % _COMMITS_PER_COMPACTION == 0:
                compact(self.table)
        self.report.embedded += len(good)
        self.report.reused += len(rows) - len(good)
        self.done += len(batch)
        self.on_progress(self.done, self.total)


def _row(entry: Entry, item: FileItem, vector: np.ndarray) -> dict:
    return {
        "vector": vector,
        "path": entry.path,
        "kind": entry.kind,
        "locator": item.locator,
        "snippet": item.snippet,
        "item": item.number,
        "num_items": item.count,
        "file_hash": entry.file_hash,
        "entry": entry.id,
        "embedded_at": datetime.now(UTC),
    }


def _nothing_readable(folder: Path, listing: Listing, num_unreadable: int) -> str:
    return (
        f"Nothing readable in {folder}: {num_unreadable} unreadable, {listing.num_other} of other types. Texts, "
        "pictures, videos and PDFs are read."
    )
