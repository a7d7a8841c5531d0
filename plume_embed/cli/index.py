"""`plume-embed index FOLDER`."""

from pathlib import Path
from typing import TYPE_CHECKING

from plume_embed.cli.console import make_console, print_unreadable, progress_bar, summary
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

if TYPE_CHECKING:
    from rich.console import Console

    from plume_embed.encode.encoder import Encoder


def index(
    folder: FolderArgument,
    to: DatabaseOption = None,
    model: ModelOption = None,
    latent_steps: StepsOption = None,
    batch_size: BatchOption = BATCH_SIZE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
) -> None:
    """Embed a folder into an index, or bring that up to date.

    It can be killed at any moment: run it again and it goes on where it was.
    """
    if not folder.is_dir():
        raise ValueError(f"No such folder: {folder}")
    with heavy_imports("Loading the model"):
        import plume_embed.index.update  # noqa: F401 — under the spinner

        encoder = load_encoder(model, device, dtype)
    bring_up_to_date(folder, database_of(folder, to), encoder, latent_steps, batch_size, make_console())


def bring_up_to_date(
    folder: Path, db: Path, encoder: "Encoder", latent_steps: int | None, batch_size: int, console: "Console"
) -> list[tuple[str, str]]:
    """Updates the index and prints what happened; returns what was unreadable."""
    from plume_embed.index.update import update_index

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
