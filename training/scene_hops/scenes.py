"""`scene_hops`: a composed scene, and an instruction that is followed one hop after another (its data).

A scene is a board of 2 x 3 to 4 x 4 fields, each with its letter and one picture out of a pool of 64, 8 shapes in 8
colours, drawn large or small. Each colour and each shape of a board is there exactly twice. The instruction names the
field to start at and has six slots, each a hop or "stay". The answer is the picture at the end.

    right left up down   to the next field; behind the edge comes the other edge
    colour, shape        to the other picture of the same colour, or shape
    large                to the right, as many fields as the row has large pictures
    small                downwards, as many fields as the column has small pictures

Every hop is a permutation of the fields, whatever the scene, and the start is drawn uniformly. So each picture of a
scene is the answer to an instruction equally often, and each of the 64 is the answer to a text equally often: neither
the text alone nor the pictures without their places say anything. Hops of different families do not commute, so that
counting them is no shortcut, and two hops of one kind never follow each other.

The rationale follows in single look-ups, one token each: for every slot a mark of what is looked up, then the letter
of the field that it leads to, and at last colour and shape of the answer (`pictures.MARKS`). "from A colour right
stay small shape up" may have "@ArC>A=A1EfC^Ggx": start at A, which is red; the other red one is C; right over the
edge is A; stay; its column has one small picture, so one down to E, a ring; the other ring is C; up over the edge is
G, a green cross. One latent step replaces one look-up, two of them a hop.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from PIL import Image

from training.scene_hops import pictures
from training.scene_hops.pictures import BLANK, COLOURS, LETTERS, MARKS, NAMES, SHAPES, SIDE_FIELDS, SIZES

LARGE, SMALL = (SIZES.index(size) for size in ("large", "small"))
BOARDS = ((2, 3), (2, 4), (3, 4), (4, 4))  # rows, columns
WORDS = ("right", "left", "up", "down", "colour", "shape", "large", "small", "stay")  # by sign number
STAY = WORDS.index("stay")
OPENINGS = ("from", "at")  # of a text: an instruction to follow, a board to describe (reading.py)
# Two hops of one kind in a row could be one hop, or none.
KINDS = ("row", "row", "column", "column", "colour", "shape", "large", "small")
FAMILIES = {
    "directions": ("right", "left", "up", "down"),
    "colours": ("colour",),
    "shapes": ("shape",),
    "counting": ("large", "small"),
}
START_MARK, WORD_MARKS = "@", {"right": ">", "left": "<", "up": "^", "down": "v", "stay": "="}
NUM_SLOTS = MAX_HOPS = 6
NUM_TEST_QUERIES = 4096


@dataclass(frozen=True)
class Scene:
    """A board with its pictures.

    Args:
        rows, columns (`int`): Of the board.
        shown (`tuple[int]`): The picture on each of the 16 fields, by its number in `NAMES`; `BLANK` off the board.
        sizes (`tuple[int]`): Into `SIZES`, for each field.
    """

    rows: int
    columns: int
    shown: tuple[int, ...]
    sizes: tuple[int, ...]

    @cached_property
    def fields(self) -> tuple[int, ...]:
        """The fields of the board."""
        return tuple(row * SIDE_FIELDS + column for row in range(self.rows) for column in range(self.columns))

    def after(self, field: int, sign: int) -> int:
        """The field after one hop."""
        row, column = divmod(field, SIDE_FIELDS)
        match WORDS[sign]:
            case "right" | "left" as word:
                column += 1 if word == "right" else -1
            case "down" | "up" as word:
                row += 1 if word == "down" else -1
            case "colour":
                return self._other(field, lambda picture: picture % len(COLOURS))
            case "shape":
                return self._other(field, lambda picture: picture // len(COLOURS))
            case "large":
                column += self._count(field, LARGE)
            case "small":
                row += self._count(field, SMALL)
        return row % self.rows * SIDE_FIELDS + column % self.columns

    def mark(self, field: int, sign: int) -> str:
        """What is looked up for a hop, one character: a direction, the field's colour or shape, or a count."""
        colour, shape = NAMES[self.shown[field]].split()
        match WORDS[sign]:
            case "colour":
                return MARKS[colour]
            case "shape":
                return MARKS[shape]
            case "large":
                return str(self._count(field, LARGE))
            case "small":
                return str(self._count(field, SMALL))
            case word:
                return WORD_MARKS[word]

    def _count(self, field: int, size: int) -> int:
        """Large pictures in the row of a field, or small ones in its column."""
        row, column = divmod(field, SIDE_FIELDS)
        in_row = [row * SIDE_FIELDS + c for c in range(self.columns)]
        in_column = [r * SIDE_FIELDS + column for r in range(self.rows)]
        return sum(self.sizes[other] == size for other in (in_row if size == LARGE else in_column))

    def _other(self, field: int, attribute: Callable[[int], int]) -> int:
        own = attribute(self.shown[field])
        return next(other for other in self.fields if other != field and attribute(self.shown[other]) == own)

    def follow(self, start: int, signs: tuple[int, ...]) -> tuple[int, ...]:
        """The field at the start and after each sign."""
        fields = [start]
        for sign in signs:
            fields.append(self.after(fields[-1], sign))
        return tuple(fields)


