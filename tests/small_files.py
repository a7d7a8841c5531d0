"""Small files of every type for tests, good and hostile ones."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path)
    return path


def write_video(path: Path, num_frames: int = 12, size: int = 32) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            frame = np.full((size, size, 3), index * 240 // num_frames, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_pdf(path: Path, num_pages: int = 3) -> Path:
    pages = [Image.new("RGB", (150, 200), "white") for _ in range(num_pages)]
    for number, page in enumerate(pages):
        ImageDraw.Draw(page).rectangle((20, 20, 40 + 30 * number, 60), fill="black")
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def write_encrypted_pdf(path: Path) -> Path:
    """A PDF whose user password is not the empty one."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>",
        b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"11" * 32 + b"> /U <" + b"22" * 32 + b"> >>",
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer << /Size 5 /Root 1 0 R /Encrypt 4 0 R /ID [<33> <33>] >>\nstartxref\n%d\n%%%%EOF\n" % start
    path.write_bytes(data)
    return path


def turned_video(path: Path, source: Path, matrix: tuple[float, float, float, float]) -> Path:
    """A copy of an MP4 whose header has the display matrix (a, b, c, d)."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # the fields before the matrix, in a box of version 0
    a, b, c, d = (round(value * 65536) for value in matrix)
    struct.pack_into(">9i", data, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def trimmed_video(path: Path, source: Path, start: float, seconds: float) -> Path:
    """A copy of an MP4 whose edit list shows a part of it; all of its frames are still there."""
    data = bytearray(source.read_bytes())

    def scale_of(box: bytes) -> int:
        return struct.unpack_from(">I", data, data.index(box) + 4 + 12)[0]

    edit = data.index(b"elst") + 4 + 8  # the first entry, in a box of version 0
    struct.pack_into(">Ii", data, edit, round(seconds * scale_of(b"mvhd")), round(start * scale_of(b"mdhd")))
    path.write_bytes(data)
    return path


def write_late_video(path: Path, seconds_before: int, num_frames: int = 15, size: int = 64) -> Path:
    """A film, 5 frames a second, whose first frame has another time than 0."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            frame = np.full((size, size, 3), index * 240 // num_frames, np.uint8)
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts = 5 * seconds_before + index
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path


def write_dng(path: Path, width: int = 96, height: int = 64, orientation: int = 1) -> Path:
    """A camera's raw picture without compression, red on the left and green on the right."""
    mosaic = np.full((height, width), 2000, "<u2")  # RGGB
    mosaic[0::2, 0 : width // 2 : 2] = 60000
    mosaic[0::2, width // 2 + 1 :: 2] = mosaic[1::2, width // 2 :: 2] = 60000
    pixels = mosaic.tobytes()

    def shorts(*values: int) -> tuple[int, int, bytes]:
        return 3, len(values), struct.pack(f"<{len(values)}H", *values)

    def longs(*values: int) -> tuple[int, int, bytes]:
        return 4, len(values), struct.pack(f"<{len(values)}I", *values)

    def text(value: str) -> tuple[int, int, bytes]:
        return 2, len(value) + 1, value.encode() + b"\0"

    identity = b"".join(struct.pack("<ii", value, 1) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    tags = {
        254: longs(0),  # the picture itself, no preview
        **{256: longs(width), 257: longs(height), 258: shorts(16), 259: shorts(1), 262: shorts(32803)},
        **{271: text("Test"), 272: text("Camera"), 273: longs(0), 274: shorts(orientation), 277: shorts(1)},
        **{278: longs(height), 279: longs(len(pixels)), 284: shorts(1)},
        **{33421: shorts(2, 2), 33422: (1, 4, bytes((0, 1, 1, 2)))},  # the pattern of colours
        **{50706: (1, 4, bytes((1, 4, 0, 0))), 50707: (1, 4, bytes((1, 1, 0, 0))), 50708: text("Test Camera")},
        **{50714: shorts(0), 50717: longs(65535), 50721: (10, 9, identity)},
        **{50728: (5, 3, struct.pack("<6I", *[1] * 6)), 50778: shorts(21)},
    }
    values_at = 8 + 2 + 12 * len(tags) + 4
    tags[273] = longs(values_at + sum(len(value) for _, _, value in tags.values() if len(value) > 4))
    entries, values = b"", b""
    for tag, (kind, count, value) in sorted(tags.items()):
        field = value.ljust(4, b"\0")
        if len(value) > 4:
            field = struct.pack("<I", values_at + len(values))
            values += value
        entries += struct.pack("<HHI", tag, kind, count) + field
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(header + values + pixels)
    return path


def write_long_video(path: Path, seconds: int, rate: float, size: int = 32) -> Path:
    """A film whose grey says which second it is: 20 + 3 a second."""
    step = Fraction(1 / rate).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=max(1, round(rate)))
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for index in range(round(seconds * rate)):
            grey = 20 + 3 * int(index * step)
            frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), min(grey, 255), np.uint8), format="rgb24")
            frame.pts, frame.time_base = int(index * step * 1000), Fraction(1, 1000)
            for packet in stream.encode(frame):
                packet.duration = int(step * 1000)
                container.mux(packet)
        for packet in stream.encode():
            packet.duration = int(step * 1000)
            container.mux(packet)
    return path
