"""Where a command will write is looked at before it works: no input is replaced, and no hour ends in a wrong name."""

from pathlib import Path

import pytest

from plume_embed.cli.main import main
from plume_embed.outputs import check_output, check_output_folder


def test_a_file_that_can_be_written_is_accepted_and_nothing_is_made(tmp_path: Path):
    (tmp_path / "in.csv").write_text("a")
    (tmp_path / "old.jsonl").write_text("b")
    check_output(tmp_path / "new" / "deep" / "out.jsonl", "--out", [tmp_path / "in.csv"], ".jsonl")
    check_output(tmp_path / "old.jsonl", "--out", [tmp_path / "in.csv", tmp_path / "absent"], ".jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "old.jsonl"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("in.jsonl", "is a file that is read"),
        ("folder/../in.jsonl", "is a file that is read"),
        ("link.jsonl", "is a file that is read"),
        ("out.csv", r"must end in \.jsonl"),
        ("folder", "is a folder"),
        ("in.jsonl/out.jsonl", "cannot be written"),
        ("/proc/x.jsonl", r"/proc/x\.jsonl cannot be written"),
        ("/dev/null", "is no ordinary file"),
    ],
)
def test_a_file_that_must_not_or_cannot_be_written_is_refused_by_name(name: str, message: str, tmp_path: Path):
    (tmp_path / "in.jsonl").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "in.jsonl")
    with pytest.raises(ValueError, match=f"^--out .*{message}"):
        check_output(tmp_path / name, "--out", [tmp_path / "in.jsonl"], ".jsonl")
    assert (tmp_path / "in.jsonl").read_text() == "a"


def test_a_folder_that_can_be_written_to_is_accepted_and_nothing_is_made(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for name in ("folder", "new/deep", "."):
        check_output_folder(tmp_path / name, "--keep")
    check_output_folder(None, "--keep")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "is no folder; name a folder"),
        ("link", "is no folder; name a folder"),
        ("file/folder", "cannot be written: Not a directory"),
        ("/proc/new", "/proc/new cannot be written"),
        ("/dev/null", "is no folder"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_refused_by_name(name: str, message: str, tmp_path: Path):
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ValueError, match=f"^--keep .*{message}"):
        check_output_folder(tmp_path / name, "--keep")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}


COMMANDS = {
    "mine": ("mine", "{pairs}", "--corpus", "{folder}", "--out"),
    "rationalize": ("rationalize", "{pairs}", "--model", "m", "--endpoint", "http://127.0.0.1:9/v1", "--out"),
    "evaluate pairs": ("evaluate", "pairs", "{pairs}", "--model", "/nowhere", "--json"),
    "evaluate photos": ("evaluate", "photos", "--data", "/nowhere", "--json"),
    "evaluate miniature": ("evaluate", "miniature", "--data", "/nowhere", "--json"),
    "evaluate miniature, plot": ("evaluate", "miniature", "--data", "/nowhere", "--plot"),
    "bench rollout": ("bench", "rollout", "--shape", "none", "--json"),
    "bench encode": ("bench", "encode", "--model", "/nowhere", "--json"),
    "bench adapter": ("bench", "adapter", "--shape", "none", "--json"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_a_file_that_it_cannot_write_before_anything_else(name: str, tmp_path: Path, capsys):
    """Each command has another fault besides, which it would come to later."""
    pairs = tmp_path / "my.jsonl"
    pairs.write_text("no pairs")
    words = [word.format(pairs=pairs, folder=tmp_path) for word in COMMANDS[name]]
    assert refused([*words, "/proc/x.jsonl"], capsys).startswith(f"plume-embed: {words[-1]} /proc/x.jsonl cannot be")
    assert "is a folder" in refused([*words, str(tmp_path)], capsys)


@pytest.mark.parametrize("name", ["mine", "rationalize", "evaluate pairs"])
def test_pairs_are_never_replaced_by_what_is_made_of_them(name: str, tmp_path: Path, capsys):
    pairs = tmp_path / "my.csv"
    pairs.write_text("query,positive\na whale,an animal\n")
    words = [word.format(pairs=pairs, folder=tmp_path) for word in COMMANDS[name]]
    assert "is a file that is read" in refused([*words, str(pairs)], capsys)
    assert pairs.read_text() == "query,positive\na whale,an animal\n"
    if name != "evaluate pairs":
        assert "must end in .jsonl" in refused([*words, str(tmp_path / "other.csv")], capsys)


def refused(words: list[str], capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1, error
    return error


FOLDERS = {
    "evaluate miniature": ("evaluate", "miniature", "--data", "/nowhere", "--keep"),
    "evaluate mmeb-v2": ("evaluate", "mmeb-v2", "--model", "/nowhere", "--out"),
    "report": ("report", "/nowhere", "--to"),
    "train": ("train", "pairs", "--set", "data.files=[/nowhere]", "--set"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_command_refuses_a_folder_that_it_cannot_write_to_before_anything_else(name: str, tmp_path: Path, capsys):
    """Each command has another fault besides, which it would come to later."""
    (tmp_path / "file").write_text("a")
    option = "output_dir" if name == "train" else FOLDERS[name][-1]
    for path, message in ((tmp_path / "file", "is no folder; name a folder."), (Path("/proc/x"), "cannot be written")):
        given = [f"output_dir={path}"] if name == "train" else [str(path)]
        assert refused([*FOLDERS[name], *given], capsys).startswith(f"plume-embed: {option} {path} {message}")
