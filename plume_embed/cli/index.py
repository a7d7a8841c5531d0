"""`plume-embed index FOLDER`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plume_embed.cli.console import make_console, print_unreadable, progress_bar, summary
from plume_embed.cli.loading import choose_encoder, database_of, heavy_imports
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

if TYPE_CHECKING:
    from rich.console import Console

    from plume_embed.index.interface import ItemEncoder


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
) -> None:
    """Embed a folder into an index, or update that index.

    It can be interrupted at any moment: run it again and it continues.
    """
    folders = existing_folders(folder, also)
    with heavy_imports("Loading the model"):
        import plume_embed.index.update  # noqa: F401 — under the spinner

        encoder = choose_encoder(server, model, device, dtype, max_image_pixels)
    choices = UpdateChoices(exclude, prune, moved, verify, verbose)
    bring_up_to_date(folders, database_of(folder, to), encoder, latent_steps, batch_size, make_console(), choices)


def existing_folders(folder: Path, also: Sequence[Path] | None) -> list[Path]:
    """The folders of a command.

    Raises:
        ValueError: one of them is not there.
    """
    folders = [folder, *(also or ())]
    for one in folders:
        if not one.is_dir():
            raise ValueError(f"No such folder: {one}")
    return folders


def bring_up_to_date(
    folders: Sequence[Path],
    db: Path,
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
        console.print(summary(report, len(told)) if len(folders) == 1 else f"{folder}: {summary(report, len(told))}")
        unreadable += report.unreadable
    return unreadable
