"""The command line starts light, and Ctrl-C ends it in one line at any moment."""

import os
import pty
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.start import measure_start

CONSOLE_SCRIPT = [sys.executable, "-c", "import sys; from plume_embed.__main__ import main; sys.exit(main())"]
SHOWING_IMPORTS = [sys.executable, "-X", "importtime", *CONSOLE_SCRIPT[1:]]
HELP = [["--help"], *([name, "--help"] for name in ("search", "train", "report", "evaluate", "bench"))]
HELP += [["evaluate", "miniature", "--help"], ["evaluate", "mmeb-v2", "--help"], ["bench", "rollout", "--help"]]
MAX_CPU_SECONDS = 0.6


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        *((arguments, 0) for arguments in HELP),
        (["--version"], 0),
        ([], 0),
        (["serch"], 2),
        (["search", ".", "--tpo"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_a_version_and_a_typo_import_nothing_heavy(arguments: list[str], code: int):
    seconds = []
    for _ in range(3):  # a machine that is busy may be slow once
        start = measure_start(arguments)
        assert (start.code, start.heavy) == (code, [])
        seconds.append(start.cpu_seconds)
        if start.cpu_seconds < MAX_CPU_SECONDS:
            break
    assert min(seconds) < MAX_CPU_SECONDS


def test_importing_the_package_imports_no_other_module():
    program = "import sys; before = set(sys.modules); import plume_embed; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['plume_embed']"


def test_public_names_are_there_on_first_use():
    program = (
        "import plume_embed, sys; assert 'torch' not in sys.modules;"
        "assert set(plume_embed.__all__) == set(dir(plume_embed));"
        "from plume_embed import *; assert PlumeModel.config_class is PlumeConfig; print(Encoder.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "Encoder\n", done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(80):
        (folder / f"{number}.txt").write_text(f"text number {number}")
    return folder


@pytest.mark.parametrize("module", ["plume_embed.cli.interrupts", "typer", "torch", "lancedb"])
def test_ctrl_c_during_an_import_is_one_line(module: str, folder: Path, released_model_dir: Path):
    process = subprocess.Popen(
        [*SHOWING_IMPORTS, "search", folder, "x", "--model", released_model_dir],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_interrupts,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        if line.startswith("import time:"):
            if line.rpartition("|")[2].strip() == module:
                process.send_signal(signal.SIGINT)
        else:
            lines.append(line)
    assert process.wait() == 130
    assert lines == ["plume-embed: stopped; run the same command again to go on where it was.\n"]


def test_ctrl_c_in_the_middle_of_a_call_of_the_database_is_one_line(folder: Path, released_model_dir: Path):
    program = (
        "import signal, sys; from plume_embed.__main__ import main;"
        "import lancedb.background_loop as background;"
        "background.BackgroundEventLoop.run = lambda self, coroutine: signal.raise_signal(signal.SIGINT);"
        "sys.argv[0] = 'plume-embed'; main()"
    )
    command = [sys.executable, "-c", program, "search", folder, "x", "--model", released_model_dir]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_heed_interrupts)
    assert done.stderr == "plume-embed: stopped; run the same command again to go on where it was.\n"
    assert done.returncode == 130


@pytest.mark.parametrize("delay", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_ctrl_c_during_the_work_is_one_line_and_the_index_goes_on(delay: float, folder: Path, released_model_dir: Path):
    command = [*CONSOLE_SCRIPT, "index", folder, "--batch-size", "1", "--model", released_model_dir]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts)
    while not (folder / ".plume-index").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert errors == "plume-embed: stopped; run the same command again to go on where it was.\n"
    assert process.returncode == 130
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "80 items of 80 files" in done.stdout, done.stderr


def test_a_spinner_shows_before_heavy_imports_and_ctrl_c_gives_the_cursor_back(folder: Path, released_model_dir: Path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*SHOWING_IMPORTS, "search", folder, "x", "--model", released_model_dir],
        stderr=theirs,
        stdout=theirs,
        env={**os.environ, "TERM": "xterm"},
        preexec_fn=_heed_interrupts,
    )
    os.close(theirs)
    shown = b""
    while b"Loading the model" not in shown and select.select([ours], [], [], 60)[0]:
        shown += os.read(ours, 1 << 16)
    before = shown.partition(b"Loading the model")[0]  # a slow reader gets what comes after it in the same piece
    imported = {line.rpartition(b"|")[2].strip() for line in before.splitlines() if line.startswith(b"import time:")}
    assert before != shown and b"rich.console" in imported
    assert not imported & {b"torch", b"numpy", b"transformers", b"lancedb", b"pyarrow"}
    process.send_signal(signal.SIGINT)
    shown = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 130
    last = [line for line in shown.splitlines() if not line.startswith(b"import time:")][-1]
    assert b"\x1b[?25h" in last and last.endswith(
        b"plume-embed: stopped; run the same command again to go on where it was."
    )


def _heed_interrupts() -> None:
    """A test run in the background may ignore SIGINT, which children would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
