"""Media of the miniature benchmark by id, read from its parquet files when they are asked for."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Image

from plume_embed.evaluation.miniature.schema import MEDIA, Side
from plume_embed.evaluation.miniature.stills import Row
from plume_embed.stored import check_columns, naming

# Row groups in memory at once: ids that stand side by side in a file are mostly asked for one after the other.
_GROUPS_IN_MEMORY = 4


_STILL = pa.schema({"style": pa.string(), "hexcode": pa.string(), "image": Image().pa_type})


class MediaError(ValueError):
    """A medium that is not there or cannot be decoded; the message names it."""


def files_of_media(data: Path) -> list[Path]:
    """All files with pictures and videos of a miniature: the stills', then the others."""
    return [*sorted(data.glob("*.parquet")), *sorted((data / "media").glob("*.parquet"))]


class MediaStore:
    """Pictures and videos by id: `STYLE/HEXCODE` from the stills, everything else from `media/*.parquet`.

    Only ids are read at first; frames are read and decoded on demand.

    Args:
        data: What `python -m evaluation.miniature.build` wrote.

    Raises:
        FileNotFoundError: there are neither stills nor media.
        ValueError: an id stands in two places, or a file is damaged.
    """

    def __init__(self, data: Path) -> None:
        self._files = files_of_media(data)
        self._stills = [file for file in self._files if file.parent == data]
        if not self._files:
            raise FileNotFoundError(f"{data} holds neither stills nor media: run `make miniature`.")
        self._places: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(self._files):
            for row, name in enumerate(_ids(file, is_stills=number < len(self._stills))):
                if self._places.setdefault(name, (number, row)) != (number, row):
                    other = self._files[self._places[name][0]]
                    raise ValueError(f"the medium {name!r} stands in {other.name} and again in {file.name}.")
        self._group = lru_cache(_GROUPS_IN_MEMORY)(self._read_group)
        self._starts = lru_cache(None)(lambda number: _group_starts(self._files[number]))

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def frames(self, name: str) -> list[PIL.Image.Image]:
        """The frames of a medium, decoded.

        Raises:
            MediaError: there is no such medium, or it is damaged.
        """
        if name not in self._places:
            raise MediaError(f"there is no medium {name!r} in the data")
        try:
            frames: list[PIL.Image.Image] = [PIL.Image.open(io.BytesIO(content)) for content in self._contents(name)]
            for frame in frames:
                frame.load()
        except PIL.UnidentifiedImageError as error:  # whose message shows where in memory it lies
            raise MediaError(f"the medium {name!r} is damaged: a frame is no picture") from error
        except (OSError, ValueError, SyntaxError, TypeError) as error:
            raise MediaError(f"the medium {name!r} is damaged: {error}") from error
        return frames

    def image(self, name: str) -> PIL.Image.Image:
        """The picture of that id.

        Raises:
            MediaError: see `frames`; also for a medium of several frames.
        """
        frames = self.frames(name)
        if len(frames) != 1:
            raise MediaError(f"the medium {name!r} has {len(frames)} frames and is no picture")
        return frames[0]

    def model_input(self, side: Side) -> dict[str, Any]:
        """A side as PlumeProcessor and sentence-transformers take it: keys image, video and text, where there are any.

        Raises:
            MediaError: see `frames`.
        """
        item: dict[str, Any] = {}
        if side.image:
            item["image"] = self.image(side.image)
        if side.video:
            item["video"] = self.frames(side.video)
        if side.text:
            item["text"] = side.text
        return item

    @cached_property
    def stills(self) -> Mapping[str, Row]:
        """What is known of each still, by id, in the order of the files."""
        columns = [field.name for field in fields(Row)]
        rows = (row for file in self._stills for row in pq.read_table(file, columns=columns).to_pylist())
        return {f"{row['style']}/{row['hexcode']}": Row(**row) for row in rows}

    def _contents(self, name: str) -> list[bytes]:
        number, row = self._places[name]
        group = bisect_right(self._starts(number), row) - 1
        frames = self._group(number, group)[row - self._starts(number)[group]].as_py()
        if not frames or not all(frame and frame["bytes"] for frame in frames):
            raise ValueError("it has no frames, or one without bytes")
        return [frame["bytes"] for frame in frames]

    def _read_group(self, number: int, group: int) -> pa.ListArray:
        """The frames of a row group, for stills as lists of one."""
        column = "image" if number < len(self._stills) else "frames"
        table = pq.ParquetFile(self._files[number]).read_row_group(group, columns=[column])
        array = table.column(column).combine_chunks()
        if column == "frames":
            return array
        return pa.ListArray.from_arrays(pa.array(range(len(array) + 1), pa.int32()), array)


def kinds(side: Side) -> tuple[str, ...]:
    """Of what a side is made, e.g. ("image", "text"): in the order in which models take it."""
    return tuple(kind for kind in ("image", "video", "text") if getattr(side, kind))


def _ids(file: Path, is_stills: bool) -> list[str]:
    with naming(file, "Run `make miniature` again."):
        check_columns(pq.read_schema(file), _STILL if is_stills else MEDIA.arrow_schema)
        if not is_stills:
            return pq.read_table(file, columns=["id"]).column("id").to_pylist()
        rows = pq.read_table(file, columns=["style", "hexcode"]).to_pylist()
        return [f"{row['style']}/{row['hexcode']}" for row in rows]


def _group_starts(file: Path) -> list[int]:
    """The first row of each row group."""
    metadata = pq.read_metadata(file)
    return list(accumulate((metadata.row_group(n).num_rows for n in range(metadata.num_row_groups - 1)), initial=0))
