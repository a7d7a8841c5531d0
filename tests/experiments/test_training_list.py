"""`python -m training` lists every experiment, and its README has a row for each."""

import subprocess
import sys
from pathlib import Path

from training.__main__ import EXPERIMENTS

ROOT = Path(__file__).parent.parent.parent


def test_every_experiment_has_results_that_exist_and_a_command_in_the_readme():
    readme = (ROOT / "training" / "README.md").read_text()
    for experiment in EXPERIMENTS:
        assert f"`{experiment.command}`" in readme, experiment.name
        assert all((ROOT / path).is_file() for path in experiment.results), experiment.name


def test_every_folder_with_results_is_one_of_an_experiment():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "training").rglob("results/*.json")}
    listed = {Path(path).parent for experiment in EXPERIMENTS for path in experiment.results}
    assert folders <= listed


def test_the_command_lists_them_and_refuses_a_name_that_there_is_not():
    command = [sys.executable, "-m", "training"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(experiment.command in listed for experiment in EXPERIMENTS)
    refused = subprocess.run([*command, "hopps"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "no experiment hopps" in refused.stderr
