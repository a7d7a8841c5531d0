"""The slow start of a command: heavy imports and the model, under a spinner; Ctrl-C ends it at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from plume_embed.cli import collector
from plume_embed.cli.console import working
from plume_embed.cli.interrupts import raise_interrupts

if TYPE_CHECKING:
    from plume_embed.encode.encoder import Encoder
    from plume_embed.index.interface import ItemEncoder
    from plume_embed.index.place import Place


@contextmanager
def heavy_imports(title: str = "Loading libraries") -> Iterator[None]:
    """Around a command's imports of torch and the like. A spinner shows on a terminal before the first of them.

    Behind it the command works, Ctrl-C raises KeyboardInterrupt, and garbage is collected.
    """
    with working(title):
        yield
    collector.go_on()
    raise_interrupts()


def loading_title(server: str | None) -> str:
    """What a command that takes --server does while it gets its encoder."""
    return "Loading the model" if server is None else "Asking the server"


def load_encoder(model: str | None, device: str | None, dtype: str, max_image_pixels: int | None = None) -> "Encoder":
    """The model of a command, its libraries silenced; to be called within `heavy_imports`.

    Args:
        max_image_pixels (`int`, *optional*): Instead of the limit of the model's processor.
    """
    from plume_embed.encode.encoder import Encoder
    from plume_embed.quiet import quiet_libraries

    quiet_libraries()
    return Encoder(model, device, dtype, max_image_pixels)


def choose_encoder(
    server: str | None, model: str | None, device: str | None, dtype: str, max_image_pixels: int | None = None
) -> "ItemEncoder":
    """The model of a command, here or in a server; to be called within `heavy_imports`.

    Raises:
        ValueError: options of a model here are given beside a server.
    """
    if server is None:
        return load_encoder(model, device, dtype, max_image_pixels)
    if model is not None or device is not None or dtype != "auto" or max_image_pixels is not None:
        raise ValueError("--server brings its own model: leave out --model, --device, --dtype and --max-image-pixels.")
    from plume_embed.serve.client import RemoteEncoder

    return RemoteEncoder(server)


def database_of(folder: Path, to: str | None) -> "Place":
    """Where a folder's index is."""
    from plume_embed.index.folders import default_database
    from plume_embed.index.place import place_of

    return place_of(to) if to is not None else default_database(folder)
