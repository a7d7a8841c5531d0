"""Facts about the miniature's documents, on small manuals with an outline made here; nothing is fetched."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.miniature.check import check
from evaluation.miniature.documents import documents
from evaluation.miniature.documents.manuals import (
    CROP,
    DOCUMENT_PACKAGES,
    GREYS,
    PAGE,
    TEST_MANUALS,
    TRAIN_MANUALS,
    Document,
    Heading,
    Manual,
    encoded,
    letters,
    plain_title,
    without_shared,
)
from evaluation.miniature.documents.pairs import quoted
from evaluation.miniature.documents.tasks import NEAR, Shown, tasks
from evaluation.miniature.parts import Context
from evaluation.miniature.sources.packages import DebianPackage
from plume_embed.evaluation.miniature.schema import Built
from plume_embed.training.curriculum import split_sentences

WIDTH, HEIGHT = 400, 600  # not a size that a PDF library would guess


@dataclass(frozen=True)
class Entry:
    """A line of an outline; `y` in points above the page's lower edge."""

    level: int
    title: str
    page: int
    y: float


def write_manual(path: Path, pages: Sequence[dict[float, str]], outline: Sequence[Entry]) -> Path:
    """A PDF whose pages show texts at heights, with an outline; its page size stands in the tree of pages only."""
    first_page, first_entry = 5, 5 + 2 * len(pages)
    objects = {
        1: f"<< /Type /Catalog /Pages 2 0 R /Outlines {first_entry} 0 R >>",
        2: f"<< /Type /Pages /Count {len(pages)} /MediaBox [0 0 {WIDTH} {HEIGHT}] /Resources << /Font << /F 3 0 R >> >>"
        f" /Kids [{' '.join(f'{first_page + 2 * n} 0 R' for n in range(len(pages)))}] >>",
        3: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    }
    for number, lines in enumerate(pages):
        escaped = {y: text.replace("(", r"\(").replace(")", r"\)") for y, text in lines.items()}
        drawn = "".join(f"BT /F 12 Tf 60 {y} Td ({text}) Tj ET\n" for y, text in escaped.items())
        objects[first_page + 2 * number] = (
            f"<< /Type /Page /Parent 2 0 R /Contents {first_page + 2 * number + 1} 0 R >>"
        )
        objects[first_page + 2 * number + 1] = f"<< /Length {len(drawn)} >>\nstream\n{drawn}endstream"
    parents, children, fields = [], {-1: []}, {}
    for number, entry in enumerate(outline):
        parent = next((n for n in reversed(range(number)) if outline[n].level < entry.level), -1)
        parents.append(parent)
        children.setdefault(parent, []).append(number)
        dest = f"/Dest [{first_page + 2 * entry.page} 0 R /XYZ 60 {entry.y} 0]"
        fields[number] = f"/Title ({entry.title}) {dest} /Parent {first_entry + 1 + parent} 0 R"
    for parent, members in children.items():
        for place, number in enumerate(members):
            near = [("/Prev", place - 1), ("/Next", place + 1)]
            fields[number] += "".join(
                f" {key} {first_entry + 1 + members[n]} 0 R" for key, n in near if 0 <= n < len(members)
            )
        ends = f"/First {first_entry + 1 + members[0]} 0 R /Last {first_entry + 1 + members[-1]} 0 R" if members else ""
        fields[parent] = f"{fields.get(parent, '/Type /Outlines')} {ends}"
    objects |= {first_entry + 1 + number: f"<< {text} >>" for number, text in fields.items()}
    content, offsets = b"%PDF-1.4\n", {}
    for number in sorted(objects):
        offsets[number] = len(content)
        content += f"{number} 0 obj\n{objects[number]}\nendobj\n".encode("latin-1")
    path.write_bytes(content + f"trailer << /Root 1 0 R /Size {max(objects) + 1} >>\n%%EOF\n".encode())
    return path


