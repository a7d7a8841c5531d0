"""SOURCE of the command line -> a source."""

import os
from collections.abc import Sequence
from pathlib import Path

from plume_embed.corpus.folder import FolderSource
from plume_embed.corpus.jsonl import JsonlSource, check_keep
from plume_embed.corpus.output import is_of_output
from plume_embed.corpus.rows import Source
from plume_embed.corpus.tables import DatasetSource, ParquetSource, opened

_OF_DATASETS = ("state.json", "dataset_dict.json", "dataset_infos.json", "dataset_info.json")


def open_source(name: str, keep: Sequence[str] = ()) -> Source:
    """A `.jsonl` or `.parquet` file, a folder of Parquet files, of `datasets` or of media, or an id for `datasets`.

    What `embed` has written into a folder is no part of it.

    Raises:
        ValueError: there is no such file, it may not be read, it is of another kind, or `keep` cannot be had of it.
    """
    check_keep(keep)
    path = Path(name)
    if path.exists() and not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise ValueError(f"{name} may not be read; give yourself the right to (chmod u+rX), and run again.")
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return ParquetSource((path.absolute(),), tuple(keep))
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return JsonlSource(path.absolute(), tuple(keep))
        raise ValueError(f"{name}: a corpus is a .jsonl or .parquet file, a folder, or a data set of `datasets`.")
    if path.is_dir():
        if any((path / marker).is_file() for marker in _OF_DATASETS):
            return DatasetSource(str(path.resolve()), tuple(keep))  # `datasets` takes the name into its fingerprint
        files = _parts_of(path)
        if files:
            return ParquetSource(files, tuple(keep), path.absolute())
        if keep:
            raise ValueError("A folder of media has no further columns; leave --keep out.")
        return FolderSource(path.absolute())
    if path.suffix or path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ValueError(f"No such file: {name}")
    return DatasetSource(name, tuple(keep))


def _parts_of(folder: Path) -> tuple[Path, ...]:
    """The Parquet files of a folder, but for outputs of `embed`."""
    files = (file.absolute() for file in sorted(folder.iterdir()) if file.suffix.lower() == ".parquet")
    visible = (file for file in files if not file.name.startswith((".", "_")))
    return tuple(file for file in visible if not is_of_output(opened(file).schema_arrow))
