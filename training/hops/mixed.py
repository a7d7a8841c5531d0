"""`hops_mixed`: four instruction families in three input types, all of serial computation (its data).

    film   "north 3"      a film of presses            the machine's state after them, as in `hops`
    text   "north 3 L E T O X E E L"   no film         the same, the presses given as words (E: no press)
    count  "count L"      a film of presses            how many of them were L
    walk   "walk up E left left E E down right"   a picture of a board of 2 x 5 cells with a dot: where it goes

In a walk a step against the edge of the board stays.

Rationales name the state after each of eight signs, one token each. What a latent step has to do differs between the
families, and only the prefix says which of them it is: there is something to route by.
"""

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from training.hops import hops

FAMILIES = ("film", "text", "count", "walk")
IN_A_FILM = ("film", "count")
NO_PRESS = "E"
BUTTONS = (*hops.GLYPHS[: hops.IDLE], NO_PRESS)  # by sign number
MOVES = ("left", "right", "up", "down", NO_PRESS)  # by sign number
NAMES = hops.STATES  # what targets say, by number: a state, a count or a cell
ROWS, COLUMNS = 2, 5  # of the board of a walk


@dataclass(frozen=True)
class Query:
    """One query with its answer.

    Args:
        family (`str`): One of FAMILIES.
        text (`str`): What is asked.
        signs (`tuple[int]`): Eight signs in a film or as words, by number: of BUTTONS, for a walk of MOVES.
        states (`tuple[str]`): The rationale's token after each sign, the last one the answer.
        shown (`tuple[int]`): What is drawn: the signs of a film, the start of a walk, () for text.
        renderings (`tuple[int]`): Which rendering of each.
    """

    family: str
    text: str
    signs: tuple[int, ...]
    states: tuple[str, ...]
    shown: tuple[int, ...] = ()
    renderings: tuple[int, ...] = ()

    @property
    def final(self) -> int:
        """The answer, as an index into NAMES."""
        return NAMES.index(self.states[-1])

    @property
    def num_presses(self) -> int:
        """Signs that are not idle."""
        return sum(sign != hops.IDLE for sign in self.signs)

    @property
    def depth(self) -> int:
        """Behind so many states of the rationale the answer stands: the place of its last press, from 1."""
        return max(place for place, sign in enumerate(self.signs, 1) if sign != hops.IDLE)

    @property
    def rationale(self) -> str:
        """One character, and thereby one token, for each sign."""
        return "".join(self.states)

    def item(self) -> dict:
        """The query as an item for PlumeProcessor."""
        if self.family == "text":
            return {"text": self.text}
        pixels = board_renderings() if self.family == "walk" else hops.renderings()
        drawn = np.stack([pixels[sign, r] for sign, r in zip(self.shown, self.renderings, strict=True)])
        if self.family == "walk":
            return {"text": self.text, "image": Image.fromarray(drawn[0])}
        return {"text": self.text, "video": drawn}


@cache
def board_renderings() -> np.ndarray:
    """[cells, renderings, SIDE, SIDE, 3] uint8: a board with a dot on one of its cells; size, shift, colours and noise
    are random. The same in every run."""
    rng = np.random.default_rng(2)
    cells = range(ROWS * COLUMNS)
    return np.stack([np.stack([_board(cell, rng) for _ in range(hops.NUM_RENDERINGS)]) for cell in cells])


def _board(cell: int, rng: np.random.Generator) -> np.ndarray:
    ground, ink = rng.integers(220, 256, 3), rng.integers(0, 90, 3)
    image = Image.new("RGB", (hops.SIDE, hops.SIDE), tuple(ground.tolist()))
    row, column = divmod(cell, COLUMNS)
    x = (column + 0.5) * hops.SIDE / COLUMNS + rng.uniform(-1, 1)
    y = (row + 0.5) * hops.SIDE / ROWS + rng.uniform(-2.5, 2.5)
    ImageDraw.Draw(image).circle((x, y), rng.uniform(2, 3), fill=tuple(ink.tolist()))
    return (np.asarray(image) + rng.normal(0, 8, (hops.SIDE, hops.SIDE, 3))).clip(0, 255).astype(np.uint8)


def draw(rng: random.Random, is_test: bool = False, family: str | None = None) -> Query:
    """One random query, of a random family unless told otherwise."""
    family = family or rng.choice(FAMILIES)
    pressed = rng.sample(range(hops.NUM_FRAMES), rng.randint(1, hops.NUM_FRAMES))
    signs = tuple(rng.randrange(hops.IDLE) if i in pressed else hops.IDLE for i in range(hops.NUM_FRAMES))
    renderings = hops.draw_renderings(rng, is_test)
    if family in ("film", "text"):
        machine, start = rng.randrange(len(hops.MACHINES)), rng.randrange(len(hops.STATES))
        states = tuple(hops.STATES[state] for state in hops.run_machine(machine, start, signs))
        text = f"{hops.MACHINES[machine]} {start}"
        if family == "text":
            return Query(family, f"{text} {words(BUTTONS, signs)}", signs, states)
        return Query(family, text, signs, states, signs, renderings)
    if family == "walk":
        start = rng.randrange(ROWS * COLUMNS)
        cells = tuple(str(cell) for cell in walk(start, signs))
        return Query(family, f"walk {words(MOVES, signs)}", signs, cells, (start,), renderings[:1])
    button = rng.randrange(hops.IDLE)  # pressed in half of the cases, or most answers would be 0 and 1
    signs = tuple(sign if sign == hops.IDLE or rng.random() < 0.5 else button for sign in signs)
    counts = tuple(str(count) for count in np.cumsum(np.array(signs) == button))
    return Query(family, f"count {BUTTONS[button]}", signs, counts, signs, renderings)


def words(names: tuple[str, ...], signs: tuple[int, ...]) -> str:
    """Signs as text."""
    return " ".join(names[sign] for sign in signs)


def walk(start: int, signs: tuple[int, ...]) -> list[int]:
    """The cell after each move; cells 0..4 are the upper row, 5..9 the lower, and a move off the board stays."""
    row, column = divmod(start, COLUMNS)
    cells = []
    for sign in signs:
        column = min(max(column + {"left": -1, "right": 1}.get(MOVES[sign], 0), 0), COLUMNS - 1)
        row = min(max(row + {"up": -1, "down": 1}.get(MOVES[sign], 0), 0), ROWS - 1)
        cells.append(row * COLUMNS + column)
    return cells


def held_out_queries(count: int = hops.NUM_TEST_QUERIES, split: str = "test") -> list[Query]:
    """The first queries of a set, as many of every family as of any other."""
    rng = random.Random(f"hops_mixed {split}")
    return [draw(rng, split == "test", FAMILIES[index % len(FAMILIES)]) for index in range(count)]


def chance() -> dict[str, float]:
    """Hit@1 of the best constant answer to each family, on the test queries."""
    queries = held_out_queries()
    finals = {family: [query.final for query in queries if query.family == family] for family in FAMILIES}
    return {family: max(map(own.count, set(own))) / len(own) for family, own in finals.items()}


def machines() -> list[str]:
    """Every way to name a machine and its start."""
    return [f"{machine} {state}" for machine in hops.MACHINES for state in hops.STATES]


def film_prompts() -> list[str]:
    """Every text that goes with a film."""
    return machines() + [f"count {button}" for button in BUTTONS[: hops.IDLE]]


def tokenizer_texts() -> list[str]:
    """Texts that make every word one token."""
    rng = random.Random("hops_mixed tokenizer")
    return [draw(rng).text for _ in range(2000)]