def simple_manual(path: Path, name: str, num_pages: int = 6, shared: str = "Introduction") -> Path:
    """A chapter a page, with two sections each; the first is called the same in all manuals."""
    pages, outline = [], []
    for number in range(num_pages):
        chapter = shared if number == 0 else f"{name} chapter {'abcdefghijklmnopqrstuvwxyz'[number]}"
        sections = [f"{name} part {'abcdefghijklmnopqrstuvwxyz'[number]}{half}" for half in ("one", "two")]
        pages.append(
            {
                560: f"{number + 1} {chapter}",
                520: sections[0],
                500: f"Here {name}words are {number * 7} turtles.",
                300: sections[1],
                280: "More text follows.",
                40: "A footer line that reaches far to the right edge",
            }
        )
        outline += [Entry(0, f"{number + 1} {chapter}", number, 572)]
        outline += [Entry(1, section, number, y) for section, y in zip(sections, (532, 312), strict=True)]
    return write_manual(path, pages, outline)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_small(tmp_path_factory.mktemp("manuals"))


def build_small(folder: Path) -> Built:
    """Two manuals to train on, two to test on."""
    train, test = (
        [Manual(name, f"the {name}", "p", "f") for name in names] for names in (("ant", "bee"), ("cow", "doe"))
    )
    files = {m.name: simple_manual(folder / f"{m.name}.pdf", m.name, 6 if m in train else 14) for m in (*train, *test)}
    return documents.build_from(train, test, files, processes=1)


# Headings


def test_a_heading_is_found_with_its_path_page_and_place(tmp_path: Path) -> None:
    file = write_manual(
        tmp_path / "m.pdf",
        [{500: "1 Birds"}, {400: "1.1 Owls and larks", 100: "text"}],
        [Entry(0, "1 Birds", 0, 515), Entry(1, "1.1 Owls and larks", 1, 415)],
    )
    birds, owls = Document("m", file).headings()
    assert birds.path == ("Birds",) and birds.page == 0 and birds.text == "Birds"
    assert owls.path == ("Birds", "Owls and larks") and owls.page == 1 and owls.text == "Birds > Owls and larks"
    # The line's letters stand from 400 to 409 points above the lower edge of 600, the start is a little above them.
    assert 600 - 409 - 12 < owls.top < 600 - 409 and 600 - 509 - 12 < birds.top < 600 - 509


@pytest.mark.parametrize("raised", [-2, 0, 12, 30])
def test_a_heading_is_found_wherever_near_it_the_destination_stands(tmp_path: Path, raised: float) -> None:
    file = write_manual(tmp_path / "m.pdf", [{400: "Owls", 380: "about owls"}], [Entry(0, "Owls", 0, 400 + raised)])
    (heading,) = Document("m", file).headings()
    assert 600 - 409 - 12 < heading.top < 600 - 409


def test_a_heading_that_is_not_printed_where_the_outline_points_is_dropped(tmp_path: Path) -> None:
    file = write_manual(
        tmp_path / "m.pdf",
        [{500: "Birds", 200: "Owls"}, {500: "Fish"}],
        [Entry(0, "Birds", 0, 515), Entry(0, "Owls", 0, 515), Entry(0, "Fish", 0, 515), Entry(0, "Whales", 1, 515)],
    )
    assert [heading.text for heading in Document("m", file).headings()] == ["Birds"]


@pytest.mark.parametrize(
    ("title", "plain"),
    [
        ("1.2.3 Owls", "Owls"),
        ("12 Owls", "Owls"),
        ("A.1 Owls", "Owls"),
        ("IV Owls", "Owls"),
        ("A circle node", "A circle node"),
        ("I see", "I see"),
        ("3.1415", "3.1415"),
        ("Operation of chem0.048emfig", "Operation of chemfig"),
        ("two\nlines\x00", "two lines"),
    ],
)
def test_titles_lose_their_numbers_and_what_tex_leaves(title: str, plain: str) -> None:
    assert plain_title(title) == plain


def test_letters_are_compared_without_ligatures_signs_and_case() -> None:
    assert letters("Eﬃcient \\usepackage{x-y}!") == "efficientusepackagexy"


def test_a_damaged_manual_names_itself(tmp_path: Path) -> None:
    (tmp_path / "m.pdf").write_bytes(b"%PDF-1.4 no more than that")
    with pytest.raises(ValueError, match=r"owls.*m\.pdf"):
        Document("owls", tmp_path / "m.pdf")


