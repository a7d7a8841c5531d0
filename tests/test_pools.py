"""Workers of a pool end when the process that started them is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plume_embed.pools import end_with_parent

SCRIPT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from plume_embed.pools import end_with_parent

def work(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    if sys.argv[1] == "pool":
        with multiprocessing.Pool(1, end_with_parent) as pool:
            pool.map(work, [60])
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, end_with_parent) as pool:
            pool.submit(work, 60).result()
"""


def test_a_process_that_is_no_worker_is_refused():
    with pytest.raises(RuntimeError, match="pass it as their initializer"):
        end_with_parent()


def is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="there is no /proc here")
@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_a_worker_ends_with_the_process_that_started_it(tmp_path, kind):
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen([sys.executable, tmp_path / "script.py", kind], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        assert is_running(worker)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 30
        while is_running(worker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(worker)
