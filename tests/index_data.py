"""What the tests of the index share: an encoder that counts, and the index as rows."""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from plume_embed.encode.encoder import Encoder


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