# Pictures


def ink_rows(picture: Image.Image) -> list[int]:
    return np.flatnonzero((np.asarray(picture.convert("L")) < 128).any(axis=1)).tolist()


def test_a_half_page_starts_at_its_heading(tmp_path: Path) -> None:
    lines = {560: "x" * 40, 424: "the line above", 400: "Owls", 40: "x" * 40}
    document = Document("m", write_manual(tmp_path / "m.pdf", [lines], [Entry(0, "Owls", 0, 440)]))
    crop = document.render_crop(document.headings()[0])
    only = Document("o", write_manual(tmp_path / "o.pdf", [{**lines, 424: ""}], [Entry(0, "Owls", 0, 440)]))
    assert crop.size == CROP and 2 < ink_rows(crop)[0] < 24
    assert crop == only.render_crop(only.headings()[0])  # of the line above nothing is seen


def test_a_half_page_is_white_below_the_end_of_its_page(tmp_path: Path) -> None:
    lines = {560: "x" * 40, 60: "Owls"}
    document = Document("m", write_manual(tmp_path / "m.pdf", [lines], [Entry(0, "Owls", 0, 75)]))
    crop = np.asarray(document.render_crop(document.headings()[0]))
    assert ink_rows(Image.fromarray(crop)) and (crop[120:] == 255).all()


def test_a_page_is_shown_whole_and_without_margins(tmp_path: Path) -> None:
    lines = {560: "x" * 40, 300: "Owls", 40: "y" * 40}
    page = Document("m", write_manual(tmp_path / "m.pdf", [lines, lines], [])).render_page(1)
    ink = np.asarray(page) < 128
    assert page.size == PAGE and ink[:12].any() and ink[:, :12].any()
    assert len(ink_rows(page)) > 12 and ink_rows(page)[-1] > 300


def test_sizes_are_whole_visual_tokens() -> None:
    assert all(side % 28 == 0 for side in (*PAGE, *CROP))
    assert (PAGE[0] * PAGE[1], CROP[0] * CROP[1]) == (140 * 28 * 28, 140 * 28 * 28)


def test_pictures_are_stored_in_eight_greys_without_loss() -> None:
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (4, 1)))
    stored = np.asarray(Image.open(io.BytesIO(encoded(ramp))).convert("L")).astype(int)
    assert len(np.unique(stored)) == GREYS and stored.min() == 0 and stored.max() == 255
    assert np.abs(stored - np.asarray(ramp)).max() <= 255 / (GREYS - 1) / 2 + 1


# Splits


def test_a_title_that_occurs_in_training_and_in_test_is_asked_in_neither() -> None:
    train = [Heading("a", ("Introduction",), 0, 1.0), Heading("a", ("Owls", "Feathers"), 1, 1.0)]
    test = [Heading("b", ("The owl", "introduction!"), 0, 1.0), Heading("b", ("Larks",), 1, 1.0)]
    assert list(without_shared([train, test])) == [[train[1]], [test[1]]]


def test_the_manuals_are_disjoint_and_their_packages_fetch_their_files() -> None:
    names, files = ({getattr(m, key) for m in TRAIN_MANUALS} for key in ("name", "file"))
    assert not names & {m.name for m in TEST_MANUALS} and not files & {m.file for m in TEST_MANUALS}
    assert len({m.name for m in (*TRAIN_MANUALS, *TEST_MANUALS)}) == len(TRAIN_MANUALS) + len(TEST_MANUALS)
    for manual in (*TRAIN_MANUALS, *TEST_MANUALS):
        assert manual.file in DOCUMENT_PACKAGES[manual.package].members
    for package in DOCUMENT_PACKAGES.values():
        assert isinstance(package, DebianPackage) and len(package.sha256) == 64 and package.members


