"""Brings the index of a folder up to date: listing -> what has changed -> reading -> batches -> vectors -> tables.

A content is known by the hash of its file, an item by the hash of its text or pixels, so neither a moved file nor an
unchanged passage is embedded again. Each batch is one commit; a file is in the index when all of its items are. After a
kill at any moment the next run does what is missing and nothing else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from plume_embed.encode.batching import BATCH_SIZE, check_batch_limits
from plume_embed.index.ann_kind import AnnKind
from plume_embed.index.commit import Done, OnProgress, Progress, commit_batches
from plume_embed.index.folders import Scope, new_scope
from plume_embed.index.interface import ItemEncoder
from plume_embed.index.listing import Listing, list_folder
from plume_embed.index.look import OnUnreadable, Unreadable, is_unchanged, look, row_of
from plume_embed.index.neighbours import AnnIndex, build_ann, chosen_settings
from plume_embed.index.pipeline import Work, embed_contents
from plume_embed.index.place import Place, check_folder, resolved_folder
from plume_embed.index.search import describe
from plume_embed.index.snapshot import Snapshot, read_snapshot, write_snapshot
from plume_embed.index.store import FileRow, Index
from plume_embed.index.table import ANN_ROWS, check_free, errors_named, holds_index, locked
from plume_embed.reading.items import FileItem
from plume_embed.reading.read import Options, read_items
from plume_embed.stored import check_utf8

# Texts first: they are the quickest, and a person sees at once that the run goes on.
_KIND_ORDER = {"text": 0, "image": 1, "page": 2, "video": 3}


@dataclass(frozen=True)
class UpdateOptions:
    """What an update may do beyond adding what is new and removing what is gone.

    Args:
        prune (`bool`): Believe that files are gone even if nothing is left of a folder.
        moved (`bool`): The folder is one that is in the index, at a new place; every file is hashed.
        add (`bool`): The folder may join the folders of the index.
        verify (`bool`): Hash every file, whatever its size and date say, and read again what could not be read.
        exclude: Patterns of what is left out, in the syntax of gitignore. They are remembered; `None` takes those of
            the last time, an empty one drops them.
        tell_all (`bool`): Tell of everything that is unreadable, not only of what is new.
    """

    prune: bool = False
    moved: bool = False
    add: bool = False
    verify: bool = False
    exclude: Sequence[str] | None = None
    tell_all: bool = False


@dataclass
class UpdateReport:
    """What an update found and did.

    Args:
        num_files (`int`): Files in the index now that have items.
        num_items (`int`): Their items.
        embedded (`int`): Items whose vectors were computed.
        reused (`int`): Items of new or changed files whose vectors were there already.
        removed_files (`int`): Files, or former contents of files, that are gone from the folder and the index.
        left_out_files (`int`): Files that are there, and gone from the index because a rule leaves them out now.
        kept_files (`int`): Files that cannot be looked at and stay in the index as they were.
        away_files (`int`): Those of them whose folder is there and empty, as that of a drive that is away.
        unreadable: (path, reason) of what is skipped; with "#page=3" for a page.
        others: The files of other types, by their paths.
        links: The links not followed.
        excluded: How many files and folders each pattern of `exclude` leaves out; under "" other rules.
    """

    num_files: int = 0
    num_items: int = 0
    embedded: int = 0
    reused: int = 0
    removed_files: int = 0
    left_out_files: int = 0
    kept_files: int = 0
    away_files: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)

    @property
    def other_types(self) -> Counter[str]:
        """How many files of other types there are, by suffix in small letters."""
        return Counter(PurePosixPath(path).suffix.lower() for path in self.others)

    @property
    def num_excluded(self) -> int:
        """Files and folders left out by a rule."""
        return sum(self.excluded.values())


def update_index(
    folder: Path,
    db: Place,
    encoder: ItemEncoder,
    num_latent_steps: int | None = None,
    batch_size: int = BATCH_SIZE,
    on_progress: OnProgress = lambda done, total: None,
    on_unreadable: OnUnreadable = lambda path, reason: None,
    options: UpdateOptions = UpdateOptions(),
) -> UpdateReport:
    """Brings the index of a folder up to date: embeds what is new or changed, removes what is gone.

    What cannot be looked at is not gone: its items stay.

    Args:
        folder (`Path`): What to index; inside an indexed folder only this part is brought up to date.
        db ([`Place`]): The database, made if it is not there.
        encoder ([`ItemEncoder`]): The model.
        num_latent_steps (`int`, *optional*): K, by default the model's own; a model that has a K of its own for
            documents keeps to that.
        batch_size (`int`): Most items per pass of the model and per commit: what a kill can cost.
        on_progress: Called with items done and items in all; the latter grows as files are opened.
        on_unreadable: Called with path and reason of whatever is skipped and was not at the last update.
        options ([`UpdateOptions`])

    Raises:
        ValueError: no such folder, nothing readable in it, nothing left of what was in it, or an index of something
            else or other files in the place of the database, with the remedy; or a batch size that is no whole number
            above 0.
        BusyError: another process is updating the index.
    """
    check_batch_limits(batch_size)
    folder, inside = Path(folder), resolved_folder(db)
    check_folder(folder)
    for path in (folder, inside):
        if path is not None:
            check_utf8(path.resolve())
    if inside == folder.resolve():
        raise ValueError("--to must not be the indexed folder itself; a folder inside it is fine.")
    check_free(db)
    if not (db.exists() if isinstance(db, Path) else holds_index(db)):
        listing = list_folder(folder, exclude=options.exclude or (), databases=[inside] if inside else [])
        if not listing.files:
            raise ValueError(_nothing_readable(folder, len(listing.unreadable), _report_of(listing)))
    wanted = describe(encoder, num_latent_steps)
    with locked(db), errors_named(db):
        snapshot = read_snapshot(db, wanted)
        report = None if snapshot is None else _report_if_unchanged(snapshot, folder, options, on_unreadable)
        if report is None:
            index = Index(db, wanted, encoder.dimension)
            update = _Update(index, folder, options, on_unreadable)
            update.start()
            update.embed(encoder, num_latent_steps, batch_size, on_progress)
            report = update.finish()
            write_snapshot(index)
        else:
            on_progress(0, 0)
    if report.num_items == 0 and not options.prune:
        raise ValueError(_nothing_readable(folder, len(report.unreadable), report))
    return report


def update_ann(
    db: Place,
    encoder: ItemEncoder,
    num_latent_steps: int | None = None,
    kind: AnnKind | None = None,
    dimensions: int | None = None,
    min_rows: int = ANN_ROWS,
) -> AnnIndex | None:
    """Gives an index of approximate neighbours to what is indexed, and holds it fresh.

    It is trained where there is none, where another one is asked for, and where the table has doubled since.

    Args:
        db ([`Place`]): An index that is there.
        encoder ([`ItemEncoder`]): The model that made it.
        num_latent_steps (`int`, *optional*): K, as for [`update_index`].
        kind ([`AnnKind`], *optional*): How it codes vectors. By default as the one that is there does, else binary.
        dimensions (`int`, *optional*): Only the first so many are coded. By default all, or with no kind given either
            those of the one that is there.
        min_rows (`int`): With fewer rows nothing is done: an exact scan is quick.

    Returns:
        The index as it is now, or `None` where there are too few rows.

    Raises:
        ValueError: no such index, or settings that do not fit it.
        BusyError: another process is updating it.
    """
    with locked(db), errors_named(db):
        index = Index(db, describe(encoder, num_latent_steps))
        num_rows, found = index.items.count_rows(), index.ann()
        settings = chosen_settings(found, kind, dimensions)
        if num_rows < min_rows:
            return None
        if found is None or found.settings != settings or found.is_outgrown(num_rows):
            found = build_ann(index.items, settings)
            index.compact()
        elif found.new_rows:
            index.compact()
        return index.ann()


class _Update:
    """What an update knows: the folder as it is, the index as it was, and what has to be done."""

    def __init__(self, index: Index, folder: Path, options: UpdateOptions, on_unreadable: OnUnreadable):
        self.index, self.options = index, options
        self.scope, self.listing = _list(index, folder, options)
        scope = self.scope
        self.known = {} if scope.is_new else index.files_of(scope)
        self.unreadable = Unreadable(self.known, on_unreadable, options.tell_all)
        verify = options.verify or scope.is_moved
        lost = set() if index.is_settled() else index.incomplete()
        self.is_settled = not lost
        self.changes = look(
            self.listing, scope.folder.number, self.known, index.finished, self.unreadable, verify, lost
        )
        self.rows = dict(self.known)  # as the index will have them
        self.report = _report_of(self.listing)
        self.report.reused = self.changes.num_reused
        self.gone = self._gone()

    def start(self) -> None:
        """Writes what needs no embedding."""
        if self.scope.is_new or self.scope.is_moved or self.options.exclude is not None:
            self.index.write_folder(self.scope.folder)
        self._put(self.changes.rows.values())

    def embed(
        self, encoder: ItemEncoder, num_latent_steps: int | None, batch_size: int, on_progress: OnProgress
    ) -> None:
        """Reads and embeds what is missing; a file is in the index as soon as it is whole."""
        works = self._works()
        progress = Progress(len(works), on_progress)
        if works:
            steps = encoder.document_latent_steps(num_latent_steps)
            batches = embed_contents(works, encoder, steps, batch_size, _reader(encoder), self.index.digests())
            with closing(batches):
                for whole in commit_batches(batches, self.index, self.unreadable, progress):
                    self._put([row for done in whole for row in self._rows_of(done)])
        progress.tell()

    def finish(self) -> UpdateReport:
        """Removes what is gone, and says what was done."""
        self.index.drop_files(self.gone)
        for row in self.gone:
            del self.rows[row.path]
        if not self.index.is_settled():
            self.index.drop_unused_items()
        if self.gone or self.changes.rows or self.changes.to_read:
            self.index.compact()
        gone = [self.listing.is_left_out(row.path) for row in self.gone if row.num_items > 0]
        self.report.left_out_files = sum(gone)
        self.report.removed_files = self.changes.num_changed + len(gone) - sum(gone)
        _count(self.report, self.rows.values(), self.unreadable)
        return self.report

    def _gone(self) -> list[FileRow]:
        """The rows of files that are no longer there.

        Raises:
            ValueError: nothing is left of what the index holds.
        """
        listed = self.changes.paths()
        missing = [row for path, row in self.known.items() if path not in listed]
        there = self.changes.contents_there(self.known) if missing else set()
        gone = []
        for row in missing:
            is_gone = not row.content or self.listing.is_gone(row.path, self.options.prune)
            is_away = not is_gone and self.listing.is_of_an_empty_folder(row.path)
            if is_gone or (is_away and row.content in there):  # it was moved out of the folder that is empty now
                gone.append(row)
            else:
                self.report.kept_files += row.num_items > 0
                self.report.away_files += is_away and row.num_items > 0
        covers = self.listing.exclusions.covers  # what is left out on purpose is missed by nobody
        held = [row for row in self.known.values() if row.num_items > 0 and not covers(row.path)]
        if held and not self.options.prune and self._is_nothing_left(held, {row.path for row in gone}):
            raise ValueError(self._refusal(len(held)))
        return gone

    def _is_nothing_left(self, held: list[FileRow], gone: set[str]) -> bool:
        if not self.listing.files:
            return not self.listing.unreadable
        contents = self.changes.contents()
        is_here = any(row.content in contents for row in held)
        return not is_here and (self.scope.is_moved or all(row.path in gone for row in held))

    def _refusal(self, num_files: int) -> str:
        place = self.listing.root / self.scope.inside
        if self.scope.is_moved:
            return f"{place} holds none of the {num_files:,} files of {self.index.db}; pass another --to."
        return (
            f"None of the {num_files:,} files of {place} that are in the index is there any more. If a drive or a "
            "share is away, connect it; if they are gone for good, pass --prune. Nothing was changed."
        )

    def _works(self) -> list[Work]:
        """What is left to embed, each content once, like next to like so that batches need little padding."""
        to_read = self.changes.to_read
        there = self.index.numbers_of(to_read) if to_read else {}
        works = [Work(content, files, frozenset(there.get(content, ()))) for content, files in to_read.items()]
        return sorted(works, key=lambda work: (_KIND_ORDER[work.files[0].kind], work.files[0].size, work.files[0].path))

    def _rows_of(self, done: Done) -> Iterator[FileRow]:
        """What the index shall say of the files of a content that has been read."""
        if done.failure:
            done.unreadable.append(("", done.failure))
        for path, reason in done.lost.items():  # what they hold now is for the next update
            self.unreadable.add(path, reason)
        files = [file for file in done.work.files if file.path not in done.lost]
        self.report.embedded += done.embedded
        self.report.reused += done.reused + max(0, len(files) - 1) * done.num_items
        for file in files:
            if done.failure:
                self.unreadable.add(file.path, done.failure)
            number, unreadable = self.scope.folder.number, tuple(done.unreadable)
            row = row_of(file, number, done.work.content, done.num_items, unreadable, self.listing.time_ns)
            # What no reader has judged is read again by the next update, as what another one has.
            yield replace(row, version="") if done.is_cut_short else row

    def _put(self, rows: Iterable[FileRow]) -> None:
        rows = list(rows)
        if rows:
            self.index.put_files(rows)
            self.rows |= {row.path: row for row in rows}


def _report_if_unchanged(
    snapshot: Snapshot, folder: Path, options: UpdateOptions, on_unreadable: OnUnreadable
) -> UpdateReport | None:
    """The report on a folder in which nothing has changed, by size and date; `None` where there may be work to do."""
    scope, listing = _list(snapshot, folder, options)
    known = {} if scope.is_new else snapshot.files_of(scope)
    is_asked_for_more = scope.is_new or scope.is_moved or options.verify or options.exclude is not None
    if is_asked_for_more or not is_unchanged(listing, known):
        return None
    report, unreadable = _report_of(listing), Unreadable(known, on_unreadable, options.tell_all)
    look(listing, scope.folder.number, known, lambda contents: {}, unreadable)
    _count(report, known.values(), unreadable)
    return report


def _list(index: Index | Snapshot, folder: Path, options: UpdateOptions) -> tuple[Scope, Listing]:
    """What the update is about, and what is there."""
    scope = new_scope(index, folder, options.moved, options.add)
    if options.exclude is not None:
        patterns = tuple(pattern for pattern in options.exclude if pattern)
        scope = replace(scope, folder=replace(scope.folder, exclude=patterns))
    inside = resolved_folder(index.db)
    listing = list_folder(scope.folder.path, scope.inside, scope.folder.exclude, [inside] if inside else [])
    if scope.inside and (f"/{scope.inside}".count("/.") or listing.exclusions.covers(f"{scope.inside}/")):
        raise ValueError(
            f"{folder} is left out of the index of {scope.folder.path}; pass --to to give it an index of its own."
        )
    return scope, listing


def _report_of(listing: Listing) -> UpdateReport:
    return UpdateReport(others=sorted(listing.others), links=sorted(listing.links), excluded=dict(listing.excluded))


def _count(report: UpdateReport, rows: Iterable[FileRow], unreadable: Unreadable) -> None:
    held = [row for row in rows if row.num_items > 0]
    report.num_files, report.num_items = len(held), sum(row.num_items for row in held)
    report.unreadable = unreadable.found


def _reader(encoder: ItemEncoder) -> Callable[[Work], Iterator[FileItem]]:
    options = Options.of(encoder.processor)
    return lambda work: read_items(work.files[0], encoder.fits, options, work.skip)


def _nothing_readable(folder: Path, num_unreadable: int, report: UpdateReport) -> str:
    left_out = f", {report.num_excluded:,} left out by a rule" if report.num_excluded else ""
    return (
        f"Nothing readable in {folder}: {num_unreadable} unreadable, {len(report.others)} of other "
        f"types{left_out}. Texts, pictures, videos and PDFs are read."
    )
