"""`plume-embed rationalize PAIRS --endpoint URL --model NAME --out FILE`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from plume_embed.cli.console import counted, make_console, progress_bar
from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports


@extra("rationales")
def rationalize(
    pairs: Annotated[Path, typer.Argument(help="Pairs: .jsonl, .csv, .tsv or .parquet.", metavar="PAIRS")],
    model: Annotated[str, typer.Option(help="Name of the model on the server; without one, a folder or Hub id.")],
    out: Annotated[Path, typer.Option(help="The training corpus, as JSONL.", metavar="OUT.jsonl")],
    endpoint: Annotated[
        str | None, typer.Option(help="A server with OpenAI's chat interface, up to /v1.", metavar="URL")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 4,
    tries: Annotated[int, typer.Option(min=1, help="Answers asked for one input before it is given up.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="How long one answer may take.")] = 120,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Ask for nothing more once all requests have cost so many tokens.")
    ] = None,
    media_root: Annotated[Path, typer.Option(help="What paths in PAIRS are relative to, below its folder.")] = Path(),
    dataset_name: Annotated[str, typer.Option(help="Name of the sub-dataset in the corpus.")] = "pairs",
) -> None:
    """Have a vision-language model write the rationales that the curriculum needs, for pairs of your own.

    The key of the server is read from $PLUME_API_KEY. It can be killed at any moment: run it again and it goes on.
    """
    with heavy_imports():
        from plume_embed.training.data.pair_rows import read_pairs
        from plume_embed.training.rationalize import EndpointWriter, LocalWriter, RationalizeOptions
        from plume_embed.training.rationalize import rationalize as write_all

        rows = read_pairs([pairs], media_root)
        key = os.environ.get("PLUME_API_KEY", "none")
        writer = LocalWriter(model) if endpoint is None else EndpointWriter(endpoint, model, key, seconds)
    with progress_bar("writing", "inputs") as on_progress:
        options = RationalizeOptions(jobs if endpoint else 1, tries, max_tokens)
        report = write_all(rows, writer, out, options, dataset_name, on_progress)
    console = make_console()
    console.print(
        f"{report.rows:,} of {counted(len(rows), 'row')} in {out}; {report.written:,} rationales written now, "
        f"{report.resumed:,} there already; {counted(report.tokens, 'token')}"
    )
    for reason, number in report.failed.most_common():
        console.print(f"given up: {counted(number, 'input')}: {reason}")
    if report.is_out_of_budget:
        console.print("--max-tokens is reached; run again with a higher limit to go on")
