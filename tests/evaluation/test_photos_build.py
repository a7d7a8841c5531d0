"""The builder of the benchmark of photographs, over packages made here, and wheels as packages."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from evaluation.miniature.sources import packages
from evaluation.miniature.sources.packages import FetchError, PyPIPackage, fetch
from evaluation.photos import build as builder
from evaluation.photos.sources import FOLDERS, STAMPS

WHEEL = PyPIPackage("a-wheel", "1.0", "", "MIT", "nobody", "", ("a_wheel/data/",), platform="any_1", python="3.11")


def _wheel(folder: Path) -> Path:
    path = folder / "a_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a_wheel/__init__.py", "")
        archive.writestr("a_wheel/data/picture.png", "pixels")
        archive.writestr("a_wheel/data/../../outside.txt", "no")
    return path


def test_of_a_wheel_only_the_wanted_members_are_unpacked_and_none_outside(tmp_path):
    packages._unpack_wheel(_wheel(tmp_path), WHEEL.members, tmp_path / "unpacked")
    assert [p.relative_to(tmp_path / "unpacked").as_posix() for p in (tmp_path / "unpacked").rglob("*.*")] == [
        "a_wheel/data/picture.png"
    ]


def test_a_wheel_with_code_is_the_same_on_every_machine_and_a_wrong_hash_is_refused(tmp_path, monkeypatch):
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        _wheel(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(FetchError, match="sha256"):
        fetch([WHEEL], tmp_path / "cache")
    (command,) = commands
    assert command[-7:] == ["a-wheel==1.0", "--only-binary", ":all:", "--platform", "any_1", "--python-version", "3.11"]
    assert "--no-deps" in command and not list((tmp_path / "cache").iterdir())


def test_a_failing_pip_says_what_to_do(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "no route")
    monkeypatch.setattr(subprocess, "run", lambda command, **kwargs: failed)
    with pytest.raises(FetchError, match=r"(?s)pip download a-wheel==1.0.*no route.*Check the connection"):
        fetch([WHEEL], tmp_path)


@pytest.fixture
def folders(tmp_path):
    stamps = tmp_path / "stamps" / "usr" / "share" / "tuxpaint" / "stamps"
    for name, mode in {
        "animals/frog.png": "RGBA",
        "animals/cartoon/cow.png": "RGBA",
        "animals/grey.png": "LA",
        "animals/ground.png": "RGB",
        "animals/untold.png": "RGBA",
        "symbols/a.png": "RGBA",
        "town/roadsigns/stop.png": "RGBA",
    }.items():
        (stamps / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (600, 300)).save(stamps / name)
        if "untold" not in name:
            captions = f"A {Path(name).stem}.\nde.utf8=Ein {Path(name).stem}.\nfr.utf8=\n"
            (stamps / name).with_suffix(".txt").write_text(captions)
    found = {STAMPS.name: tmp_path / "stamps"}
    for name in json.loads(builder.SENTENCES.read_text()):
        package, below = FOLDERS[name.partition("/")[0]]
        file = tmp_path / package.name / below / name.partition("/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
        found[package.name] = tmp_path / package.name
    return found


def test_only_cut_outs_with_a_caption_are_taken_and_lie_on_white(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "fetch", lambda wanted, cache: folders)
    content = json.loads(builder.build(tmp_path / "out").read_text())
    assert [stamp["file"] for stamp in content["stamps"]] == ["stamps/animals/frog.png", "stamps/animals/grey.png"]
    assert content["stamps"][0]["caption"] == "A frog." and content["stamps"][0]["captions"] == {"de": "Ein frog."}
    frog = Image.open(tmp_path / "out" / "stamps" / "animals" / "frog.png")
    assert (frog.mode, frog.size, frog.getpixel((0, 0))) == ("RGB", (512, 256), (255, 255, 255))


def test_every_photograph_with_sentences_is_written_and_the_classes_are_named(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "fetch", lambda wanted, cache: folders)
    content = json.loads(builder.build(tmp_path / "out").read_text())
    sentences = json.loads(builder.SENTENCES.read_text())
    assert [photo["sentences"] for photo in content["sentences"]] == list(sentences.values())
    assert all((tmp_path / "out" / photo["file"]).is_file() for photo in content["sentences"])
    assert {"goldfish", "espresso"} <= set(content["imagenet_names"])


def test_a_build_that_is_killed_while_it_writes_leaves_the_one_before(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "fetch", lambda wanted, cache: folders)
    file = builder.build(tmp_path / "out")
    before = file.read_bytes()
    assert before.endswith(b"\n}\n")

    def killed(path: Path, content: str | bytes, **options: str) -> None:
        with path.open("wb") as opened:
            opened.write(before[:20])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        patch.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            builder.build(tmp_path / "out")
    assert file.read_bytes() == before
