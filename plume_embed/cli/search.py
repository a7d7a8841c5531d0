"""`plume-embed search FOLDER QUERY`."""

import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Annotated

import typer

from plume_embed.cli.console import hits_as_json, make_console, print_hits, print_json, print_paths
from plume_embed.cli.index import UpdateChoices, bring_up_to_date, existing_folders
from plume_embed.cli.loading import choose_encoder, database_of, heavy_imports, loading_title
from plume_embed.cli.options import (
    BATCH_SIZE,
    AlsoOption,
    BatchOption,
    DatabaseOption,
    DeviceOption,
    DtypeOption,
    ExcludeOption,
    FolderArgument,
    ModelOption,
    MovedOption,
    PixelsOption,
    PruneOption,
    ServerOption,
    StepsOption,
    VerboseOption,
    VerifyOption,
)
from plume_embed.command import one_line

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from plume_embed.index.interface import ItemEncoder
    from plume_embed.index.place import Place


_VIEWER_SECONDS = 5  # after which one that still runs shows the file


class _Kind(StrEnum):
    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    PAGE = "page"


def search(
    folder: FolderArgument,
    query: Annotated[
        str | None, typer.Argument(help="The query, as text, even if a file has that name.", metavar="QUERY")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture as the query, or as part of it.")] = None,
    video: Annotated[Path | None, typer.Option(help="A video as the query, or as part of it.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many results.")] = 5,
    kind: Annotated[
        list[_Kind] | None,
        typer.Option(
            help="Only results of this kind: text, image, video or page (of a PDF); repeatable. Default: all."
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Only results with at least this cosine similarity. Default: no limit."),
    ] = None,
    where: Annotated[
        str,
        typer.Option(help="Only results for which this SQL holds: kind, locator, snippet, embedded_at.", metavar="SQL"),
    ] = "",
    exact: Annotated[bool, typer.Option("--exact", help="Scan all vectors, even where there is an ANN index.")] = False,
    also: AlsoOption = None,
    to: DatabaseOption = None,
    update: Annotated[bool, typer.Option(help="Update the index first, or rank what it already holds.")] = True,
    exclude: ExcludeOption = None,
    prune: PruneOption = False,
    moved: MovedOption = False,
    verify: VerifyOption = False,
    verbose: VerboseOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print only the paths, one per line, each file once.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="As --paths, but end each path with a NUL, for xargs -0.")
    ] = False,
    open_first: Annotated[bool, typer.Option("--open", help="Open the first result in the desktop's viewer.")] = False,
    model: ModelOption = None,
    server: ServerOption = None,
    latent_steps: StepsOption = None,
    batch_size: BatchOption = BATCH_SIZE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    max_image_pixels: PixelsOption = None,
) -> None:
    """Rank what is in a folder by a text, a picture, a video or a combination, best first.

    The first search indexes the folder, later ones only what has changed. Files of equal content are one result.
    """
    content = _content(query, image, video)
    choices = UpdateChoices(exclude, prune, moved, verify, verbose)
    if not update and choices != UpdateChoices():
        raise ValueError(
            "--exclude, --prune, --moved, --verify and --verbose say how the index is updated; leave --no-update out."
        )
    if as_json and (paths or null):
        raise ValueError("--json and --paths (or -0) print two different things; give one of them.")
    if verbose and (as_json or paths or null):
        raise ValueError("--json, --paths and -0 print no list of --verbose; leave it out, or give it to `index`.")
    folders = existing_folders(folder, also)
    with heavy_imports(loading_title(server)):
        from plume_embed.index.search import open_index
        from plume_embed.index.table import errors_named, holds_index
        from plume_embed.reading.query import check_media

        check_media(content)
        encoder = choose_encoder(server, model, device, dtype, max_image_pixels)
    query_vector = _query_vector(encoder, content, latent_steps)  # a bad query fails before the work
    db = database_of(folder, to)
    console = make_console(quiet=as_json or paths or null)
    unreadable, is_current = [], update
    if server is None and not holds_index(db):
        _say_what_the_default_knows(encoder, console)
    if update:
        unreadable, is_current = _update(folders, db, encoder, latent_steps, batch_size, console, choices)
    with errors_named(db):
        opened = open_index(folders, db, encoder, latent_steps)
        is_exact = True if exact else None
        hits = opened.search(query_vector, top, [one.value for one in kind or ()], min_score, where, is_exact)
        remedy = None if exact else opened.remedy()
    if remedy:
        make_console(stderr=True).print(remedy)
    if paths or null:
        print_paths(hits, "\0" if null else "\n")
    elif as_json:
        around = {
            "folder": str(folder),
            "model": encoder.name,
            "num_latent_steps": encoder.latent_steps(latent_steps),
            "is_up_to_date": is_current,
            "unreadable": [{"path": path, "reason": reason} for path, reason in unreadable],
        }
        print_json(hits_as_json(hits, **around))
    else:
        print_hits(console, hits, with_folder=len(folders) > 1)
    if not hits:
        chosen = {"--kind": kind, "--min-score": min_score is not None, "--where": where}
        _say_why_there_is_none([option for option, is_given in chosen.items() if is_given])
    if open_first and not (hits and _is_opened(Path(hits[0].folder, hits[0].path).resolve())):
        raise typer.Exit(1)


