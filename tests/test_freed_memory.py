"""Memory that is freed and taken again: which processes keep it, and that it costs no page faults there."""

import os
import subprocess
import sys

import pytest

resource = pytest.importorskip("resource", reason="Windows counts no page faults")

SIZE = 2**26  # above what glibc takes from its heap by default
# Faults of the second piece of a size, the first being freed.
FAULTS = f"""
def faults():
    import resource
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        piece = b"x" * {SIZE}
        del piece
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
IN_SMALL_PAGES = SIZE // os.sysconf("SC_PAGE_SIZE")


def has_glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").startswith("glibc")
    except ValueError:
        return False


def said_by(program: str, **environment: str) -> str:
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC", "MALLOC"))}
    command = [sys.executable, "-c", FAULTS + program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=settings | environment)
    return done.stdout.splitlines()[-1]


@pytest.mark.skipif(not has_glibc(), reason="there is no glibc here")
@pytest.mark.parametrize(
    "begin",
    [
        "from plume_embed.freed_memory import keep_freed_memory; assert keep_freed_memory()",
        "import sys; sys.argv[1:] = ['--version']; from plume_embed.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass",
    ],
    ids=["called", "command"],
)
def test_a_piece_that_was_freed_is_taken_again_without_page_faults(begin):
    assert int(said_by(f"{begin}\nprint(faults())")) < IN_SMALL_PAGES / 4


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"])
def test_what_a_user_has_set_for_the_memory_stays(name):
    value = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}.get(name, "100000")
    program = "from plume_embed.freed_memory import keep_freed_memory; print(keep_freed_memory())"
    assert said_by(program, **{name: value}) == "False"


def test_a_program_that_imports_the_package_keeps_its_own_settings():
    program = """
from unittest import mock
import ctypes
with mock.patch.object(ctypes, "CDLL", side_effect=AssertionError):
    import plume_embed.cli.main, plume_embed.freed_memory
print("own")
"""
    assert said_by(program) == "own"
