"""A model on the stills, beside the pixels: `python -m evaluation.miniature.evaluate --data DIR --model DIR`."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from datasets import Dataset
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.evaluation.miniature import baseline
from plume_embed.evaluation.miniature.score import hit_at_k
from plume_embed.evaluation.miniature.tasks import Item, RetrievalTask, Row, all_tasks, inputs, load


def embed(
    items: list[Item],
    pictures: Dataset,
    model: PlumeModel,
    processor: PlumeProcessor,
    num_latent_steps: int | None,
    batch_size: int,
) -> dict[Item, NDArray[np.float32]]:
    """Each distinct item's vector, `[D]`, float32, unit norm."""
    # Texts of a length side by side, so that little is padded; pictures are all of one size.
    distinct = sorted(
        set(items), key=lambda item: (isinstance(item, int), len(item) if isinstance(item, str) else item)
    )
    vectors: dict[Item, NDArray[np.float32]] = {}
    for start in track(range(0, len(distinct), batch_size), "embedding", transient=True):
        part = distinct[start : start + batch_size]
        with torch.inference_mode():
            output = model(**processor(inputs(part, pictures)), num_latent_steps=num_latent_steps)
        vectors.update(zip(part, output.embeddings.numpy(), strict=True))
    return vectors


def evaluate(data: Path, model_dir: Path, num_latent_steps: int | None = None, batch_size: int = 64) -> dict:
    """Hit@1 and Hit@5 of a model and of the pixel baseline on each task, with and without country flags.

    Returns:
        `with_country_flags` and `without_country_flags`, each a list of one dict a task: task, split, queries, pool,
        hit_at_1, hit_at_5, thumbnail_hit_at_1, thumbnail_hit_at_5 (0..1).
    """
    pictures, rows = load(data)
    model = PlumeModel.from_pretrained(model_dir).eval()
    processor = PlumeProcessor.from_pretrained(model_dir)
    needed = [item for task in all_tasks(rows) for item in (*task.queries, *task.candidates)]
    vectors = embed(needed, pictures, model, processor, num_latent_steps, batch_size)
    thumbnails = baseline.thumbnails(pictures)
    report = {"model": str(model_dir), "num_latent_steps": num_latent_steps}
    for name, country_flags in (("with_country_flags", True), ("without_country_flags", False)):
        report[name] = [_score(task, rows, vectors, thumbnails) for task in all_tasks(rows, country_flags)]
    return report


def _score(
    task: RetrievalTask, rows: list[Row], vectors: dict[Item, NDArray[np.float32]], thumbnails: NDArray[np.float32]
) -> dict:
    queries = np.stack([vectors[item] for item in task.queries])
    candidates = np.stack([vectors[item] for item in task.candidates])
    of_model, of_pixels = queries @ candidates.T, baseline.similarity(task, rows, thumbnails)
    counts = {"queries": len(task.queries), "pool": len(task.candidates)}
    hits = {f"hit_at_{k}": hit_at_k(of_model, task.positives, k) for k in (1, 5)}
    hits |= {f"thumbnail_hit_at_{k}": hit_at_k(of_pixels, task.positives, k) for k in (1, 5)}
    return {"task": task.name, "split": task.split, **counts, **hits}


def table(results: list[dict], title: str) -> Table:
    """The results as a table, in percent."""
    shown = Table(title=title)
    for column in ("task", "concepts", "queries", "pool", "Hit@1", "Hit@5", "thumbnails @1", "thumbnails @5"):
        shown.add_column(column, justify="left" if column in ("task", "concepts") else "right")
    for r in results:
        scores = (r["hit_at_1"], r["hit_at_5"], r["thumbnail_hit_at_1"], r["thumbnail_hit_at_5"])
        counts = (f"{r['queries']:,}", f"{r['pool']:,}")
        shown.add_row(r["task"], r["split"], *counts, *(f"{100 * score:.1f}" for score in scores))
    return shown


def markdown(report: dict) -> str:
    """The table of the README: both pools of each task, Hit@1 and the thumbnails' beside it."""
    lines = ["| task | concepts | pool | Hit@1 % | Hit@5 % | thumbnails Hit@1 % |", "|---|---|---|---|---|---|"]
    for name, flags in (("with_country_flags", ""), ("without_country_flags", ", no flags")):
        for r in report[name]:
            scores = (r["hit_at_1"], r["hit_at_5"], r["thumbnail_hit_at_1"])
            cells = (r["task"], r["split"] + flags, f"{r['pool']:,}", *(f"{100 * score:.1f}" for score in scores))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    data: Annotated[Path, typer.Option(help="Folder that `python -m evaluation.miniature.build` wrote.")],
    model: Annotated[Path, typer.Option(help="Model folder.")] = Path("checkpoints/plume-tiny"),
    latent_steps: Annotated[
        int | None, typer.Option(help="K; the model's own if left out, 0 is a single pass.")
    ] = None,
    json_to: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Print a model's hits beside the pixel baseline's, with and without country flags."""
    console = Console()
    report = evaluate(data, model, latent_steps)
    for name in ("with_country_flags", "without_country_flags"):
        title = f"{model}, K = {'default' if latent_steps is None else latent_steps}, {name.replace('_', ' ')}"
        console.print(table(report[name], title))
    console.print(markdown(report), markup=False)
    if json_to is not None:
        json_to.parent.mkdir(parents=True, exist_ok=True)
        json_to.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
