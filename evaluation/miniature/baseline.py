"""What pixels alone achieve: nearest 16 x 16 thumbnails. `python -m evaluation.miniature.baseline --data DIR`.

A model that does not beat these has learned nothing worth a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from plume_embed.evaluation.miniature.score import hit_at_k
from plume_embed.evaluation.miniature.sources import TRAIN_STYLES
from plume_embed.evaluation.miniature.tasks import SPLITS, RetrievalTask, Row, all_tasks, label_text, load

SIDE = 16
NOTHING_FOUND = -np.inf


def thumbnail(picture: Image.Image) -> NDArray[np.float32]:
    """A picture as a unit vector: 16 x 16 RGB values less their mean, `[768]`."""
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(small, dtype=np.float32).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def thumbnails(pictures: Dataset) -> NDArray[np.float32]:
    """All pictures' thumbnails, `[rows, 768]`."""
    return np.stack([thumbnail(image) for image in track(pictures["image"], "thumbnails", total=len(pictures))])


def similarity(task: RetrievalTask, rows: Sequence[Row], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The pixel baseline's similarities for one task, `[queries, candidates]`.

    Args:
        task: One of `all_tasks(rows)`.
        rows: The rows of all pictures.
        vectors: `[rows, 768]`, as `thumbnails` returns them.
    """
    if task.name == "picture -> picture":
        return vectors[task.queries] @ vectors[task.candidates].T
    if task.name == "text -> picture":
        return _by_looked_up_picture(task, rows, vectors)
    if task.name == "picture -> label":
        return _by_nearest_training_picture(task, rows, vectors)
    raise ValueError(f"no pixel baseline for the task {task.name!r}.")


def _by_looked_up_picture(
    task: RetrievalTask, rows: Sequence[Row], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The text is looked up among the labels of the training styles, held-out ones too: a generous baseline."""
    found: dict[str, int] = {}
    for style in reversed(TRAIN_STYLES):  # so that the first style wins
        found |= {row.label: number for number, row in enumerate(rows) if row.style == style}
    result = np.full((len(task.queries), len(task.candidates)), NOTHING_FOUND, dtype=np.float32)
    known = [n for n, label in enumerate(task.queries) if label in found]
    result[known] = vectors[[found[str(task.queries[n])] for n in known]] @ vectors[task.candidates].T
    return result


def _by_nearest_training_picture(
    task: RetrievalTask, rows: Sequence[Row], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A label is as similar as the nearest picture that training shows under it."""
    shown: dict[str, list[int]] = {str(label): [] for label in task.candidates}
    for number, row in enumerate(rows):
        trained = row.style in TRAIN_STYLES and row.split_family == SPLITS["known"] and not row.skin_tone
        if trained and label_text(row.subgroup) in shown:
            shown[label_text(row.subgroup)].append(number)
    result = np.full((len(task.queries), len(task.candidates)), NOTHING_FOUND, dtype=np.float32)
    queries = vectors[task.queries]
    for column, examples in enumerate(shown.values()):
        if examples:
            result[:, column] = (queries @ vectors[examples].T).max(axis=1)
    return result


def main(
    data: Annotated[Path, typer.Option(help="Folder that `python -m evaluation.miniature.build` wrote.")],
) -> None:
    """Print the pixel baselines, e.g. `python -m evaluation.miniature.baseline --data .data/miniature`."""
    console = Console()
    try:
        pictures, rows = load(data)
    except FileNotFoundError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        raise typer.Exit(1) from None
    vectors = thumbnails(pictures)
    table = Table(title="Nearest 16 x 16 thumbnail, with and without country flags")
    for column in ("task", "concepts", "flags", "queries", "pool", "Hit@1", "Hit@5"):
        table.add_column(column, justify="left" if column in ("task", "concepts", "flags") else "right")
    for flags in (True, False):
        for task in all_tasks(rows, country_flags=flags):
            scores = similarity(task, rows, vectors)
            hits = (f"{hit_at_k(scores, task.positives, k):.1%}" for k in (1, 5))
            sizes = (f"{len(items):,}" for items in (task.queries, task.candidates))
            table.add_row(task.name, task.split, "with" if flags else "without", *sizes, *hits)
        table.add_section()
    console.print(table)
    console.print("text -> picture looks the label up in the training styles, for unseen concepts too.", style="dim")


if __name__ == "__main__":
    typer.run(main)
