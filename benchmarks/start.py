"""What the command line costs before a command does anything: CPU seconds and heavy modules."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass

HEAVY = ("torch", "torchvision", "transformers", "numpy", "pyarrow", "lancedb", "datasets", "yaml", "PIL")
HEAVY += ("lance_namespace", "pandas", "av", "pypdfium2", "sentence_transformers", "sklearn", "gradio")
# As the console script does it, then the exit code, the CPU time and which heavy modules are there.
_PROGRAM = f"""
import json, resource, sys
try:
    from plume_embed.__main__ import main
    main()
    code = 0
except SystemExit as stop:
    code = stop.code
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("\\n" + json.dumps([code, used.ru_utime + used.ru_stime, heavy]))
"""


@dataclass(frozen=True)
class Start:
    """One start: exit code, CPU seconds of the process, which of HEAVY it imported, what it printed, seconds."""

    code: int
    cpu_seconds: float
    heavy: list[str]
    out: str
    seconds: float


def measure_start(arguments: list[str]) -> Start:
    """Runs a command line in a process of its own."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    out, _, measured = done.stdout.rstrip("\n").rpartition("\n")
    code, cpu_seconds, heavy = json.loads(measured)
    return Start(code, cpu_seconds, heavy, out, seconds)
