"""`plume-embed init BACKBONE OUT_DIR`."""

from typing import Annotated

import typer

from plume_embed.cli.console import make_console
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import OutArgument


def init(
    backbone: Annotated[str, typer.Argument(help="Folder or Hub id of a backbone.", metavar="BACKBONE")],
    out: OutArgument,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Set a field of PlumeConfig; repeatable.", metavar="KEY=VALUE")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the new weights.")] = 0,
    head: Annotated[
        str | None, typer.Option(help="Folder or Hub id of the model to take lm_head from, if BACKBONE lacks its own.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of video. Default: 8 evenly spaced frames per video.")
    ] = None,
) -> None:
    """Make a fresh PLUME model over a backbone, to be trained: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, FastVLM."""
    with heavy_imports():
        from huggingface_hub.errors import StrictDataclassError

        from plume_embed.hub.init import init_model
        from plume_embed.hub.settings import parse_settings
        from plume_embed.quiet import quiet_libraries

        quiet_libraries()
    console = make_console()
    try:
        fields = parse_settings(settings or [])
        folder = init_model(backbone, out, seed=seed, console=console, head=head, fps=fps, **fields)
    except StrictDataclassError as error:
        raise ValueError(f"--set: {error}") from error
    console.print(f"written: {folder}")
