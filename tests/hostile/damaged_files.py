"""Files as they come off broken disks and out of broken programs: good ones of every kind, and what is done to them.

All of it comes from seeds: the same name has the same bytes in every run.
"""

import io
import json
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from small_files import write_pdf, write_video

Mutation = Callable[[bytes, random.Random], bytes]

WORDS = "A grey heron stands in shallow water near the reeds. " * 12
SIDE = 65_500  # of a picture that its header promises and nobody has the memory for


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size)


@cache
def good_files() -> dict[str, bytes]:
    """One file of every kind that is read, by its suffix; two where a suffix holds two kinds of things."""
    frames = [picture(seed) for seed in range(5)]
    files = {
        f"still{suffix}": _saved(frames[0], suffix) for suffix in (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp")
    }
    for suffix in (".gif", ".webp", ".png"):
        files[f"moving{suffix}"] = _saved(frames[0], suffix, save_all=True, append_images=frames[1:], duration=200)
    files["pages.tif"] = _saved(frames[0], ".tif", save_all=True, append_images=frames[1:3])
    if ".avif" in Image.registered_extensions():
        files["still.avif"] = _saved(frames[0], ".avif")
    files["still.jp2"] = _saved(frames[0], ".jp2")
    for suffix in (".mp4", ".mkv", ".avi"):
        files[f"film{suffix}"] = _written(suffix, write_video)
    files["pages.pdf"] = _written(".pdf", write_pdf)
    files["text.txt"] = WORDS.encode()
    return files | table_files()


@cache
def table_files() -> dict[str, bytes]:
    """Rows of pairs in each form that training reads."""
    rows = [{"query": f"number {n}, a boat", "positive": f"a boat, the {n}th"} for n in range(12)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return {
        "rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "rows.csv": b"query,positive\n" + b"".join(f'"{row["query"]}","{row["positive"]}"\n'.encode() for row in rows),
        "rows.parquet": file.getvalue(),
    }


def _cut(share: float) -> Mutation:
    return lambda data, rng: data[: max(1, int(share * len(data)))]


def _flipped(count: int, within: float = 1.0) -> Mutation:
    def flip(data: bytes, rng: random.Random) -> bytes:
        changed = bytearray(data)
        for _ in range(count):
            changed[rng.randrange(max(1, int(within * len(data))))] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return flip


def _zeroed(start: float, length: float) -> Mutation:
    def zero(data: bytes, rng: random.Random) -> bytes:
        first, count = int(start * len(data)), max(1, int(length * len(data)))
        return data[:first] + bytes(count) + data[first + count :]

    return zero


def _inserted(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(300) + data[place:]


def _zipped(data: bytes, rng: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", data)
    return file.getvalue()


MUTATIONS: dict[str, Mutation] = {
    "cut-at-a-hundredth": _cut(0.01),
    "cut-at-a-third": _cut(0.33),
    "cut-at-nine-tenths": _cut(0.9),
    "last-byte-lost": lambda data, rng: data[:-1],
    "one-bit": _flipped(1),
    "twenty-bits": _flipped(20),
    "bits-of-the-header": _flipped(8, within=0.05),
    "start-zeroed": _zeroed(0, 0.02),
    "middle-zeroed": _zeroed(0.4, 0.25),
    "end-zeroed": _zeroed(0.9, 0.1),
    "noise-inserted": _inserted,
    "twice": lambda data, rng: data + data,
    "zipped": _zipped,
    "empty": lambda data, rng: b"",
    "one-byte": lambda data, rng: data[:1],
    "all-zero": lambda data, rng: bytes(len(data)),
}


def damaged_files() -> Iterator[tuple[str, bytes]]:
    """Every mutation of every good file, what stands under a wrong name, and what says more than it holds."""
    for name, data in good_files().items():
        for mutation, change in MUTATIONS.items():
            yield f"{mutation}-{name}", change(data, random.Random(f"{mutation} {name}"))
    yield from wrong_names()
    yield from liars()


def wrong_names() -> Iterator[tuple[str, bytes]]:
    """Contents under the suffix of another kind."""
    good = good_files()
    suffixes = (".png", ".mp4", ".pdf", ".txt", ".tif")
    for name in ("still.jpg", "moving.gif", "film.mp4", "pages.pdf", "text.txt", "rows.parquet"):
        for suffix in suffixes:
            if not name.endswith(suffix):
                yield f"wrong-name-{name.replace('.', '-')}{suffix}", good[name]


def liars() -> Iterator[tuple[str, bytes]]:
    """Small files whose headers promise what no memory holds, and files inside files."""
    good = good_files()
    yield "huge-size.png", _png_of(SIDE, SIDE)
    yield "larger-than-an-integer.png", _png_of(2**31 - 1, 2**31 - 1)
    yield "one-to-five-thousand.png", _saved(Image.new("RGB", (5000, 1)), ".png")
    yield "no-width.png", _png_of(0, 40)
    jpeg = bytearray(good["still.jpg"])
    start = jpeg.index(b"\xff\xc0") + 5
    yield "huge-size.jpg", bytes(jpeg[:start] + struct.pack(">HH", SIDE, SIDE) + jpeg[start + 4 :])
    gif = good["moving.gif"]
    yield "huge-screen.gif", gif[:6] + struct.pack("<HH", SIDE, SIDE) + gif[10:]
    bmp = good["still.bmp"]
    yield "huge-size.bmp", bmp[:18] + struct.pack("<ii", 2**30, 2**30) + bmp[26:]
    tiff = bytearray(good["still.tif"])
    yield "huge-size.tif", _tiff_with(tiff, {256: SIDE, 257: SIDE})
    yield "endless-directory.tif", _tiff_in_a_circle(tiff)
    film = good["film.mp4"]
    place = film.index(b"mp4v") + 28
    yield "huge-frames.mp4", film[:place] + struct.pack(">HH", SIDE, SIDE) + film[place + 4 :]
    place = film.index(b"stsz") + 12
    yield "promises-a-billion-frames.mp4", film[:place] + struct.pack(">I", 10**9) + film[place + 4 :]
    yield "boxes-in-boxes.mp4", film[:40] + _nested_boxes(3000)
    yield "ten-thousand-texts.png", _png_of(64, 48, [_chunk(b"tEXt", b"key\0" + b"v" * 60)] * 10_000)
    yield "packed-text-of-256-megabytes.png", _png_of(64, 48, [_chunk(b"zTXt", b"key\0\0" + _packed_zeros(2**28))])
    yield "packed-profile-of-256-megabytes.png", _png_of(64, 48, [_chunk(b"iCCP", b"key\0\0" + _packed_zeros(2**28))])
    yield "two-thousand-frames.gif", _long_gif(2000)
    yield "huge-page.pdf", _pdf(["<</Type/Page/Parent 2 0 R/MediaBox[0 0 1e9 1e9]>>"])
    yield "page-without-area.pdf", _pdf(["<</Type/Page/Parent 2 0 R/MediaBox[0 0 0 0]>>"])
    yield "page-of-one-to-a-million.pdf", _pdf(["<</Type/Page/Parent 2 0 R/MediaBox[0 0 1000000 1]>>"])
    yield "promises-a-billion-pages.pdf", _pdf(["<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>"], count=10**9)
    yield "pages-in-a-circle.pdf", _pdf(["<</Type/Pages/Kids[2 0 R]/Count 1/Parent 2 0 R>>"])
    yield "picture-and-page.pdf", good["still.jpg"] + good["pages.pdf"]
    yield "page-and-picture.jpg", good["still.jpg"] + good["pages.pdf"]
    yield "nuls.txt", b"a\0b\0c" * 100
    yield "utf16.txt", WORDS.encode("utf-16")
    yield "latin.txt", "Stra\xdfe".encode("latin-1")
    yield "half-a-character.txt", "a heron \ud83d".encode("utf-8", "surrogatepass")
    yield "one-long-word.txt", b"a" * 12_000
    yield "only-spaces.txt", b" \n\t" * 1000
    yield "marks-over-marks.txt", ("e" + "\u0301" * 6_000).encode()
    yield "right-to-left.txt", "\u202eשלום עולם مرحبا\u202c ".encode() * 40
    yield "control-tokens.txt", b"<bot><disc_emb><gen_emb><|image_pad|><|im_end|>" * 40
    yield "deep.jsonl", b"[" * 5_000 + b"]" * 5_000


def _saved(image: Image.Image, suffix: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[suffix], **options)
    return file.getvalue()


def _written(suffix: str, write: Callable[[Path], Path]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder, f"file{suffix}")).read_bytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_of(width: int, height: int, chunks: list[bytes] = ()) -> bytes:
    """A PNG of the size that its header says, if that is 64 x 48; else of the data of such a one."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = b"".join(b"\0" + bytes(range(0, 192)) for _ in range(48))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    )


@cache
def _packed_zeros(size: int) -> bytes:
    packer, block, packed = zlib.compressobj(9), bytes(2**20), []
    for _ in range(size // len(block)):
        packed.append(packer.compress(block))
    return b"".join([*packed, packer.flush()])


def _tiff_with(data: bytes, values: dict[int, int]) -> bytes:
    changed = bytearray(data)
    start = struct.unpack_from("<I", changed, 4)[0]
    for entry in range(struct.unpack_from("<H", changed, start)[0]):
        at = start + 2 + 12 * entry
        tag = struct.unpack_from("<H", changed, at)[0]
        if tag in values:
            struct.pack_into("<HII", changed, at + 2, 4, 1, values[tag])
    return bytes(changed)


def _tiff_in_a_circle(data: bytes) -> bytes:
    changed = bytearray(data)
    start = struct.unpack_from("<I", changed, 4)[0]
    count = struct.unpack_from("<H", changed, start)[0]
    struct.pack_into("<I", changed, start + 2 + 12 * count, start)  # the next directory is this one
    return bytes(changed)


def _nested_boxes(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = struct.pack(">I", 8 + len(data)) + b"moov" + data
    return data


def _long_gif(count: int) -> bytes:
    frames = [Image.new("P", (16, 16), number % 200) for number in range(count)]
    for frame in frames:
        frame.putpalette(bytes(range(256)) * 3)
    return _saved(frames[0], ".gif", save_all=True, append_images=frames[1:], duration=20)


def _pdf(pages: list[str], count: int | None = None) -> bytes:
    kids = " ".join(f"{3 + number} 0 R" for number in range(len(pages)))
    objects = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {count or len(pages)}>>", *pages]
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return data + (
        f"xref\n0 {size}\n0000000000 65535 f \n".encode()
        + table
        + f"trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF\n".encode()
    )
