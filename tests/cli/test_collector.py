"""The garbage collector of a command's process: it waits for the libraries, and only there."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from plume_embed.cli import collector
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.main import main

# `plume-embed` as its process runs it, then whether garbage is collected and what is set aside.
PROGRAM = """
import gc, sys
from plume_embed.__main__ import main
try:
    main()
finally:
    print("\\n", gc.isenabled(), gc.get_freeze_count(), file=sys.stderr)
"""


def test_a_command_sets_its_libraries_and_its_model_aside_and_collects_from_there_on(
    tmp_path: Path, released_model_dir: Path
):
    (tmp_path / "a.txt").write_text("a whale")
    command = [sys.executable, "-c", PROGRAM, "search", tmp_path, "a whale", "--model", released_model_dir, "--paths"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    enabled, frozen = done.stderr.split()[-2:]
    assert done.stdout == f"{tmp_path / 'a.txt'}\n"
    assert enabled == "True" and int(frozen) > 200_000  # torch and transformers make twice as many


def test_a_program_that_calls_the_command_line_keeps_its_own_settings(capsys: pytest.CaptureFixture):
    before = gc.get_freeze_count()
    with pytest.raises(SystemExit):
        main(["--version"])
    with heavy_imports():
        assert gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == before
    gc.disable()
    try:
        with heavy_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_nothing_is_collected_between_wait_and_go_on():
    collector.wait()
    try:
        assert not gc.isenabled()
        collector.go_on()
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.enable()
