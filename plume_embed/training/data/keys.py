"""Keys of items: what decides which pairs belong together, and what is no negative of what."""

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from plume_embed.model.images_plume import opened

KINDS = ("text", "image", "video", "page")


def item_key(item: dict[str, Any]) -> int:
    """A number that is equal for equal items: equal texts, and media of equal bytes or pixels.

    Args:
        item (`dict`): With the keys text, image, video and page, where there are any: a value, or a list of them. A
            film may be a list of its frames.

    Raises:
        ValueError: a file that cannot be read, by name.
    """
    digest = hashlib.blake2b(digest_size=8)
    for kind in KINDS:
        for value in as_list(item.get(kind)):
            digest.update(f"\0{kind}\0".encode() + _content(value, kind))
    return int.from_bytes(digest.digest(), "big", signed=True)


def as_list(value: Any) -> list:
    """A value that stands alone, or several, or none, as a list."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _content(value: Any, kind: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list | tuple):  # frames of a film
        return b"".join(b"\0" + _content(frame, "image") for frame in value)
    if isinstance(value, Image.Image):
        return f"{value.mode} {value.size}".encode() + value.tobytes()
    file, page = value, ""
    if isinstance(value, Path):
        name, _, page = str(value).partition("#page=")
        file = Path(name)
    try:
        with opened(file, kind) as content:  # a path, or what `datasets` does not decode
            return content.read() + page.encode()
    except OSError as error:
        raise ValueError(f"{value}: {error.strerror or error}") from error
