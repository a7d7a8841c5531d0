"""Results as JSON with their conditions, and as a table."""

import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from plume_embed.bench.timing import clock_of

ROOT = Path(__file__).parent.parent.parent
_COLUMNS = ("name", "batch", "prefix", "kind", "steps", "ms_median", "ms_spread", "samples_per_s")
_COLUMNS += (
    "bytes_read",
    "flops",
    "limit_ms",
    "times_limit",
    "ratio_to_single_pass",
    "ratio_to_batched",
    "times_ours",
    "times_model",
    "num_batches",
    "share_of_tokens_padded",
    "calls",
    "ms",
    "share",
    "dtype",
    "worst_difference",
    "error",
    "error_of_reference",
    "equal",
    "note",
)


def environment(device: torch.device, clock: str | None = None) -> dict[str, Any]:
    """Machine, versions, commit and conditions; `finished` is the time of the call, so call it at the end.

    Args:
        clock: "cpu" or "wall", where it was not what `clock_of` chooses.
    """
    return {
        "device": device_name(device),
        "machine": f"{platform.system()} {platform.machine()}",
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "commit": commit(),
        "clock": {"cpu": "process CPU time", "wall": "wall time"}[clock or clock_of(device)],
        "finished": now(),
    }


def now() -> str:
    """The time as results have it, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def device_name(device: torch.device) -> str:
    """The maker's name of the GPU or the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """The checkout's commit, with "+" where files differ from it; "unknown" outside one."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if dirty.stdout.strip() else "")


def slug(name: str) -> str:
    """A device name as a file name."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def table(rows: list[dict[str, Any]]) -> str:
    """Rows in aligned columns; columns that no row has are left out."""
    columns = [column for column in _COLUMNS if any(row.get(column) is not None for row in rows)]
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [columns, ["-" * width for width in widths], *cells]
    padded = ([cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line) for line in padded)


def markdown(report: dict[str, Any]) -> str:
    """The table of the documents: ratios only, absolute times say nothing about another machine. Of a report without
    limits, the column is left out."""
    rows = [row for row in report["rows"] if _is_shown(row)]
    with_limits = any("times_limit" in row for row in rows)
    head = ["", "batch", "over a single pass", "over ours (static)", *(["times the limit"] if with_limits else []), ""]
    lines = ["|" + "|".join(f" {title} " if title else " " for title in head) + "|", "|" + "---|" * len(head)]
    for row in rows:
        shown = [row.get(name) for name in ("ratio_to_single_pass", "times_ours")]
        shown += [row.get("times_limit")] if with_limits else []
        cells = [row["name"], str(row["batch"]), *map(_cell, shown), row.get("note") or ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_shown(row: dict[str, Any]) -> bool:
    """All rows but the rollout alone where there is no limit to set it against."""
    if row["name"] == "single pass" and "times_limit" not in row:
        return False
    return bool(row.get("ratio_to_single_pass") or row.get("times_limit"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
