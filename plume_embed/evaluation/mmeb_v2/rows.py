"""Rows through `datasets`: from the Hub, from a local mirror of it, or from a JSONL file beside the media."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, Image, load_dataset
from datasets.exceptions import DatasetGenerationError

from plume_embed.evaluation.mmeb_v2.tasks import Source, Task, Variant, is_one_table
from plume_embed.local_datasets import load_local

_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}
_NO_TABLES = frozenset({"README.md", "LICENSE"})
_PART = re.compile(r"-\d+-of-\d+$")
_NAMED = 5  # files that an error lists


class Rows:
    """The tables of one task in one benchmark version.

    Args:
        task: The task.
        variant: The benchmark version.
        hub_dir: A mirror with one folder ORG/NAME for each data set; None reads from the Hub.
        media_dir: Where the row files of the variant `plume` lie.
        cache_dir: Where `datasets` keeps its files; its own place by default.
    """

    def __init__(
        self,
        task: Task,
        variant: Variant,
        hub_dir: Path | None = None,
        media_dir: Path | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self.task = task
        self.source = task.source(variant)
        self.hub_dir = hub_dir
        self.media_dir = media_dir
        self.cache_dir = cache_dir

    def table(self, name: str = "", config: str | None = None) -> Dataset:
        """One table, its columns checked against tasks.json; pictures stay undecoded.

        Args:
            name: "" for the only table, or "queries", "qrels" or "corpus".
            config: Overrides the configuration of the source.

        Raises:
            ValueError: nothing there, unreadable, or columns missing, with the place.
        """
        source = replace(self.source, config=config or name or self.source.config)
        where = f"{source.media_file or source.hub_id}{f' ({source.config})' if source.config else ''}"
        try:
            rows = self._load(source)
        except (OSError, ValueError, DatasetGenerationError) as error:
            raise ValueError(f"cannot read the rows of {where}: {_first_line(error)}") from error
        missing = [column for column in self.task.columns[name] if column not in rows.column_names]
        if missing:
            raise ValueError(f"{where} lacks the column {', '.join(missing)}; it has {', '.join(rows.column_names)}")
        if isinstance(rows.features.get("image"), Image):
            rows = rows.cast_column("image", Image(decode=False))
        return rows

    def tables(self, configs: Iterable[str]) -> Iterable[tuple[str, Dataset]]:
        """One table after the other, with the name of its configuration (MVBench has twenty)."""
        for config in configs:
            yield config, self.table(config=config)

    def _load(self, source: Source) -> Dataset:
        cache_dir = None if self.cache_dir is None else str(self.cache_dir)
        if source.media_file is not None:
            if self.media_dir is None:
                raise ValueError(f"{source.media_file} lies in the media folder; pass --media-dir")
            file = self.media_dir / source.media_file
            if not file.is_file():
                raise ValueError(f"no such file: {file}")
            return load_local("json", data_files=str(file), split="train", cache_dir=cache_dir)
        if self.hub_dir is None:
            return load_dataset(source.hub_id, source.config, split=source.split, cache_dir=cache_dir)
        folder = self.hub_dir / source.hub_id
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}; download the data set {source.hub_id} to there")
        if _names_configurations(folder / "README.md"):  # its head says which files make up a configuration
            return load_local(str(folder), source.config, split=source.split, cache_dir=cache_dir)
        files = mirror_files(folder, source)
        if files[0].suffix == ".parquet" and not sum(pq.read_metadata(file).num_rows for file in files):
            raise ValueError(f"{files[0]} has no rows")
        return load_local(
            _BUILDERS[files[0].suffix], data_files=[str(file) for file in files], split="train", cache_dir=cache_dir
        )


def mirror_files(folder: Path, source: Source) -> list[Path]:
    """The files of one configuration and split in a mirrored data set whose README.md does not say so.

    Looked for, in this order: CONFIG/SPLIT*, CONFIG/*/SPLIT*, CONFIG.*; without a configuration SPLIT*, data/SPLIT*.
    Where the benchmark reads one table of a data set, and the mirror holds one (a file, or the numbered parts of one),
    that is the table, whatever it is called.

    Raises:
        ValueError: there are none, or several that may be meant, naming what was looked for and what was found.
    """
    if source.config is None:
        patterns = [f"{source.split}*", f"data/{source.split}*"]
    else:
        patterns = [f"{source.config}/{source.split}*", f"{source.config}/*/{source.split}*", f"{source.config}.*"]
        patterns.append(f"json/{source.config}.*")
    for pattern in patterns:
        for suffix in _BUILDERS:
            files = sorted(file for file in folder.glob(pattern) if file.suffix == suffix)
            if files:
                return files
    present = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_hidden(file, folder)]
    tables = [file for file in present if file.suffix in _BUILDERS]
    if is_one_table(source) and len({(file.parent, _PART.sub("", file.stem), file.suffix) for file in tables}) == 1:
        return tables
    found = [str(file.relative_to(folder)) for file in present if file.name not in _NO_TABLES]
    held = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
    raise ValueError(f"no parquet or JSON files in {folder} under {', '.join(patterns)}; it holds {held or 'no files'}")


def _names_configurations(readme: Path) -> bool:
    return readme.is_file() and bool(re.search(r"^configs:", readme.read_text(errors="replace"), re.MULTILINE))


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause) or type(cause).__name__).splitlines()[0]
