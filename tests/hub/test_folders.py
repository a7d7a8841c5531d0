"""The folder that `init`, `convert` and `export` make: whole or not at all, and nothing in it is replaced."""

import subprocess
import sys
from pathlib import Path

import pytest

from plume_embed import PlumeModel
from plume_embed.cli.main import main
from plume_embed.hub.export import export_model
from plume_embed.hub.folders import check_replaceable, new_folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_text("whole")


@pytest.mark.parametrize("before", [None, (), (".git", ".gitattributes")], ids=["absent", "empty", "a repository"])
def test_the_folder_may_be_absent_or_empty_or_an_empty_repository(before: tuple[str, ...] | None, tmp_path: Path):
    out = tmp_path / "below" / "out"
    for name in before or ():
        (out / name).mkdir(parents=True)
    if before == ():
        out.mkdir(parents=True)
    with new_folder(out) as folder:
        write_model(folder)
        assert not (out / "config.json").exists()
    assert names(out) == {"config.json", "weights", *(before or ())} and names(out.parent) == {"out"}


@pytest.mark.parametrize("name", ["README.md", "modules.json", ".env", "model.safetensors"])
def test_a_folder_with_any_other_file_is_refused_and_left_as_it_is(name: str, released_model_dir: Path, tmp_path: Path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"is not empty, it holds {name}; choose a folder that is new or empty"):
        export_model(tmp_path, released_model_dir)
    assert names(tmp_path) == {name} and (tmp_path / name).read_text() == "mine"


def test_a_file_and_a_link_to_nowhere_are_no_folders(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("file", "link"):
        with pytest.raises(ValueError, match=f"{name} is no folder"), new_folder(tmp_path / name):
            pass


@pytest.mark.parametrize("command", [["init", "backbone"], ["convert", "released"], ["export"]])
def test_an_empty_name_is_not_the_current_folder(command, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([*command, ""])
    assert end.value.code == 2 and "OUT_DIR" in capsys.readouterr().err and not names(tmp_path)


@pytest.mark.parametrize("is_there", [False, True], ids=["absent", "empty"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_not_finished_leaves_nothing(is_there: bool, error: type[BaseException], tmp_path: Path):
    out = tmp_path / "out"
    if is_there:
        out.mkdir()

    def broken() -> None:
        with new_folder(out) as folder:
            write_model(folder)
            raise error

    with pytest.raises(error):
        broken()
    assert names(tmp_path) == ({"out"} if is_there else set())
    assert not is_there or not names(out)


def test_folders_above_it_go_too_where_they_were_made_for_it(tmp_path: Path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="no"), new_folder(tmp_path / "a" / "b" / "c"):
        raise ValueError("no")
    assert names(tmp_path) == {"a"} and names(tmp_path / "a") == set()


def test_two_at_once_keep_off_the_folder_of_each_other(tmp_path: Path):
    with new_folder(tmp_path / "out") as first:
        write_model(first)
        (first / "inner").mkdir()
        (first / "inner" / "file").write_text("x")
        with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "out"):
            raise ValueError("stop")
    assert names(tmp_path / "out") == {"config.json", "weights", "inner"}


def test_files_that_came_meanwhile_are_not_replaced(tmp_path: Path):
    def two_at_once() -> None:
        with new_folder(tmp_path) as folder:
            write_model(folder)
            (tmp_path / "weights").write_text("mine")

    with pytest.raises(ValueError, match="is not empty, it holds weights"):
        two_at_once()
    assert names(tmp_path) == {"weights"} and (tmp_path / "weights").read_text() == "mine"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that holds an older model, with code that is a link to a file which is gone."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "plume"}')
    (folder / "model-00001-of-00002.safetensors").write_text("old")
    (folder / "gone_plume.py").symlink_to("nowhere.py")
    return folder


def test_a_model_is_replaced_by_a_whole_one_only(model_folder: Path):
    before = names(model_folder)

    def broken() -> None:
        with new_folder(model_folder, replaces_model=True) as folder:
            write_model(folder)
            assert names(model_folder) == before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert names(model_folder) == before and names(model_folder.parent) == {"model"}
    with pytest.raises(ValueError, match="holds a model already"), new_folder(model_folder):
        pass
    with new_folder(model_folder, replaces_model=True) as folder:
        write_model(folder)
    assert names(model_folder) == {"config.json", "weights"} and names(model_folder.parent) == {"model"}


def test_of_a_link_to_a_model_the_folder_is_replaced(model_folder: Path):
    link = model_folder.with_name("link")
    link.symlink_to(model_folder)
    with new_folder(link, replaces_model=True) as folder:
        write_model(folder)
    assert link.is_symlink() and names(model_folder) == {"config.json", "weights"}
    assert names(model_folder.parent) == {"model", "link"}


@pytest.mark.parametrize("name", ["thesis/thesis.tex", "notes.txt", ".git/HEAD", "photo.png"])
def test_a_folder_that_holds_anything_beside_a_model_is_not_replaced(name: str, model_folder: Path):
    (model_folder / name).parent.mkdir(parents=True, exist_ok=True)
    (model_folder / name).write_text("years of work")
    with pytest.raises(ValueError, match=rf"holds {name.split('/')[0]} beside a model, and would be replaced; move"):
        check_replaceable(model_folder)
    (model_folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="holds a model already"), new_folder(model_folder, replaces_model=True):
        pass
    (model_folder / "config.json").unlink()
    with pytest.raises(ValueError, match="is not empty"):
        check_replaceable(model_folder)
    assert (model_folder / name).read_text() == "years of work"


def test_what_comes_beside_a_model_meanwhile_stays(model_folder: Path):
    def two_at_once() -> None:
        with new_folder(model_folder, replaces_model=True) as folder:
            write_model(folder)
            (model_folder / "notes.txt").write_text("mine")

    with pytest.raises(ValueError, match="holds notes.txt beside a model"):
        two_at_once()
    assert (model_folder / "notes.txt").read_text() == "mine" and names(model_folder.parent) == {"model"}


def test_ctrl_c_in_the_middle_of_an_export_leaves_nothing_and_the_same_command_goes_on(
    released_model_dir: Path, tmp_path: Path
):
    out = tmp_path / "out"
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from plume_embed.__main__ import main;"
        "from plume_embed import PlumeProcessor;"
        "PlumeProcessor.save_pretrained = lambda *arguments, **options: signal.raise_signal(signal.SIGINT);"
        "sys.argv[0] = 'plume-embed'; main()"
    )
    arguments = ["export", out, "--model", released_model_dir]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, names(tmp_path)) == (130, set()), done.stderr
    assert done.stderr == "plume-embed: stopped; run the same command again to go on where it was.\n"
    done = subprocess.run(
        [sys.executable, "-m", "plume_embed", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, names(tmp_path)) == (0, "", {"out"})
    assert PlumeModel.from_pretrained(out).config.model_type == "plume"
