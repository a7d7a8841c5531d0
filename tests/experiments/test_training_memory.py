"""Memory of a step: what was measured and committed, and that the measuring measures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.training_memory import CASES

ROOT = Path(__file__).parent.parent.parent
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "training_memory.json").read_text())["cases"]


def test_the_committed_batch_of_1024_runs_in_about_the_memory_of_16():
    assert MEASURED.keys() == CASES.keys()
    for suffix in ("", ", layers recomputed"):
        small, large = (MEASURED[f"{name}{suffix}"]["peak_mib"] for name in ("batch 16", "batch 1024 in chunks of 16"))
        assert large < small + 60  # embeddings and anchors of 1,024 rows, and what the allocator does not give back
        assert MEASURED[f"batch 128{suffix}"]["peak_mib"] > 4 * small
    assert MEASURED["batch 16, layers recomputed"]["peak_mib"] < 0.6 * MEASURED["batch 16"]["peak_mib"]


def test_the_documents_state_the_committed_peaks():
    page = (ROOT / "docs" / "results" / "speed.md").read_text()
    for name in ("batch 16", "batch 1024 in chunks of 16"):
        assert f"{MEASURED[name]['peak_mib']:.0f} MiB" in page


@pytest.mark.slow
def test_eight_times_the_rows_in_one_pass_need_several_times_the_memory_and_recomputing_saves_half():
    peaks = {}
    for case in ("batch 16", "batch 16, layers recomputed", "batch 128"):
        command = [sys.executable, "-m", "benchmarks.training_memory", "--case", case]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks[case] = json.loads(done.stdout.splitlines()[-1])["peak_mib"]
    assert peaks["batch 128"] > 3 * peaks["batch 16"]
    assert peaks["batch 16, layers recomputed"] < 0.7 * peaks["batch 16"]
