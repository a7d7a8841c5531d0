"""What the tests of the index share: an encoder that counts, and the index as rows."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from plume_embed.encode.encoder import Encoder
from plume_embed.index.update import UpdateOptions, UpdateReport, update_index

LONG_AGO = 1_600_000_000


class CountingEncoder(Encoder):
    """Keeps a list of what was really embedded."""

    def __init__(self, model: Path):
        super().__init__(model, device="cpu")
        self.embedded: list[dict] = []

    def encode_batches(self, batches: Iterable[list], *options, **more) -> Iterator:
        pending = deque()

        def noted() -> Iterator[list]:
            for batch in batches:
                pending.append(batch)
                yield batch

        for result in super().encode_batches(noted(), *options, **more):
            self.embedded += pending.popleft()
            yield result


def rows_by_place(db: Path) -> dict[tuple[str, str], dict]:
    """The items in an index by path and locator, read past the code that is tested."""
    import lancedb

    files, items = (
        lancedb.connect(str(db)).open_table(name).search().limit(None).to_arrow().to_pylist()
        for name in ("files", "items")
    )
    assert len({(item["content"], item["item"]) for item in items}) == len(items), "a row is doubled"
    return {
        (file["path"], item["locator"]): item for file in files for item in items if item["content"] == file["content"]
    }


def age(folder: Path) -> None:
    """Files that have just been written are hashed again at the next update."""
    for path in folder.rglob("*"):
        if path.is_file() and ".plume-index" not in path.parts:
            os.utime(path, (LONG_AGO, LONG_AGO))


def update(folder: Path, encoder: CountingEncoder, db: Path | None = None, reported=None, **options) -> UpdateReport:
    encoder.embedded.clear()
    on_unreadable = (lambda path, reason: reported.append((path, reason))) if reported is not None else lambda *_: None
    return update_index(
        folder,
        db or folder / ".plume-index",
        encoder,
        num_latent_steps=0,
        batch_size=4,
        on_unreadable=on_unreadable,
        options=UpdateOptions(**options),
    )


def write_texts(folder: Path) -> Path:
    """Makes a folder with one text in it and another one in a subfolder."""
    (folder / "sub").mkdir(parents=True)
    (folder / "whale.txt").write_text("The blue whale is the largest animal.")
    (folder / "sub" / "rose.md").write_text("Roses grow in gardens.")
    return folder
