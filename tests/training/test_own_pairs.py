"""A file of pairs as a new user brings it, through the commands of docs/training.md as they stand there."""

import csv
import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from plume_embed.cli.main import main
from plume_embed.training.data.pair_rows import read_pairs

ROOT = Path(__file__).parent.parent.parent
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
SHAPES = ("square", "circle", "bar", "cross", "triangle")
QUERIES = ("a {colour} {shape}", "the {shape} is {colour}", "{shape}, {colour}, drawn", "find a {shape} in {colour}")


def documented() -> list[str]:
    """The commands of the document, in order."""
    text = (ROOT / "docs" / "training.md").read_text()
    block = re.search(r"<!-- commands: pairs of your own -->\n```console\n(.*?)```", text, flags=re.DOTALL)
    return [line.removeprefix("$ ") for line in block[1].replace("\\\n", " ").splitlines()]


def draw(file: Path, colour: str, shape: str, seed: int) -> None:
    rng = random.Random(seed)
    image = Image.new("RGB", (56, 56), (rng.randint(90, 160),) * 3)
    x, y, size = rng.randint(4, 12), rng.randint(4, 12), rng.randint(26, 36)
    box, pen = (x, y, x + size, y + size), ImageDraw.Draw(image)
    if shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "bar":
        pen.rectangle((x, y + size // 3, x + size, y + size // 2), fill=colour)
    elif shape == "cross":
        pen.line(box, fill=colour, width=7)
        pen.line((x, y + size, x + size, y), fill=colour, width=7)
    else:
        pen.polygon(((x, y + size), (x + size, y + size), (x + size // 2, y)), fill=colour)
    image.save(file)


def bring(folder: Path, count: int) -> Path:
    """`my.csv` with `count` pairs beside the folder `Pictures`: a text, and a picture by its path."""
    (folder / "Pictures").mkdir(parents=True)
    rows = []
    for number in range(count):
        colour, shape = COLOURS[number % 8], SHAPES[number // 8 % 5]
        draw(folder / "Pictures" / f"{number}.png", colour, shape, number)
        query = QUERIES[number // 40 % 4].format(colour=colour, shape=shape) + f" {number}"
        rows.append({"query": query, "positive_image": f"Pictures/{number}.png"})
    with (folder / "my.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "my.csv"


def words(command: str, folder: Path, model: Path, *settings: str) -> list[str]:
    """A command's arguments, for the user's folder and a model."""
    command = command.replace("~/Pictures", str(folder / "Pictures")).replace("checkpoints/plume-tiny", str(model))
    found = shlex.split(command)[1:]
    return found + [word for setting in settings for word in ("--set", setting)] if found[0] == "train" else found


def call(arguments: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code


QUICK = ("batch_size=4", "curriculum.max_steps=8", "early_stopping.every=2")


def follow(commands: list[str], folder: Path, model: Path, *settings: str) -> None:
    """Runs them; the training is killed behind its first checkpoint and goes on."""
    for command in commands:
        arguments = words(command, folder, model, *settings)
        if arguments[0] == "train":
            killed_then_resumed(arguments, folder, "runs/mine/checkpoint-*")
        else:
            call(arguments)


def killed_then_resumed(arguments: list[str], folder: Path, appears: str) -> None:
    """Runs a command in a process of its own, kills it once a file is there, and runs it again with --resume."""
    command = [sys.executable, "-m", "plume_embed", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while process.poll() is None and not list(folder.glob(appears)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    again = subprocess.run([*command, "--resume"], cwd=folder, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr


def check(folder: Path, count: int, printed: str) -> dict:
    """What the commands leave behind; the results of the training."""
    assert len(read_pairs([folder / "mined.jsonl"])) == count
    results = json.loads((folder / "runs/mine/results.json").read_text())
    assert results["resumed_from"] is not None
    held_out = read_pairs([folder / "runs/mine/held_out.jsonl"])
    assert results["queries"] == len({row.query["text"] for row in held_out}) >= count // 5
    rows = re.findall(r"^\s*\S+ +\d+ +\d+ +([\d.]+) \[.*$", printed, flags=re.MULTILINE)
    # `evaluate` scores the model before and after on the rows that the training held out: the same two numbers.
    expected = [100 * results["before"]["hit_at_1"], 100 * results["hit_at_1"]]
    assert list(map(float, rows)) == pytest.approx(expected, abs=0.06)
    assert re.search(r"^ *1 +\d\.\d+ +\d+\.png", printed, flags=re.MULTILINE)  # of `search`
    return results


def test_a_csv_goes_through_the_commands_of_the_document(released_model_dir, tmp_path, monkeypatch, capsys):
    """With a random model and few steps; the training is killed and goes on."""
    bring(tmp_path, 24)
    monkeypatch.chdir(tmp_path)
    commands = documented()
    kinds = ["index", "mine", "train pairs", "evaluate pairs", "search"]
    assert all(command.startswith(f"plume-embed {kind} ") for command, kind in zip(commands, kinds, strict=True))
    follow(commands, tmp_path, released_model_dir, *QUICK)
    check(tmp_path, 24, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a cat,Pictures/none.png", r"my\.csv:4: positive: no such file: .*none\.png"),
        (",Pictures/0.png", r"my\.csv:4: query"),
        ("one,two,three", r"my\.csv:4: the row has another number of cells"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line_by_every_command(
    released_model_dir, tmp_path, monkeypatch, capsys, row, reason
):
    lines = bring(tmp_path, 12).read_text().splitlines()
    (tmp_path / "my.csv").write_text("\n".join([*lines[:3], row, *lines[3:]]) + "\n")
    monkeypatch.chdir(tmp_path)
    mine, train, evaluate = (words(command, tmp_path, released_model_dir, *QUICK) for command in documented()[1:4])
    train = [word.replace("mined.jsonl", "my.csv") for word in train]
    evaluate = [word.replace("runs/mine/held_out.jsonl", "my.csv") for word in evaluate]
    for arguments in (mine, train, evaluate):
        call(arguments, code=2)
        error = capsys.readouterr().err
        assert re.search(reason, error) and error.count("\n") == 1


@pytest.mark.slow
def test_two_hundred_pairs_make_plume_tiny_better_by_the_commands_alone(tmp_path, monkeypatch, capsys):
    """The commands as they stand, with the shipped model and every default; the training is killed in the middle."""
    bring(tmp_path, 200)
    monkeypatch.chdir(tmp_path)
    follow(documented(), tmp_path, ROOT / "checkpoints" / "plume-tiny")
    results = check(tmp_path, 200, capsys.readouterr().out)
    assert sum(len(row.negatives) for row in read_pairs([tmp_path / "mined.jsonl"])) > 20
    assert results["ndcg_at_10"] > results["before"]["ndcg_at_10"] + 0.05
