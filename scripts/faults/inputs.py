"""A folder of every kind of file in two states, and a JSONL file; all from seeds."""

import json
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

_SENTENCE = "a red bicycle near the lake, two cats on an old stone wall and a boat below the bridge"


def write_folder(folder: Path, size: int) -> Path:
    """About `size` items: texts, pictures, a film and a PDF."""
    folder.mkdir(parents=True)
    for number in range(size // 2):
        (folder / f"note-{number:03}.txt").write_text(sentence(number))
    for number in range(size // 2 - 4):
        write_picture(folder / f"picture-{number:03}.png", number)
    write_pdf(folder / "pages.pdf", num_pages=3)
    write_film(folder / "film.mp4")
    return folder


def change_folder(folder: Path) -> None:
    """The second state: of texts and pictures a part is changed, a part is gone, a part is new, one is moved."""
    for kind in ("note-*.txt", "picture-*.png"):
        files = sorted(folder.glob(kind))
        for number, file in enumerate(files):
            if number % 4 == 0:
                file.unlink()
            elif number % 4 == 1:
                write_picture(file, 500 + number) if file.suffix == ".png" else file.write_text(sentence(500 + number))
        files[2].rename(folder / f"moved{files[2].suffix}")
        for number in range(len(files) // 3):
            new = folder / f"new-{number:03}{files[0].suffix}"
            write_picture(new, 900 + number) if new.suffix == ".png" else new.write_text(sentence(900 + number))


def write_jsonl(path: Path, folder: Path, size: int) -> Path:
    """Lines of texts, of pictures of `folder`, of both, and one film."""
    pictures = sorted(folder.glob("*.png"))
    rows = []
    for number in range(size):
        row = {"id": f"row-{number}", "text": sentence(2000 + number)}
        if number % 3:
            row["image"] = str(pictures[number % len(pictures)].relative_to(path.parent))
        rows.append(row)
    rows[size // 2] = {"id": "film", "video": str((folder / "film.mp4").relative_to(path.parent))}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sentence(number: int) -> str:
    """Another one for each number."""
    words = _SENTENCE.split()
    np.random.default_rng(number).shuffle(words)
    return f"Note {number}: {' '.join(words)}."


def write_picture(path: Path, seed: int) -> None:
    """Smooth noise of 96 x 72 pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((96, 72)).save(path)


def write_pdf(path: Path, num_pages: int) -> None:
    """Pages with a bar, longer on each."""
    pages = [Image.new("RGB", (150, 200), "white") for _ in range(num_pages)]
    for number, page in enumerate(pages):
        ImageDraw.Draw(page).rectangle((20, 20, 40 + 30 * number, 60), fill="black")
    pages[0].save(path, save_all=True, append_images=pages[1:])


def write_film(path: Path) -> None:
    """Two seconds that become lighter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=6)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
