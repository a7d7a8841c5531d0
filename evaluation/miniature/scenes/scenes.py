"""Scenes: four to eight pictures on a coloured ground, composed by rule and drawn from cutouts.

A scene is a grid of two rows; every cell holds at most one thing, somewhere within the cell, and one thing is by far
the largest. Its things are distinct in name and in pixels. One sort of thing (a noun such as "animal") stands in it one
to six times, each number equally often, from one subgroup as far as that has members; the rest are of other sorts.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from evaluation.miniature.parts import Still
from evaluation.miniature.sources.concepts import Concept

WIDTH, HEIGHT, ROWS = 168, 112, 2
CROP = 56
MOST_OF_A_SORT = 6

# What a scene's things are called, by subgroup: (singular, plural).
NOUNS = {
    **dict.fromkeys(
        ("animal-mammal", "animal-bird", "animal-amphibian", "animal-reptile", "animal-marine", "animal-bug"),
        ("animal", "animals"),
    ),
    **dict.fromkeys(("plant-flower", "plant-other"), ("plant", "plants")),
    "food-fruit": ("fruit", "fruits"),
    "food-vegetable": ("vegetable", "vegetables"),
    **dict.fromkeys(("food-prepared", "food-asian"), ("dish", "dishes")),
    "food-sweet": ("sweet", "sweets"),
    "drink": ("drink", "drinks"),
    **dict.fromkeys(("transport-ground", "transport-water", "transport-air"), ("vehicle", "vehicles")),
    **dict.fromkeys(("place-building", "place-religious"), ("building", "buildings")),
    "clothing": ("piece of clothing", "pieces of clothing"),
    "musical-instrument": ("musical instrument", "musical instruments"),
    "tool": ("tool", "tools"),
    "household": ("household thing", "household things"),
    "office": ("office thing", "office things"),
    "sport": ("piece of sports gear", "pieces of sports gear"),
    "sky-weather": ("thing of the sky", "things of the sky"),
}
# Members of these subgroups that their noun does not fit, or that look like a scene of their own.
_UNFIT = frozenset(
    (
        "paw prints", "pig nose", "feather", "wing", "phoenix", "dragon", "dragon face", "unicorn", "spiral shell",
        "coral", "spider web", "microbe", "monkey face", "dog face", "cat face", "tiger face", "horse face",
        "cow face", "pig face", "mouse face", "rabbit face", "front-facing baby chick", "hatching chick",
        "black bird", "black cat", "service dog", "bouquet", "rosette", "empty nest", "nest with eggs",
        "sheaf of rice", "leaf fluttering in wind", "mushroom", "egg", "cooking", "salt", "butter", "cut of meat",
        "bread", "baby bottle", "glass of milk", "pouring liquid", "ice", "bus stop", "motorway", "railway track",
        "oil drum", "fuel pump", "wheel", "police car light", "station", "seat", "horizontal traffic light",
        "vertical traffic light", "stop sign", "construction", "anchor", "ring buoy", "metro", "parachute",
        "airplane departure", "airplane arrival", "satellite", "roller skate", "light rail", "mountain railway",
        "building construction", "brick", "rock", "wood", "wedding", "houses", "kaaba", "Statue of Liberty",
        "lipstick", "gem stone", "hair pick", "prayer beads", "link", "broken chain", "chains", "white cane",
        "roll of paper", "bubbles", "door", "elevator", "window", "shower", "soap", "flag in hole", "goal net",
        "tennis", "bowling", "badminton", "lacrosse", "ice hockey", "field hockey", "ping pong", "cricket game",
        "thermometer", "umbrella", "closed umbrella", "umbrella on ground", "umbrella with rain drops", "fire",
        "snowman", "snowman without snow", "high voltage", "milky way", "fog", "wind face", "water wave", "droplet",
        "chart increasing", "chart decreasing", "bar chart", "teapot", "teacup without handle", "tumbler glass",
        "glasses", "sunglasses", "goggles", "folding hand fan", "purse", "handbag", "clutch bag", "shopping bags",
        "backpack", "ring", "crown", "shield", "bomb", "crossed swords", "bow and arrow", "dagger", "boomerang",
        "nut and bolt", "gear", "toolbox", "cheese wedge", "popcorn", "scissors", "bento box",
    )
)  # fmt: skip
# Sorts that a scene does not mix with one another: a scissor is a tool to some, a tomato a fruit.
_ALIKE = (
    frozenset(("tool", "household thing", "office thing", "piece of sports gear")),
    frozenset(("plant", "fruit", "vegetable")),
    frozenset(("dish", "sweet", "drink", "fruit", "vegetable")),
)
_GROUNDS = ((226, 238, 247), (236, 244, 226), (250, 240, 221), (243, 232, 244), (229, 229, 233), (252, 230, 226))
_CLOSE = 0.72  # the largest thing is at least 1 / 0.72 times as long as any other


@dataclass(frozen=True)
class Thing:
    """One picture in a scene.

    Attributes:
        concept: What it shows.
        row, column: Its cell.
        left, top, side: Its square in pixels.
    """

    concept: Concept
    row: int
    column: int
    left: int
    top: int
    side: int

    @property
    def sort(self) -> str:
        """The noun for things like it, e.g. "animal"."""
        return NOUNS[self.concept.subgroup][0]

    @property
    def name(self) -> str:
        """What it is called, without an article."""
        return self.concept.label

    @property
    def centre(self) -> tuple[float, float]:
        """Its centre, (x, y) in pixels."""
        return self.left + self.side / 2, self.top + self.side / 2


@dataclass(frozen=True)
class Scene:
    """A composed scene.

    Attributes:
        id: As a medium, without the group.
        style: The style of all its pictures.
        sort: The noun of which there are `count` things.
        count: 1 to MOST_OF_A_SORT.
        things: By row and column.
        ground: Number of the ground's colour.
        striped: Whether the ground has stripes.
    """

    id: str
    style: str
    sort: str
    count: int
    things: tuple[Thing, ...]
    ground: int
    striped: bool

    @property
    def of_the_sort(self) -> list[Thing]:
        """The things that are counted."""
        return [thing for thing in self.things if thing.sort == self.sort]

    def at(self, row: int, column: int) -> Thing | None:
        """The thing in a cell."""
        return next((thing for thing in self.things if (thing.row, thing.column) == (row, column)), None)


def fit_for_scenes(stills: Iterable[Still], split_family: str) -> list[Still]:
    """The pictures that scenes are made of: nameable things of one split's families, one of equal pictures."""
    kept: dict[str, Still] = {}
    names: set[str] = set()
    for still in stills:
        concept = still.concept
        fits = concept.subgroup in NOUNS and concept.label not in _UNFIT and concept.split_family == split_family
        if fits and not concept.skin_tone and concept.label not in names:
            if still.digest not in kept:
                names.add(concept.label)
            kept.setdefault(still.digest, still)
    return list(kept.values())


