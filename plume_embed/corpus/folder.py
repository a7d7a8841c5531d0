"""A folder as a source: its texts, pictures, films and pages, cut into items as `index` cuts them."""

import hashlib
import json
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
from plume_embed.reading.read import read_items


@dataclass
class FolderSource:
    """All readable files of a folder; an id is the path, with `#page=3` and the like behind it.

    Args:
        root (`Path`): The folder.
    """

    root: Path
    _digest: str = ""

    def slices(self, size: int) -> Iterator[Draft]:
        """See [`Source`]; `size` counts files."""
        whole = hashlib.sha256()
        listing = list_folder(self.root)
        unreadable = [[path, reason] for path, reason in listing.unreadable]
        for start in range(0, max(len(listing.files), 1), size):
            files = [[f.path, f.kind, f.size, f.mtime_ns] for f in listing.files[start : start + size]]
            spec = {"files": files, "unreadable": unreadable if start == 0 else []}
            whole.update(json.dumps(spec).encode())
            if files or spec["unreadable"]:
                yield Draft(spec, len(files), hash_of(spec).hex())
        self._digest = whole.hexdigest()

    def digest(self) -> str:
        """See [`Source`]: of paths, sizes and dates."""
        return self._digest

    def columns(self) -> dict[str, pa.DataType]:
        """See [`Source`]: none."""
        return {}

    def read(self, spec: dict[str, Any], preparer: Preparer) -> Iterator[Row | BadRow]:
        """See [`Source`]; decoding runs in a bounded process."""
        for path, reason in spec["unreadable"]:
            yield BadRow(path, path, reason)
        options, place = Options.of(preparer.processor), 0
        for path, kind, size, mtime_ns in spec["files"]:
            file = SourceFile(path, self.root.resolve() / path, kind, size, mtime_ns)
            try:
                for item in read_items(file, preparer.fits, options):
                    name = f"{path}#{item.locator}" if item.locator else path
                    if item.content is None:
                        yield BadRow(name, name, item.reason)
                    else:
                        yield Row(place, name, name, item.content)
                        place += 1
            except UnreadableError as error:
                yield BadRow(path, path, str(error))
