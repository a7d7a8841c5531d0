"""`plume-embed mine PAIRS --corpus FOLDER --out FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from plume_embed.cli.console import counted, make_console, progress_bar
from plume_embed.cli.loading import database_of, heavy_imports, load_encoder
from plume_embed.cli.options import DatabaseOption, DeviceOption, DtypeOption, ModelOption, StepsOption, named_folder
from plume_embed.command import one_line
from plume_embed.index.place import check_folder
from plume_embed.outputs import check_output


def mine(
    pairs: Annotated[Path, typer.Argument(help="Pairs: .jsonl, .csv, .tsv or .parquet.", metavar="PAIRS")],
    corpus: Annotated[
        Path, typer.Option(help="Indexed folder to take negatives from.", metavar="FOLDER", parser=named_folder)
    ],
    out: Annotated[Path, typer.Option(help="The pairs with their negatives, as JSONL.", metavar="OUT.jsonl")],
    to: DatabaseOption = None,
    count: Annotated[int, typer.Option(min=1, help="Most negatives per query, with those that PAIRS has.")] = 4,
    margin: Annotated[
        float, typer.Option(help="Least difference between the positive's cosine and a negative's.")
    ] = 0.05,
    skip: Annotated[int, typer.Option(min=0, help="Skip this many of the nearest candidates.")] = 0,
    media_root: Annotated[Path, typer.Option(help="Folder of the media, relative to the folder of PAIRS.")] = Path(),
    model: ModelOption = None,
    latent_steps: StepsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
) -> None:
    """Add hard negatives to pairs: items of an index that are near a query but not its answer.

    Index the folder first, with the same model: plume-embed index FOLDER.
    """
    check_folder(corpus)
    check_output(out, "--out", [pairs], ".jsonl")
    with heavy_imports("Loading the model"):
        from plume_embed.index.search import open_index
        from plume_embed.index.table import errors_named
        from plume_embed.training.data.mine import MiningOptions
        from plume_embed.training.data.mine import mine as mine_rows
        from plume_embed.training.data.pair_rows import read_pairs

        options = MiningOptions(count, margin, skip)
        rows = read_pairs([pairs], media_root)  # a bad row fails before the model is loaded
        encoder = load_encoder(model, device, dtype)
    db = database_of(corpus, to)
    with errors_named(db), progress_bar("mining", "rows") as on_progress:
        index = open_index(corpus, db, encoder, latent_steps)
        report = mine_rows(rows, index, encoder, out, options, latent_steps, on_progress)
    console = make_console()
    without = f"; {counted(report.without, 'row')} without any" if report.without else ""
    console.print(
        f"{counted(report.negatives, 'negative')} for {counted(report.rows, 'row')} in {one_line(str(out))}{without}"
    )
    for reason, number in report.left_out.items():
        console.print(f"left out: {number:,} x {reason}")
