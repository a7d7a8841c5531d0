"""The bundled collection: embedded once in the background, kept in LanceDB, searched by every visitor."""

import logging
import shutil
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from plume_embed.encode.encoder import Encoder
from plume_embed.index.listing import list_folder
from plume_embed.index.search import OpenIndex, Row, open_index
from plume_embed.index.update import UpdateOptions, update_index
from plume_embed.model.images_plume import MAX_PIXELS
from plume_embed.reading.items import SourceFile
from plume_embed.reading.read import Options, read_items
from space.content.films import is_played_by_browsers, playable_copy
from space.content.items import Hit, Item
from space.content.thumbnails import bytes_address, preview, thumbnail

FILM_BYTES = 2**20  # a larger film is sent as a small copy

logger = logging.getLogger(__name__)


class NotReadyError(ValueError):
    """The collection cannot be searched yet; the message says how far it is."""


class Collection:
    """Pictures, films and documents of the Space, as vectors in LanceDB.

    Args:
        encoder ([`Encoder`])
        data (`Path`): Where the files are gathered and the index is kept; made if it is not there.
        name (`str`): Names its folder in there.
        sources (`dict[Path, str]`): Folders with files -> folders of the collection.

    Attributes:
        done, total (`int`): Items embedded so far, and in all as far as that is known.
        embedded (`int`): Items whose vectors this start had to compute; 0 when all was there already.
    """

    def __init__(self, encoder: Encoder, data: Path, name: str, sources: dict[Path, str]):
        self.encoder, self.sources, self.folder = encoder, sources, data / name / "files"
        # Inside the folder, so that both can be moved; another model has another index beside it.
        self.database = self.folder / f".index-{encoder.fingerprint[:16]}"
        self.done = self.total = self.embedded = 0
        self.items: list[Item] = []
        self._places: dict[tuple[str, str], int] = {}
        self._index: OpenIndex | None = None
        self._error: str | None = None
        self._ready = threading.Event()
        self._matrix = np.empty((0, encoder.dimension), np.float32)

    @property
    def is_ready(self) -> bool:
        """Whether it can be searched."""
        return self._ready.is_set() and self._error is None

    @property
    def vectors(self) -> np.ndarray:
        """Of all items, [N, D], in the order of `items`."""
        return self._matrix

    def start(self) -> None:
        """Builds it in a thread of its own."""
        threading.Thread(target=self._build_and_tell, name="plume-collection", daemon=True).start()

    def wait(self, timeout: float | None = None) -> None:
        """Returns when it can be searched.

        Raises:
            NotReadyError: it could not be built, or not in time.
        """
        self._ready.wait(timeout)
        self.check()

    def check(self) -> None:
        """Raises NotReadyError unless it can be searched."""
        if self._error is not None:
            raise NotReadyError(f"The bundled collection could not be prepared: {self._error}")
        if not self._ready.is_set():
            raise NotReadyError(f"The bundled collection is being embedded: {self.progress}. Try again in a moment.")

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return f"{self.done} of {self.total} items" if self.total else "it has just begun"

    def search(self, vector: np.ndarray, top: int) -> list[Hit]:
        """The items nearest to a vector [D], best first.

        Raises:
            NotReadyError
        """
        self.check()
        hits = self._index.search(vector, top)
        return [Hit(self.items[self._places[hit.path, hit.locator]], hit.score) for hit in hits]

    def build(self) -> None:
        """Gathers the files, embeds what is new, and opens the index."""
        gather(self.sources, self.folder)
        options = UpdateOptions(prune=True)  # `gather` knows what there is
        report = update_index(self.folder, self.database, self.encoder, on_progress=self._progressed, options=options)
        for path, reason in report.unreadable:
            logger.warning("%s of the bundled collection cannot be read: %s", path, reason)
        self.embedded = report.embedded
        self._index = open_index(self.folder, self.database, self.encoder)
        rows = self._index.rows()
        files = {file.path: file for file in list_folder(self.folder).files}
        self.items = [self._item(row, files[row.path]) for row in rows]
        self._places = {(row.path, row.locator): place for place, row in enumerate(rows)}
        self._matrix = np.stack([item.vector for item in self.items])
        self._ready.set()

    def _build_and_tell(self) -> None:
        try:
            self.build()
            for item in self.items:
                _ = item.thumbnail  # made now, no visitor waits for it
            logger.info("The bundled collection is ready: %d items, %d embedded now", len(self.items), self.embedded)
        except Exception as error:  # a page that says what is wrong is better than none
            logger.exception("The bundled collection could not be prepared")
            self._error = str(error)
            self._ready.set()

    def _progressed(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def _item(self, row: Row, file: SourceFile) -> Item:
        label = Path(row.path).stem.replace("_", " ")
        if row.locator:
            label += f", {row.locator.replace('=', ' ')}"
        return Item(
            label=label,
            kind=row.kind,
            vector=row.vector,
            make_thumbnail=lambda: thumbnail(self._content(file, row.item)),
            make_preview=partial(self._preview, file, row.item),
            text=row.snippet,
        )

    def _preview(self, file: SourceFile, number: int) -> str | None:
        if file.kind != "video":
            return preview(self._content(file, number))
        if file.size <= FILM_BYTES and is_played_by_browsers(file.absolute):
            media_type = "video/webm" if file.path.endswith(".webm") else "video/mp4"
            return bytes_address(media_type, file.absolute.read_bytes())
        return bytes_address("video/mp4", playable_copy(file.absolute, MAX_PIXELS, always=True))

    def _content(self, file: SourceFile, number: int) -> dict:
        options = replace(Options.of(self.encoder.processor), shrink=None)  # a person looks closer than the model
        # To the end: a reader that is left in between takes its process with it, and the next file has to start one.
        found = [item for item in read_items(file, self.encoder.fits, options) if item.number == number]
        if not found:
            raise ValueError(f"{file.path} has no item {number} any more; start the Space again.")
        return found[0].content


def gather(sources: dict[Path, str], folder: Path) -> None:
    """Copies the bundled files to where they are indexed from; what is no longer bundled goes."""
    wanted = {
        folder / name / file.name: file
        for source, name in sources.items()
        for file in source.iterdir()
        if not file.name.startswith(".")
    }
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.rglob("*"):
        is_hidden = any(part.startswith(".") for part in old.relative_to(folder).parts)  # the indexes
        if old.is_file() and old not in wanted and not is_hidden:
            old.unlink()
    for target, source in wanted.items():
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
