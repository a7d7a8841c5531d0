"""Facts about building the miniature as a whole, from made-up packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from miniature_data import plain_concepts, svg
from PIL import Image
from typer.testing import CliRunner

from evaluation.miniature import build as builder
from evaluation.miniature import pack
from evaluation.miniature.pack import training_bytes, training_media
from evaluation.miniature.parts import Context
from evaluation.miniature.scenes.tasks import build_scenes
from evaluation.miniature.sources import packages as sources
from evaluation.miniature.sources.concepts import Concept, normal_key
from evaluation.miniature.sources.packages import CONCEPT_PACKAGE, STYLE_PACKAGES
from evaluation.miniature.sources.rationales import Rationales
from plume_embed.evaluation.miniature.schema import Built, Pair, Query, Side, Task, Taught, read_tasks
from plume_embed.training.data.folder_corpus import read_folder
from plume_embed.training.data.keys import item_key


def write_packages(folder: Path, concepts: list[Concept]) -> dict[str, Path]:
    """Emojibase and icon packages of some concepts, in the form npm has them."""
    folders = {package.name: folder / package.folder for package in (CONCEPT_PACKAGE, *STYLE_PACKAGES.values())}
    groups = sorted({c.group for c in concepts})
    subgroups = sorted({c.subgroup for c in concepts})
    names = {kind: {str(n): name for n, name in enumerate(known)} for kind, known in
             (("groups", groups), ("subgroups", subgroups))}  # fmt: skip
    data = [
        {
            "label": c.label,
            "hexcode": c.hexcode,
            "group": groups.index(c.group),
            "subgroup": subgroups.index(c.subgroup),
            "version": 1,
            "tags": list(c.tags),
        }
        for c in concepts
    ]
    for name, value in (("en/data.json", data), ("meta/groups.json", names)):
        file = folders[CONCEPT_PACKAGE.name] / name
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(value))
    for style, package in STYLE_PACKAGES.items():
        into = folders[package.name]
        into.mkdir()
        if style == "fluent-3d":
            (into / "assets").mkdir()
            for n, c in enumerate(concepts):
                Image.new("RGB", (64, 64), (10 * n % 256, 7 * n, 200)).save(
                    into / "assets" / f"{c.hexcode.lower()}.webp"
                )
            continue
        icons = {f"icon-{n}": {"body": svg(n, style)} for n in range(len(concepts))}
        (into / "icons.json").write_text(json.dumps({"icons": icons, "width": 40, "height": 40}))
        (into / "chars.json").write_text(
            json.dumps({normal_key(c.hexcode): f"icon-{n}" for n, c in enumerate(concepts)})
        )
    return folders


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A builder whose packages are made up and whose only part is a few scenes; the folder to build in."""
    folders = write_packages(tmp_path / "cache", plain_concepts())
    monkeypatch.setattr(builder, "fetch", lambda packages, cache: folders)

    def part(context: Context) -> Built:
        return build_scenes(context, Rationales(context.concepts, None), 3, 5)

    monkeypatch.setattr(builder, "PARTS", {"scenes": part, "more": lambda context: Built(tasks=[a_task()])})
    return tmp_path


def a_task(name: str = "I-CLS/more") -> Task:
    return Task(name, "known", (Query(Side("a"), (0,)),), (Side("b"),))


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_two_builds_are_equal_byte_by_byte(small: Path) -> None:
    summary = builder.build(small / "one", 28, processes=1)
    builder.build(small / "two", 28, processes=1)
    one, two = files(small / "one"), files(small / "two")
    assert one == two and len(one) > 20
    assert summary["rows"]["noto"] == {"all": 48, "untoned": 48, "train": 24, "test": 24}


