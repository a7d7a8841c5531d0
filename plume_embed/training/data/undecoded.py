"""Rows of a `datasets` object whose pictures and films stay encoded until they are needed."""

from collections.abc import Iterator
from typing import Any

_AT_ONCE = 64  # rows in memory, with the bytes of their pictures


def undecoded_rows(dataset: Any) -> Iterator[dict[str, Any]]:
    """Every row of a `datasets.Dataset`; a picture is `{"bytes", "path"}`, and what is damaged is not found here."""
    features = _encoded(dataset.features)
    for table in dataset.with_format("arrow").iter(_AT_ONCE):
        for row in table.to_pylist():
            yield features.decode_example(row)


def undecoded_row(dataset: Any, number: int) -> dict[str, Any]:
    """One row of them."""
    (row,) = dataset.with_format("arrow")[number].to_pylist()
    return _encoded(dataset.features).decode_example(row)


def _encoded(feature: Any) -> Any:
    """A feature, with what is nested in it, that leaves media as they are stored; the others are decoded as ever."""
    from datasets import Audio, Features, Image, LargeList, List, Video

    if isinstance(feature, Audio | Image | Video):
        return type(feature)(decode=False)
    if isinstance(feature, List):
        return List(_encoded(feature.feature), length=feature.length)
    if isinstance(feature, LargeList):
        return LargeList(_encoded(feature.feature))
    if isinstance(feature, dict):
        inner = {name: _encoded(one) for name, one in feature.items()}
        return Features(inner) if isinstance(feature, Features) else inner
    return feature
