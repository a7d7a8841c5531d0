"""V-MRET, a film and a text -> its four frames, and the questions of V-QA about the order of a film.

A moment is named ("a rocket moves") or given by its neighbour ("what comes right after a rocket"): the second cannot
be found without watching the film. The pool is the film's other segments, windows over the boundaries of its clips, and
segments of other films, 64 in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.miniature.films.clips import KNOWN, TRAIN, UNSEEN, Clip
from evaluation.miniature.films.films import Film, compose_films, phrase, segment_frames, segment_id
from evaluation.miniature.sources.phrases import and_list, is_plural
from evaluation.miniature.sources.rationales import GROUPS, Rationales, join, pick, stable_order
from plume_embed.evaluation.miniature.schema import Built, Pair, Query, Side, Task, Taught

POOL = 64
TEST_FILMS = 60  # for each split
TRAIN_FILMS = 180
NAMED, ORDERED, QUESTIONS = 4, 4, 4  # of one film
SUBSETS = ("V-MRET-named", "V-MRET-order", "V-QA-film")

_NAMED = ("{} {moves}", "{} {comes} into view", "the moment with {}", "the part that shows {}")
_MOMENTS = {"after": "what comes right after {}", "before": "what comes right before {}"}
_ASKED = {
    "after": "What comes right after {}?",
    "before": "What comes right before {}?",
    "first": "What is shown first?",
    "last": "What is shown last?",
}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_CARDINALS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Asked:
    """What is asked about a film.

    Attributes:
        text: The query.
        place: Number of the clip that is the answer.
        reasons: How the film gives the answer, sentence by sentence.
    """

    text: str
    place: int
    reasons: tuple[str, ...]


def named(film: Film) -> list[Asked]:
    """Queries that name what a moment shows."""
    found = []
    for place in _sample(range(len(film.clips)), NAMED, f"named {film.name}"):
        words = phrase(film.clips[place])
        verbs = {"moves": "move", "comes": "come"} if is_plural(words) else {"moves": "moves", "comes": "comes"}
        text = _NAMED[pick(f"named {film.name} {place}", len(_NAMED))].format(words, **verbs)
        reasons = (f"The text asks for the part that shows {words}", f"That is the {_ORDINALS[place]} part")
        found.append(Asked(text, place, reasons))
    return found


def by_neighbour(film: Film, wordings: dict[str, str], count: int) -> list[Asked]:
    """Queries that name what comes right before or after the answer."""
    known = [(where, place) for place in range(len(film.clips)) for where in ("after", "before")]
    known = [(w, p) for w, p in known if 0 <= p + (1 if w == "after" else -1) < len(film.clips)]
    found = []
    for where, place in _sample(known, count, f"{sorted(wordings)} {film.name}"):
        words, answer = phrase(film.clips[place]), place + (1 if where == "after" else -1)
        reasons = (
            f"The text asks for what comes right {where} {words}",
            f"The {_ORDINALS[place]} part shows {words}",
            f"The {_ORDINALS[answer]} part, right {where} it, shows {phrase(film.clips[answer])}",
        )
        found.append(Asked(wordings[where].format(words), answer, reasons))
    return found


def order_questions(film: Film) -> list[Asked]:
    """Questions about what comes first, last, after or before something."""
    found = by_neighbour(film, _ASKED, QUESTIONS - 1)
    where, place = (("first", 0), ("last", len(film.clips) - 1))[pick(f"ends of {film.name}", 2)]
    reasons = (
        f"The question is about the {where} part of the film",
        f"That part shows {phrase(film.clips[place])}",
    )
    return [*found, Asked(_ASKED[where], place, reasons)]


def what_is_shown(film: Film) -> list[str]:
    """The parts of a film in their order, as sentences."""
    names = [phrase(clip) for clip in film.clips]
    half = (len(names) + 1) // 2
    return [
        f"The film has {_CARDINALS[len(names)]} parts",
        f"In this order it shows {and_list(names[:half])}",
        f"Then come {and_list(names[half:])}",
    ]


def build(clips: Sequence[Clip], rationales: Rationales) -> Built:
    """All films, with their tasks and training pairs.

    Raises:
        ValueError: see `films.compose_films`.
    """
    built = Built()
    for split, count in ((KNOWN, TEST_FILMS), (UNSEEN, TEST_FILMS), (TRAIN, TRAIN_FILMS)):
        members = [clip for clip in clips if clip.split == split]
        films = compose_films(members, count, split)
        built.media |= {film.id: film.frames for film in films}
        built.media |= {segment_id(clip): segment_frames(clip) for film in films for clip in film.clips}
        if split == TRAIN:
            built.pairs += pairs(films, rationales)
        else:
            for film in films:
                built.media |= film.windows()
            built.tasks += [*moment_tasks(films, split), question_task(films, split)]
    return built


def moment_tasks(films: Sequence[Film], split: str) -> list[Task]:
    """Film and text -> segment."""
    segments = {segment_id(clip): clip for film in films for clip in film.clips}
    ids = [*sorted(segments), *(name for film in films for name in film.windows())]
    number = {name: n for n, name in enumerate(ids)}
    sides = tuple(Side(video=name) for name in ids)
    found = []
    for name, asked_about in (("V-MRET/named", named), ("V-MRET/order", _ordered)):
        queries = []
        for film in films:
            shown = [segment_id(clip) for clip in film.clips]
            # What another film shows of a family that this one shows, too, could be taken for a right answer.
            families = {clip.concept.family for clip in film.clips}
            others = [name for name, clip in segments.items() if clip.concept.family not in families]
            for asked in asked_about(film):
                own = [*shown, *film.windows()]
                pool = [*own, *stable_order(others, f"{film.name} {asked.text}")[: POOL - len(own)]]
                right = number[shown[asked.place]]
                queries.append(Query(Side(asked.text, video=film.id), (right,), tuple(sorted(number[n] for n in pool))))
        found.append(Task(name, split, tuple(queries), sides))
    return found


def question_task(films: Sequence[Film], split: str) -> Task:
    """Film and question -> the name of what is shown; the pool has the names of everything the film shows."""
    labels = sorted({clip.concept.label for film in films for clip in film.clips})
    number = {label: n for n, label in enumerate(labels)}
    queries = []
    for film in films:
        shown = [clip.concept.label for clip in film.clips]
        for asked in order_questions(film):
            others = stable_order(set(labels) - set(shown), f"{film.name} {asked.text}")[: POOL - len(shown)]
            pool = tuple(sorted(number[label] for label in (*shown, *others)))
            queries.append(Query(Side(asked.text, video=film.id), (number[shown[asked.place]],), pool))
    return Task("V-QA/order in a film", split, tuple(queries), tuple(Side(text=label) for label in labels))


def pairs(films: Sequence[Film], rationales: Rationales) -> list[Pair]:
    """Training pairs about films."""
    found = []
    for film in films:
        rationale = what_is_shown(film)
        for subset, asked_about in zip(SUBSETS[:2], (named, _ordered), strict=True):
            for asked in asked_about(film):
                clip = film.clips[asked.place]
                query = Taught(Side(asked.text, video=film.id), join(*rationale, *asked.reasons), "a moment of a film")
                answer = f"a part of a film, from {GROUPS[clip.concept.group]}"
                target = Taught(Side(video=segment_id(clip)), rationales.of_clip(clip.concept), answer)
                found.append(Pair(query, target, subset))
        for asked in order_questions(film):
            concept = film.clips[asked.place].concept
            query = Taught(
                Side(asked.text, video=film.id), join(*rationale, *asked.reasons), "a question about the order"
            )
            target = Taught(
                Side(text=concept.label), rationales.of_text(concept), f"a name from {GROUPS[concept.group]}"
            )
            found.append(Pair(query, target, SUBSETS[2]))
    return found


def _ordered(film: Film) -> list[Asked]:
    return by_neighbour(film, _MOMENTS, ORDERED)


def _sample(items: Sequence, count: int, key: str) -> list:
    """A stable sample."""
    by_name = {str(item): item for item in items}
    return [by_name[name] for name in stable_order(by_name, key)[:count]]
