"""`plume-embed embed INPUT.jsonl --to OUT.parquet`."""

from pathlib import Path
from typing import Annotated

import typer

from plume_embed.cli.console import counted, make_console, one_line, progress_bar
from plume_embed.cli.loading import heavy_imports, load_encoder
from plume_embed.cli.options import (
    BATCH_SIZE,
    BatchOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    PixelsOption,
    StepsOption,
)


def embed(
    source: Annotated[Path, typer.Argument(help="One JSON object per line.", metavar="INPUT.jsonl")],
    to: Annotated[Path, typer.Option(help="Parquet file with id and embedding.", metavar="OUT.parquet")],
    keep: Annotated[
        list[str] | None, typer.Option(help="Another key to keep as a column; repeatable.", metavar="KEY")
    ] = None,
    model: ModelOption = None,
    latent_steps: StepsOption = None,
    documents: Annotated[
        bool, typer.Option("--documents", help="With the model's K for documents, where it has one for them.")
    ] = False,
    batch_size: BatchOption = BATCH_SIZE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    max_image_pixels: PixelsOption = None,
) -> None:
    """Embed the lines of a JSONL file: objects with text, image and video (one or a list), and an id if you like.

    Paths are relative to the folder of INPUT.jsonl. It can be interrupted at any moment: run it again and it continues.
    """
    if not source.is_file():
        raise ValueError(f"No such file: {source}")
    with heavy_imports("Loading the model"):
        from plume_embed.index.jsonl import embed_jsonl

        encoder = load_encoder(model, device, dtype, max_image_pixels)
    console = make_console()
    with progress_bar("embedding", "rows") as on_progress:
        report = embed_jsonl(
            source,
            to,
            encoder,
            encoder.document_latent_steps(latent_steps) if documents else latent_steps,
            batch_size,
            on_progress,
            keep=keep or (),
            on_skipped=lambda line, why: console.print(f"skipped: {one_line(f'{source}:{line}: {why}')}"),
        )
    console.print(
        f"{counted(report.num_rows, 'row')} in {to}; {report.embedded:,} embedded now; {report.resumed:,} there "
        f"already; {counted(len(report.skipped), 'line')} skipped"
    )
