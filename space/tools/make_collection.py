"""Makes what the bundled collection holds besides pictures: films and documents, and the media of prepared queries.

`python -m space.tools.make_collection` writes `space/collection/` and `space/queries/` from `examples/`: for drawings
films and documents, for photographs details and films of a moving camera.
The results are committed; run it again only to change them.
"""

import ctypes
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image, ImageChops

ROOT = Path(__file__).parent.parent.parent
PICTURES, QUERIES = ROOT / "examples" / "pictures", ROOT / "examples" / "queries"
PHOTOGRAPHS = ROOT / "examples" / "photographs"
COLLECTION, QUERY_MEDIA = ROOT / "space" / "collection", ROOT / "space" / "queries"

NUM_FRAMES, FRAMES_PER_SECOND, SIDE = 24, 12, 168
PAGE_SIZE = (420, 595)  # points, A5

# Films of the collection and of the queries, each with its movement.
FILMS = {
    "ferry": "across",
    "fish": "across",
    "guitar": "sway",
    "hot_pepper": "sway",
    "penguin": "hop",
    "rose": "grow",
    "snail": "across",
    "train": "across",
    "trophy": "grow",
    "volleyball": "hop",
}
QUERY_FILMS = {"airplane": "across", "cactus": "sway", "croissant": "hop", "sunflower": "grow", "turtle": "across"}
MORE_QUERY_FILMS = {
    "fire_engine": "hop",
    "frog": "hop",
    "lemon": "grow",
    "palm_tree": "sway",
    "sunglasses": "across",
}
# Pictures of the collection as somebody might have photographed them: mirrored, tilted, on paper of another colour.
CHANGED_PICTURES = ("banana", "fox", "house", "old_key", "watermelon", "whale")
# Photographs of which a mirrored detail is a query, and those over which a camera moves.
DETAILS = ("astronaut", "boats", "canyon", "cat", "coffee", "coins", "dahlia", "rocket", "sheep", "temple")
PANS = ("abandoned_house", "airplane", "boats", "mountains", "temple")
DETAIL_SHARE, PAN_SHARE = 0.7, 0.75  # of the photograph's sides
DOCUMENTS = {
    "garden": [
        ("cactus", "Cactus", "Water it once a month. It likes the sun and sand."),
        ("sunflower", "Sunflower", "Sow it in April; it turns its head to the light."),
    ],
    "kitchen": [
        ("croissant", "Croissant", "Butter, flour, milk and a night of patience."),
        ("birthday_cake", "Birthday cake", "One candle for every year, and one to grow on."),
    ],
    "travel": [
        ("airplane", "Airplane", "Be at the gate forty minutes before it leaves."),
        ("mountain", "Mountain", "The path to the top takes five hours."),
    ],
    "workshop": [
        ("hammer", "Hammer", "Hold it at the end of the handle."),
        ("microscope", "Microscope", "Begin with the weakest lens, then turn."),
    ],
}


def frames(picture: Image.Image, movement: str) -> Iterator[Image.Image]:
    """A picture on white that moves: across, up and down (hop), by turning (sway), or towards the viewer (grow)."""
    for index in range(NUM_FRAMES):
        phase = index / (NUM_FRAMES - 1)
        x, y, scale, angle = 0.0, 0.0, 0.8, 0.0
        if movement == "across":
            x, scale = 0.16 * (1 - 2 * phase), 0.66
        elif movement == "hop":
            y = 0.1 - 0.2 * abs(math.sin(2 * math.pi * phase))
        elif movement == "sway":
            angle = 18 * math.sin(2 * math.pi * phase)
        else:
            scale = 0.5 + 0.45 * phase
        side = round(SIDE * scale)
        moved = picture.resize((side, side), Image.Resampling.LANCZOS)
        moved = moved.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")
        frame = Image.new("RGB", (SIDE, SIDE), "white")
        corner = [round((SIDE - side) / 2 + SIDE * shift) for shift in (x, y)]
        frame.paste(moved, (corner[0], corner[1]))
        yield frame


