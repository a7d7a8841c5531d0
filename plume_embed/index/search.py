"""Ranking what an index holds: by an exact scan, or in a large index by the candidates of its ANN index."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plume_embed.index.folders import Scope, find_scope
from plume_embed.index.interface import ItemEncoder
from plume_embed.index.place import Place, resolved_folder
from plume_embed.index.snapshot import Snapshot, read_snapshot
from plume_embed.index.store import Index
from plume_embed.index.table import ANN_ROWS, FORMAT, FORMAT_WITH_TIMES, Metadata
from plume_embed.reading.items import Kind
from plume_embed.stored import check_utf8

_COLUMNS = ["content", "item", "kind", "locator", "snippet", "digest"]


@dataclass(frozen=True)
class Hit:
    """A search result.

    Args:
        score (`float`): The cosine similarity.
        path (`str`): Of the file, relative to `folder`.
        locator (`str`): Where in the file: "page=3", "time=12-17", "chars=0-1200", or "" for the whole file.
        kind (`str`): "text", "image", "video" or "page".
        snippet (`str`): How its text starts, in one line.
        folder (`str`): The folder that was searched, as it was given.
        copies: Where the same content is too, as path#locator; with its folder where that is another one.
        content (`str`): The file's content by its name in the index: what it is, and the SHA-256 of its bytes.
    """

    score: float
    path: str
    locator: str
    kind: str
    snippet: str
    folder: str = ""
    copies: tuple[str, ...] = ()
    content: str = ""


@dataclass(frozen=True)
class Row:
    """An item of a file in the index, with its vector [D]."""

    path: str
    locator: str
    kind: str
    snippet: str
    item: int
    vector: np.ndarray


@dataclass(frozen=True)
class _Place:
    """An item where it was found."""

    folder: str
    path: str
    content: str
    item: int
    locator: str
    kind: str
    snippet: str

    def beside(self, other: "_Place") -> str:
        """As a copy of what is in another place: path#locator, with its folder where that is another one."""
        path = self.path if self.folder == other.folder else str(Path(self.folder) / self.path)
        return f"{path}#{self.locator}" if self.locator else path


