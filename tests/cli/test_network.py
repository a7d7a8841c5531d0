"""No command reaches for another machine unless the user named a model of the Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMANDS = (
    *("convert", "index", "search", "embed", "init", "export"),
    *("evaluate mmeb-v2", "train", "report", "bench adapter"),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[str, dict]:
    """What a process saw that is not set offline and whose sockets are blocked, see offline_commands.py."""
    work = tmp_path_factory.mktemp("offline")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    environment |= {"HF_HOME": str(work / "home"), "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))}
    command = [sys.executable, str(ROOT / "tests/offline_commands.py"), str(ROOT), str(work)]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert (work / "report.json").is_file(), done.stderr[-3000:]
    return json.loads((work / "report.json").read_text()) | {"stderr": {"text": done.stderr}}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_over_local_files_works_without_asking_any_machine(report, command):
    ran = {name: seen for name, seen in report.items() if name.startswith(command)}
    assert ran, report.keys()
    for name, seen in ran.items():
        assert seen["attempts"] == [], name
        assert seen["code"] == 0, (name, report["stderr"]["text"][-2000:])


def test_the_block_is_seen_where_a_model_of_the_hub_is_named(report):
    seen = report["a model of the Hub"]
    assert seen["code"] == 2 and seen["attempts"]
