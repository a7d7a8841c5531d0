"""`plume-embed report RUN_DIR`."""

from pathlib import Path
from typing import Annotated

import typer

from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import named_folder
from plume_embed.outputs import check_output_folder


@extra("train")
def report(
    run_dir: Annotated[
        Path, typer.Argument(help="Output folder of a finished run.", metavar="RUN_DIR", parser=named_folder)
    ],
    explicit: Annotated[
        Path | None, typer.Option(help="Run of stage 0 only (curriculum.stages=[0]), for comparison.", metavar="DIR")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Where to write. Default: RUN_DIR/report.", metavar="DIR", parser=named_folder),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Queries for the cosines; ten times as many for the experts.")
    ] = 200,
) -> None:
    """Plot a finished run: loss and stages, cosine of the latent states to the target, use of the experts."""
    out = to or run_dir / "report"
    check_output_folder(out, "--to")
    with heavy_imports():
        from plume_embed.training.report import write_report
    written = write_report(run_dir, out, explicit, samples)
    for path in written:
        typer.echo(f"written: {path}")
    if "curve.png" not in {path.name for path in written}:
        typer.echo("no curve: the run logged no loss; train with --set logging_steps=1")
