"""The log of a run: `log.jsonl`, one JSON object a line, appended to while the run goes on."""

import json
from pathlib import Path
from typing import Any

from plume_embed.atomic import write_text
from plume_embed.stored import naming

LOG_FILE = "log.jsonl"
# What a run leaves at its end, beside its log.
RESULTS_FILE = "results.json"
MODEL_FOLDER = "model"
MERGED_FOLDER = "merged"  # of a LoRA run, whose `model/` holds the updates alone


def append_log(folder: Path, entry: dict[str, Any]) -> None:
    """Adds an entry to the log in a run's folder."""
    with (folder / LOG_FILE).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def read_log(folder: Path, having: str | None = None) -> list[dict[str, Any]]:
    """The entries of a run's folder, none where there is no log. A last line that a kill has cut short is left out.

    Args:
        having (`str`, *optional*): Only the entries with this key, such as "loss" or "warning".

    Raises:
        ValueError: a line before the last is no JSON object, naming it.
    """
    path = folder / LOG_FILE
    with naming(path):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or "step" not in entry:
                raise ValueError("an entry is an object with a step")
            entries.append(entry)
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}:{number} is not an entry of a log: {error}") from error
    return [entry for entry in entries if having is None or having in entry]


def cut_log(folder: Path, step: int) -> None:
    """Drops what a killed run logged behind the checkpoint that is resumed from."""
    kept = [entry for entry in read_log(folder) if entry["step"] <= step]
    if (folder / LOG_FILE).is_file():
        write_text(folder / LOG_FILE, "".join(f"{json.dumps(entry)}\n" for entry in kept))