@dataclass(frozen=True)
class Query:
    """One query with its answer.

    Args:
        scene ([`Scene`]): What is shown.
        start (`int`): The field that the text names.
        signs (`tuple[int]`): Six slots, into `WORDS`.
        renderings (`tuple[int]`): Which rendering each of the 16 fields shows.
    """

    opening: ClassVar[str] = OPENINGS[0]  # of the text

    scene: Scene
    start: int
    signs: tuple[int, ...]
    renderings: tuple[int, ...]

    @cached_property
    def states(self) -> tuple[int, ...]:
        """The field at the start and after each slot."""
        return self.scene.follow(self.start, self.signs)

    @property
    def final(self) -> int:
        """The answer, as an index into `NAMES`."""
        return self.scene.shown[self.states[-1]]

    @property
    def num_hops(self) -> int:
        """Signs that are no "stay"."""
        return sum(sign != STAY for sign in self.signs)

    @property
    def depth(self) -> int:
        """After how many look-ups of the rationale the field of the answer is known."""
        return 2 + 2 * max((place for place, sign in enumerate(self.signs, 1) if sign != STAY), default=0)

    @property
    def family(self) -> str:
        """The family of the last hop; "none" without hops."""
        words = [WORDS[sign] for sign in self.signs if sign != STAY]
        return next((name for name, own in FAMILIES.items() if words and words[-1] in own), "none")

    @property
    def rationale(self) -> str:
        """A mark and a letter for the start and each slot, then the answer's marks; each is a token. Segments are cut
        by characters."""
        marks = [START_MARK, *(self.scene.mark(*hop) for hop in zip(self.states, self.signs, strict=False))]
        path = "".join(mark + LETTERS[field] for mark, field in zip(marks, self.states, strict=True))
        return path + "".join(MARKS[word] for word in NAMES[self.final].split())

    @property
    def text(self) -> str:
        """What is asked: "from B down stay right up stay colour"."""
        return f"{self.opening} {LETTERS[self.start]} {' '.join(WORDS[sign] for sign in self.signs)}"

    def item(self) -> dict:
        """The query as an item for PlumeProcessor."""
        pixels = pictures.compose(self.scene.shown, self.scene.sizes, self.renderings)
        return {"text": self.text, "image": Image.fromarray(pixels)}


