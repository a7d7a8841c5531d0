"""The command line: plume-embed search, index, embed, convert, init, export, train, report, evaluate, bench.

Heavy imports stand inside the commands. An expected error is one line on stderr and exit code 2.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plume_embed.cli.bench import app as bench
from plume_embed.cli.console import (
    counted,
    error_line,
    hits_as_json,
    make_console,
    one_line,
    print_hits,
    print_json,
    print_unreadable,
    progress_bar,
    summary,
    working,
)
from plume_embed.cli.evaluate import app as evaluate
from plume_embed.cli.train import train
from plume_embed.encode.batching import BATCH_SIZE
from plume_embed.training.report import report

if TYPE_CHECKING:
    from plume_embed.encode.encoder import Encoder

app = typer.Typer(
    name="plume-embed",
    help="PLUME: one embedding space for texts, pictures, videos and PDF pages. Index a folder and search it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_Model = Annotated[
    str | None,
    typer.Option(help="Model folder or Hub id. Default: $PLUME_MODEL, then the bundled plume-tiny.", metavar="DIR|ID"),
]
_Steps = Annotated[
    int | None, typer.Option(min=0, help="K, the latent steps; 0 is a single pass. Default: the model's own.")
]
_Batch = Annotated[int, typer.Option(min=1, help="Most items per pass; lower it if you run out of memory.")]
_Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: cuda where there is one.")]
_Dtype = Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")]
_Database = Annotated[
    Path | None, typer.Option("--to", help="Folder of the index. Default: .plume-index inside FOLDER.", metavar="DB")
]
_Folder = Annotated[Path, typer.Argument(help="What to search: texts, pictures, videos and PDFs.", metavar="FOLDER")]


@app.command(epilog='Example: plume-embed search ~/Pictures "a red bicycle" --top 3')
def search(
    folder: _Folder,
    query: Annotated[
        str | None, typer.Argument(help="Always text, even if a file has that name.", metavar="QUERY")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture as the query, or as part of it.")] = None,
    video: Annotated[Path | None, typer.Option(help="A video as the query, or as part of it.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many results.")] = 5,
    to: _Database = None,
    update: Annotated[bool, typer.Option(help="Bring the index up to date first, or rank what it holds.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
    model: _Model = None,
    latent_steps: _Steps = None,
    batch_size: _Batch = BATCH_SIZE,
    device: _Device = None,
    dtype: _Dtype = "auto",
) -> None:
    """Rank what is in a folder by a text, a picture, a video or a combination, best first.

    The first time the folder is indexed; later only what has changed.
    """
    content = {"text": query, "image": image, "video": video}
    content = {kind: part for kind, part in content.items() if part is not None}
    if not content or query == "":
        raise ValueError("Give a query: a text, --image or --video.")
    if query is not None and not _is_unicode(query):
        raise ValueError("The query is not valid UTF-8.")
    if not folder.is_dir():
        raise ValueError(f"No such folder: {folder}")
    console = make_console(quiet=as_json)
    from plume_embed.index.search import open_index
    from plume_embed.index.table import errors_named

    encoder = _load_encoder(model, device, dtype)
    query_vector = encoder.encode([content], num_latent_steps=latent_steps)[0]  # a bad query fails before the work
    db = _database(folder, to)
    unreadable = []
    if update:
        unreadable = _update(folder, db, encoder, latent_steps, batch_size, as_json)
    with errors_named(db):
        hits = open_index(folder, db, encoder, latent_steps).search(query_vector, top)
    if as_json:
        around = {
            "folder": str(folder),
            "model": encoder.name,
            "num_latent_steps": encoder.latent_steps(latent_steps),
            "unreadable": [{"path": path, "reason": reason} for path, reason in unreadable],
        }
        print_json(hits_as_json(hits, **around))
    else:
        print_hits(console, hits)


@app.command(epilog="Example: plume-embed index ~/Pictures --to ~/pictures.index")
def index(
    folder: _Folder,
    to: _Database = None,
    model: _Model = None,
    latent_steps: _Steps = None,
    batch_size: _Batch = BATCH_SIZE,
    device: _Device = None,
    dtype: _Dtype = "auto",
) -> None:
    """Embed a folder into an index, or bring that up to date.

    It can be killed at any moment: run it again and it goes on where it was.
    """
    if not folder.is_dir():
        raise ValueError(f"No such folder: {folder}")
    _update(folder, _database(folder, to), _load_encoder(model, device, dtype), latent_steps, batch_size, quiet=False)


@app.command(epilog="Example: plume-embed embed products.jsonl --to products.parquet")
def embed(
    source: Annotated[Path, typer.Argument(help="One JSON object a line.", metavar="INPUT.jsonl")],
    to: Annotated[Path, typer.Option(help="Parquet file with id and embedding.", metavar="OUT.parquet")],
    model: _Model = None,
    latent_steps: _Steps = None,
    batch_size: _Batch = BATCH_SIZE,
    device: _Device = None,
    dtype: _Dtype = "auto",
) -> None:
    """Embed the lines of a JSONL file: objects with text, image and video (one or a list), and an id if you like.

    Paths are relative to the file's folder. It can be killed at any moment: run it again and it goes on.
    """
    if not source.is_file():
        raise ValueError(f"No such file: {source}")
    from plume_embed.index.jsonl import embed_jsonl

    console = make_console()
    encoder = _load_encoder(model, device, dtype)
    with progress_bar("embedding", "rows") as on_progress:
        report = embed_jsonl(
            source,
            to,
            encoder,
            latent_steps,
            batch_size,
            on_progress,
            on_skipped=lambda line, why: console.print(f"skipped: {one_line(f'{source}:{line}: {why}')}"),
        )
    console.print(
        f"{counted(report.num_rows, 'row')} in {to}; {report.embedded:,} embedded now; {report.resumed:,} there "
        f"already; {counted(len(report.skipped), 'line')} skipped; {encoder.padding}"
    )


@app.command(epilog="Example: plume-embed convert PLUME-Qwen2-VL-2B plume-2b")
def convert(
    released: Annotated[Path, typer.Argument(help="Folder with the released weights.", metavar="RELEASED_DIR")],
    out: Annotated[Path, typer.Argument(help="Where to write.", metavar="OUT_DIR")],
) -> None:
    """Turn released PLUME weights into a model of this package with the same embeddings."""
    from plume_embed.hub.convert import convert_released

    _quiet_libraries()
    console = make_console()
    console.print(f"written: {convert_released(released, out, console)}")


@app.command(epilog="Example: plume-embed init Qwen/Qwen2-VL-2B-Instruct plume-fresh --set num_latent_steps=4")
def init(
    backbone: Annotated[str, typer.Argument(help="Folder or Hub id of a Qwen2-VL.", metavar="BACKBONE")],
    out: Annotated[Path, typer.Argument(help="Where to write.", metavar="OUT_DIR")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A field of PlumeConfig, again for more.", metavar="KEY=VALUE")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the new weights.")] = 0,
) -> None:
    """Make a fresh PLUME model over a backbone, to be trained."""
    from huggingface_hub.errors import StrictDataclassError

    from plume_embed.hub.convert import init_model
    from plume_embed.hub.settings import parse_settings

    _quiet_libraries()
    console = make_console()
    try:
        folder = init_model(backbone, out, seed=seed, console=console, **parse_settings(settings or []))
    except StrictDataclassError as error:
        raise ValueError(f"--set: {error}") from error
    console.print(f"written: {folder}")


@app.command(epilog="Example: plume-embed export plume-for-the-hub --model checkpoints/plume-tiny")
def export(
    out: Annotated[Path, typer.Argument(help="Where to write.", metavar="OUT_DIR")],
    model: _Model = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id of the backbone, for the model card.")] = None,
    license_id: Annotated[str, typer.Option("--license", help="Of the weights, for the model card.")] = "apache-2.0",
) -> None:
    """Write a self-contained folder for the Hub: weights, code, sentence-transformers files, model card."""
    from plume_embed.hub.export import export_model

    _quiet_libraries()
    make_console().print(f"written: {export_model(out, model, base_model, license_id)}")


app.command(epilog="Example: plume-embed train hops --set seed=1 --set output_dir=runs/hops-1")(train)
app.command(epilog="Example: plume-embed report runs/hops-1 --explicit runs/hops-explicit")(report)
app.add_typer(evaluate, name="evaluate")
app.add_typer(bench, name="bench")


@app.callback(invoke_without_command=True)
def _main_options(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from plume_embed import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """The entry point. Exits with 0, with 2 and one line on stderr for an expected error, with 130 on Ctrl-C.

    Args:
        arguments (`list[str]`, *optional*): Defaults to those of the process.
    """
    usage_error = typer.BadParameter.__base__  # the public name of its parent has moved between versions
    try:
        code = app(arguments, standalone_mode=False)
    except usage_error as error:
        message = error_line(error.format_message())
        message += "" if message.endswith((".", "?")) else "."
        _fail(f"{message} See plume-embed {_subcommand(arguments)}--help.")
    except (ValueError, OSError) as error:
        _fail(error_line(str(error) or type(error).__name__))
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:
        print("plume-embed: stopped; run the same command again to go on where it was.", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    print(f"plume-embed: {message}", file=sys.stderr)
    sys.exit(2)


def _subcommand(arguments: list[str] | None) -> str:
    first = (sys.argv[1:] if arguments is None else arguments)[:1]
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    return f"{first[0]} " if first and first[0] in names else ""


def _database(folder: Path, to: Path | None) -> Path:
    from plume_embed.index.folders import default_database

    return to if to is not None else default_database(folder)


def _load_encoder(model: str | None, device: str | None, dtype: str) -> "Encoder":
    _quiet_libraries()
    from plume_embed.encode.encoder import Encoder

    with working("Loading the model"):
        return Encoder(model, device=device, dtype=dtype)


def _update(
    folder: Path, db: Path, encoder: "Encoder", latent_steps: int | None, batch_size: int, quiet: bool
) -> list[tuple[str, str]]:
    """Updates the index and prints what happened; returns what was unreadable."""
    from plume_embed.index.update import update_index

    console = make_console(quiet=quiet)
    with progress_bar("embedding", "items") as on_progress:
        report = update_index(
            folder,
            db,
            encoder,
            latent_steps,
            batch_size,
            on_progress,
            on_unreadable=lambda path, reason: print_unreadable(console, path, reason),
        )
    console.print(summary(report) + (f", {encoder.padding}" if report.embedded else ""))
    return report.unreadable


def _is_unicode(argument: str) -> bool:
    """False for bytes of the shell that were no UTF-8, which Python hands over as half surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def _quiet_libraries() -> None:
    """Keeps loading bars and advice of the libraries off stderr; a download still shows its bar on a terminal."""
    import transformers
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if sys.stderr.isatty():
        enable_progress_bars()
    else:
        disable_progress_bars()


if __name__ == "__main__":
    main()
