"""How well a model finds the bundled demo pictures: `python -m training.plume_tiny.examples --model DIR`."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.command import run_command


def embed(model: PlumeModel, processor: PlumeProcessor, items: list, batch_size: int = 32) -> torch.Tensor:
    """Vectors [N, D] of items."""
    with torch.inference_mode():
        batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
        return torch.cat([model(**processor(batch)).embeddings for batch in batches])


def hits(model: PlumeModel, processor: PlumeProcessor, folder: Path) -> dict:
    """Each bundled picture searched by its name, and each query picture by its pixels, among all bundled pictures.

    Args:
        folder (`Path`): With `pictures/`, `queries/` and `concepts.json`, as demo_folder.py writes them.

    Returns:
        `pictures`, `names_hit_at_1`, `names_hit_at_5` (0..1), the same three `by_style` of the picture that is asked
        for (a model may be trained on that very picture), and `query_ranks`, the rank by query picture, 1 is best.
    """
    concepts = json.loads((folder / "concepts.json").read_text())
    files = [concept["file"] for concept in concepts]
    pictures = embed(model, processor, [folder / "pictures" / file for file in files])
    names = embed(model, processor, [concept["label"] for concept in concepts])
    order = (names @ pictures.T).argsort(dim=1, descending=True)
    correct = order == torch.arange(len(files))[:, None]
    queries = sorted((folder / "queries").glob("*.png"))
    ranked = (embed(model, processor, queries) @ pictures.T).argsort(dim=1, descending=True).tolist()
    styles = [concept["style"] for concept in concepts]
    by_style = {style: correct[[own == style for own in styles]] for style in sorted(set(styles))}
    return {
        **_named_first(correct),
        "by_style": {style: _named_first(rows) for style, rows in by_style.items()},
        "query_ranks": {q.name: 1 + row.index(files.index(q.name)) for q, row in zip(queries, ranked, strict=True)},
    }


def _named_first(correct: torch.Tensor) -> dict[str, float]:
    """Of names whose pictures are ranked, [N, pictures], the share with the right one first and among five."""
    first, among_five = correct[:, 0], correct[:, :5].any(dim=1)
    return {
        "pictures": len(correct),
        "names_hit_at_1": first.float().mean().item(),
        "names_hit_at_5": among_five.float().mean().item(),
    }


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")] = Path("checkpoints/plume-tiny"),
    folder: Annotated[Path, typer.Option(help="The demo's folder.")] = Path("examples"),
    json_to: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Print how well a model finds the bundled pictures, e.g. `python -m training.plume_tiny.examples`."""
    found = hits(PlumeModel.from_pretrained(model).eval(), PlumeProcessor.from_pretrained(model), folder)
    typer.echo(json.dumps(found, indent=1))
    if json_to is not None:
        json_to.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
