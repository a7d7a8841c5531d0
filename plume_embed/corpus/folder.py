"""A folder as a source: its texts, pictures, films and pages, cut into items as `index` cuts them."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from plume_embed.corpus.rows import BadRow, Draft, Row, hash_of
from plume_embed.encode.prepare import Preparer
from plume_embed.index.listing import list_folder
from plume_embed.reading.items import SourceFile, UnreadableError
from plume_embed.reading.options import Options
from plume_embed.reading.read import check_unchanged, read_items
from plume_embed.stored import printable


@dataclass
class FolderSource:
    """All readable files of a folder; an id is the path, with `#page=3` and the like behind it.

    Args:
        root (`Path`): The folder.
    """

    root: Path
    _digest: str = ""

    def asked(self) -> dict[str, Any]:
        """See [`Source`]."""
        return {"source": str(self.root.resolve()), "keep": []}

    def slices(self, size: int) -> Iterator[Draft]:
        """See [`Source`]; `size` counts files."""
        listing = list_folder(self.root)
        unreadable = [[printable(path), reason] for path, reason in listing.unreadable]
        whole = hashlib.sha256(json.dumps(unreadable).encode())
        for start in range(0, max(len(listing.files), 1), size):
            files, closed = [], []
            for file in listing.files[start : start + size]:
                is_open = os.access(file.absolute, os.R_OK)
                state = [file.path, file.kind, file.size, file.mtime_ns]
                whole.update(json.dumps([*state, is_open]).encode())
                if is_open:
                    files.append(state)
                else:
                    closed.append([file.path, os.strerror(errno.EACCES)])
            spec = {"files": files, "unreadable": [*unreadable, *closed] if start == 0 else closed}
            if files or spec["unreadable"]:
                yield Draft(spec, len(files), hash_of(spec).hex())
        self._digest = whole.hexdigest()

    def digest(self) -> str:
        """See [`Source`]: of paths, sizes, dates, and of what may not be read."""
        return self._digest

    def columns(self) -> dict[str, pa.DataType]:
        """See [`Source`]: none."""
        return {}

    def read(self, spec: dict[str, Any], preparer: Preparer) -> Iterator[Row | BadRow]:
        """See [`Source`]; decoding runs in a bounded process."""
        self.check(spec)
        for path, reason in spec["unreadable"]:
            yield BadRow(path, path, reason)
        options, place = Options.of(preparer.processor), 0
        for file in self._files(spec):
            try:
                for item in read_items(file, preparer.fits, options):
                    name = f"{file.path}#{item.locator}" if item.locator else file.path
                    if item.content is None:
                        yield BadRow(name, name, item.reason)
                    else:
                        yield Row(place, name, name, item.content)
                        place += 1
            except UnreadableError as error:
                yield BadRow(file.path, file.path, str(error))

    def bad_places(self, spec: dict[str, Any], places: set[int]) -> set[int]:
        """See [`Source`]: no item has an id of its own."""
        return set()

    def check(self, spec: dict[str, Any]) -> None:
        """See [`Source`]."""
        for file in self._files(spec):
            try:
                check_unchanged(file)
            except UnreadableError as error:
                raise ValueError(f"{file.absolute} changed while it was read; run again.") from error

    def _files(self, spec: dict[str, Any]) -> list[SourceFile]:
        root = self.root.resolve()
        return [SourceFile(path, root / path, *others) for path, *others in spec["files"]]
