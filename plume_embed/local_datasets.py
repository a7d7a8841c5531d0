"""Reading files of this machine through `datasets` without a word to another one, and data sets by their names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import datasets.config


def load_local(*arguments: Any, **options: Any) -> Any:
    """`datasets.load_dataset` for local files: the same, but that it counts no download of them at a server."""
    with _uncounted():
        return datasets.load_dataset(*arguments, **options)


def open_dataset(name: str) -> datasets.Dataset:
    """The data set of a folder of `save_to_disk`, or what `load_dataset` finds by a name; of several splits "train".

    A format that was saved with it is undone: it would leave out columns, or give tensors for ids.

    Raises:
        ValueError: a folder of several splits without "train", with the remedy.
    """
    data: Any
    if (Path(name) / "state.json").is_file():
        data = datasets.load_from_disk(name)
    elif (Path(name) / "dataset_dict.json").is_file():
        splits: Any = datasets.load_from_disk(name)
        if "train" not in splits:
            raise ValueError(
                f"{name} has no split train but {', '.join(splits)}; name the folder of one, as in "
                f"{Path(name) / next(iter(splits))}."
            )
        data = splits["train"]
    else:
        data = (load_local if Path(name).exists() else datasets.load_dataset)(name, split="train")
    # `with_format` gives another fingerprint, by which outputs of a set without a format would be another input's.
    has_format = data.format["type"] is not None or data.format["columns"] != data.column_names
    return data.with_format(None) if has_format else data


@contextmanager
def _uncounted() -> Iterator[None]:
    before = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = before
