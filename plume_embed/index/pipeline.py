"""Files -> vectors, in one direction: reading, digests, batches, vectors.

Each stage takes what the one before gives, in the order of the files. Nothing flows back: what a stage has to say of a
file goes along as a [`Part`].
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import takewhile

import numpy as np
from PIL import Image

from plume_embed.encode.batching import TOKEN_BUDGET, read_together
from plume_embed.index.interface import ItemEncoder
from plume_embed.index.listing import is_of_content
from plume_embed.model.videos_plume import TimedFrames
from plume_embed.reading.items import FileItem, SourceFile, UnreadableError

# Of decoded pictures. A handful of batches are in memory at once, and as many bytes wait for the next.
BATCH_BYTES = 2**27
WAITING_BYTES = 2**27
# Files that are read at once, each by a process of its own that decodes one item at a time.
READERS = min(4, os.cpu_count() or 1)
# Pictures in the first batch: the model begins while the next ones are read, also in a small folder.
FIRST_BATCH = 4
# Parts that need no pass of the model, in a batch: they are committed together.
_PARTS_PER_BATCH = 512


@dataclass(frozen=True)
class Work:
    """A content to embed.

    Args:
        content (`str`): Its name in the index.
        files: Those that have it; the first that still has it is read.
        skip: Numbers of its items that are in the index already.
    """

    content: str
    files: list[SourceFile]
    skip: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Part:
    """One step through a content: an item of it, or its end.

    Args:
        work ([`Work`])
        item ([`FileItem`], *optional*): `None` at the end.
        failure (`str`): At the end: why the rest of the file cannot be read.
        is_cut_short (`bool`): At the end: something outside ended the reading of the file, or of an item of it.
        lost: At the end: by path, why files could not be read that have not this content any more.
        digest (`str`): Of the item's content, 32 hex digits.
        is_known (`bool`): A vector of this digest is in the index.
    """

    work: Work
    item: FileItem | None = None
    failure: str = ""
    is_cut_short: bool = False
    lost: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    is_known: bool = False

    @property
    def is_to_embed(self) -> bool:
        """Whether it needs a pass of the model."""
        return self.item is not None and self.item.content is not None and not self.is_known

    @property
    def num_bytes(self) -> int:
        """Of its decoded pictures."""
        content = self.item.content if self.item else None
        return sum(map(_num_bytes, _pictures(content))) if content and not self.is_known else 0


@dataclass
class Batch:
    """Parts in their order, and what became of those to embed.

    Args:
        parts: All of them.
        vectors (`np.ndarray` of shape [B, D], *optional*): Of those to embed.
        errors: Why some of these could not be embedded, by their place among them.
    """

    parts: list[Part] = field(default_factory=list)
    vectors: np.ndarray | None = None
    errors: dict[int, str] = field(default_factory=dict)

    def to_embed(self) -> list[Part]:
        """The parts that need a pass of the model."""
        return [part for part in self.parts if part.is_to_embed]


def embed_contents(
    works: Iterable[Work],
    encoder: ItemEncoder,
    num_latent_steps: int | None,
    batch_size: int,
    read: Callable[[Work], Iterator[FileItem]],
    known: Container[str],
) -> Iterator[Batch]:
    """The contents as batches with their vectors; the end of a content comes after all of its items.

    Args:
        works: In the order in which they are read.
        encoder ([`ItemEncoder`])
        num_latent_steps (`int`, *optional*): K.
        batch_size (`int`): Most items in a pass of the model.
        read (`Callable`): Gives the items of a content that are not to be skipped; called in other threads, for several
            contents at once.
        known: Digests whose vectors need not be computed again.
    """
    parts = read_together(
        (read_parts(work, read, known) for work in works),
        READERS,
        ahead=batch_size,
        num_bytes=lambda part: part.num_bytes,
        max_bytes=WAITING_BYTES,
    )
    is_over = threading.Event()  # so that whoever gathers a batch does not go on to its end
    with closing(parts):
        wanted = takewhile(lambda part: not is_over.is_set(), parts)
        batches = make_batches(wanted, encoder.num_tokens, batch_size, first_size=FIRST_BATCH)
        yield from _with_vectors(batches, encoder, num_latent_steps, is_over)


def read_parts(work: Work, read: Callable[[Work], Iterator[FileItem]], known: Container[str]) -> Iterator[Part]:
    """The items of a content as they are decoded, each with its digest, and its end.

    Where a file goes or changes while it is read, the next one that has the content is read on.
    """
    done, is_cut_short, lost = set(work.skip), False, {}
    for number, file in enumerate(work.files):
        failure = ""
        try:
            for item in read(replace(work, files=work.files[number:], skip=frozenset(done))):
                done.add(item.number)
                if item.content is None:
                    is_cut_short |= item.is_cut_short
                    yield Part(work, item)
                    continue
                digest = content_digest(item.content)
                is_known = digest in known
                if is_known:  # it needs no pixels any more
                    item = replace(item, content={})
                yield Part(work, item, digest=digest, is_known=is_known)
            break
        except UnreadableError as error:
            failure = str(error)
            if is_of_content(file, work.content):
                is_cut_short |= error.is_cut_short
                break
            lost[file.path] = failure
    yield Part(work, failure=failure, is_cut_short=is_cut_short, lost=lost)


def make_batches(
    parts: Iterable[Part],
    num_tokens: Callable[[dict], float],
    batch_size: int,
    token_budget: float = TOKEN_BUDGET,
    max_bytes: int = BATCH_BYTES,
    first_size: int | None = None,
) -> Iterator[Batch]:
    """Batches that keep to a number of items, a budget of tokens and a number of bytes.

    Args:
        parts: In their order.
        num_tokens (`Callable`): Of a content.
        batch_size (`int`): Most items.
        token_budget (`float`): Most tokens, padding included; an item above it has a batch to itself.
        max_bytes (`int`): Most bytes of decoded pictures, likewise.
        first_size (`int`, *optional*): Most items of the first batch of pictures, which take long to read; each may
            have twice as many as the one before.
    """
    batch, count, longest, total = Batch(), 0, 0.0, 0
    most = min(batch_size, first_size or batch_size)
    for part in parts:
        if part.is_to_embed:
            size, num_bytes = num_tokens(part.item.content), part.num_bytes
            is_over = max(longest, size) * (count + 1) > token_budget or total + num_bytes > max_bytes
            if count == (most if num_bytes else batch_size) or (count and is_over):
                yield batch
                most = min(batch_size, 2 * most) if total else most
                batch, count, longest, total = Batch(), 0, 0.0, 0
            count, longest, total = count + 1, max(longest, size), total + num_bytes
        elif len(batch.parts) >= _PARTS_PER_BATCH:
            yield batch
            batch, count, longest, total = Batch(), 0, 0.0, 0
        batch.parts.append(part)
    if batch.parts:
        yield batch


def content_digest(content: dict) -> str:
    """A hash of what the processor gets: of the text, or of the decoded pixels and the times of those that have some,
    whatever file they come from."""
    digest = hashlib.sha256()
    if "text" in content:
        digest.update(b"text\0" + content["text"].encode())
    for name in ("image", "video"):
        if name in content:
            digest.update(name.encode())
            for picture in _pictures({name: content[name]}):
                digest.update(f"\0{picture.mode} {picture.size} ".encode())
                digest.update(picture.tobytes())
    frames = content.get("video")
    if isinstance(frames, TimedFrames):
        digest.update(b"times" + np.array(frames.times).tobytes())
    return digest.hexdigest()[:32]


def _with_vectors(
    batches: Iterable[Batch], encoder: ItemEncoder, num_latent_steps: int | None, is_over: threading.Event
) -> Iterator[Batch]:
    pending: deque[Batch] = deque()

    def contents() -> Iterator[list[dict]]:
        for batch in batches:
            pending.append(batch)
            yield [part.item.content for part in batch.to_embed()]

    with closing(encoder.encode_batches(contents(), num_latent_steps)) as results:
        try:
            for vectors, errors in results:
                batch = pending.popleft()
                batch.vectors, batch.errors = vectors, errors
                yield batch
        finally:
            is_over.set()


def _pictures(content: dict) -> list[Image.Image]:
    return [content["image"]] if "image" in content else content.get("video", [])


def _num_bytes(picture: Image.Image) -> int:
    return picture.width * picture.height * len(picture.getbands())
