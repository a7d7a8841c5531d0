"""Commands called in this process, and what a refusal looks like: code 2, one line that names the thing."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from damaged_files import MUTATIONS, picture
from limits import within_limits

from plume_embed.cli.main import main

Damage = Callable[[Path], object]
_UNFORESEEN = re.compile(r"\b(?:Key|Type|Index|Attribute|Runtime|Assertion)Error\b|Traceback|object at 0x")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def assert_refused(self, pattern: str) -> None:
        """Fails unless it was refused in one line that the pattern matches."""
        assert self.code == 2, f"code {self.code}: {self.err}{self.out}"
        assert self.err.startswith("plume-embed: ") and self.err.count("\n") == 1 and len(self.err) < 1500, self.err
        assert re.search(pattern, self.err) and not _UNFORESEEN.search(self.err), self.err

    def assert_failed_in_part(self, pattern: str) -> None:
        """Fails unless one part of the work failed, named in a line of the output, and the command went on."""
        lines = [line for line in self.out.splitlines() if re.search(pattern, line)]
        assert self.code == 1 and not self.err and lines, f"code {self.code}: {self.err}{self.out}"
        assert not _UNFORESEEN.search(self.out), self.out


def call(capsys: pytest.CaptureFixture, *arguments: object) -> Ended:
    """Runs `plume-embed` in this process, within the limits of a hostile input."""
    capsys.readouterr()
    with within_limits(" ".join(map(str, arguments[:2]))), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Ended(ended.value.code, captured.out, captured.err)


def write_pairs(folder: Path, count: int) -> Path:
    """`pairs.jsonl` with so many rows of a text and a picture, and the pictures; gives the folder."""
    for number in range(count):
        picture(number).save(folder / f"{number}.png")
    rows = [{"query": f"a boat {number}", "positive": {"image": f"{number}.png"}} for number in range(count)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def mutated(name: str, mutation: str) -> Damage:
    """Damages a file of a folder."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(MUTATIONS[mutation](data, random.Random(f"{mutation} {name}")))

    return damage


def written(name: str, data: bytes | str) -> Damage:
    """Puts other content into a file of a folder."""
    return lambda folder: (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def removed(name: str) -> Damage:
    """Removes a file of a folder."""
    return lambda folder: (folder / name).unlink()
