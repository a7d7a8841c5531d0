"""`plume-embed rationalize PAIRS --endpoint URL --model NAME --out FILE`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from plume_embed.cli.console import counted, make_console, progress_bar
from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports
from plume_embed.outputs import check_output


@extra("rationales")
def rationalize(
    pairs: Annotated[Path, typer.Argument(help="Pairs: .jsonl, .csv, .tsv or .parquet.", metavar="PAIRS")],
    model: Annotated[
        str, typer.Option(help="Name of the model on the server; without --endpoint, a folder or Hub id.")
    ],
    out: Annotated[Path, typer.Option(help="The training corpus, as JSONL.", metavar="OUT.jsonl")],
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Base URL of a server with OpenAI's chat API, up to /v1. Default: run the model here.", metavar="URL"
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Of --endpoint: concurrent requests. Default: 4.")] = None,
    tries: Annotated[int, typer.Option(min=1, help="Attempts per input before it is left out.")] = 3,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Of --endpoint: timeout of one answer. Default: 120.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Stop once all runs together have used this many tokens. Default: no limit."),
    ] = None,
    media_root: Annotated[Path, typer.Option(help="Folder of the media, relative to the folder of PAIRS.")] = Path(),
    dataset_name: Annotated[str, typer.Option(help="Name of the sub-dataset in the corpus.")] = "pairs",
) -> None:
    """Have a vision-language model write the rationales that the curriculum needs, for pairs of your own.

    $PLUME_API_KEY holds the key of the server. It can be interrupted at any moment: run it again and it continues. What
    is written is not asked for again; another model takes another --out.
    """
    if endpoint is None and (jobs is not None or seconds is not None):
        raise ValueError("--jobs and --seconds say how --endpoint is asked; add --endpoint, or leave them out.")
    check_output(out, "--out", [pairs], ".jsonl")
    with heavy_imports():
        from plume_embed.training.data.pair_rows import read_pairs
        from plume_embed.training.data.rationalize import EndpointWriter, LocalWriter, RationalizeOptions
        from plume_embed.training.data.rationalize import rationalize as write_all

        rows = read_pairs([pairs], media_root)
        key = os.environ.get("PLUME_API_KEY", "none")
        writer = LocalWriter(model) if endpoint is None else EndpointWriter(endpoint, model, key, seconds or 120)
    with progress_bar("writing", "inputs") as on_progress:
        options = RationalizeOptions((jobs or 4) if endpoint else 1, tries, max_tokens)
        report = write_all(rows, writer, out, options, dataset_name, on_progress)
    console = make_console()
    console.print(
        f"{report.rows:,} of {counted(len(rows), 'row')} in {out}; {report.written:,} rationales written now, "
        f"{report.resumed:,} there already; {counted(report.tokens, 'token')} in all runs"
    )
    for reason, number in report.failed.most_common():
        console.print(f"given up: {counted(number, 'input')}: {reason}")
    if report.is_out_of_budget:
        console.print("--max-tokens is reached; run again with a higher limit to go on")
