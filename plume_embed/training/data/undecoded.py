"""Rows of a `datasets` object as they are stored: pictures stay encoded."""

from collections.abc import Iterator
from typing import Any

_AT_ONCE = 64  # rows in memory, with the bytes of their pictures


def undecoded_rows(dataset: Any) -> Iterator[dict[str, Any]]:
    """Every row of a `datasets.Dataset`; a picture is `{"bytes", "path"}`, and what is damaged is not found here."""
    for table in dataset.with_format("arrow").iter(_AT_ONCE):
        yield from table.to_pylist()


def undecoded_row(dataset: Any, number: int) -> dict[str, Any]:
    """One row of them."""
    return dataset.with_format("arrow")[number].to_pylist()[0]
