"""Facts about the miniature's clips and films, on small animations made here; nothing is fetched."""

from __future__ import annotations

import colorsys
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from evaluation.miniature.build import write_part
from evaluation.miniature.check import check
from evaluation.miniature.films import film_tasks, videos
from evaluation.miniature.films.clip_tasks import pairs as clip_pairs
from evaluation.miniature.films.clip_tasks import tasks as clip_tasks
from evaluation.miniature.films.clips import (
    KNOWN,
    LEAST_DIFFERENCE,
    NUM_FRAMES,
    SIDE,
    TRAIN,
    UNSEEN,
    Clip,
    choose,
    clip_split,
    has_frames,
    match_clips,
    read_clip,
    read_clips,
    sample_frames,
    twins,
)
from evaluation.miniature.films.films import (
    LEAST_CLIPS,
    MOST_CLIPS,
    SEGMENT_FRAMES,
    Film,
    compose_films,
    phrase,
    segment_frames,
    segment_id,
)
from evaluation.miniature.parts import Context, Still
from evaluation.miniature.sources.concepts import Concept, split_of
from evaluation.miniature.sources.packages import CLIP_PACKAGES, STYLE_PACKAGES
from evaluation.miniature.sources.rationales import Rationales
from plume_embed.evaluation.miniature.schema import Built
from plume_embed.evaluation.miniature.stills import TEST_STYLE
from plume_embed.training.curriculum import split_sentences

SUBGROUPS = ("animal-bird", "animal-bug", "animal-mammal")
CONSONANTS, VOWELS = "bdfgklmnprst", "aeiou"


def concept(code: int, label: str = "", tone: str = "", gender: str = "", group: str = "animals-nature") -> Concept:
    """A concept; every code has a family and a name of its own."""
    name = label or "".join(
        CONSONANTS[code // 5**n % len(CONSONANTS)] + VOWELS[code // 7**n % len(VOWELS)] for n in range(4)
    )
    hexcode = f"{code:X}" + (f"-{tone.upper()}" if tone else "")
    names = {"1f3fb": "light", "1f3ff": "dark", "": ""}
    return Concept(hexcode, name, ("one", "two"), group, SUBGROUPS[code % 3], names[tone], gender, 1.0)


def drawing(code: int, step: int, side: int = 64) -> Image.Image:
    """A ball of a colour of its own that moves along."""
    colour = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(code * 0.381 % 1, 0.9, 0.5 + code % 5 / 10))
    picture = Image.new("RGBA", (side, side))
    x, y = step * 3 % (side - 30), code * 7 % (side - 30)
    ImageDraw.Draw(picture).ellipse((x, y, x + 30, y + 30), fill=(*colour, 255))
    return picture


def write_animation(path: Path, frames: list[Image.Image]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:], duration=40, lossless=True)
    return path


def clip(made: Concept) -> Clip:
    """A clip without a file."""
    frames = []
    for step in range(NUM_FRAMES):
        drawn, buffer = drawing(int(made.hexcode.split("-")[0], 16), step, SIDE), io.BytesIO()
        ground = Image.new("RGB", drawn.size, "white")
        ground.paste(drawn, (0, 0), drawn)
        ground.save(buffer, "WEBP", quality=80)
        frames.append(buffer.getvalue())
    return Clip(made, tuple(frames), made.hexcode)


@pytest.fixture(scope="module")
def concepts() -> list[Concept]:
    """Nine train, nine known and nine unseen ones."""
    by_split: dict[str, list[Concept]] = {TRAIN: [], KNOWN: [], UNSEEN: []}
    for code in range(0x1F400, 0x1F600):
        made = concept(code)
        if len(by_split[made_split := clip_split(made)]) < 9:
            by_split[made_split].append(made)
    return [made for members in by_split.values() for made in members]


@pytest.fixture(scope="module")
def clips(concepts: list[Concept]) -> list[Clip]:
    return [clip(made) for made in concepts]


@pytest.fixture(scope="module")
def context(concepts: list[Concept]) -> Context:
    stills = {made.hexcode: Still(made, TEST_STYLE, b"", made.hexcode) for made in concepts}
    return Context(
        tuple(concepts), {style: stills if style == TEST_STYLE else {} for style in STYLE_PACKAGES}, {}, Path("nowhere")
    )


