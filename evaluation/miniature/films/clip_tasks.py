"""V-CLS, V-RET and the questions of V-QA about single clips, as schema tasks and training pairs.

Labels, questions and answers are those of the stills (`stills_tasks.py`, `picture_questions.py`), so that a model meets
one task in two media. The pool of V-RET is all test clips, of known and unseen concepts together; clips of one label
or of one look are correct together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from evaluation.miniature.films.clips import KNOWN, TRAIN, UNSEEN, Clip, twins
from evaluation.miniature.parts import Context, Still
from evaluation.miniature.sources.concepts import TONES
from evaluation.miniature.sources.rationales import GROUPS, Rationales, subgroup_text
from evaluation.miniature.stills.questions import (
    TYPES,
    Question,
    answer_rationale,
    balanced,
    pool_of,
    questions,
    tone_text,
)
from plume_embed.evaluation.miniature.schema import Pair, Query, Side, Task, Taught
from plume_embed.evaluation.miniature.stills import TEST_STYLE

STYLE = "clip"  # where a style is named
MOST_QUERIES = 300  # of one type of question
MOST_PAIRS = 260  # of one type of question
LEAST_HARD_POOL = 8
SUBSETS = ("V-CLS", "V-QA-clip", "V-RET-text-to-clip", "V-RET-clip-to-text")


def tasks(context: Context, clips: Sequence[Clip], rationales: Rationales) -> list[Task]:
    """All evaluation tasks about single clips."""
    tested = [clip for clip in clips if clip.split != TRAIN]
    same = twins(tested)
    return [
        *_class_tasks(context, tested, same),
        *_text_tasks(tested, same),
        *_question_tasks(context, tested, rationales),
    ]


def pairs(clips: Sequence[Clip], rationales: Rationales) -> list[Pair]:
    """All training pairs about single clips: those of the train split, one of clips that show the same."""
    trained = [clip for clip in clips if clip.split == TRAIN]
    distinct = [
        clip for number, (clip, same) in enumerate(zip(trained, twins(trained), strict=True)) if number == same[0]
    ]
    return [*_label_pairs(distinct, rationales), *_question_pairs(distinct, rationales)]


def _numbers(clips: Sequence[Clip]) -> list[tuple[str, list[int]]]:
    """For both splits the numbers of their clips."""
    found = [(split, [n for n, clip in enumerate(clips) if clip.split == split]) for split in (KNOWN, UNSEEN)]
    return [(split, numbers) for split, numbers in found if numbers]


def _class_tasks(context: Context, clips: Sequence[Clip], same: Sequence[Sequence[int]]) -> list[Task]:
    """Clip -> subgroup label, among all labels."""
    subgroups = {still.concept.subgroup for still in context.stills[TEST_STYLE].values()}
    labels = sorted(subgroup_text(name) for name in subgroups | {clip.concept.subgroup for clip in clips})
    sides = tuple(Side(text=label) for label in labels)
    number = {label: n for n, label in enumerate(labels)}
    found = []
    for split, numbers in _numbers(clips):
        queries = [
            Query(
                Side(video=clips[n].id),
                tuple(sorted({number[subgroup_text(clips[m].concept.subgroup)] for m in same[n]})),
            )
            for n in numbers
        ]
        found.append(Task("V-CLS/subgroup", split, tuple(queries), sides))
    return found


def _text_tasks(clips: Sequence[Clip], same: Sequence[Sequence[int]]) -> list[Task]:
    """Text -> clip, in all test clips and in those of the target's subgroup, and clip -> text."""
    shown = tuple(Side(video=clip.id) for clip in clips)
    labels = sorted({clip.concept.label for clip in clips})
    named = tuple(Side(text=label) for label in labels)
    number = {label: n for n, label in enumerate(labels)}
    members: dict[str, list[int]] = defaultdict(list)
    for n, clip in enumerate(clips):
        members[clip.concept.subgroup].append(n)
    found = []
    for split, numbers in _numbers(clips):
        # A label is asked once, however many clips have it; what looks the same as one of them is correct, too.
        by_label: dict[str, set[int]] = defaultdict(set)
        for n in numbers:
            by_label[clips[n].concept.label].update(same[n])
        asked = [Query(Side(text=label), tuple(sorted(right))) for label, right in by_label.items()]
        found.append(Task("V-RET/text to clip", split, tuple(asked), shown))
        pools = [sorted({m for n in q.positives for m in members[clips[n].concept.subgroup]}) for q in asked]
        hard = [
            Query(query.side, query.positives, tuple(pool))
            for query, pool in zip(asked, pools, strict=True)
            if len(pool) >= LEAST_HARD_POOL
        ]
        if hard:
            found.append(Task("V-RET/text to clip hard", split, tuple(hard), shown))
        back = [
            Query(Side(video=clips[n].id), tuple(sorted({number[clips[m].concept.label] for m in same[n]})))
            for n in numbers
        ]
        found.append(Task("V-RET/clip to text", split, tuple(back), named))
    return found