def compose(stills: Sequence[Still], name: str, seed: int) -> Scene:
    """One scene, a function of its arguments.

    Args:
        stills: As `fit_for_scenes` returns them, of one style.
        name: The scene's id.
        seed: Of the build.

    Raises:
        ValueError: too few pictures to choose from.
    """
    rng = random.Random(f"{seed} {name}")
    by_sort: dict[str, list[Concept]] = defaultdict(list)
    for still in stills:
        by_sort[NOUNS[still.concept.subgroup][0]].append(still.concept)
    count = rng.randint(1, MOST_OF_A_SORT)
    sorts = sorted(sort for sort, members in by_sort.items() if len(members) >= count)
    total = rng.randint(max(4, count + 1), 8)
    if not sorts or len(by_sort) < 2:
        raise ValueError(f"{len(stills)} pictures of {len(by_sort)} sorts are too few for scenes.")
    sort = rng.choice(sorts)
    first = rng.choice(by_sort[sort]).subgroup
    members = rng.sample(by_sort[sort], len(by_sort[sort]))
    members.sort(key=lambda concept: concept.subgroup != first)  # stable: one subgroup first
    alike = {sort}.union(*(group for group in _ALIKE if sort in group))
    others = [concept for other in sorted(by_sort) if other not in alike for concept in by_sort[other]]
    chosen = [*members[:count], *rng.sample(others, min(total - count, len(others)))]
    rng.shuffle(chosen)
    columns = 2 if len(chosen) <= 4 else 3 if len(chosen) <= 6 else 4
    cells = sorted(rng.sample([(r, c) for r in range(ROWS) for c in range(columns)], len(chosen)))
    largest = rng.randrange(len(chosen))
    width, height = WIDTH // columns, HEIGHT // ROWS
    most = min(width, height) - 2
    things = []
    for number, (concept, (row, column)) in enumerate(zip(chosen, cells, strict=True)):
        side = most if number == largest else rng.randint(most // 2, int(most * _CLOSE))
        left = column * width + rng.randint(1, width - side - 1)
        top = row * height + rng.randint(1, height - side - 1)
        things.append(Thing(concept, row, column, left, top, side))
    return Scene(name, stills[0].style, sort, count, tuple(things), rng.randrange(len(_GROUNDS)), rng.random() < 0.5)


def draw(scene: Scene, cutouts: Mapping[str, Image.Image]) -> Image.Image:
    """Draw a scene.

    Args:
        scene: What to draw.
        cutouts: RGBA pictures of its style by hexcode, at least as large as a cell.

    Returns:
        RGB, WIDTH x HEIGHT.
    """
    ground = Image.new("RGB", (WIDTH, HEIGHT), _GROUNDS[scene.ground])
    if scene.striped:
        pen = ImageDraw.Draw(ground)
        darker = tuple(value - 10 for value in _GROUNDS[scene.ground])
        for left in range(0, WIDTH, 28):
            pen.rectangle((left, 0, left + 13, HEIGHT), fill=darker)
    for thing in scene.things:
        cutout = cutouts[thing.concept.hexcode].copy()
        cutout.thumbnail((thing.side, thing.side), Image.Resampling.LANCZOS)
        x, y = thing.left + (thing.side - cutout.width) // 2, thing.top + (thing.side - cutout.height) // 2
        ground.paste(cutout, (x, y), cutout)
    return ground


def crop(picture: Image.Image, thing: Thing) -> Image.Image:
    """The part of a drawn scene that shows one thing, CROP x CROP."""
    margin = max(2, thing.side // 12)
    box = (thing.left - margin, thing.top - margin, thing.left + thing.side + margin, thing.top + thing.side + margin)
    side = box[2] - box[0]
    # A square that lies within the picture: moved inwards where it juts out.
    left = min(max(box[0], 0), picture.width - side)
    top = min(max(box[1], 0), picture.height - side)
    return picture.crop((left, top, left + side, top + side)).resize((CROP, CROP), Image.Resampling.LANCZOS)
