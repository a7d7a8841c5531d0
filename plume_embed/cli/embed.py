"""`plume-embed embed SOURCE --to OUT`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plume_embed.cli.console import counted, make_console, progress_bar
from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports, load_encoder
from plume_embed.cli.options import (
    BATCH_SIZE,
    BatchOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    PixelsOption,
    StepsOption,
    named,
    named_folder,
)
from plume_embed.command import one_line

if TYPE_CHECKING:
    from plume_embed.corpus.embed import Engine

_BAD_SHOWN = 20


class _Engine(StrEnum):
    LOCAL = "local"
    RAY = "ray"


def embed(
    source: Annotated[
        str,
        typer.Argument(
            help="A .jsonl or .parquet file, a folder, or an id for datasets.", metavar="SOURCE", parser=named
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(
            help="OUT.parquet, OUT.lance, or a folder for Parquet parts.",
            metavar="OUT[.parquet|.lance]",
            parser=named_folder,
        ),
    ],
    keep: Annotated[
        list[str] | None, typer.Option(help="Another key to keep as a column; repeatable.", metavar="KEY")
    ] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Only the first so many dimensions.")] = None,
    instruction: Annotated[str, typer.Option(help="Stands in front of every text.")] = "",
    engine: Annotated[_Engine, typer.Option(help="local: this process. ray: a cluster (extra ray).")] = _Engine.LOCAL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of ray: processes that hold the model. Default: 1.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="Of ray: 0.5 puts two on a GPU. Default: 0, CPUs.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Of ray: a cluster that runs. Default: this machine.")] = None,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows (files of a folder) of a shard.")] = 256,
    model: ModelOption = None,
    latent_steps: StepsOption = None,
    documents: Annotated[
        bool,
        typer.Option(
            "--documents",
            help="As `index` embeds: with the K of documents, where a model has one and --latent-steps gives none.",
        ),
    ] = False,
    batch_size: BatchOption = BATCH_SIZE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    max_image_pixels: PixelsOption = None,
) -> None:
    """Embed a corpus: rows with text, image and video (one or a list), and an id if you like; or the files of a folder.

    Paths are relative to the file's folder. It can be interrupted at any moment: run it again, with either engine, and
    it continues. What cannot be embedded is listed with the reason in a Parquet file, beside OUT or in it where OUT is
    a folder. Rows are embedded as queries are; give --documents for what is to be found by queries, or the vectors are
    not those of `index` where a model has a K of its own for documents.
    """
    if engine is not _Engine.RAY and any(given is not None for given in (workers, gpus_per_worker, address)):
        raise ValueError("--workers, --gpus-per-worker and --address say how --engine ray runs; add --engine ray.")
    with extra("train"), heavy_imports("Loading the model"):
        from plume_embed.corpus.embed import EmbedOptions, embed_corpus
        from plume_embed.corpus.output import bad_file
        from plume_embed.corpus.sources import open_source

        opened = open_source(source, keep or ())
        encoder = load_encoder(model, device, dtype, max_image_pixels)
    chosen: Engine | None = None
    if engine is _Engine.RAY:
        with extra("ray"):
            from plume_embed.corpus.ray_engine import RayEngine, RayOptions

        cluster = RayOptions(workers or 1, gpus_per_worker or 0.0, address, device, dtype)
        chosen = RayEngine(encoder.folder.resolve(), cluster)
    # as `encode_document` and the server take them: steps that are asked for are steps of documents, too
    steps = encoder.document_latent_steps() if documents and latent_steps is None else latent_steps
    console, shown = make_console(), 0
    options = EmbedOptions(steps, dimensions, instruction, batch_size, shard_rows)

    def tell(bad) -> None:
        nonlocal shown
        shown += 1
        if shown <= _BAD_SHOWN:
            console.print(f"skipped: {one_line(f'{bad.where}: {bad.reason}')}")

    with progress_bar("embedding", "rows") as on_progress:
        report = embed_corpus(opened, to, encoder, options, chosen, on_progress, tell)
    if shown > _BAD_SHOWN:
        console.print(f"... {shown - _BAD_SHOWN:,} more in {bad_file(to)}")
    of_index = encoder.document_latent_steps(latent_steps)
    if documents and steps != of_index:
        console.print(f"embedded with K = {steps}, as asked; `index` embeds documents with K = {of_index}")
    if steps is None and encoder.document_latent_steps() != encoder.latent_steps():
        console.print(
            f"embedded as queries, with K = {encoder.latent_steps()}; --documents takes K = "
            f"{encoder.document_latent_steps()}, as `index` does"
        )
    console.print(
        f"{counted(report.num_rows, 'row')} in {to}; {report.embedded:,} embedded now; {report.resumed:,} there "
        f"already; {counted(report.num_bad, 'row')} skipped"
    )
    if report.num_bad:
        console.print(f"The reasons are in {bad_file(to)}. To try these rows again, delete {to} and run this again.")
