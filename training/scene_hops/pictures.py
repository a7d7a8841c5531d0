"""The pictures of `scene_hops`: 8 shapes in 8 colours, large or small, and the boards that they are put together to.

A field is a tile of 28 x 28 pixels, one visual token, with its letter in the upper left corner. A tile is drawn in
many renderings: place, size, colours and noise differ. The last renderings are only in the test.
"""

import math
import random
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "ring", "square", "triangle", "diamond", "cross", "star", "hourglass")
COLOURS = {
    "red": (215, 40, 40),
    "orange": (245, 145, 30),
    "yellow": (225, 210, 30),
    "green": (40, 155, 60),
    "cyan": (50, 195, 215),
    "blue": (45, 70, 205),
    "purple": (145, 50, 170),
    "black": (35, 35, 35),
}
SIZES, RADII = ("small", "large"), (5.5, 9.5)
# Of a colour or a shape in a rationale, one character. First letters of the shapes would not do: some of them are one
# token with the letter of a colour.
MARKS = dict(zip(COLOURS, "roygcbpk", strict=True)) | dict(zip(SHAPES, "zfqtdxaj", strict=True))
NAMES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)  # of the pictures, by number
BLANK = len(NAMES)  # no picture: off the board
SIDE_FIELDS = 4  # of a whole scene
LETTERS = tuple("ABCDEFGHIJKLMNOP")  # of the fields, row by row
TILE, CORNER = 28, 10  # pixels
SIDE = SIDE_FIELDS * TILE
NUM_RENDERINGS, NUM_TEST_RENDERINGS = 60, 12  # of each tile and letter; the last ones are only in the test
_SCALE = 4  # drawn larger by this and made smaller, for smooth edges


@cache
def tiles() -> np.ndarray:
    """[pictures and blank, sizes, renderings, TILE, TILE, 3] uint8. The same in every run."""
    rng = np.random.default_rng(3)
    drawn = [[_tile(name, radius, rng) for _ in range(NUM_RENDERINGS)] for name in NAMES for radius in RADII]
    blanks = [[_tile(None, radius, rng) for _ in range(NUM_RENDERINGS)] for radius in RADII]
    return _noisy(drawn + blanks, rng).reshape(BLANK + 1, len(SIZES), NUM_RENDERINGS, TILE, TILE, 3)


@cache
def corners() -> np.ndarray:
    """[letters and blank, renderings, CORNER, CORNER, 3] uint8. The same in every run."""
    rng = np.random.default_rng(4)
    return _noisy([[_corner(letter, rng) for _ in range(NUM_RENDERINGS)] for letter in (*LETTERS, "")], rng)


def corner_of(field: int, picture: int) -> int:
    """Which of the corners a field shows: its letter, or none off the board."""
    return len(LETTERS) if picture == BLANK else field


def compose(shown: Sequence[int], sizes: Sequence[int], renderings: Sequence[int]) -> np.ndarray:
    """[SIDE, SIDE, 3] uint8: the board.

    Args:
        shown, sizes, renderings: For each of the 16 fields its picture, its size and its rendering, by number.
    """
    fields = tiles()[list(shown), list(sizes), list(renderings)]  # [16, TILE, TILE, 3]
    letters = [corner_of(field, picture) for field, picture in enumerate(shown)]
    fields[:, :CORNER, :CORNER] = corners()[letters, list(renderings)]
    return join(fields)


def join(fields: np.ndarray) -> np.ndarray:
    """[16, TILE, TILE, 3], row by row -> [SIDE, SIDE, 3]."""
    rows = fields.reshape(SIDE_FIELDS, SIDE_FIELDS, TILE, TILE, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(SIDE, SIDE, 3)


def draw_renderings(rng: random.Random, is_test: bool) -> tuple[int, ...]:
    """Which rendering each field shows: one of the last in the test, one of the others in training."""
    border = NUM_RENDERINGS - NUM_TEST_RENDERINGS
    first, last = (border, NUM_RENDERINGS) if is_test else (0, border)
    return tuple(rng.randrange(first, last) for _ in range(SIDE_FIELDS**2))


def _tile(name: str | None, radius: float, rng: np.random.Generator) -> np.ndarray:
    image = Image.new("RGB", (TILE * _SCALE, TILE * _SCALE), _ground(rng))
    if name is not None:
        colour, shape = name.split()
        red, green, blue = (np.array(COLOURS[colour]) + rng.integers(-10, 11, 3)).clip(0, 255).tolist()
        centre = [(TILE / 2 + 2 + shift) * _SCALE for shift in rng.uniform(-1.5, 1.5, 2)]
        _draw_shape(ImageDraw.Draw(image), shape, centre, radius * rng.uniform(0.92, 1.08) * _SCALE, (red, green, blue))
    return np.asarray(image.resize((TILE, TILE), Image.Resampling.BOX))


def _draw_shape(
    drawing: ImageDraw.ImageDraw, shape: str, centre: list[float], radius: float, colour: tuple[int, int, int]
) -> None:
    x, y = centre

    def polygon(*corners: tuple[float, float]) -> None:
        drawing.polygon([(x + radius * right, y + radius * down) for right, down in corners], fill=colour)

    match shape:
        case "circle":
            drawing.circle((x, y), radius, fill=colour)
        case "ring":
            drawing.circle((x, y), radius, outline=colour, width=round(0.4 * radius))
        case "square":
            polygon((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85))
        case "triangle":
            polygon((0, -1), (1, 0.8), (-1, 0.8))
        case "diamond":
            polygon((0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0))
        case "cross":
            polygon((-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3))
            polygon((-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1))
        case "star":
            angles = [math.pi * (0.2 * corner - 0.5) for corner in range(10)]
            lengths = [1.1, 0.45] * 5
            polygon(*((r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, lengths, strict=True)))
        case "hourglass":
            polygon((-0.9, -0.95), (0.9, -0.95), (-0.9, 0.95), (0.9, 0.95))


def _corner(letter: str, rng: np.random.Generator) -> np.ndarray:
    image = Image.new("RGB", (CORNER, CORNER), _ground(rng))
    ink = tuple(rng.integers(0, 70, 3).tolist())
    centre = (CORNER / 2 + rng.uniform(-0.5, 0.5), CORNER / 2 + rng.uniform(-0.5, 0.5))
    ImageDraw.Draw(image).text(centre, letter, fill=ink, font=ImageFont.load_default(11), anchor="mm")
    return np.asarray(image)


def _ground(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(225, 256, 3).tolist()
    return red, green, blue


def _noisy(drawn: list[list[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    pixels = np.array(drawn, dtype=np.float32)
    return (pixels + 8 * rng.standard_normal(pixels.shape, dtype=np.float32)).clip(0, 255).astype(np.uint8)
