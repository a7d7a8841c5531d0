"""Training in two processes, started as a user starts it: the same curve as in one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from plume_embed.training.log import read_log
from training.hops import HOPS

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ["curriculum.max_steps=10", "curriculum.shares=[2,2,2,2,2]", "batch_size=8", "workers=0", "logging_steps=1"]
SETTINGS += ["gates.explicit_hit_at_1=null", "save_steps=3"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(out: Path, num_processes: int, *settings: str) -> list[str]:
    """Training of hops, as a user starts it."""
    return launcher_of(HOPS, num_processes, *SETTINGS, f"output_dir={out}", *settings)


def launcher_of(recipe: str, num_processes: int, *settings: str) -> list[str]:
    """What a user would type: `torchrun --nproc-per-node 2 -m plume_embed train RECIPE ...`.

    `accelerate launch --cpu --num_processes 2` starts a single process (without MPI).
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    launcher += ["-m", "plume_embed", "train", recipe]
    for setting in settings:
        launcher += ["--set", setting]
    return launcher


def losses(out: Path) -> list[dict]:
    """The log without warnings."""
    return read_log(out, having="loss")


def launch(out: Path, num_processes: int, *settings: str, resume: bool = False) -> list[dict]:
    """Trains to the end; returns the log."""
    arguments = command(out, num_processes, *settings) + ["--resume"] * resume
    done = subprocess.run(arguments, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((out / "results.json").read_text())["hit_at_1"] < 0.3
    assert len(list((out / "checkpoint-10").glob("random-*"))) == num_processes
    return losses(out)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("chunk_size=2", "checkpoint_layers=true")], ids=["direct", "in chunks"])
def test_two_processes_train_along_the_curve_of_one(tmp_path, settings):
    one, two = (launch(tmp_path / str(count), count, *settings) for count in (1, 2))
    assert [entry["step"] for entry in two] == list(range(1, 11))
    for name in ("loss", "nce_gen", "nce_anchor", "ce"):
        mine, theirs = ([entry[name] for entry in log] for log in (one, two))
        assert theirs == pytest.approx(mine, rel=2e-3), name


@pytest.mark.slow
def test_two_processes_that_were_killed_resume_to_exactly_the_same_curve_and_weights(tmp_path):
    """And one process alone may not go on for two: each has random numbers of its own."""
    whole = launch(tmp_path / "whole", 2)
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed, 2), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 500
    while not ((killed / "log.jsonl").exists() and len(losses(killed)) >= 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    for worker in psutil.Process(process.pid).children(recursive=True):  # they outlive the launcher
        worker.kill()
    process.wait()
    assert not (killed / "results.json").exists()
    alone = [*command(killed, 1), "--resume"]
    refused = subprocess.run(alone, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert refused.returncode != 0 and "resume with as many processes as the run had" in refused.stderr
    resumed = launch(killed, 2, "save_steps=3", resume=True)
    assert json.loads((killed / "results.json").read_text())["resumed_from"] in ("checkpoint-3", "checkpoint-6")
    clock = {"pairs_per_second"}
    mine, theirs = ([{k: v for k, v in entry.items() if k not in clock} for entry in log] for log in (whole, resumed))
    assert mine == theirs
    weights = [load_file(out / "model" / "model.safetensors") for out in (tmp_path / "whole", killed)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.slow
def test_processes_whose_pairs_have_negatives_in_different_numbers_train_along_the_curve_of_one(
    tmp_path, released_model_dir
):
    """So that in a step one has a single chunk of targets and the other has two."""
    rows = [{"query": f"number {n}", "positive": f"the number {n}"} for n in range(24)]
    for row in rows[::4]:
        row["negatives"] = [f"not {row['positive']}"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [f"data.files=[{tmp_path / 'pairs.jsonl'}]", f"model.path={released_model_dir}", "batch_size=8"]
    settings += ["chunk_size=4", "curriculum.max_steps=4", "curriculum.num_latent_steps=1", "logging_steps=1"]
    settings += ["early_stopping=null"]
    logs = []
    for count in (1, 2):
        out = tmp_path / str(count)
        arguments = launcher_of("pairs", count, *settings, f"output_dir={out}")
        done = subprocess.run(arguments, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]
        logs.append([entry["loss"] for entry in losses(out)])
    assert logs[1] == pytest.approx(logs[0], rel=2e-3)
