"""`plume-embed search FOLDER QUERY`."""

from pathlib import Path
from typing import Annotated

import typer

from plume_embed.cli.console import hits_as_json, make_console, print_hits, print_json
from plume_embed.cli.index import bring_up_to_date
from plume_embed.cli.loading import database_of, heavy_imports, load_encoder
from plume_embed.cli.options import (
    BATCH_SIZE,
    BatchOption,
    DatabaseOption,
    DeviceOption,
    DtypeOption,
    FolderArgument,
    ModelOption,
    StepsOption,
)


def search(
    folder: FolderArgument,
    query: Annotated[
        str | None, typer.Argument(help="Always text, even if a file has that name.", metavar="QUERY")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture as the query, or as part of it.")] = None,
    video: Annotated[Path | None, typer.Option(help="A video as the query, or as part of it.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many results.")] = 5,
    to: DatabaseOption = None,
    update: Annotated[bool, typer.Option(help="Bring the index up to date first, or rank what it holds.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
    model: ModelOption = None,
    latent_steps: StepsOption = None,
    batch_size: BatchOption = BATCH_SIZE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
) -> None:
    """Rank what is in a folder by a text, a picture, a video or a combination, best first.

    The first time the folder is indexed; later only what has changed.
    """
    content = _content(query, image, video)
    if not folder.is_dir():
        raise ValueError(f"No such folder: {folder}")
    with heavy_imports("Loading the model"):
        from plume_embed.index.search import open_index
        from plume_embed.index.table import errors_named

        encoder = load_encoder(model, device, dtype)
    query_vector = encoder.encode([content], num_latent_steps=latent_steps)[0]  # a bad query fails before the work
    db = database_of(folder, to)
    unreadable = []
    if update:
        unreadable = bring_up_to_date(folder, db, encoder, latent_steps, batch_size, make_console(quiet=as_json))
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
        print_hits(make_console(), hits)


def _content(query: str | None, image: Path | None, video: Path | None) -> dict[str, str | Path]:
    """The query as an item for the encoder."""
    parts = {"text": query, "image": image, "video": video}
    content = {kind: part for kind, part in parts.items() if part is not None}
    if not content or query == "":
        raise ValueError("Give a query: a text, --image or --video.")
    if query is not None and not _is_unicode(query):
        raise ValueError("The query is not valid UTF-8.")
    return content


def _is_unicode(argument: str) -> bool:
    """False for bytes of the shell that were no UTF-8, which Python hands over as half surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)