class OpenIndex:
    """The part of an index that some folders are, ready to be searched.

    Args:
        index ([`Index`] or [`Snapshot`])
        scopes: What is searched, by the folders as they were given.
        open_tables: Gives the [`Index`] for what a snapshot cannot answer.
    """

    def __init__(self, index: Index | Snapshot, scopes: dict[str, Scope], open_tables: Callable[[], Index]):
        self._index, self._scopes, self._open_tables = index, scopes, open_tables

    def remedy(self) -> str | None:
        """What makes the searches of a large index quicker, or `None`."""
        if isinstance(self._index, Snapshot):
            return None
        num_rows, ann = self._index.items.count_rows(), self._index.ann()
        if num_rows < ANN_ROWS:
            return None
        if ann is None:
            return f"Every search scans all {num_rows:,} vectors; `plume-embed index --ann` makes that quicker."
        if ann.is_outgrown(num_rows):
            return (
                f"The ANN index was trained on {ann.trained_rows:,} of {num_rows:,} vectors; "
                "`plume-embed index --ann` trains it anew."
            )
        return None

    def rows(self) -> list[Row]:
        """All items with their vectors, sorted by path and place in the file; it holds them all in memory."""
        places = self._places(self._index.contents())
        found = []
        for batch in self._index.item_batches([*_COLUMNS, "vector"]):
            for row in batch.to_pylist():
                found += [
                    Row(path, row["locator"], row["kind"], row["snippet"], row["item"], np.float32(row["vector"]))
                    for _, path in places[row["content"]]
                ]
        return sorted(found, key=lambda row: (row.path, row.item))

    def search(
        self,
        query_vector: np.ndarray,
        top: int = 5,
        kinds: Sequence[Kind] = (),
        min_score: float | None = None,
        where: str = "",
        is_exact: bool | None = None,
    ) -> list[Hit]:
        """The contents nearest to a query; what is there several times is one hit, ties are in the order of paths.

        Args:
            query_vector (`np.ndarray` of shape [D]): Unit norm.
            top (`int`): How many.
            kinds: Only these; all where none is given.
            min_score (`float`, *optional*): Only what is at least so near.
            where (`str`): SQL over the columns kind, locator, snippet and embedded_at; only rows for which it holds.
            is_exact (`bool`, *optional*): Scan all vectors. By default below [`ANN_ROWS`] or without an ANN index.
                Scores are exact either way.

        Raises:
            ValueError: the condition is no SQL, or an ANN index is asked for and not there.
        """
        nearest = self._ranking(query_vector, kinds, where, is_exact)
        farthest = np.inf if min_score is None else 1.0 - min_score
        limit = top + 16
        while True:
            rows = nearest(limit)
            groups = self._groups(rows)
            # What is behind the last row is farther away; if that is a tie, which of its rows came is left to chance.
            last = rows[-1]["_distance"] if rows else np.inf
            if len(rows) < limit or last > farthest or (len(groups) >= top and last > groups[top - 1][0]):
                break
            limit *= 4
        return [_hit(distance, places) for distance, places in groups[:top] if distance <= farthest]

    def _ranking(
        self, query_vector: np.ndarray, kinds: Sequence[Kind], where: str, is_exact: bool | None
    ) -> Callable[[int], list[dict]]:
        """What gives so many rows, nearest first."""
        if isinstance(self._index, Snapshot):
            snapshot = self._index
            if not where and is_exact is not False:
                return lambda limit: snapshot.nearest(query_vector, limit, kinds, _COLUMNS)
            self._index = self._open_tables()
        index, ann = self._index, None
        if where:
            index.check_filter(where)
        if is_exact is False or (is_exact is None and index.items.count_rows() >= ANN_ROWS):
            ann = index.ann()
        if is_exact is False and ann is None:
            raise ValueError(f"{index.db} has no ANN index; `plume-embed index --ann` makes one.")
        return lambda limit: index.nearest(query_vector, limit, kinds, _COLUMNS, where, ann)

    def _groups(self, rows: list[dict]) -> list[tuple[float, list[_Place]]]:
        """The places of each content, nearest content first; contents without a place in the scopes are left out."""
        found = self._places({row["content"] for row in rows})
        distances: dict[str, float] = {}
        places: dict[str, list[_Place]] = defaultdict(list)
        for row in rows:
            for folder, path in found[row["content"]]:
                place = _Place(folder, path, row["content"], row["item"], row["locator"], row["kind"], row["snippet"])
                places[row["digest"]].append(place)
                distances.setdefault(row["digest"], row["_distance"])
        groups = [
            (distances[digest], sorted(same, key=lambda place: (place.folder, place.path, place.item)))
            for digest, same in places.items()
        ]
        return sorted(groups, key=lambda group: (group[0], group[1][0].folder, group[1][0].path, group[1][0].item))

    def _places(self, contents: set[str]) -> dict[str, list[tuple[str, str]]]:
        """Where the contents are, as folder and path, in the scopes alone; a file in two of them is in the first."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in self._index.files_with(sorted(contents)):
            for folder, scope in self._scopes.items():
                if row.folder == scope.folder.number and row.path.startswith(scope.prefix):
                    found[row.content].append((folder, row.path.removeprefix(scope.prefix)))
                    break
        return found


def open_index(
    folder: Path | str | Sequence[Path | str], db: Place, encoder: ItemEncoder, num_latent_steps: int | None = None
) -> OpenIndex:
    """An index as it stands.

    Args:
        folder (`Path`, or several): What is searched: indexed folders, or folders inside them.
        db ([`Place`]): The database.
        encoder ([`ItemEncoder`]): The model whose vectors it must hold.
        num_latent_steps (`int`, *optional*): K of queries, by default the model's own.

    Raises:
        ValueError: there is none, or it comes from another model, K or folder, with the remedy.
    """
    given = [folder] if isinstance(folder, str | Path) else folder
    for path in (*map(Path, given), resolved_folder(db)):
        if path is not None:
            check_utf8(path.resolve())
    wanted = describe(encoder, num_latent_steps)
    index = read_snapshot(db, wanted) or Index(db, wanted)
    return OpenIndex(index, {str(one): find_scope(index, Path(one)) for one in given}, lambda: Index(db, wanted))


def describe(encoder: ItemEncoder, num_latent_steps: int | None = None) -> Metadata:
    """What an index by this model says about itself."""
    steps = encoder.document_latent_steps(num_latent_steps)
    form = FORMAT_WITH_TIMES if encoder.processor.sees_times else FORMAT
    return Metadata(encoder.fingerprint, steps, encoder.name, form, encoder.fingerprints)


def _hit(distance: float, places: list[_Place]) -> Hit:
    first = places[0]
    copies = tuple(place.beside(first) for place in _unique(places[1:]))
    found = (first.path, first.locator, first.kind, first.snippet, first.folder)
    return Hit(1.0 - distance, *found, copies, first.content)


def _unique(places: list[_Place]) -> Iterator[_Place]:
    return iter(dict.fromkeys(places))
