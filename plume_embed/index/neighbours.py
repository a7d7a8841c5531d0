"""The rows of a table nearest to a query: by an exact scan, or from an index of approximate nearest neighbours (ANN).

Such an index holds a small code of every vector, sorted into partitions. It only chooses candidates: their distances
come from the stored float32 vectors, so a score is exact either way. Rows that it does not hold yet are scanned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from plume_embed.index.ann_kind import AnnKind

if TYPE_CHECKING:
    from lancedb.table import Table

VECTOR, SHORT = "vector", "short_vector"  # the second is there for an index of the first dimensions alone
_SHORT_REFINE = 20  # at least so many candidates for each row wanted, where dimensions are missing
_PROBES = 20  # partitions that are always searched; more where a filter leaves too few rows


@dataclass(frozen=True)
class _Recipe:
    config: str  # the name of a class of lancedb.index
    index_type: str  # as a table lists it
    refine: int  # candidates for each row that is asked for; benchmarks/ann.py measures what they are worth


_RECIPES = {
    AnnKind.BINARY: _Recipe("IvfRq", "IvfRq", 20),
    AnnKind.INT8: _Recipe("IvfSq", "IvfSq", 4),
    AnnKind.PQ: _Recipe("IvfPq", "IvfPq", 20),
    AnnKind.HNSW: _Recipe("HnswSq", "IvfHnswSq", 4),
}


@dataclass(frozen=True)
class AnnSettings:
    """What an index is made of.

    Args:
        kind ([`AnnKind`])
        dimensions (`int`, *optional*): Only the first so many dimensions are coded; candidates are ranked by all.
    """

    kind: AnnKind = AnnKind.BINARY
    dimensions: int | None = None


@dataclass(frozen=True)
class AnnIndex:
    """An index as it stands.

    Args:
        name (`str`): In LanceDB.
        settings ([`AnnSettings`])
        trained_rows (`int`): Rows of the table when it was made; its partitions fit those.
        new_rows (`int`): Rows that it does not hold yet.
        num_bytes (`int`)
    """

    name: str
    settings: AnnSettings
    trained_rows: int
    new_rows: int
    num_bytes: int

    def is_outgrown(self, num_rows: int) -> bool:
        """Whether the table has doubled since: the partitions are then too large and not where the vectors are."""
        return num_rows >= 2 * self.trained_rows


def chosen_settings(found: AnnIndex | None, kind: AnnKind | None, dimensions: int | None) -> AnnSettings:
    """What an index is made of next: what is there stays where nothing else is asked for.

    Another kind begins with all dimensions; dimensions alone leave the kind as it is.
    """
    held = found.settings if found is not None else AnnSettings()
    if kind is None and dimensions is None:
        return held
    return AnnSettings(held.kind if kind is None else kind, dimensions)


def read_ann(table: Table) -> AnnIndex | None:
    """The index of a table, or `None`; of several, of which a kill can leave two, the newest."""
    kinds = {recipe.index_type: kind for kind, recipe in _RECIPES.items()}
    found = [one for one in table.list_indices() if one.name.startswith("ann-") and one.index_type in kinds]
    if not found:
        return None
    newest = max(found, key=lambda one: one.created_at)
    dimensions = table.schema.field(SHORT).type.list_size if newest.columns == [SHORT] else None
    settings = AnnSettings(kinds[newest.index_type], dimensions)
    rows = int(newest.name.rpartition("-")[2])
    return AnnIndex(newest.name, settings, rows, newest.num_unindexed_rows or 0, newest.size_bytes or 0)


def build_ann(table: Table, settings: AnnSettings) -> AnnIndex:
    """Trains an index over all rows; one that is there stays in use until the new one is whole.

    Raises:
        ValueError: the dimensions are not below D, or there are too few rows to learn from.
    """
    size, rows = table.schema.field(VECTOR).type.list_size, table.count_rows()
    if settings.dimensions is not None and not 8 <= settings.dimensions < size:
        raise ValueError(f"The dimensions of an ANN index must lie in 8..{size - 1}, got {settings.dimensions}.")
    if rows < 256:
        raise ValueError(f"An ANN index needs 256 rows to learn from, and there are {rows}.")
    _fit_short(table, settings.dimensions)
    name = f"ann-{settings.kind}-{settings.dimensions or size}-{rows}"
    # Vectors have unit norm, their first dimensions have not.
    column, distance = (VECTOR, "dot") if settings.dimensions is None else (SHORT, "cosine")
    from lancedb import index as configs  # takes two CPU seconds, which a search by a snapshot saves

    config = vars(configs)[_RECIPES[settings.kind].config](distance_type=distance)
    table.create_index(column, config=config, name=name, replace=True)
    for one in table.list_indices():
        if one.name.startswith("ann-") and one.name != name:
            table.drop_index(one.name)
    if settings.dimensions is None and SHORT in table.schema.names:
        table.drop_columns([SHORT])
    made = read_ann(table)
    assert made is not None
    return made


def with_short(rows: list[dict], schema: pa.Schema) -> list[dict]:
    """Rows as a table wants them: with their first dimensions, where it has that column."""
    if SHORT not in schema.names:
        return rows
    size = schema.field(SHORT).type.list_size
    return [{**row, SHORT: row[VECTOR][:size]} for row in rows]


def exact(table: Table, query: np.ndarray, limit: int, where: str = "", columns: Sequence[str] = ()) -> list[dict]:
    """The nearest rows, by a scan of all vectors.

    Args:
        query (`np.ndarray` of shape [D]): Unit norm.
        limit (`int`): How many.
        where (`str`): SQL; only rows for which it holds.
        columns: What of the rows is wanted.

    Returns:
        The nearest first; "_distance" is one minus the cosine similarity.
    """
    search = table.search(query, vector_column_name=VECTOR).distance_type("dot").bypass_vector_index()
    if where:
        search = search.where(where, prefilter=True)
    return search.select([*columns, "_distance"]).limit(limit).to_arrow().to_pylist()


def approximate(
    table: Table,
    ann: AnnIndex,
    query: np.ndarray,
    limit: int,
    where: str = "",
    columns: Sequence[str] = (),
    refine: int | None = None,
    probes: int = _PROBES,
) -> list[dict]:
    """The nearest rows among the candidates of an index; as [`exact`] otherwise.

    Args:
        refine (`int`, *optional*): Candidates for each row wanted, by default what fits the kind. 0 shows the distances
            of the codes.
        probes (`int`): Partitions that are searched.
    """
    size, factor = ann.settings.dimensions, refine
    if factor is None:
        factor = max(_RECIPES[ann.settings.kind].refine, 0 if size is None else _SHORT_REFINE)
    if size is not None and factor:
        found = _candidates(table, query[:size], SHORT, limit * factor, where, 1, probes)
        return _rescored(table, query, found.with_row_id(True).select(["_distance"]).to_arrow(), limit, columns)
    column, part = (VECTOR, query) if size is None else (SHORT, query[:size])
    found = _candidates(table, part, column, limit, where, factor, probes)
    return found.select([*columns, "_distance"]).to_arrow().to_pylist()


def distances_to(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """One minus the cosine similarity of a query [D] with vectors [N, D], all of unit norm: [N] of float32.

    Equal vectors are equally near. In a product of BLAS the last bits depend on the place of a row.
    """
    return 1.0 - np.einsum("nd,d->n", vectors, np.asarray(query, np.float32))


def _candidates(table: Table, query: np.ndarray, column: str, limit: int, where: str, refine: int, probes: int) -> Any:
    search: Any = table.search(query, vector_column_name=column)
    search = search.distance_type("dot" if column == VECTOR else "cosine")
    search = search.minimum_nprobes(probes).maximum_nprobes(0)
    if refine:
        search = search.refine_factor(refine)
    if where:
        search = search.where(where, prefilter=True)
    return search.limit(limit)


def _rescored(table: Table, query: np.ndarray, found: pa.Table, limit: int, columns: Sequence[str]) -> list[dict]:
    """The nearest of some rows by all dimensions."""
    ids = found["_rowid"].to_pylist()
    rows = table.take_row_ids(ids).select([*columns, VECTOR]).to_arrow() if ids else None
    if rows is None:
        return []
    vectors = rows[VECTOR].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)  # [N, D]
    distances = distances_to(query, vectors)
    nearest = np.argsort(distances, kind="stable")[:limit]
    kept = rows.drop_columns([VECTOR]).take(nearest).to_pylist()
    return [{**row, "_distance": float(distance)} for row, distance in zip(kept, distances[nearest], strict=True)]


def _fit_short(table: Table, dimensions: int | None) -> None:
    """Makes the column of the first dimensions, where it is wanted and not there in that size."""
    if dimensions is None:
        return
    if SHORT in table.schema.names:
        if table.schema.field(SHORT).type.list_size == dimensions:
            return
        table.drop_columns([SHORT])
    kind = f"FixedSizeList({dimensions}, Float32)"
    table.add_columns({SHORT: f"arrow_cast(array_slice({VECTOR}, 1, {dimensions}), '{kind}')"})
