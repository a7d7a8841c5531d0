"""Gradio's upload fields with one thing changed: a file arrives as it is.

Gradio itself would decode an upload before our checks see it. (It also writes a .pyi file beside this one; git ignores
it.)
"""

from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles

from space.content.uploads import Upload


class UploadedImage(gr.Image):
    """gr.Image that hands over the upload undecoded."""

    is_template = True  # the page shows it as its parent

    def preprocess(self, payload: ImageData | None) -> Upload | None:
        return _upload(payload)

    def postprocess(self, value: Path | None) -> ImageData | None:
        return None if value is None else ImageData(path=str(value), orig_name=value.name)


class UploadedVideo(gr.Video):
    """gr.Video that hands over the upload undecoded and never calls ffmpeg."""

    is_template = True

    def preprocess(self, payload: FileData | None) -> Upload | None:
        return _upload(payload)

    def postprocess(self, value: Path | None) -> FileData | None:
        return None if value is None else FileData(path=str(value), orig_name=value.name)


class UploadedFiles(gr.File):
    """gr.File for several files with the names that their owner gave them; it shows nothing back."""

    is_template = True

    def preprocess(self, payload: ListFiles | None) -> list[Upload]:
        return [] if payload is None else [upload for file in payload if (upload := _upload(file))]

    def postprocess(self, value: None) -> None:
        return None


def select_button() -> str:
    """JavaScript for a gr.HTML with numbered buttons: a click on one is the event `select` with its index."""
    return (
        "element.addEventListener('click', event => { const button = event.target.closest('button[data-index]');"
        " if (button) trigger('select', {index: Number(button.dataset.index)}); });"
    )


def _upload(file: ImageData | FileData | None) -> Upload | None:
    if file is None or not file.path:
        return None
    return Upload(Path(file.path), file.orig_name or Path(file.path).name)
