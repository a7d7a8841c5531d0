"""Small and large pictures of items, as data addresses in the page itself: no route has to serve a file."""

import base64
import io
import math
import textwrap

from PIL import Image, ImageDraw, ImageFont

SIDE = 280  # pixels of the longer side
PREVIEW_SIDE = 1200  # an A4 page is readable
_FRAMES_SHOWN = 4
_FILM_COLOUR, _HOLE_COLOUR = (24, 24, 27), (244, 244, 245)


def thumbnail(content: dict) -> str:
    """A data address for what the processor takes: {"image": picture}, {"video": frames} or {"text": passage}."""
    if "video" in content:
        return data_address(film_strip(content["video"]))
    if "image" in content:
        return data_address(_fit(content["image"], SIDE))
    return data_address(text_card(content["text"]))


def preview(content: dict) -> str | None:
    """A data address of the picture in a size to look at; `None` for films and texts."""
    return data_address(_fit(content["image"], PREVIEW_SIDE)) if "image" in content else None


def text_card(text: str) -> Image.Image:
    """The beginning of a text on white; what Pillow's font cannot draw is left out."""
    card = Image.new("RGB", (SIDE, SIDE), "white")
    draw, font = ImageDraw.Draw(card), ImageFont.load_default(20)
    lines = textwrap.wrap(text.encode("latin-1", "ignore").decode("latin-1"), 26)[:11]
    draw.multiline_text((14, 12), "\n".join(lines), fill=(40, 40, 46), font=font, spacing=4)
    return card


def film_strip(frames: list[Image.Image]) -> Image.Image:
    """Four frames in two rows between perforations, so that a film is told from a picture at a glance."""
    step = (len(frames) - 1) / max(1, _FRAMES_SHOWN - 1)
    chosen = [frames[math.floor(index * step + 0.5)] for index in range(min(_FRAMES_SHOWN, len(frames)))]
    cells = [_fit(frame, SIDE // 2 - 4) for frame in chosen]
    width, height = (max(cell.size[axis] for cell in cells) for axis in (0, 1))
    edge, gap = 16, 4
    columns = min(2, len(cells))
    rows = math.ceil(len(cells) / columns)
    strip = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap + 2 * edge), _FILM_COLOUR)
    for index, cell in enumerate(cells):
        column, row = index % columns, index // columns
        strip.paste(cell, (gap + column * (width + gap), edge + gap + row * (height + gap)))
    draw = ImageDraw.Draw(strip)
    for x in range(8, strip.width - 10, 22):
        for y in (5, strip.height - 11):
            draw.rounded_rectangle((x, y, x + 9, y + 6), radius=2, fill=_HOLE_COLOUR)
    return strip


def data_address(picture: Image.Image) -> str:
    """WebP in base64."""
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=82)
    return bytes_address("image/webp", out.getvalue())


def bytes_address(media_type: str, content: bytes) -> str:
    """A data address of any content."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _fit(picture: Image.Image, side: int) -> Image.Image:
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small
