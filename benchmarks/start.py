"""What a command costs, from the start of its process to its end: CPU seconds, and which heavy modules it imports."""

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

HEAVY = ("torch", "torchvision", "transformers", "numpy", "pyarrow", "lancedb", "datasets", "yaml", "PIL")
HEAVY += ("lance_namespace", "pandas", "av", "pypdfium2", "sentence_transformers", "sklearn", "gradio")
# As the console script does it, then the exit code, the CPU time and which heavy modules are there.
_PROGRAM = f"""
import json, sys
try:
    from plume_embed.__main__ import main
    main()
    code = 0
except SystemExit as stop:
    code = stop.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("\\n" + json.dumps([code, heavy]))
"""


@dataclass(frozen=True)
class Start:
    """One start: exit code, CPU seconds up to the end of the process, which of HEAVY it imported, what it printed,
    seconds."""

    code: int
    cpu_seconds: float
    heavy: list[str]
    out: str
    seconds: float


def measure_start(arguments: list[str], before: str = "") -> Start:
    """Runs a command line in a process of its own.

    Args:
        before (`str`): Python to run there first.
    """
    began, used = time.perf_counter(), _cpu_seconds_of_children()
    program = f"{before}\n{_PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    out, _, measured = done.stdout.rstrip("\n").rpartition("\n")
    code, heavy = json.loads(measured)
    return Start(code, _cpu_seconds_of_children() - used, heavy, out, seconds)


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