def test_only_train_manuals_are_trained_on_and_only_test_manuals_are_asked(built: Built) -> None:
    trained = {pair.target.side.image.split("/")[2][:3] for pair in built.pairs}
    asked = {side.image.split("/")[2][:3] for task in built.tasks for side in task.candidates}
    assert trained == {"ant", "bee"} and asked == {"cow", "doe"}
    texts = {pair.query.side.text for pair in built.pairs} | {q.side.text for t in built.tasks for q in t.queries}
    assert "Introduction" not in texts and "Introduction > cow part aone" in texts


# Tasks and pairs


def test_a_heading_finds_its_page_in_all_test_pages(built: Built) -> None:
    task = next(task for task in built.tasks if task.name == "VisDoc/heading to page")
    assert task.concepts == "unseen" and len(task.candidates) == 28 and all(not query.pool for query in task.queries)
    right = {query.side.text: [task.candidates[n].image for n in query.positives] for query in task.queries}
    assert right["cow chapter c > cow part ctwo"] == ["documents/page/cow-0003"]
    assert right["doe chapter b"] == ["documents/page/doe-0002"]


def test_the_hard_pool_is_the_same_manual_within_ten_pages(built: Built) -> None:
    for task in built.tasks:
        if task.name.endswith("hard"):
            for query in task.queries:
                right = task.candidates[query.positives[0]].image
                pool = [task.candidates[n].image for n in query.pool]
                assert right in pool and {name.split("-")[0] for name in pool} == {right.split("-")[0]}
    page = next(task for task in built.tasks if task.name == "VisDoc/heading to page hard")
    first = next(query for query in page.queries if query.side.text == "cow chapter b")
    assert [page.candidates[n].image[-4:] for n in first.pool] == [f"{n:04d}" for n in range(1, 2 + NEAR + 1)]


def test_a_half_page_belongs_to_its_own_heading(built: Built) -> None:
    task = next(task for task in built.tasks if task.name == "VisDoc/heading to half page")
    assert len(task.candidates) == len(task.queries) > 20
    assert len({query.positives for query in task.queries}) == len(task.queries)


def test_a_path_in_two_manuals_is_one_query_with_two_right_answers() -> None:
    shown = {
        name: Shown([Heading(name, ("Options",), 1, 0.0)], 3, dict.fromkeys(range(3), b""), {0: b""}) for name in "ab"
    }
    found = {task.name: task for task in tasks(shown)}
    assert [query.positives for query in found["VisDoc/heading to page"].queries] == [(1, 4)]
    assert [query.positives for query in found["VisDoc/heading to half page"].queries] == [(0, 1)]
    assert [query.pool for query in found["VisDoc/heading to page hard"].queries] == [(0, 1, 2, 3, 4, 5)]


def test_the_parts_work_passes_the_builds_check(built: Built) -> None:
    check(built, Context((), {}, {}, Path("nowhere")))
    sizes = {name.split("/")[1]: Image.open(io.BytesIO(data)).size for name, (data,) in built.media.items()}
    assert sizes == {"page": PAGE, "crop": CROP}


def test_rationales_have_four_to_seven_sentences(built: Built) -> None:
    for pair in built.pairs:
        for side in (pair.query, pair.target):
            assert 4 <= len(split_sentences(side.rationale)) <= 7, side.rationale


def test_a_path_is_not_told_what_only_the_page_shows(built: Built) -> None:
    for pair in built.pairs:
        assert "turtles" not in pair.query.rationale and "manual is about" not in pair.query.rationale
        leaf = pair.query.side.text.split(" > ")[-1]
        assert leaf in pair.query.rationale and leaf in pair.target.rationale
    on_pages = [pair.target.rationale for pair in built.pairs if pair.subset == "VisDoc-page"]
    assert any("antwords" in text or "turtles" in text for text in on_pages)


def test_a_title_in_quotes_ends_no_sentence() -> None:
    title = "What is it? E.g. this one. And that!"
    assert quoted(title) == "“What is it E.g this one And that”"
    assert len(split_sentences(f"It is {quoted(title)}.")) == 1


def test_two_builds_are_equal(built: Built, tmp_path: Path) -> None:
    assert build_small(tmp_path) == built


def test_too_many_test_pages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_TEST_PAGES", 27)
    with pytest.raises(ValueError, match="28 pages, more than 27"):
        build_small(tmp_path)
