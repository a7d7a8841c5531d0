"""The README's Python examples run as they stand, and its file tree names what there is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plume_embed.bench.report import markdown as speed_table
from plume_embed.evaluation.miniature.report import markdown as nine_tasks

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.splitlines()[0][:50])
def test_a_python_example_runs_as_it_stands(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shown = [line.split("# ", 1)[1] for line in code.splitlines() if line.startswith("print(") and "# " in line]
    for line in shown:
        assert line in done.stdout


def test_the_table_of_the_nine_meta_tasks_is_the_one_that_was_measured():
    report = json.loads((ROOT / "evaluation" / "results" / "miniature.json").read_text())
    assert nine_tasks(report) in README
    assert all(model["means"]["mean"] is not None for model in report["models"] if model["paradigm"])


def test_the_speed_table_is_the_one_that_was_measured():
    (file,) = (ROOT / "benchmarks" / "results").glob("*cpu.json")
    assert speed_table(json.loads(file.read_text())) in README


def test_the_file_tree_names_what_there_is():
    tree = re.search(r"## Files\n.*?```text\n(.*?)```", README, flags=re.DOTALL)[1]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line and not line.startswith(" ")}
    assert {name for name in named if not (ROOT / name).exists()} == set()
    assert {file.name for file in ROOT.glob("*_plume.py")} <= named