def draw_scene(rng: random.Random, boards: Sequence[tuple[int, int]] = BOARDS) -> Scene:
    """A random board of one of these sizes. All shapes and all colours are treated alike, and so are all its fields."""
    rows, columns = rng.choice(boards)
    count = rows * columns // 2
    shapes, colours = rng.sample(range(len(SHAPES)), count), rng.sample(range(len(COLOURS)), count)
    seconds = rng.sample(colours, count)
    while any(first == second for first, second in zip(colours, seconds, strict=True)):
        seconds = rng.sample(colours, count)
    chosen = [
        shape * len(COLOURS) + colour for own in (colours, seconds) for shape, colour in zip(shapes, own, strict=True)
    ]
    rng.shuffle(chosen)
    shown = [BLANK] * SIDE_FIELDS**2
    for index, picture in enumerate(chosen):
        row, column = divmod(index, columns)
        shown[row * SIDE_FIELDS + column] = picture
    return Scene(rows, columns, tuple(shown), tuple(rng.randrange(len(SIZES)) for _ in shown))


def draw_signs(rng: random.Random, num_hops: int | None = None) -> tuple[int, ...]:
    """A random instruction: uniform number of hops 0..6 unless told, their slots, the family of each, a word of it."""
    slots = sorted(rng.sample(range(NUM_SLOTS), rng.randint(0, MAX_HOPS) if num_hops is None else num_hops))
    signs, before = [STAY] * NUM_SLOTS, None
    for slot in slots:
        kind = before
        while kind == before:
            signs[slot] = WORDS.index(rng.choice(FAMILIES[rng.choice(list(FAMILIES))]))
            kind = KINDS[signs[slot]]
        before = kind
    return tuple(signs)


def draw(rng: random.Random, is_test: bool = False) -> Query:
    """One random query; what is drawn for the scene, for the instruction and for the start is independent."""
    scene, signs = draw_scene(rng), draw_signs(rng)
    start = rng.choice(scene.fields)
    return Query(scene, start, signs, pictures.draw_renderings(rng, is_test))


def held_out_queries(count: int = NUM_TEST_QUERIES, split: str = "test") -> list[Query]:
    """The first queries of a set, the same for every run: `"test"`, whose renderings training has not seen, or
    `"validation"`, which shows the renderings of training and is for choosing settings."""
    rng = random.Random(f"scene_hops {split}")
    return [draw(rng, is_test=split == "test") for _ in range(count)]


def queries_over_one_scene(count: int) -> list[Query]:
    """Test queries in twos: neighbours ask the same scene, in the same renderings, for different answers.

    Args:
        count (`int`): Queries, an even number.

    Raises:
        ValueError: an odd number.
    """
    if count % 2:
        raise ValueError(f"Queries in twos are an even number, not {count}.")
    rng = random.Random("scene_hops in twos")
    found: list[Query] = []
    while len(found) < count:
        one = draw(rng, is_test=True)
        other = replace(one, start=rng.choice(one.scene.fields), signs=draw_signs(rng))
        if one.final != other.final:
            found += [one, other]
    return found


def chance(queries: list[Query]) -> dict[str, float]:
    """Hit@1 of guessing on these queries.

    Returns:
        `constant`: of the best constant answer, which is found on the queries themselves; `bag_of_pictures`: of
        knowing which pictures the scene has and what the text says, without knowing any place, which is one of the
        scene's pictures by [`answers`]; `start`: of the picture at the start.
    """
    finals = [query.final for query in queries]
    return {
        "constant": max(map(finals.count, set(finals))) / len(finals),
        "bag_of_pictures": sum(1 / len(query.scene.fields) for query in queries) / len(queries),
        "start": sum(query.scene.shown[query.start] == query.final for query in queries) / len(queries),
    }


def answers(scene: Scene, signs: tuple[int, ...]) -> list[int]:
    """The answer of an instruction for every start on the board."""
    return [scene.shown[scene.follow(start, signs)[-1]] for start in scene.fields]


def tokenizer_texts() -> list[str]:
    """Texts that make every word one token."""
    rng = random.Random("scene_hops tokenizer")
    names = [*NAMES, *(f" {name}" for name in NAMES)]
    return [draw(rng).text for _ in range(1000)] + 40 * names + 1000 * list(OPENINGS)
