"""What an index needs of an encoder, so that a server can stand in for a model in this process. It needs no torch."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from plume_embed.reading.options import MediaReader


class ItemEncoder(Protocol):
    """Items -> vectors: an [`Encoder`], or the client of a server with one."""

    name: str

    @property
    def processor(self) -> MediaReader:
        """How files are read for it."""
        ...

    @property
    def dimension(self) -> int:
        """D, the size of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides a vector, code aside."""
        ...

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint that it has with each `--dtype`, as far as that is known."""
        ...

    def latent_steps(self, num_latent_steps: int | None = None) -> int:
        """K as it will be used: the model's own unless given."""
        ...

    def document_latent_steps(self, num_latent_steps: int | None = None) -> int:
        """K of documents: the model's own where it has one for them, else as of queries."""
        ...

    def num_tokens(self, item: Any) -> float:
        """Roughly the tokens of an item."""
        ...

    def fits(self, text: str) -> bool:
        """Whether a text fits into one row."""
        ...

    def encode_readable(
        self, items: Sequence[Any], batch_size: int = ..., num_latent_steps: int | None = None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Vectors [N, D]; what cannot be embedded leaves a row of NaN and its reason, by its place."""
        ...

    def encode_batches(
        self, batches: Iterable[list[Any]], num_latent_steps: int | None = None
    ) -> Iterator[tuple[np.ndarray, dict[int, str]]]:
        """The same for batch after batch as they stand."""
        ...
