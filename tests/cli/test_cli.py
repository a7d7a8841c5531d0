"""The command line: what it prints, where, and how it ends."""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from index_data import write_texts
from PIL import Image
from rich.console import Console
from small_files import write_pdf, write_picture, write_video

from plume_embed import PlumeModel
from plume_embed.cli.console import print_hits, progress_bar
from plume_embed.cli.main import app, main
from plume_embed.command import one_line
from plume_embed.encode.encoder import Encoder
from plume_embed.index.search import Hit

COMMANDS = ("search", "index", "embed", "convert", "init", "export", "train", "mine", "rationalize", "report", "serve")


class Result:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture, released_model_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command line in this process, with the tiny model as the default."""
    monkeypatch.setenv("PLUME_MODEL", str(released_model_dir))

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(exit_info.value.code, out, err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "whale.txt").write_text("The blue whale is the largest animal.")
    write_picture(folder / "[red]noise\n.png")
    write_video(folder / "clip.mp4")
    write_pdf(folder / "report.pdf", num_pages=2)
    return folder


def assert_fails(result: Result, expected: str) -> None:
    assert result.code == 2
    assert re.search(expected, result.err), result.err
    assert result.err.startswith("plume-embed: ") and result.err.count("\n") == 1


def test_every_command_has_help_with_an_example(run):
    for command in COMMANDS:
        result = run(command, "--help")
        assert result.code == 0 and f"plume-embed {command} " in result.out and "Example:" in result.out
    overview = run()
    assert overview.code == 0 and all(command in overview.out for command in COMMANDS)
    assert {command.callback.__name__ for command in app.registered_commands} == set(COMMANDS)


def test_search_indexes_ranks_and_says_what_it_did(run, folder: Path):
    (folder / "empty.txt").touch()
    (folder / "program.exe").write_text("x")
    first = run("search", folder, "The blue whale is the largest animal.", "--top", 3)
    assert first.code == 0 and first.err == ""
    assert "unreadable: empty.txt: empty\n" in first.out
    assert (
        "5 items of 4 files in the index; 5 embedded now; 1 unreadable; 1 file of other types left out: 1 .exe"
        in first.out
    )
    assert "padding" not in first.out
    best = next(line for line in first.out.splitlines() if line.split()[:1] == ["1"])
    assert best.split()[1:3] == ["1.000", "whale.txt"] and "The blue whale" in best
    again = run("search", folder, "a query")
    assert "0 embedded now; 1 unreadable (--verbose lists them)" in again.out and "empty.txt" not in again.out
    assert "unreadable: empty.txt: empty\n" in run("search", folder, "a query", "--verbose").out


def test_verbose_lists_files_of_other_types_and_links_that_are_not_followed(run, tmp_path: Path):
    folder = write_texts(tmp_path / "notes")
    for name in ("a.A", "b.b", "c.c", "d.d", "e.e", "f.f", "sub/g.f"):
        (folder / name).write_text("x")
    (folder / "nowhere.txt").symlink_to(folder / "gone.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "copy.txt").symlink_to(folder / "whale.txt")
    out = run("index", folder).out
    assert "7 files of other types left out: 2 .f, 1 .a, 1 .b, 1 .c, 1 .d, 1 more (--verbose lists them)" in out
    assert "2 links not followed (--verbose lists them)" in out and "3 files in the index" in out
    told = run("index", folder, "--verbose").out.splitlines()
    assert told[:7] == [f"of another type: {name}" for name in ("a.A", "b.b", "c.c", "d.d", "e.e", "f.f", "sub/g.f")]
    assert told[7:9] == ["link not followed: loop", "link not followed: nowhere.txt"] and "lists them" not in told[9]


def test_a_bar_with_nothing_to_do_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    output = io.StringIO()
    terminal = Console(file=output, force_terminal=True, width=100)
    monkeypatch.setattr("plume_embed.cli.console.make_console", lambda stderr: terminal)
    for done, total, is_shown in ((0, 0, False), (3, 7, True)):
        with progress_bar("embedding", "items") as on_progress:
            on_progress(done, total)
        assert (f"{done}/{total}" in output.getvalue()) is is_shown


def test_with_a_server_no_model_is_said_to_be_loaded(run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    titles = []
    monkeypatch.setattr("plume_embed.cli.loading.working", lambda title: nullcontext(titles.append(title)))
    for command in (["search", folder, "x"], ["index", folder]):
        assert_fails(run(*command, "--server", "http://127.0.0.1:9"), "No server answers")
    assert titles == ["Asking the server"] * 2


def test_names_are_shown_escaped_and_pages_are_named(run, folder: Path):
    out = run("search", folder, "a query").out
    assert "[red]noise\\n.png" in out and "report.pdf#page=2" in out
    assert one_line("\x1b[31mred\udcff") == "\\x1b[31mred\\udcff"


@pytest.mark.parametrize("width", [60, 160])
def test_long_names_and_texts_hide_no_column(width: int):
    output = io.StringIO()
    hits = [Hit(-0.25, "folder/" * 9 + "file.txt", "chars=0-1200", "text", "words " * 30)]
    print_hits(Console(file=output, width=width), hits)
    lines = [line for line in output.getvalue().splitlines() if line.strip()]
    header, rows = lines[0], lines[2:]
    assert header.split() == ["rank", "score", "file", "text"] and rows[0].split()[:2] == ["1", "-0.250"]
    file, text = header.index("file"), header.index("text")
    assert "".join(row[file:text].strip() for row in rows) == "folder/" * 9 + "file.txt#chars=0-1200"
    assert "words words" in rows[0][text:]


def test_a_table_of_pictures_has_no_empty_text_column():
    output = io.StringIO()
    print_hits(Console(file=output, width=80), [Hit(0.5, "cat.jpg", "", "image", "")])
    header, _, row = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert header == ["rank", "score", "file"] and row == ["1", "0.500", "cat.jpg"]


def test_json_is_all_that_json_prints(run, folder: Path):
    (folder / "empty.txt").touch()
    result = run("search", folder, "a query", "--json", "--top", 2, "--latent-steps", 0)
    answer = json.loads(result.out)
    assert result.err == "" and answer["num_latent_steps"] == 0
    assert answer["unreadable"] == [{"path": "empty.txt", "reason": "empty"}]
    assert [hit["rank"] for hit in answer["results"]] == [1, 2]
    assert set(answer["results"][0]) == {
        "rank",
        "score",
        "path",
        "locator",
        "kind",
        "snippet",
        "folder",
        "copies",
    }


def test_queries_by_text_picture_video_and_combination(run, folder: Path, released_model_dir: Path):
    picture, video = folder / "[red]noise\n.png", folder / "clip.mp4"
    best = {
        key: json.loads(run("search", folder, *options, "--json").out)["results"]
        for key, options in {
            "picture": ["--image", picture],
            "video": ["--video", video],
            "both": ["a text", "--image", picture, "--video", video],
        }.items()
    }
    assert best["picture"][0]["path"] == picture.name and best["picture"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert best["video"][0]["path"] == "clip.mp4"
    encoder = Encoder(released_model_dir)
    query, whale = encoder.encode(
        [{"video": video, "text": "a text", "image": picture}, "The blue whale is the largest animal."]
    )
    score = next(hit["score"] for hit in best["both"] if hit["path"] == "whale.txt")
    assert score == pytest.approx(float(np.dot(query, whale)), abs=1e-5)


def test_a_still_picture_is_no_film_and_a_pdf_is_no_query(run, folder: Path):
    run("index", folder)
    still = write_picture(folder / "still.gif")
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    (folder / "empty.png").touch()
    assert run("search", folder, "--video", folder / "moving.gif", "--no-update").code == 0
    assert_fails(run("search", folder, "--video", still), r"still.gif is a picture, not a film; pass it to --image")
    assert_fails(run("search", folder, "--image", folder / "empty.png"), r"empty.png is empty\.")
    for option in ("--image", "--video"):
        assert_fails(
            run("search", folder, option, folder / "report.pdf"), "report.pdf is a PDF: a query takes pictures"
        )


def test_a_filter_of_an_unknown_column_names_those_there_are(run, folder: Path):
    run("index", folder)
    result = run("search", folder, "x", "--where", "colour = 'red'", "--no-update")
    assert_fails(result, "there is no column colour; the columns are kind, locator, snippet, embedded_at")
    assert "digest" not in result.err


def test_a_text_query_is_never_a_file(run, folder: Path, released_model_dir: Path):
    picture = folder / "clip.png"
    write_picture(picture, seed=3)
    results = json.loads(run("search", folder, picture, "--top", 50, "--json").out)["results"]
    text, image = Encoder(released_model_dir).encode([{"text": str(picture)}, {"image": picture}])
    score = next(hit["score"] for hit in results if hit["path"] == "clip.png")
    assert score == pytest.approx(float(np.dot(text, image)), abs=1e-5)


def test_search_without_update_ranks_the_index_as_it_is(run, folder: Path):
    assert_fails(run("search", folder, "x", "--no-update"), "no index in .* make it with")
    run("index", folder)
    (folder / "new.txt").write_text("new")
    assert "new.txt" not in run("search", folder, "new", "--no-update", "--top", 9).out
    assert "new.txt" in run("search", folder, "new", "--top", 9).out


def test_results_are_narrowed_by_kind_and_score_and_equal_contents_are_one(run, folder: Path):
    (folder / "copy.txt").write_text("The blue whale is the largest animal.")
    whale = "The blue whale is the largest animal."
    out = run("search", folder, whale, "--top", 9).out
    assert "copy.txt (and 1 more)" in out and "5 items" not in out
    found = json.loads(run("search", folder, whale, "--kind", "text", "--kind", "page", "--json").out)["results"]
    assert {hit["kind"] for hit in found} == {"text", "page"} and found[0]["copies"] == ["whale.txt"]
    found = json.loads(run("search", folder, whale, "--min-score", 0.9999, "--json").out)["results"]
    assert [hit["path"] for hit in found] == ["copy.txt"]
    nothing = run("search", folder, "a query", "--min-score", 0.9999, "--json")
    assert nothing.code == 0 and json.loads(nothing.out)["results"] == []
    assert nothing.err == "no result: --min-score left nothing\n"
    assert_fails(
        run("search", folder, whale, "--kind", "film"), "'film' is not one of 'text', 'image', 'video', 'page'"
    )


def test_paths_alone_are_printed_for_pipes(run, folder: Path):
    out = run("search", folder, "a query", "--paths", "--top", 9).out
    assert sorted(out.replace("[red]noise\n.png", "X").splitlines()) == sorted(
        str(folder / name) for name in ("whale.txt", "clip.mp4", "report.pdf", "X")
    )
    out = run("search", folder, "a query", "-0", "--top", 9).out
    assert sorted(out.rstrip("\0").split("\0")) == sorted(
        str(path) for path in folder.iterdir() if path.name != ".plume-index"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other viewers")
def test_the_first_result_is_opened_in_the_viewer_of_the_desktop(
    run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tools = tmp_path / "tools"
    tools.mkdir()
    viewer = tools / "xdg-open"
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    whale = "The blue whale is the largest animal."
    for words, code in (("", 0), ("echo xdg-open: no method available >&2; exit 3", 1)):
        viewer.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n{words}\n')
        viewer.chmod(0o755)
        result = run("search", folder, whale, "--open", "--kind", "text")
        assert result.code == code and (tmp_path / "opened").read_text() == str(folder / "whale.txt")
        assert "whale.txt" in result.out
    assert re.fullmatch(
        "There is no program here to open .*whale.txt; --paths prints it for another one.\n", result.err
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no program here to open" in run("search", folder, whale, "--open", "--no-update").err
    result = run("search", folder, "x", "--open", "--kind", "text", "--min-score", 1)
    assert result.code == 1 and result.err == "no result: --kind, --min-score left nothing\n"


def test_the_limit_of_pixels_is_an_option(run, folder: Path, tmp_path: Path):
    out = run("index", folder, "--max-image-pixels", 1000).out
    assert "40 x 30 pixels are over the limit of 0.001 megapixels" in out and "clip.mp4: " in out
    assert "whale.txt" in run("search", folder, "x", "--max-image-pixels", 1000).out
    picture = next(folder.glob("*.png"))
    assert_fails(run("search", folder, "--image", picture, "--max-image-pixels", 1000), "over the limit of 0.001")
    (tmp_path / "in.jsonl").write_text(json.dumps({"image": str(picture)}) + "\n" + json.dumps({"text": "x"}) + "\n")
    out = run("embed", tmp_path / "in.jsonl", "--to", tmp_path / "out.parquet", "--max-image-pixels", 1000).out
    assert "1 row in" in out and "over the limit of 0.001 megapixels" in out
    assert "0 unreadable" not in run("index", folder, "--verify").out


def test_rules_and_moves_are_options_of_index_and_search(run, folder: Path, tmp_path: Path):
    db = tmp_path / "db"
    out = run("index", folder, "--to", db, "--exclude", "*.mp4").out
    assert "1 left out by `*.mp4` (`--exclude ''` brings it back)" in out and "newly" not in out
    assert "clip.mp4" not in run("search", folder, "x", "--to", db, "--top", 9).out
    moved = folder.rename(tmp_path / "moved")
    assert_fails(run("search", moved, "x", "--to", db), "index of another folder .*--moved .*--also")
    assert "0 embedded now" in run("search", moved, "x", "--to", db, "--moved").out
    other = tmp_path / "other"
    other.mkdir()
    (other / "new.txt").write_text("Another folder.")
    found = run("search", moved, "Another folder.", "--also", other, "--to", db).out
    assert f"{other}: 1 item of 1 file in the index; 1 embedded now" in found and f"{other}/new.txt" in found
    for path in moved.iterdir():
        path.unlink()
    assert_fails(run("search", moved, "x", "--to", db), "drive or a share is away.* --prune. Nothing was changed")
    assert "0 items of 0 files in the index" in run("index", moved, "--to", db, "--prune").out
    assert_fails(run("search", folder, "x", "--also", tmp_path / "gone"), "No such folder")


def test_the_summary_says_what_is_newly_left_out_and_by_which_rules(run, tmp_path: Path):
    folder = write_texts(tmp_path / "notes")
    (folder / "node_modules").mkdir()
    (folder / "stays.md").write_text("A ferry on the lake.")
    run("index", folder)
    out = run("index", folder, "--exclude", "*.txt", "--exclude", "sub/").out
    assert "2 files newly left out; 2 left out by `sub/`, `*.txt` (`--exclude ''` brings them back)" in out
    assert "1 left out by .plumeignore or by default" in out and "gone or changed" not in out
    assert "newly" not in run("index", folder).out
    assert_fails(run("index", folder, "--exclude", "*"), "Nothing readable in .*, 4 left out by a rule")


def test_files_of_a_folder_that_is_empty_now_are_kept_and_the_summary_says_why(run, tmp_path: Path):
    folder = tmp_path / "notes"
    (folder / "drive").mkdir(parents=True)
    (folder / "drive" / "boat.txt").write_text("A boat on the lake.")
    (folder / "rose.txt").write_text("Roses grow in gardens.")
    run("index", folder)
    (folder / "drive" / "boat.txt").unlink()
    kept = "1 file kept whose folder is empty now, as where a drive is away (--prune removes them)"
    assert kept in run("index", folder).out
    assert "kept" not in run("index", folder, "--prune").out


def test_a_search_while_the_index_is_updated_ranks_what_is_there_and_says_so(run, folder: Path):
    run("index", folder)
    (folder / "new.txt").write_text("new")
    with FileLock(folder / ".plume-index" / ".lock"):
        result = run("search", folder, "new", "--json", "--top", 9)
        assert result.code == 0 and "is being updated by another process: this ranks what it holds so far" in result.err
        answer = json.loads(result.out)
        assert answer["is_up_to_date"] is False and "new.txt" not in [hit["path"] for hit in answer["results"]]
        assert_fails(run("index", folder), "being updated by another process; wait")


def test_an_error_of_the_query_names_no_item_and_no_address(run, folder: Path):
    for options in (["--image", folder / "whale.txt"], ["--image", folder / "gone.png"], ["word " * 20_000]):
        result = run("search", folder, *options)
        assert_fails(result, ".")
        assert "Item 0" not in result.err and " at 0x" not in result.err and "padding" not in result.err


def test_index_writes_where_it_is_told(run, folder: Path, tmp_path: Path):
    result = run("index", folder, "--to", tmp_path / "db", "--batch-size", 2)
    assert result.code == 0 and "5 items of 4 files" in result.out
    assert (tmp_path / "db").is_dir() and not (folder / ".plume-index").exists()
    assert "0 embedded now" in run("search", folder, "x", "--to", tmp_path / "db").out


def test_expected_errors_are_one_line_and_code_2(run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    empty = tmp_path / "empty\nfolder"
    empty.mkdir()
    assert_fails(run("search", tmp_path / "gone", "x"), "No such folder")
    assert_fails(run("search", folder / "whale.txt", "x"), "whale.txt is a file, not a folder")
    assert_fails(run("index", empty), "Nothing readable in .*/empty folder: 0 unreadable")
    assert_fails(run("search", folder), "Give a query")
    for query in ("", " \n"):
        assert_fails(run("search", folder, query), "Give a query")
    assert_fails(run("search", folder, "\udcff"), "not valid UTF-8")
    assert_fails(run("search", folder, "--image", tmp_path / "gone.png"), "No such image file")
    assert_fails(run("search", folder, "--image", folder / "whale.txt"), "as an image")
    assert_fails(run("search", folder, "x", "--latent-steps", 99), "0 to 32 latent steps, got 99")
    assert_fails(run("search", folder, "x", "--dtype", "float7"), "dtype must be one of")
    assert_fails(run("search", folder, "x", "--device", "quantum"), "No such device")
    assert_fails(run("embed", tmp_path / "gone.jsonl", "--to", tmp_path / "x.parquet"), "No such file")
    assert_fails(run("convert", empty, tmp_path / "out"), "is no model folder: it has no config.json")
    assert_fails(run("init", tmp_path / "gone", tmp_path / "out"), "gone")
    assert_fails(
        run("init", "nobody/gone", tmp_path / "out"), "nobody/gone is no folder here, .* Name a folder that holds"
    )
    assert not (folder / ".plume-index").exists()


def test_wrong_usage_is_one_line_and_code_2(run, folder: Path):
    assert_fails(run("serch", folder), "No such command 'serch'.* See plume-embed --help")
    assert_fails(run("search", folder, "x", "--tpo", 3), "No such option.* See plume-embed search --help")
    assert_fails(run("search", folder, "x", "--top", 0), "--top.* See plume-embed search --help")
    assert_fails(run("search", folder, "x", "--top", "many"), "--top")
    assert_fails(run("search"), "Missing argument 'FOLDER'")
    assert_fails(run("embed", "x.jsonl"), "Missing option '--to'")


def test_an_empty_name_is_refused_before_the_current_folder_is_taken(run, folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    for arguments in (
        ("search", "", "x"),
        ("index", ""),
        ("index", folder, "--to", ""),
        ("search", folder, "x", "--also", ""),
        ("embed", "", "--to", "x.parquet"),
        ("embed", folder, "--to", ""),
        ("convert", "", "out"),
        ("export", ""),
        ("report", ""),
        ("report", folder, "--to", ""),
        ("mine", "x.csv", "--corpus", "", "--out", "x.jsonl"),
        ("evaluate", "mmeb-v2", "--out", ""),
        ("evaluate", "miniature", "--keep", ""),
    ):
        assert_fails(run(*arguments), f"the name is empty.* See plume-embed {arguments[0]} --help")
    assert sorted(folder.iterdir()) == before


OF_THE_UPDATE = ("--exclude=", "--exclude=*.tmp", "--prune", "--moved", "--verify", "--verbose")
OF_RAY = ("--workers=1", "--gpus-per-worker=0", "--address=auto")


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("search gone x --no-update", OF_THE_UPDATE, "say how the index is updated; leave --no-update out"),
        (
            "search gone x --json",
            ("--paths", "-0"),
            r"--json and --paths \(or -0\) print two different things; give one",
        ),
        ("search gone x --verbose", ("--json", "--paths", "-0"), "print no list of --verbose; leave it out"),
        ("embed x.jsonl --to x.parquet", OF_RAY, "say how --engine ray runs; add --engine ray"),
        ("rationalize x.csv --model m --out x.jsonl", ("--jobs=4", "--seconds=120"), "is asked; add --endpoint"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_with_the_remedy(run, command: str, options: list[str], said: str):
    for option in options:
        assert_fails(run(*command.split(), option), said)


def test_a_model_that_is_none_names_the_remedy(run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "bert"
    other.mkdir()
    assert_fails(run("search", folder, "x", "--model", other), "no config.json.* Pass another --model")
    (other / "config.json").write_text('{"model_type": "bert"}')
    assert_fails(run("search", folder, "x", "--model", other), "type 'bert', not plume")
    assert_fails(run("search", folder, "x", "--model", tmp_path / "gone"), "No such model folder.* --model")
    assert_fails(run("search", folder, "x", "--model", "nobody/nothing"), "neither a folder nor a model")
    monkeypatch.delenv("PLUME_MODEL")
    monkeypatch.setattr("plume_embed.encode.encoder.DEFAULT_MODEL", tmp_path / "gone")
    assert_fails(run("search", folder, "x"), "pass --model with a folder or Hub id, or set PLUME_MODEL")


def test_damaged_or_incomplete_weights_are_refused(run, folder: Path, tmp_path: Path, released_model_dir: Path):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "model"
    copy.mkdir()
    for file in released_model_dir.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = load_file(copy / "model.safetensors")
    tensors.pop("adapter.step_embedding.weight")
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert_fails(run("search", folder, "x", "--model", copy), "missing: .*step_embedding")
    (copy / "model.safetensors").write_bytes(b"junk" * 100)
    assert_fails(run("search", folder, "x", "--model", copy), "weights .* damaged")


def test_steps_that_a_models_documents_do_not_take_are_refused_by_index(run, folder, released_model_dir, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(released_model_dir, model)
    config = json.loads((model / "config.json").read_text()) | {"document_latent_steps": 0}
    (model / "config.json").write_text(json.dumps(config))
    refused = run("index", folder, "--model", model, "--latent-steps", 4)
    assert_fails(refused, "documents with K = 0, whatever --latent-steps says: leave it out")
    assert not (folder / ".plume-index").exists()
    assert run("index", folder, "--model", model, "--latent-steps", 0).code == 0
    assert run("search", folder, "a whale", "--model", model, "--latent-steps", 4).code == 0


def test_an_index_of_another_model_is_refused(run, folder: Path, tmp_path: Path, released_model_dir: Path):
    other = tmp_path / "other"
    model = PlumeModel.from_pretrained(released_model_dir)
    model.save_pretrained(other)
    Encoder(released_model_dir).processor.save_pretrained(other)
    model.config.num_latent_steps = 4
    model.config.save_pretrained(other)
    run("index", folder, "--latent-steps", 4)
    assert_fails(run("search", folder, "x", "--model", other), "another model")
    assert_fails(run("search", folder, "x"), "K = 4 .* --latent-steps 4")


def test_ctrl_c_says_in_one_line_that_it_resumes(run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("plume_embed.index.update.update_index", interrupted)
    result = run("index", folder)
    assert result.code == 130
    assert result.err == "plume-embed: stopped; run the same command again to go on where it was.\n"


def test_an_unexpected_error_keeps_its_traceback(folder: Path, released_model_dir: Path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr("plume_embed.index.update.update_index", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["index", str(folder), "--model", str(released_model_dir)])


def test_convert_init_and_export_make_models_that_search(run, folder: Path, tmp_path: Path, released_model_dir: Path):
    checkpoint = Path(__file__).parent.parent / "fixtures" / "released_layout_tiny" / "checkpoint"
    converted, fresh = tmp_path / "converted", tmp_path / "fresh"
    assert run("convert", checkpoint, converted).code == 0
    assert_fails(run("convert", checkpoint, converted), "holds a model already")
    scores = [run("search", folder, "x", "--json", "--model", model).out for model in (converted, released_model_dir)]
    assert json.loads(scores[0])["results"] == json.loads(scores[1])["results"]

    init = ["init", checkpoint, fresh, "--seed", 3, "--set", "num_latent_steps=2", "--set", "adapter_type=mlp"]
    result = run(*init)
    assert result.code == 0 and str(fresh) in result.out, result.err
    config = json.loads((fresh / "config.json").read_text())
    assert config["num_latent_steps"] == 2 and config["adapter_type"] == "mlp"
    assert run("search", folder, "x", "--model", fresh, "--to", tmp_path / "db").code == 0


def test_init_refuses_settings_that_do_not_exist_or_do_not_fit(run, tmp_path: Path):
    checkpoint = Path(__file__).parent.parent / "fixtures" / "released_layout_tiny" / "checkpoint"
    for setting, reason in (
        ("steps=2", "no such setting; there are num_latent_steps"),
        ("num_latent_steps", "KEY=VALUE"),
        ("num_latent_steps=eight", "num_latent_steps"),
        ("suffix_token_ids=[1]", "no such setting"),
        ("adapter_type=lstm", "adapter_type"),
    ):
        assert_fails(run("init", checkpoint, tmp_path / "out", "--set", setting), reason)
    assert not (tmp_path / "out").exists()


def test_the_installed_command_fails_in_one_line_without_a_traceback(tmp_path: Path):
    command = Path(sys.executable).with_name("plume-embed")
    result = subprocess.run([command, "search", tmp_path / "gone", "x"], capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == f"plume-embed: No such folder: {tmp_path / 'gone'}\n"
