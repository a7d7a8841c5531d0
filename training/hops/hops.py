"""`hops`: a state-tracking task that needs serial computation (its data; the recipe is hops.yaml beside it).

A machine has N = 10 states and four buttons, and each (machine, button) is a fixed random permutation of the states. A
query is a film of T = 8 frames, each showing a button that is pressed or an idle sign, with a text that names the
machine and its start state; the target names the final state. The rationale names the state after every frame, one
token each, so one latent step replaces one hop, at the position where the token would stand. A model that cannot
compute in series knows the answer for one press, not for many.
"""

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

STATES = tuple("0123456789")
NAMES = STATES  # what targets say, by number
MACHINES = ("north", "south")
GLYPHS = ("L", "T", "O", "X", "")  # four buttons, and idle: an empty frame
IDLE = len(GLYPHS) - 1
NUM_FRAMES = 8
SIDE = 28  # pixels: one visual token
NUM_RENDERINGS, NUM_TEST_RENDERINGS = 500, 100  # of each glyph; the last ones are only in the test
NUM_TEST_QUERIES = 4096


@dataclass(frozen=True)
class Hop:
    """One query with its answer.

    Args:
        machine, start, final (`int`): Indices into MACHINES and STATES.
        frames (`tuple[int]`): A glyph for each of the frames.
        states (`tuple[int]`): The state after each frame.
        renderings (`tuple[int]`): Which rendering of its glyph each frame shows.
    """

    machine: int
    start: int
    frames: tuple[int, ...]
    states: tuple[int, ...]
    renderings: tuple[int, ...]

    @property
    def final(self) -> int:
        return self.states[-1]

    @property
    def num_presses(self) -> int:
        return sum(glyph != IDLE for glyph in self.frames)

    @property
    def depth(self) -> int:
        """Behind so many states of the rationale the answer stands: the place of the last press, from 1."""
        return max(place for place, sign in enumerate(self.frames, 1) if sign != IDLE)

    @property
    def rationale(self) -> str:
        """A digit, and thereby a token, for each frame: "33058119". Segments are cut by characters."""
        return "".join(STATES[state] for state in self.states)

    @property
    def family(self) -> str:
        """What kind of query it is: its machine."""
        return MACHINES[self.machine]

    @property
    def text(self) -> str:
        """What is asked: "north 3"."""
        return f"{MACHINES[self.machine]} {STATES[self.start]}"

    def item(self) -> dict:
        """The query as an item for PlumeProcessor."""
        pixels = renderings()
        return {
            "text": self.text,
            "video": np.stack([pixels[g, r] for g, r in zip(self.frames, self.renderings, strict=True)]),
        }


@cache
def permutations() -> np.ndarray:
    """[machines, buttons, states]: the state that each state goes to. The same in every run."""
    rng = np.random.default_rng(0)
    return np.array([[rng.permutation(len(STATES)) for _ in range(IDLE)] for _ in MACHINES])


@cache
def renderings() -> np.ndarray:
    """[glyphs, renderings, SIDE, SIDE, 3] uint8: random font size, shift, colours and noise. The same in every run."""
    rng = np.random.default_rng(1)
    return np.stack([np.stack([render(glyph, rng) for _ in range(NUM_RENDERINGS)]) for glyph in GLYPHS])


def render(glyph: str, rng: np.random.Generator) -> np.ndarray:
    """[SIDE, SIDE, 3] uint8: one rendering of a sign, "" for an empty frame."""
    ground, ink = rng.integers(220, 256, 3), rng.integers(0, 90, 3)
    image = Image.new("RGB", (SIDE, SIDE), tuple(ground.tolist()))
    centre = (SIDE / 2 + rng.uniform(-2.5, 2.5), SIDE / 2 + rng.uniform(-2.5, 2.5))
    font = ImageFont.load_default(int(rng.integers(18, 28)))
    ImageDraw.Draw(image).text(centre, glyph, fill=tuple(ink.tolist()), font=font, anchor="mm")
    noisy = np.asarray(image) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def draw(rng: random.Random, is_test: bool = False) -> Hop:
    """One random query: uniform machine, start state, number of presses 1..8, their places and buttons."""
    machine, start = rng.randrange(len(MACHINES)), rng.randrange(len(STATES))
    pressed = rng.sample(range(NUM_FRAMES), rng.randint(1, NUM_FRAMES))
    frames = tuple(rng.randrange(IDLE) if frame in pressed else IDLE for frame in range(NUM_FRAMES))
    states = run_machine(machine, start, frames)
    return Hop(machine, start, frames, states, draw_renderings(rng, is_test))


def run_machine(machine: int, start: int, frames: tuple[int, ...]) -> tuple[int, ...]:
    """The state of a machine after each frame."""
    states, state = [], start
    for glyph in frames:
        state = state if glyph == IDLE else int(permutations()[machine, glyph, state])
        states.append(state)
    return tuple(states)


def draw_renderings(rng: random.Random, is_test: bool) -> tuple[int, ...]:
    """Which rendering each frame shows: one of the last hundred in the test, one of the others in training."""
    border = NUM_RENDERINGS - NUM_TEST_RENDERINGS
    first, last = (border, NUM_RENDERINGS) if is_test else (0, border)
    return tuple(rng.randrange(first, last) for _ in range(NUM_FRAMES))


def held_out_queries(count: int = NUM_TEST_QUERIES, split: str = "test") -> list[Hop]:
    """The first queries of a set, the same for every run: `"test"`, or `"validation"`, which shows the renderings of
    training and is for choosing settings."""
    rng = random.Random(f"hops {split}")
    return [draw(rng, is_test=split == "test") for _ in range(count)]


def tokenizer_texts() -> list[str]:
    """Texts that make every word one token."""
    rng = random.Random("hops tokenizer")
    hops = [draw(rng) for _ in range(400)]
    return [hop.text for hop in hops]
