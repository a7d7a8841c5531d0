"""Facts about the miniature's tasks and training pairs on single pictures, in a made-up world."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from miniature_data import context, people, plain_concepts

from evaluation.miniature.check import check
from evaluation.miniature.parts import Context
from evaluation.miniature.sources.concepts import TONES, Concept, family_of
from evaluation.miniature.sources.rationales import Rationales
from evaluation.miniature.stills.edits import asked_in_words, drawn, find_edits, sample
from evaluation.miniature.stills.pairs import pairs, plain_stills
from evaluation.miniature.stills.questions import POOL, pool_of, question_pairs, question_tasks, questions
from evaluation.miniature.stills.retrieval import picture_to_text, text_to_picture
from evaluation.miniature.stills.tasks import edit_tasks, retrieval_tasks, sampled, still_rows
from plume_embed.evaluation.miniature.schema import Built, Pair, Query, Side, Task, Taught
from plume_embed.evaluation.miniature.stills import TEST_STYLE, TRAIN_STYLES

# A role whose family is in training, and a made-up one that is held out.
TRAINED, HELD_OUT = "1F9D1-200D-1F33E", "1F9D1-200D-1F402"


def test_the_two_roles_are_on_two_sides_of_the_split() -> None:
    assert [people(stem)[0].split_family for stem in (TRAINED, HELD_OUT)] == ["train", "test"]


def world(**changes: object) -> tuple[Context, Rationales]:
    concepts = [*plain_concepts(), *people(TRAINED, "farmer"), *people(HELD_OUT, "astronaut")]
    return context(concepts, **changes), Rationales(concepts, None)


def heart(code: str, colour: str) -> Concept:
    return Concept(code, f"{colour} heart", (), "smileys-emotion", "heart", "", "", 1.0)


def by_name(tasks: list[Task]) -> dict[tuple[str, str], Task]:
    return {(task.name, task.concepts): task for task in tasks}


# Edits


def test_an_edit_changes_one_thing_and_says_which() -> None:
    concepts = {c.label: c for c in people()}
    edits = {(e.source.label, e.target.label): e for e in find_edits(concepts.values())}
    assert edits["astronaut", "astronaut: dark skin tone"].text == "with dark skin tone"
    assert edits["man astronaut: dark skin tone", "man astronaut"].text == "with no skin tone"
    assert edits["man astronaut: dark skin tone", "woman astronaut: dark skin tone"].text == "as a woman"
    assert ("man astronaut", "woman astronaut: dark skin tone") not in edits  # two things
    assert ("man astronaut", "astronaut") not in edits  # no words for "as anybody"


def test_hair_direction_and_colour_are_edits_too() -> None:
    def person(code: str, label: str) -> Concept:
        return Concept(code, label, (), "people-body", "person", "", "man", 1.0)

    concepts = [
        person("1F468", "man"),
        person("1F468-200D-1F9B0", "man: red hair"),
        person("1F468-200D-1F9B2", "man: bald"),
    ]
    walker = Concept("1F6B6", "person walking", (), "people-body", "person-activity", "", "", 1.0)
    right = replace(walker, hexcode="1F6B6-200D-27A1-FE0F", label="person walking: facing right")
    hearts = [heart("1F499", "blue"), heart("1FA75", "light blue"), heart("1F494", "broken")]
    found = {(e.source.label, e.target.label, e.text) for e in find_edits([*concepts, walker, right, *hearts])}
    assert found == {
        ("man", "man: red hair", "with red hair"),
        ("man: bald", "man: red hair", "with red hair"),
        ("man", "man: bald", "with no hair"),
        ("man: red hair", "man: bald", "with no hair"),
        ("person walking", "person walking: facing right", "facing right"),
        ("person walking: facing right", "person walking", "facing left"),
        ("blue heart", "light blue heart", "light blue"),
        ("light blue heart", "blue heart", "blue"),
    }


def test_a_black_cat_is_no_edit_of_a_cat() -> None:
    cats = [Concept(code, label, (), "animals-nature", "animal-mammal", "", "", 1.0) for code, label in
            (("1F408-200D-2B1B", "black cat"), ("1F408", "white cat"))]  # fmt: skip
    assert find_edits(cats) == []


def test_edits_whose_pictures_are_equal_are_dropped() -> None:
    astronauts = people()
    man, woman = astronauts[6], astronauts[12]
    edits = find_edits(astronauts)
    there = drawn(edits, context(astronauts).stills["noto"])
    gone = drawn(edits, context(astronauts, same={woman.hexcode: man.hexcode}).stills["noto"])
    lost = {(e.source.label, e.target.label) for e in there} - {(e.source.label, e.target.label) for e in gone}
    assert lost == {("man astronaut", "woman astronaut"), ("woman astronaut", "man astronaut")}


def test_edits_of_skin_tone_are_capped_and_changes_take_turns() -> None:
    edits = find_edits(people())
    assert Counter(e.kind for e in edits)["tone"] == 90
    chosen = sample(edits, 20, "key", 0.5)
    counts = Counter(e.kind for e in chosen)
    assert counts["tone"] == 10 and counts["gender"] == 10
    assert max(Counter(e.text for e in chosen if e.kind == "tone").values()) == 2  # six values, ten edits
    assert chosen == sample(edits[::-1], 20, "key", 0.5)


def test_an_edit_of_a_shared_picture_may_mean_either_of_its_concepts() -> None:
    astronauts = people(TRAINED, "farmer")
    person, man = astronauts[0], astronauts[6]
    world_context = context([*astronauts, *people(HELD_OUT)], same={man.hexcode: person.hexcode})
    task = by_name(edit_tasks(world_context))["I-RET/edit", "known"]
    asked = [q for q in task.queries if q.side.image.split("/")[1] in (person.hexcode, man.hexcode)]
    tones = list(TONES.values())
    found = 0
    for query in asked:
        targets = {task.candidates[n].image.split("/")[1] for n in query.positives}
        for n, tone in enumerate(tones, start=1):
            if f"with {tone} skin tone" in query.side.text:
                found += 1
                assert targets == {astronauts[n].hexcode, astronauts[6 + n].hexcode}
    assert found


# Evaluation tasks


def test_known_and_unseen_are_told_apart_by_the_family_of_what_is_asked() -> None:
    world_context, rationales = world()
    tasks = [*retrieval_tasks(world_context), *edit_tasks(world_context), *question_tasks(world_context, rationales)]
    stills = {s.id: s for style in world_context.stills.values() for s in style.values()}
    by_label = {s.concept.label: s for s in stills.values()}
    for task in tasks:
        wanted = {"known": "train", "unseen": "test"}[task.concepts]
        asked = [stills[q.side.image] if q.side.image else by_label[q.side.text] for q in task.queries]
        assert {still.concept.split_family for still in asked} == {wanted}, task.name
        assert all(stills[side.image].style == TEST_STYLE for side in task.candidates if side.image), task.name


def test_tones_of_one_family_are_never_on_both_sides_of_the_split() -> None:
    world_context, rationales = world()
    trained = {
        family_of(taught.side.image.split("/")[1])
        for pair in pairs(world_context, rationales)
        for taught in (pair.query, pair.target)
        if taught.side.image
    }
    for task in edit_tasks(world_context):
        asked = {family_of(q.side.image.split("/")[1]) for q in task.queries}
        assert bool(asked & trained) == (task.concepts == "known")


def test_a_hard_pool_is_the_targets_subgroup() -> None:
    concepts = plain_concepts(12)
    tasks = by_name(retrieval_tasks(context(concepts)))
    task = tasks["I-RET/text to picture hard", "known"]
    subgroups = {f"{TEST_STYLE}/{c.hexcode}": c.subgroup for c in concepts}
    for query in task.queries:
        pool = {subgroups[task.candidates[n].image] for n in query.pool}
        assert pool == {subgroups[task.candidates[query.positives[0]].image]} and len(query.pool) == 24


def test_equal_pictures_are_found_by_either_name() -> None:
    concepts = plain_concepts(3)
    first, second = concepts[0], concepts[1]
    rows = still_rows(context(concepts, same={second.hexcode: first.hexcode}).stills[TEST_STYLE].values())
    task = picture_to_text(rows, "known")
    labels = [[task.candidates[n] for n in positives] for positives in task.positives]
    assert labels[0] == labels[1] == sorted([first.label, second.label]) and len(labels[2]) == 1


def test_flags_are_few_among_the_queries_and_all_in_the_pool() -> None:
    concepts = plain_concepts(6)
    flags = [replace(c, subgroup="country-flag", group="flags") for c in concepts if c.subgroup != "tool"]
    rows = still_rows(context([*flags, *(c for c in concepts if c.subgroup == "tool")]).stills[TEST_STYLE].values())
    task = text_to_picture(rows, "known")
    subgroups = {row.label: row.subgroup for row in rows}
    asked = [subgroups[task.queries[n]] for n in sampled(task, rows, 500)]
    assert len(task.candidates) == 36 and len(task.queries) == 18
    assert Counter(asked) == {"tool": 6}  # a tenth of six is none


# Questions


def test_about_pictures_that_are_drawn_alike_only_agreed_questions_are_asked() -> None:
    astronauts = people()
    man, woman = astronauts[6], astronauts[12]
    stills = context(astronauts, same={woman.hexcode: man.hexcode}).stills[TEST_STYLE]
    asked = questions([stills[man.hexcode], stills[woman.hexcode]], Rationales(astronauts, None))
    assert {q.kind for q in asked} == {"subgroup"}


def test_a_question_is_answered_by_its_picture() -> None:
    astronauts = people()
    stills = context(astronauts).stills[TEST_STYLE]
    asked = questions([stills[astronauts[11].hexcode]], Rationales(astronauts, None))
    assert {q.kind: q.answer for q in asked} == {"skin tone": "dark skin tone", "gender": "male"}


def test_a_pool_holds_the_answers_of_its_type_and_nothing_that_is_right_too() -> None:
    astronauts = people()
    still = context(astronauts).stills[TEST_STYLE][astronauts[11].hexcode]
    kinds = [f"kind {n}" for n in range(80)]
    answers = {"skin tone": ["dark skin tone", "light skin tone"], "gender": ["female", "male"], "kind": kinds}
    answers["subgroup"] = ["person role"]
    tone = next(q for q in questions([still], Rationales(astronauts, None)) if q.kind == "skin tone")
    pool = pool_of(tone, answers)
    assert pool[:2] == ["dark skin tone", "light skin tone"] and len(set(pool)) == len(pool) == POOL
    kind = replace(tone, kind="kind", answer="kind 3", also_right=frozenset({"kind 5", "male"}))
    pool = pool_of(kind, answers)
    assert len(pool) == POOL and set(pool) <= set(kinds) and "kind 5" not in pool and pool.count("kind 3") == 1


# Training pairs


def test_only_train_families_in_train_styles_are_trained_on() -> None:
    world_context, rationales = world()
    found = pairs(world_context, rationales)
    check(Built(pairs=found), world_context)  # raises otherwise
    styles = Counter(t.side.image.split("/")[0] for p in found for t in (p.query, p.target) if t.side.image)
    assert set(styles) == set(TRAIN_STYLES)
    held_out = {c.label for c in world_context.concepts if c.split_family == "test"}
    assert not held_out & {p.target.side.text for p in found}
    assert not any(label in p.query.rationale for p in found for label in held_out if len(label) > 8)


def test_every_side_of_a_pair_has_a_rationale_and_no_answer_spells_what_is_shown() -> None:
    world_context, rationales = world()
    labels = {still.id: still.concept.label for style in world_context.stills.values() for still in style.values()}
    subsets = defaultdict(list)
    for pair in pairs(world_context, rationales):
        subsets[pair.subset].append(pair)
        for taught, other in ((pair.query, pair.target), (pair.target, pair.query)):
            assert taught.rationale and taught.answer
            for spelled in (
                other.side.text,
                taught.side.text,
                labels.get(other.side.image, ""),
                labels.get(taught.side.image, ""),
            ):
                assert not spelled or spelled.lower() not in taught.answer.lower()
    assert set(subsets) == {
        "I-CLS",
        "I-QA-picture",
        "I-RET-edit",
        "I-RET-other-style",
        "I-RET-picture-to-text",
        "I-RET-text-to-picture",
    }


def test_a_querys_rationale_does_not_tell_the_targets_style() -> None:
    world_context, rationales = world()
    names = {"noto": "Noto", "fluent-flat": "flat Fluent", "fluent-3d": "three-dimensional"}
    found = pairs(world_context, rationales)
    for pair in found:
        if pair.target.side.image and pair.subset != "I-RET-edit":
            assert names[pair.target.side.image.split("/")[0]] not in pair.query.rationale
    assert any(pair.subset == "I-RET-other-style" for pair in found)


def test_of_equal_pictures_one_is_trained_on() -> None:
    concepts = plain_concepts(3)
    stills = context(concepts, same={concepts[1].hexcode: concepts[0].hexcode}).stills["noto"]
    kept = plain_stills(stills.values())
    assert concepts[0].hexcode in kept and concepts[1].hexcode not in kept and len(kept) == 8


def test_country_flags_are_capped_in_training() -> None:
    concepts = [replace(c, subgroup="country-flag") for c in plain_concepts(8)]
    assert len(plain_stills(context(concepts).stills["noto"].values(), most_flags=5)) == 5


def test_an_edit_pair_leads_to_another_picture_of_the_same_style() -> None:
    world_context, rationales = world()
    digests = {s.id: s.digest for style in world_context.stills.values() for s in style.values()}
    edits = [p for p in pairs(world_context, rationales) if p.subset == "I-RET-edit"]
    assert edits
    for pair in edits:
        source, target = pair.query.side.image, pair.target.side.image
        assert digests[source] != digests[target] and source.split("/")[0] == target.split("/")[0]


def test_questions_of_a_type_are_as_many_as_asked_for() -> None:
    world_context, rationales = world()
    stills = [s for s in world_context.stills["noto"].values() if s.concept.split_family == "train"]
    found = question_pairs(stills, rationales, 5)
    assert Counter(p.target.answer for p in found) == {
        "an answer about skin": 5,
        "an answer about a person": 5,
        "a group of pictures": 5,
    }


def test_the_wording_of_an_edit_is_stable_and_contains_it() -> None:
    edit = find_edits(people())[0]
    assert asked_in_words(edit, "a") == asked_in_words(edit, "a") and edit.text in asked_in_words(edit, "a")


# What is checked before it is written


def pair(image: str = "", text: str = "target", answer: str = "") -> Pair:
    return Pair(Taught(Side("query", image), "", answer), Taught(Side(text)), "a subset")


@pytest.mark.parametrize("style", [TEST_STYLE, "noto"])
def test_a_pair_that_shows_what_is_held_out_is_refused(style: str) -> None:
    world_context, _ = world()
    concept = next(c for c in world_context.concepts if c.split_family == ("train" if style == TEST_STYLE else "test"))
    with pytest.raises(ValueError, match="held out"):
        check(Built(pairs=[pair(f"{style}/{concept.hexcode}")]), world_context)


def test_an_answer_that_spells_the_target_is_refused() -> None:
    with pytest.raises(ValueError, match="spells the target"):
        check(Built(pairs=[pair(answer="It is the TARGET")]), world()[0])


def test_a_medium_that_is_not_there_is_named() -> None:
    tasks = [Task("I-CLS/a", "known", (Query(Side(image="noto/ABSENT"), (0,)),), (Side("a"),))]
    with pytest.raises(ValueError, match="I-CLS/a.*noto/ABSENT"):
        check(Built(tasks=tasks), world()[0])


def test_an_image_of_two_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="2 frames"):
        check(Built(media={"a/b": [b"", b""]}, pairs=[pair("a/b")]), world()[0])
