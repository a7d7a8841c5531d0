"""`plume-embed index FOLDER`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plume_embed.cli.console import make_console, print_left_out, print_unreadable, progress_bar, summary, working
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
from plume_embed.index.ann_kind import AnnKind
from plume_embed.index.place import check_folder

if TYPE_CHECKING:
    from rich.console import Console

    from plume_embed.index.interface import ItemEncoder
    from plume_embed.index.place import Place


@dataclass(frozen=True)
class UpdateChoices:
    """The options of `index` and `search` that say how an index is brought up to date."""

    exclude: Sequence[str] | None = None
    prune: bool = False
    moved: bool = False
    verify: bool = False
    verbose: bool = False


def index(
    folder: FolderArgument,
    also: AlsoOption = None,
    to: DatabaseOption = None,
    exclude: ExcludeOption = None,
    prune: PruneOption = False,
    moved: MovedOption = False,
    verify: VerifyOption = False,
    verbose: VerboseOption = False,
    model: ModelOption = None,
    server: ServerOption = None,
    latent_steps: StepsOption = None,
    batch_size: BatchOption = BATCH_SIZE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    max_image_pixels: PixelsOption = None,
    ann: Annotated[
        bool, typer.Option("--ann", help="For 100,000 items and more: also make an index of approximate neighbours.")
    ] = False,
    ann_kind: Annotated[
        AnnKind | None,
        typer.Option(help="Of --ann: how vectors are coded. Default: as it is, else binary (docs/scale.md)."),
    ] = None,
    ann_dimensions: Annotated[
        int | None,
        typer.Option(min=8, help="Of --ann: code only the first so many dimensions. Default: as it is, else all."),
    ] = None,
) -> None:
    """Embed a folder into an index, or update that index.

    It can be interrupted at any moment: run it again and it continues.
    """
    if not ann and (ann_kind is not None or ann_dimensions is not None):
        raise ValueError("--ann-kind and --ann-dimensions say how --ann makes its index; add --ann.")
    folders = existing_folders(folder, also)
    with heavy_imports(loading_title(server)):
        import plume_embed.index.update  # noqa: F401 — under the spinner

        encoder = choose_encoder(server, model, device, dtype, max_image_pixels)
    own = encoder.document_latent_steps(latent_steps)
    if latent_steps is not None and own != latent_steps:
        raise ValueError(
            f"This model embeds documents with K = {own}, whatever --latent-steps says: leave it out of index, and "
            "give it to search, whose queries it is for."
        )
    choices = UpdateChoices(exclude, prune, moved, verify, verbose)
    db, console = database_of(folder, to), make_console()
    bring_up_to_date(folders, db, encoder, latent_steps, batch_size, console, choices)
    if ann:
        _update_ann(db, encoder, latent_steps, ann_kind, ann_dimensions, console)


def _update_ann(
    db: "Place",
    encoder: "ItemEncoder",
    latent_steps: int | None,
    kind: AnnKind | None,
    dimensions: int | None,
    console: "Console",
) -> None:
    from plume_embed.index.table import ANN_ROWS
    from plume_embed.index.update import update_ann

    with working("Training the ANN index"):
        made = update_ann(db, encoder, latent_steps, kind, dimensions)
    if made is None:
        console.print(f"no ANN index: below {ANN_ROWS:,} items every search is an exact scan")
    else:
        of = f" of {made.settings.dimensions} dimensions" if made.settings.dimensions else ""
        console.print(f"ANN index: {made.settings.kind}{of}, {made.num_bytes / 1e6:,.0f} MB")


def existing_folders(folder: Path, also: Sequence[Path] | None) -> list[Path]:
    """The folders of a command.

    Raises:
        ValueError: one of them is not there, or a file.
    """
    folders = [folder, *(also or ())]
    for one in folders:
        check_folder(one)
    return folders


def bring_up_to_date(
    folders: Sequence[Path],
    db: "Place",
    encoder: "ItemEncoder",
    latent_steps: int | None,
    batch_size: int,
    console: "Console",
    choices: UpdateChoices,
) -> list[tuple[str, str]]:
    """Updates the index and prints what happened; returns what is unreadable.

    Args:
        folders: The first one must be in the index, or the index be new; the others may join.
    """
    from plume_embed.index.update import UpdateOptions, update_index

    unreadable = []
    for number, folder in enumerate(folders):
        options = UpdateOptions(
            prune=choices.prune,
            moved=choices.moved and number == 0,
            add=number > 0,
            verify=choices.verify,
            exclude=choices.exclude,
            tell_all=choices.verbose,
        )
        told = []

        def tell(path: str, reason: str, told: list[str] = told) -> None:
            told.append(path)
            print_unreadable(console, path, reason)

        with progress_bar("embedding", "items") as on_progress:
            report = update_index(folder, db, encoder, latent_steps, batch_size, on_progress, tell, options)
        if choices.verbose:
            print_left_out(console, report)
        done = summary(report, len(told), choices.verbose)
        console.print(done if len(folders) == 1 else f"{folder}: {done}")
        unreadable += report.unreadable
    return unreadable
