"""Uploads lie in a folder of the process, which goes with it, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import time
from space import app

app.end_on_sigterm()
folder = app.prepare_environment()
(folder / "ab12").mkdir()
(folder / "ab12" / "cat.png").write_bytes(b"x")
print(folder, flush=True)
time.sleep(120)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a Space as far as its folder; gives the process and the folder."""
    started = []

    def start() -> tuple[subprocess.Popen, Path]:
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a program could hear")
def test_a_space_that_is_told_to_stop_leaves_no_upload_behind(start, tmp_path):
    process, folder = start()
    assert (folder / "ab12" / "cat.png").is_file() and folder.stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_start_removes_what_killed_processes_have_left_and_nothing_of_those_that_live(start):
    killed, left = start()
    _, living = start()
    killed.kill()
    killed.wait()
    assert left.is_dir()
    _, new = start()
    assert not left.exists() and living.is_dir() and new.is_dir()
