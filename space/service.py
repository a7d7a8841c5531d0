"""What the page does, without the page: searching, adding files, comparing. All state is per session."""

import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plume_embed.encode.encoder import Encoder
from plume_embed.reading.items import FileItem, Kind
from space.compare import Variant, compare, writes_rationales
from space.content.collection import Collection
from space.content.items import Hit, Item, merged, ranked
from space.content.sessions import QueryResult, Session, Sessions
from space.content.thumbnails import thumbnail
from space.content.uploads import RefusedError, read_upload, shown_name
from space.page import diagnostics
from space.settings import Settings
from space.trace import Trace, trace_query

_ITEMS_PER_PASS = 4  # between two passes an upload can be cancelled


class Upload(NamedTuple):
    """A file that a visitor has uploaded: where it lies, and what the visitor calls it."""

    path: Path
    name: str


class Service:
    """The Space behind its page.

    Args:
        settings ([`Settings`])
        encoder ([`Encoder`])
        upload_folder (`Path`): Where uploads arrive.

    Attributes:
        collection ([`Collection`]): Call its `start` or `build`.
        sessions ([`Sessions`])
    """

    def __init__(self, settings: Settings, encoder: Encoder, upload_folder: Path):
        self.settings, self.encoder = settings, encoder
        self.collection = Collection(encoder, settings.data)
        self.sessions = Sessions(settings, upload_folder)
        self._can_write: bool | None = None
        self._can_write_lock = threading.Lock()

    @property
    def max_steps(self) -> int:
        """The slider's end: K of the model, or 8 where it can run more."""
        return min(8, self.encoder.model.config.num_step_embeddings)

    def query(
        self, session_id: str | None, text: str, image: Upload | None, video: Upload | None, num_latent_steps: int
    ) -> Generator[str, None, QueryResult]:
        """Searches the bundled collection and the visitor's own.

        Yields:
            `str`: What comes next; here it can be closed.

        Returns:
            [`QueryResult`]: Also kept in the session.

        Raises:
            ValueError: what the visitor reads, in plain text.
        """
        session = self.sessions.of(session_id)
        text = (text or "").strip()
        if not text and image is None and video is None:
            raise ValueError("The query is empty: write a text, or add a picture or a film.")
        if len(text) > self.settings.limits.text_characters:
            raise ValueError(f"The text is longer than {self.settings.limits.text_characters:,} characters.")
        if not 0 <= num_latent_steps <= self.max_steps:
            raise ValueError(f"Latent steps go from 0 to {self.max_steps}, got {num_latent_steps}.")
        self.collection.check()
        yield "reading the query"
        content = {}
        for key, upload, kind in (("image", image, "image"), ("video", video, "video")):
            if upload is not None:
                session.uploads.add(upload.path)
                content[key] = self._read(upload, (kind,))[0].content[key]
        if text:
            content["text"] = text
        trace = yield from trace_query(self.encoder, self.encoder.process([content]), num_latent_steps)
        hits = self.search(session, trace.embedding, self.settings.results)
        session.last = QueryResult(content, self._describe(text, image, video), trace, hits)
        return session.last

    def search(self, session: Session, vector: np.ndarray, top: int) -> list[Hit]:
        """The nearest items of both collections."""
        return merged(self.collection.search(vector, top), ranked(session.items, vector, top), top)

    def add(self, session_id: str | None, uploads: Sequence[Upload]) -> Generator[str, None, list[str]]:
        """Embeds files into the private collection of a session; the files are deleted as soon as they are read.

        Yields:
            `str`: What comes next; here it can be closed.

        Returns:
            `list[str]`: Why files were refused, in plain text.
        """
        session, refusals = self.sessions.of(session_id), []
        limit = self.settings.limits.files_at_once
        try:
            if len(uploads) > limit:
                raise RefusedError(f"{len(uploads)} files are too many at once; the limit is {limit}.")
            for upload in uploads:
                yield f"reading {shown_name(upload.name, self.settings.limits)}"
                try:
                    yield from self._add_one(session, upload)
                except ValueError as error:
                    refusals.append(str(error))
        except RefusedError as error:
            refusals.append(str(error))
        finally:
            for upload in uploads:
                self.sessions.delete_upload(upload.path)
        return refusals

    def candidates(self, session: Session) -> list[Item]:
        """All items that a session can find."""
        return [*self.collection.items, *session.items]

    def rank_changes(self, session: Session, trace: Trace, top: int) -> list[tuple[Item, diagnostics.RankChange]]:
        """The anchor's ranking of a query beside the final one, over all items of the session."""
        items, vectors = self.candidates(session), self.collection.vectors
        if len(items) > len(vectors):
            vectors = np.concatenate([vectors, np.stack([item.vector for item in items[len(vectors) :]])])
        return [
            (items[change.index], change)
            for change in diagnostics.rank_changes(trace.anchor, trace.embedding, vectors, top)
        ]

    def compare(self, session: Session) -> Generator[tuple[Variant, list[Hit]], None, None]:
        """The last query in three variants, each with what it finds.

        Raises:
            ValueError: there is no last query.
        """
        result = _last(session)
        steps = result.trace.num_latent_steps or self.encoder.latent_steps()
        batch, tokens = self.encoder.process([result.content]), self.settings.rationale_tokens
        for variant in compare(self.encoder, batch, steps, self.can_write(), tokens):
            hits = [] if variant.vector is None else self.search(session, variant.vector, self.settings.trajectories)
            yield variant, hits

    def can_write(self) -> bool:
        """Whether the model writes rationales; found out once, by asking it for a few."""
        with self._can_write_lock:
            if self._can_write is None:
                self._can_write = writes_rationales(self.encoder, self.settings.rationale_tokens)
            return self._can_write

    def _add_one(self, session: Session, upload: Upload) -> Generator[str, None, None]:
        items = self._read(upload, ("image", "video", "page"))
        shown = shown_name(upload.name, self.settings.limits)
        added: list[Item] = []
        for start in range(0, len(items), _ITEMS_PER_PASS):
            yield f"embedding {shown}, {start + 1} of {len(items)}"
            part = items[start : start + _ITEMS_PER_PASS]
            vectors, errors = self.encoder.encode_readable([item.content for item in part])
            if errors:
                raise RefusedError(f"“{shown}” was refused: {next(iter(errors.values()))}")
            for item, vector in zip(part, vectors, strict=True):
                label = shown + (f", {item.locator.replace('=', ' ')}" if item.locator else "")
                small = thumbnail(item.content)
                added.append(Item(label, item.kind, vector, lambda small=small: small, item.snippet, is_own=True))
        limit = self.settings.limits.items
        with session.lock:
            total = len(session.items) + len(added)
            if total > limit:
                raise RefusedError(
                    f"“{shown}” was refused: with it your collection would have {total} items, "
                    f"and the limit is {limit}. Remove your files first."
                )
            session.items = [*session.items, *added]

    def _read(self, upload: Upload, wanted: tuple[Kind, ...]) -> list[FileItem]:
        return read_upload(upload.path, upload.name, wanted, self.settings.limits, self.encoder.processor.num_frames)

    def _describe(self, text: str, image: Upload | None, video: Upload | None) -> str:
        limits = self.settings.limits
        parts = [f"“{text if len(text) <= 60 else text[:59] + '…'}”"] if text else []
        parts += [f"the picture {shown_name(image.name, limits)}"] if image else []
        parts += [f"the film {shown_name(video.name, limits)}"] if video else []
        return " with ".join(parts)


def _last(session: Session) -> QueryResult:
    if session.last is None:
        raise ValueError("There is no query yet: search for something first.")
    return session.last
