"""Hit@1 on `scene_hops` by number of hops and by the family of the last one, beside what guessing comes to.

python -m training.scene_hops.tables RESULTS.json
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from training.scene_hops.scenes import FAMILIES, MAX_HOPS

GUESSES = {
    "constant": "guess: the most frequent answer",
    "start": "guess: the picture at the start",
    "bag_of_pictures": "guess: one of the scene's pictures",
}


def by_hops(results: Mapping[str, Any]) -> str:
    """A line for each row of the ablations: means over its seeds, in percent.

    Args:
        results: What `training.ablations.grid --task scene_hops` writes.
    """
    numbers = [str(number) for number in range(MAX_HOPS + 1)]
    lines = [
        f"| Hit@1 % by hops | seeds | {' | '.join(numbers)} | "
        f"{' | '.join(f'last hop: {family}' for family in FAMILIES)} |",
        f"|---|---:|{'---:|' * (len(numbers) + len(FAMILIES))}",
    ]
    for row in results["rows"].values():
        hits = [row["hit_at_1_by_hops"][n] for n in numbers] + [row["hit_at_1_by_last_hop"][f] for f in FAMILIES]
        lines.append(_line(row["label"], str(len(row["runs"])), hits))
    first = next(iter(results["rows"].values()))["runs"]
    chance = next(iter(first.values()))["chance_by_hops"]  # of the test queries, which are the same for every run
    for guess, label in GUESSES.items():
        lines.append(_line(label, "", [chance[n][guess] for n in numbers], len(FAMILIES)))
    return "\n".join(lines)


def main(results: Annotated[Path, typer.Argument(help="What the grid of scene_hops wrote.")]) -> None:
    """Print the table."""
    typer.echo(by_hops(json.loads(results.read_text())))


def _line(label: str, seeds: str, hits: list[float], empty: int = 0) -> str:
    return f"| {' | '.join([label, seeds, *(f'{100 * hit:.0f}' for hit in hits), *[''] * empty])} |"


if __name__ == "__main__":
    typer.run(main)
