"""Small files of every type for tests, good and hostile ones."""

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
