"""The committed results that tables and figures of the documents are made of."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
H100 = "benchmarks/results/nvidia-h100-80gb-hbm3.json"
INTEL_2_80_GHZ = "benchmarks/results/intel-xeon-2.80ghz-cpu.json"


def read(path: str) -> Any:
    """A JSON file, by its path below the root."""
    return json.loads((ROOT / path).read_text())


def model_named(report: dict, name: str) -> dict:
    """The entry of a model in the report of an evaluation."""
    return next(model for model in report["models"] if model["model"] == name)
