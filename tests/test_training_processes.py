"""Training in two processes, started as a user starts it: the same curve as in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETTINGS = ["curriculum.max_steps=10", "curriculum.shares=[2,2,2,2,2]", "batch_size=8", "workers=0", "logging_steps=1"]
SETTINGS += ["gates.explicit_hit_at_1=null"]


def launch(out: Path, num_processes: int, *settings: str) -> list[dict]:
    """Trains by `accelerate launch --cpu`; returns the log."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(num_processes)]
    command += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--num_cpu_threads_per_process",
        "1",
    ]
    command += ["-m", "training.cli", "hops"]
    for setting in (*SETTINGS, f"output_dir={out}", *settings):
        command += ["--set", setting]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((out / "results.json").read_text())["hit_at_1"] < 0.3
    return [entry for line in (out / "log.jsonl").read_text().splitlines() if "loss" in (entry := json.loads(line))]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("chunk_size=2", "checkpoint_layers=true")], ids=["direct", "in chunks"])
def test_two_processes_train_along_the_curve_of_one(tmp_path, settings):
    one, two = (launch(tmp_path / str(count), count, *settings) for count in (1, 2))
    assert [entry["step"] for entry in two] == list(range(1, 11))
    for name in ("loss", "nce_gen", "nce_anchor", "ce"):
        mine, theirs = ([entry[name] for entry in log] for log in (one, two))
        assert theirs == pytest.approx(mine, rel=2e-3), name
