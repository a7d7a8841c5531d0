"""`plume-embed convert RELEASED_DIR OUT_DIR`."""

from pathlib import Path
from typing import Annotated

import typer

from plume_embed.cli.console import make_console
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import OutArgument, named_folder


def convert(
    released: Annotated[
        Path, typer.Argument(help="Folder with the released weights.", metavar="RELEASED_DIR", parser=named_folder)
    ],
    out: OutArgument,
) -> None:
    """Turn released PLUME weights into a model of this package with the same embeddings."""
    with heavy_imports():
        from plume_embed.hub.convert import convert_released
        from plume_embed.quiet import quiet_libraries

        quiet_libraries()
    console = make_console()
    console.print(f"written: {convert_released(released, out, console)}")
