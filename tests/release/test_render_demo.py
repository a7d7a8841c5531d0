"""The script that draws the demo: whatever is in the folder, an image or one line that says why not."""

import json
import subprocess
import sys
from pathlib import Path

from small_files import write_picture

ROOT = Path(__file__).parent.parent.parent


def draw(folder: Path, to: Path, query: str = "-a dog") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "examples.render_demo", "--folder", str(folder), "--to", str(to)]
    command += ["--model", str(ROOT / "checkpoints" / "plume-tiny"), f"--query={query}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_folder_with_texts_and_pictures_is_drawn_with_its_pictures(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    write_picture(folder / "a.png")
    (folder / "a.txt").write_text("-a dog")
    done = draw(folder, tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert (row["query"], [hit["path"] for hit in row["results"]]) == ("-a dog", ["a.png"])


def test_a_folder_that_is_not_there_or_holds_no_picture_is_one_line_and_exit_code_2(tmp_path):
    empty = tmp_path / "texts"
    empty.mkdir()
    (empty / "a.txt").write_text("a dog")
    for folder, reason in ((tmp_path / "missing", "missing"), (empty, f"No pictures in {empty}")):
        done = draw(folder, tmp_path / "out.png")
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert reason in line
