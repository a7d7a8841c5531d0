"""SOURCE of the command line -> a source."""

from collections.abc import Sequence
from pathlib import Path

from plume_embed.corpus.folder import FolderSource
from plume_embed.corpus.jsonl import JsonlSource, check_keep
from plume_embed.corpus.rows import Source
from plume_embed.corpus.tables import DatasetSource, ParquetSource

_OF_DATASETS = ("state.json", "dataset_infos.json", "dataset_info.json")


def open_source(name: str, keep: Sequence[str] = ()) -> Source:
    """A `.jsonl` or `.parquet` file, a folder of Parquet files, of `datasets` or of media, or an id for `datasets`.

    Raises:
        ValueError: there is no such file, it is of another kind, or `keep` cannot be had of it.
    """
    check_keep(keep)
    path = Path(name)
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return ParquetSource((path.absolute(),), tuple(keep))
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return JsonlSource(path.absolute(), tuple(keep))
        raise ValueError(f"{name}: a corpus is a .jsonl or .parquet file, a folder, or a data set of `datasets`.")
    if path.is_dir():
        if any((path / marker).is_file() for marker in _OF_DATASETS):
            return DatasetSource(str(path.absolute()), tuple(keep))
        files = sorted(file for file in path.glob("*.parquet") if not file.name.startswith((".", "_")))
        if files:
            return ParquetSource(tuple(file.absolute() for file in files), tuple(keep))
        if keep:
            raise ValueError("A folder of media has no further columns; leave --keep out.")
        return FolderSource(path.absolute())
    if path.suffix or path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ValueError(f"No such file: {name}")
    return DatasetSource(name, tuple(keep))
