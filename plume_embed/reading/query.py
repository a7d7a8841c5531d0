"""The picture and the film of a query, looked at before a model or a server gets them: what is neither is refused."""

from pathlib import Path
from typing import Any

from plume_embed.model.images_plume import IMAGE_SUFFIXES, open_picture, opened
from plume_embed.model.videos_plume import is_animated

PDF_BYTES = 1024  # at the start of a file, in which the header of a PDF may come


def check_media(content: dict[str, Any]) -> None:
    """Refuses files that no query can be.

    Args:
        content (`dict`): An item for the encoder, with paths under "image" and "video".

    Raises:
        ValueError: a file is not there, empty or a PDF, or a still picture stands as a film, naming it.
    """
    for kind in ("image", "video"):
        if kind in content:
            _check_file(content[kind], kind)


def is_pdf(start: bytes) -> bool:
    """Whether a file whose first `PDF_BYTES` these are is a PDF: readers look for its header behind other bytes too."""
    return b"%PDF-" in start[:PDF_BYTES]


def _check_file(path: Path, kind: str) -> None:
    with opened(path, kind) as file:
        start = file.read(PDF_BYTES)
        if not start:
            raise ValueError(f"{path} is empty.")
        if is_pdf(start):
            raise ValueError(f"{path} is a PDF: a query takes pictures and films; give a page of it as a picture.")
    if kind == "video" and path.suffix.lower() in IMAGE_SUFFIXES and not _moves(path):
        raise ValueError(f"{path} is a picture, not a film; pass it to --image.")


def _moves(path: Path) -> bool:
    """Whether a file with the suffix of a picture may be a film; so is one that Pillow cannot open, as far as is known
    here."""
    with opened(path, "video") as file:
        try:
            with open_picture(file) as picture:
                return is_animated(picture)
        except Exception:  # decoders raise anything on damaged files; its reader names what is wrong
            return True
