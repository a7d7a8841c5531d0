"""I-QA about single pictures: skin tone, gender, "a kind of what", subgroup -> answer.

Each query has a pool of 64 answers. A type with that many answers takes its wrong ones from its own: kinds (words that
WordNet has for anything the picture shows are left out, for they are right too) and subgroups. There are 25 answers
about skin tone (5, and 20 pairs of two different ones) and 2 about gender: their pools hold all of these and are filled
up with answers of other types, so that the real choice is among 25 and among 2, and a guess is right in 4 % and 50 % of
the cases or more, though 1 of 64 is 1.6 % (`plume_embed.evaluation.miniature.guess`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.miniature.parts import Context, Still
from evaluation.miniature.sources.concepts import TONES, Concept
from evaluation.miniature.sources.rationales import (
    GENDERS,
    GROUPS,
    Rationales,
    join,
    pick,
    stable_order,
    subgroup_text,
)
from plume_embed.evaluation.miniature.schema import Pair, Query, Side, Task, Taught
from plume_embed.evaluation.miniature.stills import COUNTRY_FLAGS, SPLITS, TEST_STYLE

POOL = 64
MOST_QUERIES = 400
SUBSET = "I-QA-picture"

TYPES = ("skin tone", "gender", "kind", "subgroup")
_ASKED = {
    "skin tone": ("What is the skin tone?", "Which skin tone is shown?", "How light or dark is the skin?"),
    "gender": ("Which gender is shown?", "Is it male or female?", "What is the gender of the person?"),
    "kind": ("This is a kind of what?", "What is it a kind of?", "Of which kind is the thing in the picture?"),
    "subgroup": ("Which group does it belong to?", "What sort of picture is it?", "Into which group does this fall?"),
}


@dataclass(frozen=True)
class Question:
    """A question about one picture.

    Attributes:
        kind: One of TYPES.
        still: What is asked about.
        answer: The right answer.
        also_right: Other answers of the type that are not wrong.
    """

    kind: str
    still: Still
    answer: str
    also_right: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """The question, in one of several wordings."""
        forms = _ASKED[self.kind]
        return forms[pick(f"{self.kind} {self.still.id}", len(forms))]


def tone_text(skin_tone: str) -> str:
    """`light/dark` -> "light and dark skin tone"."""
    tones = list(dict.fromkeys(skin_tone.split("/")))
    return f"{' and '.join(tones)} skin tone"


def questions(stills: Sequence[Still], rationales: Rationales) -> list[Question]:
    """All questions that can be asked about pictures; about equal pictures only where their answers agree."""
    found = []
    for still in stills:
        concept = still.concept
        if concept.skin_tone:
            found.append(Question("skin tone", still, tone_text(concept.skin_tone)))
        if concept.gender:
            found.append(Question("gender", still, GENDERS[concept.gender]))
        meaning = rationales.meaning(concept)
        if meaning is not None and meaning.kinds and not concept.skin_tone:
            found.append(Question("kind", still, meaning.kinds[0], meaning.ancestors))
        if not concept.skin_tone and concept.subgroup != COUNTRY_FLAGS:
            found.append(Question("subgroup", still, subgroup_text(concept.subgroup)))
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for question in found:
        answers[question.kind, question.still.digest].add(question.answer)
    return [question for question in found if len(answers[question.kind, question.still.digest]) == 1]


def question_tasks(context: Context, rationales: Rationales, most_queries: int = MOST_QUERIES) -> list[Task]:
    """The evaluation tasks: pictures of the test style."""
    asked = questions(list(context.stills[TEST_STYLE].values()), rationales)
    tones = [tone_text(f"{a}/{b}") for a in TONES.values() for b in TONES.values()]
    answers = {kind: sorted({q.answer for q in asked if q.kind == kind}) for kind in TYPES}
    answers["skin tone"] = sorted({*answers["skin tone"], *tones})
    everything = sorted({answer for kind in TYPES for answer in answers[kind]})
    number = {answer: n for n, answer in enumerate(everything)}
    sides = tuple(Side(text=answer) for answer in everything)
    tasks = []
    for kind in TYPES:
        for split, families in SPLITS.items():
            fitting = [q for q in asked if q.kind == kind and q.still.concept.split_family == families]
            chosen = balanced(fitting, most_queries, lambda question: question.answer)
            queries = [
                Query(
                    Side(question.text, question.still.id),
                    (number[question.answer],),
                    tuple(sorted(number[answer] for answer in pool_of(question, answers))),
                )
                for question in chosen
            ]
            if queries:
                tasks.append(Task(f"I-QA/{kind}", split, tuple(queries), sides))
    return tasks


def pool_of(question: Question, answers: dict[str, list[str]]) -> list[str]:
    """The right answer and 63 others, of the same type as far as there are."""
    key = f"{question.kind} {question.still.id}"
    right = {question.answer, *question.also_right}
    same = [a for a in stable_order(answers[question.kind], key) if a.lower() not in right and a not in right]
    others = [a for kind in TYPES if kind != question.kind for a in answers[kind]]
    fill = [a for a in stable_order(set(others), key) if a not in right and a.lower() not in right and a not in same]
    return [question.answer, *[*same, *fill][: POOL - 1]]


def balanced(items: Sequence[Question], most: int, value: Callable[[Question], str]) -> list[Question]:
    """A stable sample in which each value is about equally frequent."""
    named = {question.still.id: question for question in items}
    turns: dict[str, int] = defaultdict(int)
    ranked = []
    for name in stable_order(named, "balanced"):
        ranked.append((turns[value(named[name])], name))
        turns[value(named[name])] += 1
    return [named[name] for _, name in sorted(ranked)[:most]]


def question_pairs(stills: Sequence[Still], rationales: Rationales, most: int) -> list[Pair]:
    """Training pairs, `most` of each type: pictures of train styles and families only."""
    asked = questions(stills, rationales)
    found = []
    for kind in TYPES:
        for question in balanced([q for q in asked if q.kind == kind], most, lambda question: question.answer):
            found.append(_pair(question, rationales))
    return found


def _pair(question: Question, rationales: Rationales) -> Pair:
    concept, style = question.still.concept, question.still.style
    skin = question.answer.removesuffix(" skin tone")
    reason = {
        "skin tone": f"The question is about the colour of the skin, which is {skin}",
        "gender": f"The question is about the gender, which is {question.answer}",
        "kind": f"The question is what it is a kind of, and that is {question.answer}",
        "subgroup": f"The question is about the group, and that is {question.answer}",
    }[question.kind]
    return Pair(
        Taught(
            Side(question.text, question.still.id),
            rationales.of_picture(concept, style, [reason]),
            f"a question about {'what it is' if question.kind in ('kind', 'subgroup') else 'how a person looks'}",
        ),
        Taught(Side(text=question.answer), answer_rationale(question, concept, rationales), _SORT[question.kind]),
        SUBSET,
    )


_SORT = {
    "skin tone": "an answer about skin",
    "gender": "an answer about a person",
    "kind": "a general word",
    "subgroup": "a group of pictures",
}


def answer_rationale(question: Question, concept: Concept, rationales: Rationales) -> str:
    """What the answer to a question tells; nothing that only the picture shows."""
    if question.kind == "kind":
        return rationales.of_kind(question.answer)
    if question.kind == "subgroup":
        return rationales.of_subgroup(concept)
    if question.kind == "gender":
        return join(
            f"The text names a gender, {question.answer}",
            "It is said of a person",
            f"Such a person is called {'a woman' if question.answer == 'female' else 'a man'}",
            f"It belongs to {GROUPS['people-body']}",
        )
    several = "/" in concept.skin_tone
    return join(
        f"The text names {'the skin tones of two people' if several else 'a skin tone'}",
        f"It reads {question.answer}",
        "Skin tones go from light to dark in five steps",
        f"It belongs to {GROUPS['people-body']}",
    )
