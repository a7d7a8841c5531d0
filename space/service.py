"""What the page does, without the page: searching, adding files, looking into the rollout. State is per session."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from plume_embed.atomic import write_bytes
from plume_embed.encode.encoder import Encoder
from plume_embed.reading.items import FileItem, Kind
from plume_embed.reading.options import Options
from space import diagnostics, gpu
from space.compare import Variant, compare, sense, writes_rationales
from space.content.corpora import Corpus
from space.content.items import KIND_NAMES, Hit, Item, merged, ranked
from space.content.passages import query_words
from space.content.sessions import QueryResult, Session, Sessions
from space.content.thumbnails import bytes_address, preview, thumbnail
from space.content.uploads import RefusedError, Upload, playable_upload, read_upload, shown_name
from space.runs import compared, tampered, trace_content, trace_repeatedly
from space.settings import Settings
from space.steps import Intervention
from space.trace import Trace, trace_query

_ITEMS_PER_PASS = 4  # between two passes an upload can be cancelled
_FILE_KINDS: tuple[Kind, ...] = ("image", "video", "page", "text")


@dataclass(frozen=True)
class Query:
    """What somebody searches.

    Args:
        corpus ([`Corpus`])
        text (`str`): "" for none.
        image, video ([`Upload`], *optional*)
        num_latent_steps (`int`): K.
        link (`str`): See [`QueryResult`].
    """

    corpus: Corpus
    text: str
    image: Upload | None
    video: Upload | None
    num_latent_steps: int
    link: str = ""


class Service:
    """The Space behind its page.

    Args:
        settings ([`Settings`])
        corpora: The collections, the default first.
        upload_folder (`Path`): Where uploads arrive.

    Attributes:
        sessions ([`Sessions`])
    """

    def __init__(self, settings: Settings, corpora: Sequence[Corpus], upload_folder: Path):
        self.settings, self.corpora = settings, list(corpora)
        self.sessions = Sessions(settings, upload_folder)
        for corpus in corpora:
            gpu.register(corpus.encoder)

    def corpus(self, corpus_id: str | None = None) -> Corpus:
        """A collection by its id, the default one without.

        Raises:
            ValueError: there is none of that id.
        """
        if not corpus_id:
            return self.corpora[0]
        found = next((corpus for corpus in self.corpora if corpus.id == corpus_id), None)
        if found is None:
            known = ", ".join(corpus.id for corpus in self.corpora)
            raise ValueError(f"There is no collection “{corpus_id}”; there are: {known}.")
        return found

    def query(self, session: Session, query: Query) -> Generator[str, None, QueryResult]:
        """Searches a collection and the session's own items beside it.

        Yields:
            `str`: What comes next; here it can be closed.

        Returns:
            [`QueryResult`]: Also kept in the session.

        Raises:
            ValueError: what the visitor reads, in plain text.
        """
        corpus, text = query.corpus, (query.text or "").strip()
        self.sessions.hold(session, *(upload.path for upload in (query.image, query.video) if upload))
        self._check(query, text)
        yield "reading the query"
        content = {}
        for key, upload in (("image", query.image), ("video", query.video)):
            if upload is not None:
                (item,) = self._read(corpus, session.originals.get(upload.path, upload), (key,))
                content[key] = item.content[key]
        if text:
            content["text"] = text
        # The session keeps it: every visitor's photograph at its full size would be 75 MB each. The vector is the same.
        content = corpus.encoder.processor.shrunk(content)
        trace = yield from self._trace(corpus, content, query.num_latent_steps)
        hits = self.nearest(session, corpus, trace.embedding, self.settings.results)
        described = self._describe(query, text)
        session.last = QueryResult(corpus.id, corpus.encoder.name, content, described, trace, hits, query.link)
        return session.last

    def nearest(self, session: Session, corpus: Corpus, vector: np.ndarray, top: int) -> list[Hit]:
        """The nearest items of a collection and of the session's own beside it."""
        return merged(corpus.collection.search(vector, top), ranked(session.own(corpus.id), vector, top), top)

    def add(self, session: Session, corpus: Corpus, uploads: Sequence[Upload]) -> Generator[str, None, list[str]]:
        """Embeds files into the private items of a session; the files are let go as soon as they are read.

        Yields:
            `str`: What comes next; here it can be closed.

        Returns:
            `list[str]`: Why files were refused, in plain text.
        """
        refusals: list[str] = []
        limit = self.settings.limits.files_at_once
        for upload in uploads:
            self.sessions.holders.hold(upload.path)
        try:
            if len(uploads) > limit:
                raise RefusedError(f"{len(uploads)} files are too many at once; the limit is {limit}.")
            for number, upload in enumerate(uploads, start=1):
                shown = shown_name(upload.name, self.settings.limits)
                yield f"file {number} of {len(uploads)}, {shown}: reading"
                try:
                    for progress in self._add_one(session, corpus, upload):
                        yield f"file {number} of {len(uploads)}, {shown}: {progress}"
                except ValueError as error:
                    refusals.append(str(error))
        except RefusedError as error:
            refusals.append(str(error))
        finally:
            for upload in uploads:
                self.sessions.holders.release(upload.path)
        return refusals

    def playable(self, session: Session, film: Upload) -> Path | None:
        """A copy of a query's film that browsers play, in the upload folder; `None` where they play the film itself.

        The query is embedded from the film itself, which the session remembers.

        Raises:
            RefusedError: it is no film, or takes too much to read.
        """
        self.sessions.hold(session, film.path)
        copy = playable_upload(film.path, film.name, ("video",), self.settings.limits)
        if copy is None:
            return None
        path = film.path.with_name(f"{film.path.stem}.playable.mp4")
        write_bytes(path, copy)  # another session's copy of the same film has the same name, and may be playing
        self.sessions.hold(session, path)
        session.originals[path] = film
        return path

    def candidates(self, session: Session, corpus: Corpus) -> list[Item]:
        """All items that a session can find in a collection."""
        return [*corpus.collection.items, *session.own(corpus.id)]

    def rank_changes(
        self, session: Session, result: QueryResult, top: int
    ) -> list[tuple[Item, diagnostics.RankChange]]:
        """The anchor's ranking of a query beside the final one, over all items of the session."""
        corpus = self.corpus(result.corpus)
        items, vectors = self.candidates(session, corpus), corpus.collection.vectors
        if len(items) > len(vectors):
            vectors = np.concatenate([vectors, np.stack([item.vector for item in items[len(vectors) :]])])
        changes = diagnostics.rank_changes(result.trace.anchor, result.trace.embedding, vectors, top)
        return [(items[change.index], change) for change in changes]

    def retraced(self, result: QueryResult, num_latent_steps: int) -> Trace:
        """The query once more with another number of steps."""
        corpus = self.corpus(result.corpus)
        return gpu.call(trace_content, corpus.encoder, result.content, num_latent_steps)

    def timed(self, result: QueryResult) -> Trace:
        """The query's trace with the median times of several runs, the query's own left out: it warmed up."""
        corpus, trace = self.corpus(result.corpus), result.trace
        runs = self.settings.timed_runs
        return gpu.call(trace_repeatedly, corpus.encoder, result.content, trace.num_latent_steps, runs)

    def interventions(self, result: QueryResult) -> list[Intervention]:
        """What becomes of the embedding when the latents are tampered with."""
        corpus = self.corpus(result.corpus)
        texts = [query.text for query in corpus.spec.prepared if query.kind == "text"]
        other = next(text for text in texts if text != result.content.get("text"))
        return gpu.call(tampered, corpus.encoder, result.content, result.trace, other)

    def compare(self, session: Session) -> Generator[tuple[Variant, list[Hit], str], None, None]:
        """The last query in three variants, each with what it finds and a remark about its rationale.

        Raises:
            ValueError: there is no last query.
        """
        result = session.last
        if result is None:
            raise ValueError("There is no query yet: search for something first.")
        corpus, tokens = self.corpus(result.corpus), self.settings.rationale_tokens
        steps = result.trace.num_latent_steps or corpus.default_steps
        arguments = (result.content, steps, self.can_write(corpus), tokens)
        for variant in self._variants(corpus.encoder, *arguments):
            hits = [] if variant.vector is None else self.nearest(session, corpus, variant.vector, self.settings.shown)
            remark = ""
            if variant.vector is not None and variant.name.startswith("Explicit"):
                labels = " ".join(f"{item.label} {item.text}" for item in self.candidates(session, corpus))
                remark = sense(variant.text, query_words(f"{result.content.get('text', '')} {labels}"))
            yield variant, hits, remark

    def can_write(self, corpus: Corpus) -> bool:
        """Whether the model writes rationales; found out once, by asking it for a few."""
        with corpus.lock:
            if corpus.can_write is None:
                corpus.can_write = gpu.call(writes_rationales, corpus.encoder, self.settings.rationale_tokens)
            return corpus.can_write

    def _variants(self, encoder: Encoder, *arguments) -> Generator[Variant, None, None]:
        if gpu.IS_ZERO:
            yield from gpu.call(compared, encoder, *arguments)
        else:
            content, *others = arguments
            yield from compare(encoder, encoder.process([content]), *others)

    def _trace(self, corpus: Corpus, content: dict, num_latent_steps: int) -> Generator[str, None, Trace]:
        if gpu.IS_ZERO:
            return gpu.call(trace_content, corpus.encoder, content, num_latent_steps)
        return (yield from trace_query(corpus.encoder, corpus.encoder.process([content]), num_latent_steps))

    def _check(self, query: Query, text: str) -> None:
        limits = self.settings.limits
        if not text and query.image is None and query.video is None:
            raise ValueError("The query is empty: write a text, or add a picture or a film.")
        if len(text) > limits.text_characters:
            raise ValueError(f"The text is longer than {limits.text_characters:,} characters.")
        query.corpus.check_steps(query.num_latent_steps)
        query.corpus.collection.check()

    def _add_one(self, session: Session, corpus: Corpus, upload: Upload) -> Generator[str, None, None]:
        shown = shown_name(upload.name, self.settings.limits)
        added: list[Item] = []
        with closing(self._read(corpus, upload, _FILE_KINDS)) as items:
            while part := list(islice(items, _ITEMS_PER_PASS)):
                yield f"embedding {part[0].number + 1} of {part[0].count}"
                steps = corpus.encoder.document_latent_steps()
                contents = [item.content for item in part]
                vectors, errors = corpus.encoder.encode_readable(contents, num_latent_steps=steps)
                if errors:
                    raise RefusedError(f"“{shown}” was refused: {next(iter(errors.values()))}")
                clip = self._clip(upload) if part[0].kind == "video" else None
                added += [_own_item(shown, item, vector, clip) for item, vector in zip(part, vectors, strict=True)]
        limit = self.settings.limits.items
        with session.lock:
            own = session.own(corpus.id)
            total = len(own) + len(added)
            if total > limit:
                raise RefusedError(
                    f"“{shown}” was refused: with it your collection would have {total} items, "
                    f"and the limit is {limit}. Remove your files first."
                )
            session.items[corpus.id] = [*own, *added]

    def _clip(self, upload: Upload) -> str | None:
        """A small film for the page to play, as a data address."""
        limits = self.settings.limits
        try:
            copy = playable_upload(upload.path, upload.name, ("image", "video"), limits, always=True)
        except RefusedError:
            return None  # its frames could be read: the strip of them is shown
        return bytes_address("video/mp4", copy) if copy and len(copy) <= limits.clip_bytes else None

    def _read(self, corpus: Corpus, upload: Upload, wanted: tuple[Kind, ...]) -> Iterator[FileItem]:
        encoder, limits = corpus.encoder, self.settings.limits
        return read_upload(upload.path, upload.name, wanted, limits, Options.of(encoder.processor), encoder.fits)

    def _describe(self, query: Query, text: str) -> str:
        limits = self.settings.limits
        parts = [f"“{text if len(text) <= 60 else text[:59] + '…'}”"] if text else []
        for upload, kind in ((query.image, "image"), (query.video, "video")):
            parts += [f"the {KIND_NAMES[kind]} {shown_name(upload.name, limits)}"] if upload else []
        return " with ".join(parts)


def _own_item(shown: str, item: FileItem, vector: np.ndarray, clip: str | None) -> Item:
    label = shown + (f", {item.locator.replace('=', ' ')}" if item.locator else "")
    small, large = thumbnail(item.content), clip or preview(item.content)
    text = item.snippet if item.kind == "page" else item.content.get("text", "")  # a page's content has its first words
    show: Callable[[], str | None] = partial(str, large) if large else lambda: None
    return Item(label, item.kind, vector, lambda: small, show, text, is_own=True)
