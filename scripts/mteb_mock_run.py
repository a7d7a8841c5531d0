"""Every kind of task that mteb has, on made-up data: `mteb.mock_run` with a PLUME model.

python -m scripts.mteb_mock_run                      # the bundled plume-tiny
python -m scripts.mteb_mock_run --model FOLDER --report report.md
"""

from pathlib import Path
from typing import Annotated

import mteb
import torch
import typer

from plume_embed.evaluation.mteb_wrapper import PlumeMteb


def run(
    model: Annotated[str | None, typer.Option(help="Model folder or Hub id. Default: the bundled plume-tiny.")] = None,
    num_latent_steps: Annotated[int | None, typer.Option(min=0, help="K. Default: the model's own.")] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write the table of all tasks, in Markdown.")] = None,
) -> None:
    """Prints how many tasks of each modality pass; exits with 1 if one that PLUME takes fails."""
    torch.set_num_threads(1)
    results = mteb.mock_run(PlumeMteb(model, num_latent_steps=num_latent_steps))
    for status, modality, failures in results.modality_summary():
        print(f"{modality}: {status} {failures}".rstrip())
    if report is not None:
        report.write_text(results.to_markdown())
    raise typer.Exit(0 if results.all_passed else 1)


if __name__ == "__main__":
    typer.run(run)
