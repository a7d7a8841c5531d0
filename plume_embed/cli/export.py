"""`plume-embed export OUT_DIR`."""

from typing import Annotated

import typer

from plume_embed.cli.console import make_console
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import ModelOption, OutArgument


def export(
    out: OutArgument,
    model: ModelOption = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id of the backbone, for the model card.")] = None,
    license_id: Annotated[
        str, typer.Option("--license", help="License of the weights, for the model card.")
    ] = "apache-2.0",
) -> None:
    """Write a self-contained folder for the Hub: weights, code, sentence-transformers files, handler.py, model card."""
    with heavy_imports():
        from plume_embed.hub.export import export_model
        from plume_embed.quiet import quiet_libraries

        quiet_libraries()
    make_console().print(f"written: {export_model(out, model, base_model, license_id)}")
