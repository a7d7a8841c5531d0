"""The corpus that the miniature benchmark's builder writes, read without it: pairs by row, media by id.

Below the folder: `train/SUBSET.parquet` with the columns qry, pos (text, image, video, rationale, answer; "" is not
there) and dataset_name; the media that they name in `media/*.parquet` (id, frames); and the stills in `STYLE-*.parquet`
(image, style, hexcode), whose id is STYLE/HEXCODE. Pictures stay encoded in memory until they are needed.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from plume_embed.training.data.corpus import Corpus, Pair, Side


def read_folder(folder: Path) -> Corpus:
    """The training pairs below a folder.

    Raises:
        ValueError: there are none, or one names a medium that is not there.
    """
    files = sorted((folder / "train").glob("*.parquet"))
    if not files:
        raise ValueError(f"{folder / 'train'} holds no *.parquet; make them with `make miniature`.")
    rows = [(f"{file.name}:{n}", row) for file in files for n, row in enumerate(pq.read_table(file).to_pylist())]
    named = {row[side][kind] for _, row in rows for side in ("qry", "pos") for kind in ("image", "video")} - {""}
    media = {name: frames for name, frames in _media(folder) if name in named}
    for where, row in rows:
        for side in ("qry", "pos"):
            for kind in ("image", "video"):
                if row[side][kind] and row[side][kind] not in media:
                    raise ValueError(f"{where}: {side}: no such medium: {row[side][kind]!r}; build the folder again.")

    def read(index: int) -> Pair:
        where, row = rows[index]
        return Pair(_side(row["qry"], media), _side(row["pos"], media), row["dataset_name"], where)

    return Corpus(read, [row["dataset_name"] for _, row in rows])


def _media(folder: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Every medium of the folder with its encoded frames."""
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file, columns=["image", "style", "hexcode"]).to_pydict()
        for image, style, hexcode in zip(*table.values(), strict=True):
            yield f"{style}/{hexcode}", [image["bytes"]]
    for file in sorted((folder / "media").glob("*.parquet")):
        table = pq.read_table(file, columns=["id", "frames"]).to_pydict()
        for name, frames in zip(*table.values(), strict=True):
            yield name, [frame["bytes"] for frame in frames]


def _side(side: dict[str, str], media: dict[str, list[bytes]]) -> Side:
    item: dict = {"text": side["text"]} if side["text"] else {}
    if side["image"]:
        item["image"] = [_decoded(frame) for frame in media[side["image"]]]
    if side["video"]:
        item["video"] = [[_decoded(frame) for frame in media[side["video"]]]]
    return Side(item, side["rationale"], side["answer"] or None)


def _decoded(frame: bytes) -> Image.Image:
    return Image.open(io.BytesIO(frame)).convert("RGB")