@pytest.fixture(scope="module")
def built(context: Context, clips: list[Clip]) -> Built:
    """All that is made of the clips, without a dictionary."""
    rationales = Rationales(context.concepts, None)
    built = film_tasks.build(clips, rationales)
    built.media |= {one.id: list(one.frames) for one in clips}
    built.tasks += clip_tasks(context, clips, rationales)
    built.pairs += clip_pairs(clips, rationales)
    return built


# Files


def test_frames_are_evenly_spaced_and_the_end_of_the_loop_is_left_out(tmp_path: Path) -> None:
    greys = [Image.new("RGB", (8, 8), (10 * n,) * 3) for n in range(16)]
    frames = sample_frames(write_animation(tmp_path / "a.webp", greys))
    assert [np.asarray(frame)[28, 28, 0] // 10 for frame in frames] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert {frame.size for frame in frames} == {(SIDE, SIDE)} and SIDE % 28 == 0


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.webp", [drawing(5, step) for step in range(NUM_FRAMES)])
    assert all(np.asarray(frame)[0, 0].tolist() == [255, 255, 255] for frame in sample_frames(path))


def test_an_animated_file_of_one_frame_is_a_still(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.webp", [drawing(5, 0)])
    assert not has_frames(path) and read_clip(path) is None


def test_an_animated_file_that_hardly_changes_is_a_still(tmp_path: Path) -> None:
    frames = [drawing(5, 0) for _ in range(NUM_FRAMES)]
    for number, frame in enumerate(frames):
        frame.putpixel((number, 0), (255, 0, 0, 255))  # so that the encoder keeps all frames
    path = write_animation(tmp_path / "a.webp", frames)
    assert has_frames(path) and read_clip(path) is None
    moving = write_animation(tmp_path / "b.webp", [drawing(5, step) for step in range(NUM_FRAMES)])
    assert len(read_clip(moving)[0]) == NUM_FRAMES


def test_stills_are_left_out_of_the_clips(tmp_path: Path) -> None:
    moving, still = concept(0x1F426), concept(0x1F427)
    files = {
        moving.hexcode: write_animation(tmp_path / "a.webp", [drawing(1, step) for step in range(NUM_FRAMES)]),
        still.hexcode: write_animation(tmp_path / "b.webp", [drawing(1, 0)]),
    }
    assert [one.concept for one in read_clips([moving, still], files, processes=1)] == [moving]
    assert choose([moving, still], files, {TRAIN: 1, KNOWN: 1, UNSEEN: 1}) == [moving]


def test_a_damaged_clip_names_its_file(tmp_path: Path) -> None:
    made = concept(0x1F426)
    content = write_animation(tmp_path / "a.webp", [drawing(1, s) for s in range(NUM_FRAMES)]).read_bytes()
    (tmp_path / "bad.webp").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"bad\.webp"):
        read_clips([made], {made.hexcode: tmp_path / "bad.webp"}, processes=1)


def test_a_file_in_two_spellings_is_one_clip(tmp_path: Path) -> None:
    for name in ("00a9-fe0f", "a9-fe0f", "1f9d1-1f3fb-200d-1f680"):
        write_animation(tmp_path / "assets" / f"{name}.webp", [drawing(1, 0)])
    sign = concept(0xA9)
    astronaut = Concept("1F9D1-1F3FB-200D-1F680", "astronaut: light skin tone", (), "people-body", "", "light", "", 1.0)
    found = match_clips([sign, astronaut, concept(0x1F426)], [tmp_path])
    assert {hexcode: path.stem for hexcode, path in found.items()} == {
        "A9": "00a9-fe0f",
        "1F9D1-1F3FB-200D-1F680": "1f9d1-1f3fb-200d-1f680",
    }


def test_tones_are_capped_and_couples_are_left_out(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.webp", [drawing(1, step) for step in range(NUM_FRAMES)])
    plain = Concept("1F44B", "waving hand", (), "people-body", "hand", "", "", 1.0)
    tones = [
        Concept(f"1F44B-1F3F{n}", f"waving hand: {name} skin tone", (), "people-body", "hand", name, "", 1.0)
        for n, name in (("B", "light"), ("D", "medium"), ("F", "dark"))
    ]
    couple = Concept("1F91D-1F3FB", "handshake: light, dark", (), "people-body", "hand", "light/dark", "", 1.0)
    members = [plain, *tones, couple]
    files = {member.hexcode: path for member in members}
    for most in (0, 1, 2):
        chosen = choose(members, files, {TRAIN: most, KNOWN: most, UNSEEN: most})
        assert plain in chosen and couple not in chosen and sum(bool(c.skin_tone) for c in chosen) == most


# Splits


def test_unseen_clips_are_those_whose_stills_are_held_out_and_variants_stay_together() -> None:
    splits = Counter()
    for code in range(0x1F300, 0x1F900):
        made = concept(code)
        toned = concept(code, tone="1f3fb")
        splits[clip_split(made)] += 1
        assert (clip_split(made) == UNSEEN) == (split_of(made.family) == "test")
        assert clip_split(toned) == clip_split(made)
    shares = {split: count / sum(splits.values()) for split, count in splits.items()}
    assert 0.17 < shares[UNSEEN] < 0.23 and 0.13 < shares[KNOWN] < 0.19 and shares[TRAIN] > 0.6


def test_no_clip_of_a_test_split_is_trained_on(built: Built, clips: list[Clip]) -> None:
    split = {one.id: one.split for one in clips} | {segment_id(one): one.split for one in clips}
    trained = {side.side.video for pair in built.pairs for side in (pair.query, pair.target)} - {""}
    assert {split[name] for name in trained if name in split} == {TRAIN}
    assert {name.split("/")[2].split("-")[0] for name in trained if "/film/" in name} == {TRAIN}
    for task in built.tasks:
        videos_of = {query.side.video for query in task.queries if query.side.video}
        assert {split.get(name, name.split("/")[2].split("-")[0]) for name in videos_of} <= {task.concepts}


# Clips of the same look or label


def test_clips_of_one_label_and_of_one_look_are_correct_together() -> None:
    first, renamed, other = concept(0x1F426), concept(0x1F426, "another name"), concept(0x1F426, "far")
    far = clip(concept(0x1F429)).frames
    shown = [clip(first), clip(renamed), Clip(other, far, "x"), Clip(concept(0x1F426), far, "y")]
    # 0 and 1 look the same, 2 and 3 look the same, 0 and 3 have one label.
    assert twins(shown) == [[0, 1, 3], [0, 1], [2, 3], [0, 2, 3]]


def test_clips_compressed_twice_are_one_look() -> None:
    made = clip(concept(0x1F426))
    again = []
    for frame in made.frames:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(frame)).save(buffer, "WEBP", quality=95)
        again.append(buffer.getvalue())
    assert tuple(again) != made.frames and LEAST_DIFFERENCE > 0
    assert twins([made, Clip(concept(0x1F426, "another name"), tuple(again), "z")]) == [[0, 1], [0, 1]]


def test_both_of_two_equal_clips_are_correct_and_one_is_trained_on(context: Context, clips: list[Clip]) -> None:
    unseen = next(one for one in clips if one.split == UNSEEN)
    trained = next(one for one in clips if one.split == TRAIN)
    tested_twin, trained_twin = (
        replace(one, concept=replace(one.concept, hexcode=f"{one.concept.hexcode}-200D", label="second name"))
        for one in (unseen, trained)
    )
    rationales = Rationales(context.concepts, None)
    found = {(t.name, t.concepts): t for t in clip_tasks(context, [*clips, tested_twin], rationales)}
    task = found["V-RET/text to clip", UNSEEN]
    asked = next(query for query in task.queries if query.side.text == "second name")
    assert {task.candidates[n].video for n in asked.positives} == {unseen.id, tested_twin.id}
    asked_in_training = [pair.query.side.text for pair in clip_pairs([*clips, trained_twin], rationales)]
    assert trained.concept.label in asked_in_training and "second name" not in asked_in_training


# Films


def test_a_film_shows_four_frames_of_each_of_six_to_eight_clips(clips: list[Clip]) -> None:
    films = compose_films([one for one in clips if one.split == TRAIN], 30, "t")
    assert {len(film.clips) for film in films} == {6, 7, 8} == set(range(LEAST_CLIPS, MOST_CLIPS + 1))
    for film in films:
        assert len(film.frames) == SEGMENT_FRAMES * len(film.clips) and 24 <= len(film.frames) <= 32
        assert len({one.concept.family for one in film.clips}) == len(film.clips)
        for place, one in enumerate(film.clips):
            assert film.frames[4 * place : 4 * place + 4] == segment_frames(one) == list(one.frames[::2])
    assert len({film.id for film in films}) == 30


def test_films_show_all_clips_about_equally_often_and_are_the_same_every_time(clips: list[Clip]) -> None:
    members = [one for one in clips if one.split == TRAIN]
    films = compose_films(members, 30, "t")
    shown = Counter(one.id for film in films for one in film.clips)
    assert len(shown) == len(members) and max(shown.values()) - min(shown.values()) <= 6
    assert films == compose_films(members, 30, "t")
    assert len({film.clips[0].id for film in films}) > 4


def test_a_film_never_shows_two_of_a_family_nor_a_skin_tone(clips: list[Clip]) -> None:
    members = [one for one in clips if one.split == TRAIN]
    relative, toned = (
        replace(one, concept=replace(one.concept, **changes))
        for one, changes in (
            (members[0], {"hexcode": f"{members[0].concept.hexcode}-200D-2640", "label": "relative"}),
            (members[1], {"hexcode": f"{members[1].concept.hexcode}-1F3FF", "skin_tone": "dark"}),
        )
    )
    assert relative.concept.family == members[0].concept.family
    for film in compose_films([*members, relative, toned], 30, "t"):
        assert not {members[0].id, relative.id} <= {one.id for one in film.clips}
        assert toned not in film.clips


def test_too_few_families_make_no_film(clips: list[Clip]) -> None:
    with pytest.raises(ValueError, match="more packs"):
        compose_films(clips[: MOST_CLIPS - 1], 2, "t")


def test_a_window_shows_half_of_two_clips_and_equals_no_segment(clips: list[Clip]) -> None:
    film = Film("f", tuple(clips[:6]))
    windows = list(film.windows().values())
    assert len(windows) == 5
    segments = [segment_frames(one) for one in film.clips]
    for place, window in enumerate(windows):
        assert window == [*segments[place][2:], *segments[place + 1][:2]] and window not in segments


def test_what_comes_after_and_before_is_the_neighbour(clips: list[Clip]) -> None:
    film = Film("f", tuple(clips[:7]))
    asked = film_tasks.by_neighbour(film, {"after": "after {}", "before": "before {}"}, 100)
    expected = {f"after {phrase(a)}": n + 1 for n, a in enumerate(film.clips[:-1])}
    expected |= {f"before {phrase(b)}": n for n, b in enumerate(film.clips[1:])}
    assert {one.text: one.place for one in asked} == expected
    assert all(phrase(film.clips[one.place]) in one.reasons[-1] for one in asked)


def test_first_and_last_are_the_ends(clips: list[Clip]) -> None:
    seen = set()
    for number in range(20):
        film = Film(f"f{number}", tuple(clips[:6]))
        for one in film_tasks.order_questions(film):
            if one.text.startswith("What is shown"):
                seen.add(one.text)
                assert one.place == (0 if one.text.endswith("first?") else 5)
    assert len(seen) == 2


def test_a_moments_pool_holds_its_film_its_windows_and_no_relatives_from_other_films(built: Built, clips) -> None:
    family = {segment_id(one): one.concept.family for one in clips}
    tasks = [task for task in built.tasks if task.meta == "V-MRET"]
    assert {(task.name, task.concepts) for task in tasks} == {
        (name, split) for name in ("V-MRET/named", "V-MRET/order") for split in (KNOWN, UNSEEN)
    }
    for task in tasks:
        for query in task.queries:
            pool = [task.candidates[n].video for n in query.pool]
            frames = built.media[query.side.video]
            own = [name for name in pool if f"window/{query.side.video.split('/')[2]}-" in name]
            assert len(own) == len(frames) // 4 - 1
            shown = [frames[4 * n : 4 * n + 4] for n in range(len(frames) // 4)]
            of_film = [name for name in pool if name in family and built.media[name] in shown]
            assert len(of_film) == len(shown)
            others = {family[name] for name in pool if name in family and name not in of_film}
            assert not others & {family[name] for name in of_film}
            assert built.media[task.candidates[query.positives[0]].video] in shown


def test_an_order_query_does_not_name_its_answer(built: Built, clips: list[Clip]) -> None:
    name = {segment_id(one): phrase(one) for one in clips}
    for task in built.tasks:
        if task.name == "V-MRET/order":
            for query in task.queries:
                assert name[task.candidates[query.positives[0]].video] not in query.side.text


# Tasks and pairs


def test_the_parts_work_passes_the_builds_check(built: Built, context: Context) -> None:
    check(built, context)
    assert all(len(frames) in (4, 8, 24, 28, 32) for frames in built.media.values())


def test_every_meta_task_has_known_and_unseen_queries(built: Built) -> None:
    assert {(t.meta, t.concepts) for t in built.tasks} == {
        (meta, split) for meta in ("V-CLS", "V-QA", "V-RET", "V-MRET") for split in (KNOWN, UNSEEN)
    }


def test_a_label_is_correct_for_its_clip(built: Built, clips: list[Clip]) -> None:
    subgroup = {one.id: one.concept.subgroup.replace("-", " ") for one in clips}
    for task in built.tasks:
        if task.name == "V-CLS/subgroup":
            assert [task.candidates[q.positives[0]].text for q in task.queries] == [
                subgroup[q.side.video] for q in task.queries
            ]


def test_text_finds_its_clip_among_all_test_clips(built: Built, clips: list[Clip]) -> None:
    label = {one.id: one.concept.label for one in clips}
    for task in built.tasks:
        if task.name == "V-RET/text to clip":
            assert len(task.candidates) == 18 and all(not query.pool for query in task.queries)
            assert all(label[task.candidates[q.positives[0]].video] == q.side.text for q in task.queries)


def test_questions_about_clips_say_clip_and_not_picture(built: Built) -> None:
    asked = [q.side.text for task in built.tasks if task.meta == "V-QA" for q in task.queries]
    assert asked and not any("picture" in text for text in asked)


def test_rationales_have_four_to_seven_sentences(built: Built) -> None:
    for pair in built.pairs:
        for side in (pair.query, pair.target):
            assert 4 <= len(split_sentences(side.rationale)) <= 7, side.rationale


def test_a_text_that_looks_for_a_clip_is_not_told_how_the_clip_looks(built: Built) -> None:
    for pair in built.pairs:
        if pair.subset == "V-RET-text-to-clip":
            assert "motion" not in pair.query.rationale and "motion" in pair.target.rationale
        if pair.subset.startswith("V-MRET"):  # the film shows what its rationale tells
            assert pair.query.side.video and "The film has" in pair.query.rationale


# The part


def test_the_part_is_built_from_packages_and_twice_the_same(tmp_path, monkeypatch, context, concepts) -> None:
    for number, made in enumerate(concepts):
        frames = [drawing(int(made.hexcode, 16), step) for step in range(10)]
        write_animation(tmp_path / f"pack{number % 2 + 1}" / "assets" / f"{made.key}.webp", frames)
    asked = []

    def fetch(packages, cache):
        asked.append([package.name[-1] for package in packages])
        return {package.name: tmp_path / f"pack{package.name[-1]}" for package in packages}

    monkeypatch.setattr(videos, "fetch", fetch)
    monkeypatch.setattr(videos, "WordNet", lambda folder: None)
    monkeypatch.setattr(film_tasks, "TEST_FILMS", 3)
    monkeypatch.setattr(film_tasks, "TRAIN_FILMS", 3)
    smaller = Context(context.concepts, context.stills, {}, tmp_path, processes=1, options={"packs": "2,1"})
    first, second = videos.build(smaller), videos.build(smaller)
    assert asked[0][:2] == ["1", "2"] and first == second
    check(first, smaller)
    assert len([name for name in first.media if name.startswith("videos/clip/")]) == len(concepts)
    assert [name for name in first.packages if "anim" in name] == [CLIP_PACKAGES[n].spec for n in ("1", "2")]
    counts = write_part("videos", first, tmp_path)
    assert counts["packages"] == first.packages and all(len(digest) == 64 for digest in counts["packages"].values())


def test_an_unknown_pack_is_refused() -> None:
    assert [package.name[-1] for package in videos.chosen_packages("3,1")] == ["1", "3"]
    with pytest.raises(ValueError, match="7; choose from 1, 2, 3, 4"):
        videos.chosen_packages("1,7")