def pan(photograph: Image.Image) -> Iterator[Image.Image]:
    """What a camera sees that moves over a photograph, from one corner to the other."""
    width, height = photograph.size
    side = round(PAN_SHARE * min(width, height))
    for index in range(NUM_FRAMES):
        phase = index / (NUM_FRAMES - 1)
        left, top = round(phase * (width - side)), round(phase * (height - side))
        yield photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def detail(photograph: Image.Image) -> Image.Image:
    """The middle of a photograph, mirrored."""
    width, height = photograph.size
    margin = (1 - DETAIL_SHARE) / 2
    box = (round(margin * width), round(margin * height), round((1 - margin) * width), round((1 - margin) * height))
    return photograph.crop(box).transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def write_film(path: Path, shown: Iterable[Image.Image]) -> None:
    """H.264 in MP4, which browsers play; one thread, so that the bytes are the same every time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "24", "preset": "veryslow", "threads": "1"}
        for frame in shown:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_document(path: Path, pages: list[tuple[str, str, str]]) -> None:
    """A PDF with a heading, a picture and a sentence on each page; its text can be selected."""
    document = pypdfium2.PdfDocument.new()
    for name, heading, sentence in pages:
        page = document.new_page(*PAGE_SIZE)
        image = pypdfium2.PdfImage.new(document)
        jpeg = io.BytesIO()
        _open(PICTURES / f"{name}.png").resize((336, 336), Image.Resampling.LANCZOS).save(jpeg, "JPEG", quality=85)
        jpeg.seek(0)
        image.load_jpeg(jpeg, autoclose=False)
        image.set_matrix(pypdfium2.PdfMatrix().scale(340, 340).translate(40, 130))
        page.insert_obj(image)
        _insert_text(document, page, heading, 30, (40, 520))
        _insert_text(document, page, sentence, 14, (40, 70))
        page.gen_content()
    with path.open("wb") as out:
        document.save(out)
    document.close()


def changed(picture: Image.Image) -> Image.Image:
    """Mirrored, tilted by ten degrees, smaller, on cream paper."""
    moved = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(10, Image.Resampling.BICUBIC, fillcolor="white")
    ground = Image.new("RGB", (SIDE, SIDE), "white")
    ground.paste(moved.resize((140, 140), Image.Resampling.LANCZOS), (14, 14))
    return ImageChops.multiply(ground, Image.new("RGB", ground.size, (255, 250, 230)))


def main() -> None:
    for folder in (COLLECTION / "films", COLLECTION / "documents", QUERY_MEDIA):
        folder.mkdir(parents=True, exist_ok=True)
    for name, movement in FILMS.items():
        write_film(COLLECTION / "films" / f"{name}.mp4", frames(_open(PICTURES / f"{name}.png"), movement))
    for name, movement in QUERY_FILMS.items():
        write_film(QUERY_MEDIA / f"{name}.mp4", frames(_open(QUERIES / f"{name}.png"), movement))
    for name, movement in MORE_QUERY_FILMS.items():
        write_film(QUERY_MEDIA / f"{name}.mp4", frames(_open(PICTURES / f"{name}.png"), movement))
    for name in CHANGED_PICTURES:
        changed(_open(PICTURES / f"{name}.png")).save(QUERY_MEDIA / f"{name}.png", optimize=True)
    for name in DETAILS:
        detail(_open(PHOTOGRAPHS / f"{name}.jpg")).save(QUERY_MEDIA / f"detail_{name}.jpg", quality=85)
    for name in PANS:
        write_film(QUERY_MEDIA / f"pan_{name}.mp4", pan(_open(PHOTOGRAPHS / f"{name}.jpg")))
    for name, pages in DOCUMENTS.items():
        write_document(COLLECTION / "documents" / f"{name}.pdf", pages)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _insert_text(
    document: pypdfium2.PdfDocument, page: pypdfium2.PdfPage, text: str, size: float, position: tuple[int, int]
) -> None:
    written = pdfium.FPDFPageObj_NewTextObj(document, b"Helvetica", size)
    encoded = (text + "\0").encode("utf-16-le")
    buffer = (ctypes.c_ushort * (len(encoded) // 2)).from_buffer_copy(encoded)
    if not pdfium.FPDFText_SetText(written, buffer):
        raise ValueError(f"PDFium cannot write {text!r}.")
    pdfium.FPDFPageObj_Transform(written, 1, 0, 0, 1, *position)
    pdfium.FPDFPage_InsertObject(page, written)


if __name__ == "__main__":
    main()
