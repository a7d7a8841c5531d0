"""Kills, full and read-only disks, two writers, a reader beside a writer: no row may be lost or there twice.

    python -m scripts.kills --json docs/results/kills.json

Every run is the command `plume-embed` in a process of its own. `docs/tables.py` draws the result.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.atomic import write_json
from scripts.faults.commands import SAME
from scripts.faults.company import reader_beside_writer, two_writers
from scripts.faults.disks import full_disk, read_only
from scripts.faults.killing import kill_embed, kill_index

ROOT = Path(__file__).resolve().parent.parent


def main(
    kills: Annotated[int, typer.Option(help="Of `index`, and as many of `embed`.")] = 12,
    size: Annotated[int, typer.Option(help="Items in the folder, about, and lines of the JSONL file.")] = 80,
    only: Annotated[list[str] | None, typer.Option(help="Names of parts; repeatable. Default: all.")] = None,
    model: Annotated[Path, typer.Option(help="Model folder.")] = ROOT / "checkpoints" / "plume-tiny",
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the result; parts join it.")] = None,
) -> None:
    """Runs the parts.

    Exits with 1 if a row was lost or doubled, a command ended otherwise than it should, or no kill came amid the work.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for part in only or PARTS:
            begun, work = time.monotonic(), Path(temporary, part)
            work.mkdir()
            for result in PARTS[part](work, model, kills, size, seed):
                found[part] = result
                print(f"{part}: {result} after {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)
                if json_file is not None:
                    write_json(json_file, _kept(json_file) | found)
    raise typer.Exit(0 if all(is_right(part, result) for part, result in found.items()) else 1)


def is_right(part: str, result: Any) -> bool:
    """Whether a part found nothing wrong, and kills came behind writes."""
    rows = result if isinstance(result, list) else [result]
    if part.startswith("kill_"):
        is_amid = 0 < result["at_end"] <= result["behind_a_write"]  # else the kills show nothing
        is_none = result["lost"] == result["extra"] == result["redone"] == result["left_over"] == 0
        return is_amid and is_none and result["largest_difference"] <= SAME
    return all(row["is_right"] for row in rows)


def markdown(found: dict[str, Any]) -> str:
    """The result as a table, a line for each part that was run."""
    lines = ["| what was done | how often | rows lost | rows too many | otherwise wrong |", "|---|---|---:|---:|---:|"]
    cells: list[tuple[Any, ...]] = []
    for row in (found[part] for part in ("kill_index", "kill_embed") if part in found):
        often = f"{row['kills']} kills in {row['rounds']} rounds, {row['rows']:,} rows; {row['behind_a_write']} kills "
        often += f"behind a write, {row['at_end']} of them behind the last item"
        wrong = row["redone"] + row["left_over"]
        cells.append((f"`{row['command']}` killed, then continued", often, row["lost"], row["extra"], wrong))
    for command in ("index", "embed"):
        if rows := [row for row in found.get("full_disk", ()) if row["command"] == command]:
            how = rows[0]["stand_in"] or "a full disk (tmpfs)"
            often = f"{sum(row['code'] != 0 for row in rows)} of {len(rows)} ran full"
            lost, extra = (sum(row[name] for row in rows) for name in ("lost", "extra"))
            wrong = sum(not row["is_right"] for row in rows)
            cells.append((f"`{command}` on {how}, then with room", often, lost, extra, wrong))
    if rows := found.get("read_only"):
        cells.append(("a read-only disk", f"{len(rows)} cases", 0, 0, sum(not row["is_right"] for row in rows)))
    for row in found.get("two_writers", ()):
        often = f"{row['times']} pairs, {row['refused']} refused"
        cells.append((f"two `{row['command']}` at once", often, row["lost"], row["extra"], int(not row["is_right"])))
    if row := found.get("reader"):
        often = f"{row['reads']} reads and {row['searches']} commands"
        cells.append(("`search` beside `index`", often, "-", "-", row["wrong"]))
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in cells)])


PARTS: dict[str, Callable[[Path, Path, int, int, int], Iterable[Any]]] = {  # each gives what it has found so far
    "kill_index": lambda *arguments: map(vars, kill_index(*arguments)),
    "kill_embed": lambda *arguments: map(vars, kill_embed(*arguments)),
    "full_disk": lambda work, model, kills, size, seed: [full_disk(work, model, size)],
    "read_only": lambda work, model, kills, size, seed: [read_only(work, model, size // 2)],
    "two_writers": lambda work, model, kills, size, seed: [two_writers(work, model, size, times=3)],
    "reader": lambda work, model, kills, size, seed: [reader_beside_writer(work, model, size, searches=3)],
}


def _kept(json_file: Path) -> dict[str, Any]:
    return json.loads(json_file.read_text()) if json_file.exists() else {}


if __name__ == "__main__":
    typer.run(main)
