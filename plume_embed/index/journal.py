"""Vectors of a run that is not finished: a LanceDB table beside the output, by the hashes of the contents."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from plume_embed.index.jsonl_lines import HASH_BYTES
from plume_embed.index.table import BusyError, errors_named, locked, open_if_there

_TABLE = "vectors"
_METADATA_KEY = b"plume_embed"
_COMMITS_PER_COMPACTION = 200


class Journal:
    """An open journal.

    Args:
        folder (`Path`): Its database.
        made_by (`dict`): What decides the vectors: the model's fingerprint and K.
        dimension (`int`): D.

    Raises:
        ValueError: it was written by another model, with another K, or is something else.
    """

    def __init__(self, folder: Path, made_by: dict[str, Any], dimension: int):
        schema = pa.schema(
            {"key": pa.binary(HASH_BYTES), "embedding": pa.list_(pa.float32(), dimension)}.items(),
            metadata={_METADATA_KEY: json.dumps(made_by, sort_keys=True)},
        )
        connection = lancedb.connect(str(folder))
        found = open_if_there(connection, _TABLE)
        self._table = connection.create_table(_TABLE, schema=schema) if found is None else found
        if (self._table.schema.metadata or {}).get(_METADATA_KEY) != schema.metadata[_METADATA_KEY]:
            raise ValueError(
                f"{folder} is left of a run with another model or K; delete it to start anew, or go on with the same "
                "--model and --latent-steps."
            )
        self._schema, self._commits = schema, 0

    def keys(self) -> np.ndarray:
        """The hashes of the contents, in the order of the table, [N] of 16 bytes."""
        batches = self._table.search().select(["key"]).limit(None).to_batches()
        joined = b"".join(b"".join(batch["key"].to_pylist()) for batch in batches)
        return np.frombuffer(joined, dtype=f"V{HASH_BYTES}")

    def add(self, keys: list[bytes], vectors: np.ndarray) -> None:
        """Adds `vectors` [n, D], in one commit."""
        if keys:
            self._table.add(pa.table([pa.array(keys, self._schema.types[0]), _column(vectors)], schema=self._schema))
            self._commits += 1
            if self._commits % _COMMITS_PER_COMPACTION == 0:
                self.compact()

    def compact(self) -> None:
        """Joins the small files of single commits."""
        self._table.optimize()

    def take(self, places: np.ndarray) -> dict[bytes, np.ndarray]:
        """The vectors at these places of [`keys`], by their keys."""
        found = self._table.take_offsets(sorted(set(places.tolist()))).select(["key", "embedding"]).to_arrow()
        vectors = found["embedding"].combine_chunks().flatten().to_numpy().reshape(len(found), -1)
        return dict(zip(found["key"].to_pylist(), vectors, strict=True))


@contextmanager
def writing(out: Path) -> Iterator[Path]:
    """Keeps other runs off an output, and gives the folder of its journal; that goes when it holds nothing.

    Raises:
        BusyError: another process writes there.
        ValueError: something that is no journal has its name, or LanceDB fails.
    """
    folder = out.with_name(f"{out.name}.partial")
    if folder.is_file():
        raise ValueError(f"{folder} is left of a run of version 0.1; delete it to start anew.")
    try:
        with locked(folder), errors_named(folder, "The journal", "to start anew"):
            yield folder
    except BusyError as error:
        raise BusyError(f"{out} is being written by another process; wait until it is done.") from error
    finally:
        if folder.is_dir() and not (folder / f"{_TABLE}.lance").exists():
            shutil.rmtree(folder, ignore_errors=True)


def remove_journal(folder: Path) -> None:
    """Removes the vectors of a journal; its lock stays for as long as it is held."""
    shutil.rmtree(folder / f"{_TABLE}.lance", ignore_errors=True)


def _column(vectors: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])
