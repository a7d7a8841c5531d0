"""Facts about the rationales of the miniature and the English they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from miniature_data import people, plain_concepts

from evaluation.miniature.sources.concepts import Concept
from evaluation.miniature.sources.phrases import and_list, noun_phrase, plain_label, sentence
from evaluation.miniature.sources.rationales import Rationales
from evaluation.miniature.sources.wordnet import WordNet, plain_gloss
from plume_embed.training.curriculum import split_sentences


def wordnet(folder: Path) -> WordNet:
    """A dictionary of five senses: a raccoon is first its fur, then the animal."""
    base = folder / "usr/share/wordnet"
    base.mkdir(parents=True)
    entries = [
        ("fur", "06", "fur", [], 'the hair of an animal; "a coat of fur"'),
        ("coat", "06", "raccoon coon", ["fur"], "the fur of the North American racoon"),
        ("animal", "05", "animal beast", [], "a living organism (not a plant)"),
        ("mammal", "05", "mammal", ["animal"], "any warm-blooded vertebrate"),
        ("raccoon", "05", "raccoon", ["mammal"], "an omnivorous nocturnal mammal; it washes, e.g. its food"),
    ]
    offsets, data = {}, ""
    for key, file, words, parents, gloss in entries:
        offsets[key] = len(data)
        names = words.split()
        pointers = "".join(f" @ {offsets[parent]:08d} n 0000" for parent in parents)
        data += (
            f"{len(data):08d} {file} n {len(names):02x} {' 0 '.join(names)} 0 {len(parents):03d}{pointers} | {gloss}\n"
        )
    (base / "data.noun").write_text(data)
    (base / "index.noun").write_text(
        f"  licence\nraccoon n 2 1 @ 2 0 {offsets['coat']:08d} {offsets['raccoon']:08d}\n"
        f"animal n 1 0 1 0 {offsets['animal']:08d}\n"
    )
    (base / "noun.exc").write_text("geese goose\n")
    return WordNet(folder)


def raccoon(**changes: object) -> Concept:
    values = {"group": "animals-nature", "subgroup": "animal-mammal", "label": "raccoon"} | changes
    return Concept("1F99D", values["label"], ("curious", "sly"), values["group"], values["subgroup"], "", "", 11.0)


def test_a_sense_that_does_not_fit_the_group_is_passed_over(tmp_path: Path) -> None:
    meaning = wordnet(tmp_path).meaning(raccoon())
    assert meaning is not None and meaning.gloss == "an omnivorous nocturnal mammal"
    assert meaning.kinds == ("mammal", "animal")
    clothing = WordNet(tmp_path).meaning(raccoon(group="objects", subgroup="clothing"))
    assert clothing is not None and clothing.gloss == "the fur of the North American racoon"
    assert WordNet(tmp_path).meaning(raccoon(group="food-drink", subgroup="food-fruit")) is None


def test_all_that_a_thing_is_a_kind_of_counts_as_right_over_all_its_senses(tmp_path: Path) -> None:
    meaning = wordnet(tmp_path).meaning(raccoon(label="raccoon face"))
    assert meaning is not None and meaning.ancestors == {"mammal", "animal", "beast", "fur"}


def test_a_plural_is_looked_up_as_its_singular(tmp_path: Path) -> None:
    assert [sense.file for sense in wordnet(tmp_path).senses("animals")] == [5]


def test_a_missing_dictionary_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="WORDNET_PACKAGE"):
        WordNet(tmp_path)


def test_a_gloss_has_no_examples_no_brackets_and_no_full_stop_inside() -> None:
    assert plain_gloss('a coat (e.g. of fur); "a fine coat"') == "a coat"
    assert plain_gloss("birds, e.g. ducks, of the U.S.") == "birds, for example ducks, of the US"


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("astronaut", "an astronaut"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("grapes", "grapes"),
        ("compass", "a compass"),
        ("broccoli", "broccoli"),
        ("glass of milk", "a glass of milk"),
        ("face holding back tears", "a face holding back tears"),
        ("heart on fire", "a heart on fire"),
        ("flag: Germany", "the flag of Germany"),
        ("keycap: 7", "a key with the sign 7"),
        ("man: bald", "a bald man"),
        ("person: red hair, dark skin tone", "a person with red hair"),
        ("person running: facing right", "a person running facing right"),
        ("man astronaut: dark skin tone", "a man astronaut"),
        ("Mrs. Claus: light skin tone", "Mrs Claus"),
        ("SOS button", "an SOS button"),
        ("FREE button", "a FREE button"),
        ("ON! arrow", "an ON arrow"),
        ("Christmas tree", "a Christmas tree"),
        ("Aries", "Aries"),
        ("Statue of Liberty", "the Statue of Liberty"),
        ("six-thirty", "a clock at six-thirty"),
        ("kiss: woman, man", "a kiss of a woman and a man"),
    ],
)
def test_labels_become_noun_phrases(label: str, phrase: str) -> None:
    assert noun_phrase(label) == phrase


def test_a_sentence_holds_one_full_stop() -> None:
    assert sentence(f"it shows {plain_label('flag: St. Helena')}.") == "It shows flag: Saint Helena."
    assert and_list(["a"]) == "a" and and_list(["a", "b", "c"]) == "a, b and c"


def test_rationales_have_four_to_seven_sentences_as_the_curriculum_splits_them(tmp_path: Path) -> None:
    concepts = [*plain_concepts(2), *people(), raccoon()]
    for dictionary in (None, wordnet(tmp_path)):
        writer = Rationales(concepts, dictionary)
        for concept in concepts:
            texts = [
                writer.of_picture(concept, "noto"),
                writer.of_picture(concept, "noto", ["The question is one", "The answer is two"]),
                writer.of_text(concept),
                writer.of_part(concept, "noto"),
                writer.of_subgroup(concept),
                writer.of_kind("animal"),
            ]
            assert all(4 <= len(split_sentences(text)) <= 7 for text in texts)
            assert not any("e.g." in text or "  " in text for text in texts)


def test_the_last_sentences_are_kept_whatever_else_is_known(tmp_path: Path) -> None:
    concept = people()[7]  # a man with a skin tone: all there is to say
    text = Rationales([concept], None).of_picture(concept, "noto", ["One", "Two", "Three"])
    assert text.endswith("One. Two. Three.") and "The skin tone is light." in text


def test_a_text_tells_neither_style_nor_what_its_words_do_not_say() -> None:
    person, man = people()[0], people()[8]
    writer = Rationales(people(), None)
    assert "style" not in writer.of_text(man) and "drawn" not in writer.of_text(man)
    assert "skin" not in writer.of_text(person) and "person is" not in writer.of_text(person)
    assert "The skin tone is medium-light. The person is male." in writer.of_text(man)


def test_examples_of_a_subgroup_come_from_train_families() -> None:
    concepts = plain_concepts(4)
    examples = Rationales(concepts, None).examples("tool", 10)
    assert len(examples) == 4 and not any(example.endswith("two") for example in examples)


def test_rationales_do_not_depend_on_the_order_in_which_concepts_are_read() -> None:
    concepts = plain_concepts(3)
    forth, back = Rationales(concepts, None), Rationales(concepts[::-1], None)
    for concept in concepts:
        assert forth.of_picture(concept, "noto") == back.of_picture(concept, "noto")
        assert forth.of_subgroup(concept) == back.of_subgroup(concept)