def test_a_second_build_reads_the_pictures_of_the_first(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.build(small / "one", 28, processes=1)
    before = files(small / "one")
    monkeypatch.setattr(builder, "render_all", lambda *args: pytest.fail("rendered again"))
    builder.build(small / "one", 28, processes=1)
    assert files(small / "one") == before


def test_another_size_renders_again(small: Path) -> None:
    builder.build(small / "one", 28, processes=1)
    builder.build(small / "one", 56, processes=1, parts=["more"])
    summary = builder.read_summary(small / "one")
    assert summary["size"] == 56 and set(summary["parts"]) == {"more"}


def test_a_part_replaces_its_own_files_and_leaves_the_others(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.build(small / "one", 28, processes=1)
    before = files(small / "one")
    other = Built(tasks=[a_task("I-CLS/other")])
    monkeypatch.setitem(builder.PARTS, "more", lambda context: other)
    builder.build(small / "one", 28, processes=1, parts=["more"])
    names = {task.name for task in read_tasks(small / "one")}
    assert "I-CLS/other" in names and "I-CLS/more" not in names and "I-GD/phrase to crop" in names
    changed = {name for name, data in files(small / "one").items() if before.get(name) != data}
    assert changed == {"build.json", *(f"tasks/I-CLS-other-known.{kind}.parquet" for kind in ("queries", "candidates"))}


def test_a_build_that_was_killed_passes_for_none(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.build(small / "one", 28, processes=1)
    before = files(small / "one")
    write = builder.write_shards

    def killed(records, out, style):
        write(records, out, style)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builder, "write_shards", killed)
        with pytest.raises(KeyboardInterrupt):
            builder.build(small / "one", 56, processes=1)
    builder.build(small / "one", 28, processes=1)  # draws anew: the stills of a style are of 56 pixels now
    assert files(small / "one") == before

    with monkeypatch.context() as patch:
        patch.setattr(builder, "write_pairs", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            builder.build(small / "one", 28, processes=1, parts=["more"])
    with pytest.raises(ValueError, match="its build has not ended. Run `make miniature` again"):
        read_tasks(small / "one")
    builder.build(small / "one", 28, processes=1)
    assert {task.name for task in read_tasks(small / "one")} >= {"I-CLS/more", "I-GD/phrase to crop"}


def test_an_unknown_part_is_refused_with_the_names_there_are(small: Path) -> None:
    with pytest.raises(ValueError, match="no part nonsense; choose from scenes, more"):
        builder.build(small / "one", 28, parts=["nonsense"])


def test_what_a_part_built_wrong_is_not_written(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Built(pairs=[Pair(Taught(Side("a")), Taught(Side(image="absent/1")), "wrong")])
    monkeypatch.setitem(builder.PARTS, "more", lambda context: wrong)
    with pytest.raises(ValueError, match="absent/1"):
        builder.build(small / "one", 28, processes=1, parts=["more"])
    assert not (small / "one" / "train").exists()


def test_training_reads_what_was_built_and_what_was_packed_alike(small: Path) -> None:
    builder.build(small / "one", 28, processes=1)
    app = typer.Typer()
    app.command()(pack.main)
    result = CliRunner().invoke(app, ["--data", str(small / "one"), "--out", str(small / "packed")])
    assert result.exit_code == 0, result.output
    built, packed = read_folder(small / "one"), read_folder(small / "packed")
    assert built.subsets == packed.subsets and len(built) > 10
    assert [item_key(built[n].query.item) for n in range(len(built))] == [
        item_key(packed[n].query.item) for n in range(len(packed))
    ]
    assert not list((small / "packed").glob("*.parquet")) and not (small / "packed" / "tasks").exists()
    media = training_media(small / "one")
    assert training_bytes(small / "one") > sum(len(frame) for frames in media.values() for frame in frames) > 0
    assert CliRunner().invoke(app, ["--data", str(small / "one"), "--out", str(small / "packed")]).exit_code == 0
    (small / "packed" / "train" / "mine.parquet").write_text("mine")
    with pytest.raises(ValueError, match="train holds 'mine.parquet', which would be lost"):
        pack.main(small / "one", small / "packed")
    assert (small / "packed" / "train" / "mine.parquet").read_text() == "mine"


def test_packing_without_pairs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make miniature"):
        training_media(tmp_path)
    assert training_bytes(tmp_path) == 0


# Debian packages


def test_a_debian_package_without_apt_is_reported_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    with pytest.raises(sources.FetchError, match="apt-get or dpkg-deb was not found"):
        sources.fetch([sources.WORDNET_PACKAGE], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_debian_package_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(package: sources.DebianPackage, into: Path) -> Path:
        (into / "other.deb").write_bytes(b"other")
        return into / "other.deb"

    monkeypatch.setattr(sources, "_apt_download", download)
    with pytest.raises(sources.FetchError, match=r"wordnet-base=1:3\.0-37.*sha256"):
        sources.fetch([sources.WORDNET_PACKAGE], tmp_path)