def _say_why_there_is_none(options: Sequence[str]) -> None:
    why = f"{', '.join(options)} left nothing" if options else "the index holds nothing of what was searched"
    make_console(stderr=True).print(f"no result: {why}")


def _is_opened(file: Path) -> bool:
    """Whether the desktop's viewer takes a file; says so where it does not."""
    if _launch(file):
        return True
    make_console(stderr=True).print(
        f"There is no program here to open {one_line(str(file))}; --paths prints it for another one."
    )
    return False


def _launch(file: Path) -> bool:
    if not sys.platform.startswith("linux"):
        return typer.launch(str(file)) == 0
    # What `launch` starts here fails after it was started, with words of its own; a viewer that runs on is none that
    # failed.
    try:
        viewer = subprocess.Popen(["xdg-open", file], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        return viewer.wait(_VIEWER_SECONDS) == 0
    except FileNotFoundError:
        return False
    except subprocess.TimeoutExpired:
        return True


def _say_what_the_default_knows(encoder: "ItemEncoder", console: "Console") -> None:
    from plume_embed.encode.encoder import DEFAULT_MODEL, DEFAULT_MODEL_KNOWS

    if encoder.name == str(DEFAULT_MODEL):
        console.print(DEFAULT_MODEL_KNOWS)


def _update(
    folders: Sequence[Path],
    db: "Place",
    encoder: "ItemEncoder",
    latent_steps: int | None,
    batch_size: int,
    console: "Console",
    choices: UpdateChoices,
) -> tuple[list[tuple[str, str]], bool]:
    """What is unreadable, and whether the index is up to date: not while another process is at it."""
    from plume_embed.index.table import BusyError

    try:
        return bring_up_to_date(folders, db, encoder, latent_steps, batch_size, console, choices), True
    except BusyError:
        make_console(stderr=True).print(
            f"{one_line(str(db))} is being updated by another process: this ranks what it holds so far."
        )
        return [], False


def _query_vector(encoder: "ItemEncoder", content: dict[str, str | Path], latent_steps: int | None) -> "np.ndarray":
    """The vector [D] of a query.

    Raises:
        ValueError: it cannot be embedded, with the reason alone.
    """
    vectors, errors = encoder.encode_readable([content], num_latent_steps=latent_steps)
    if errors:
        raise ValueError(errors[0])
    return vectors[0]


def _content(query: str | None, image: Path | None, video: Path | None) -> dict[str, str | Path]:
    """The query as an item for the encoder."""
    parts = {"text": query, "image": image, "video": video}
    content = {kind: part for kind, part in parts.items() if part is not None}
    if not content or (query is not None and not query.strip()):
        raise ValueError("Give a query: a text, --image or --video.")
    if query is not None and not _is_unicode(query):
        raise ValueError("The query is not valid UTF-8.")
    return content


def _is_unicode(argument: str) -> bool:
    """False for bytes of the shell that were no UTF-8, which Python hands over as half surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)