def _proxies(clips: Sequence[Clip]) -> dict[str, Clip]:
    """Clips by the ids that they have as stills: questions are asked about stills."""
    return {_proxy(clip).id: clip for clip in clips}


def _proxy(clip: Clip) -> Still:
    return Still(clip.concept, STYLE, b"", clip.digest)


def _asked(clips: Sequence[Clip], rationales: Rationales) -> list[Question]:
    return questions([_proxy(clip) for clip in clips], rationales)


def _question_side(question: Question, clip: Clip) -> Side:
    return Side(question.text.replace("picture", "clip"), video=clip.id)


def _question_tasks(context: Context, clips: Sequence[Clip], rationales: Rationales) -> list[Task]:
    """A clip and a question -> answer, in a pool of 64; answers are those to all questions about test stills."""
    asked, by_id = _asked(clips, rationales), _proxies(clips)
    about_stills = questions(list(context.stills[TEST_STYLE].values()), rationales)
    tones = {tone_text(f"{a}/{b}") for a in TONES.values() for b in TONES.values()}
    answers = {
        kind: sorted(
            {q.answer for q in (*asked, *about_stills) if q.kind == kind} | (tones if kind == TYPES[0] else set())
        )
        for kind in TYPES
    }
    everything = sorted({answer for kind in TYPES for answer in answers[kind]})
    number = {answer: n for n, answer in enumerate(everything)}
    sides = tuple(Side(text=answer) for answer in everything)
    found = []
    for kind in TYPES:
        for split in (KNOWN, UNSEEN):
            fitting = [q for q in asked if q.kind == kind and by_id[q.still.id].split == split]
            queries = [
                Query(
                    _question_side(question, by_id[question.still.id]),
                    (number[question.answer],),
                    tuple(sorted(number[answer] for answer in pool_of(question, answers))),
                )
                for question in balanced(fitting, MOST_QUERIES, lambda question: question.answer)
            ]
            if queries:
                found.append(Task(f"V-QA/{kind}", split, tuple(queries), sides))
    return found


def _label_pairs(clips: Sequence[Clip], rationales: Rationales) -> list[Pair]:
    to_class, to_clip, to_text = SUBSETS[0], SUBSETS[2], SUBSETS[3]
    found = []
    for clip in clips:
        concept, group = clip.concept, GROUPS[clip.concept.group]
        seen, rationale = rationales.of_clip(concept), rationales.of_text(concept)
        shown = Side(video=clip.id)
        asked = Taught(Side(text=concept.label), rationale, f"a search in {group}")
        found.append(Pair(asked, Taught(shown, seen, f"a clip from {group}"), to_clip))
        label = subgroup_text(concept.subgroup)
        if label not in group:
            named = Taught(Side(text=label), rationales.of_subgroup(concept), f"one kind in {group}")
            found.append(Pair(Taught(shown, seen, "a thing of one kind"), named, to_class))
        if not concept.skin_tone:
            text = Taught(Side(text=concept.label), rationale, f"a name from {group}")
            found.append(Pair(Taught(shown, seen, "a moving thing"), text, to_text))
    return found


_REASONS = {
    "skin tone": "The question is about the colour of the skin, and that is {}",
    "gender": "The question is about the gender, which is {}",
    "kind": "The question is what it is a kind of, and that is {}",
    "subgroup": "The question is about the group, and that is {}",
}
_SORT = {
    "skin tone": "an answer about skin",
    "gender": "an answer about a person",
    "kind": "a general word",
    "subgroup": "a group",
}


def _question_pairs(clips: Sequence[Clip], rationales: Rationales) -> list[Pair]:
    asked, by_id = _asked(clips, rationales), _proxies(clips)
    found = []
    for kind in TYPES:
        fitting = [question for question in asked if question.kind == kind]
        for question in balanced(fitting, MOST_PAIRS, lambda question: question.answer):
            clip = by_id[question.still.id]
            reason = _REASONS[kind].format(question.answer.removesuffix(" skin tone"))
            about = "what it is" if kind in ("kind", "subgroup") else "how a person looks"
            query = Taught(
                _question_side(question, clip),
                rationales.of_clip(clip.concept, [reason]),
                f"a question about {about}",
            )
            rationale = answer_rationale(question, clip.concept, rationales)
            found.append(Pair(query, Taught(Side(text=question.answer), rationale, _SORT[kind]), SUBSETS[1]))
    return found
