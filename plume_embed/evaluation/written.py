"""What `plume-embed evaluate BENCHMARK --json FILE` wrote, read back."""

from pathlib import Path
from typing import Any

from plume_embed.stored import read_json


def read_results(file: Path, benchmark: str) -> dict[str, Any]:
    """The results in a file.

    Args:
        file: What was written.
        benchmark: As the command calls it.

    Raises:
        ValueError: there is no such file, it is damaged, or it holds something else.
    """
    remedy = f"Give what `plume-embed evaluate {benchmark} --json FILE` wrote."
    if not file.is_file():
        raise ValueError(f"There is no file {file}. {remedy}")
    found = read_json(file, remedy)
    if not isinstance(found, dict) or found.get("benchmark") != benchmark:
        raise ValueError(f"{file} holds other results. {remedy}")
    return found
