"""What happens on the events of the tab "Search". Refusals are shown on the page, as sentences."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import gradio as gr

from space.content.corpora import Corpus
from space.content.sessions import QueryResult, Session
from space.content.uploads import Upload
from space.page import render
from space.page.examples import Examples
from space.page.snippets import takeaway
from space.service import Query, Service

_SECONDS_BETWEEN_UPDATES = 0.25
NO_QUERY = render.status("There is no query yet: search for something in the first tab.")

Result = TypeVar("Result")
Update = dict[Any, Any]  # component -> value


@dataclass(frozen=True)
class SearchParts:
    """The components that a search reads or writes."""

    corpus: gr.Radio
    text: gr.Textbox
    image: gr.Image
    video: gr.Video
    steps: gr.Slider
    ticket: gr.Number
    link: gr.Textbox
    own: gr.HTML
    status: gr.HTML
    results: gr.HTML
    takeaway: gr.HTML
    diagnostics: gr.HTML
    compare: gr.HTML
    variants: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """All of them; the event's number excepted, which only the browser writes."""
        return [getattr(self, part.name) for part in fields(self) if part.name != "ticket"]


class SearchHandlers:
    """Searching, adding files, enlarging results.

    Args:
        service ([`Service`])
        examples ([`Examples`])

    Attributes:
        parts ([`SearchParts`]): Set when the tab is drawn.
    """

    parts: SearchParts

    def __init__(self, service: Service, examples: Examples):
        self.service, self.examples = service, examples

    @property
    def default(self) -> Corpus:
        """The collection that a visitor sees first."""
        return self.service.corpora[0]

    def search(
        self,
        text: str,
        image: Upload | None,
        video: Upload | None,
        steps: int,
        corpus_id: str,
        ticket: int,
        request: gr.Request,
    ) -> Generator[Update, None, None]:
        """What is in the fields."""
        yield from self._run(request, ticket, lambda: (self._query(corpus_id, text, image, video, steps), {}))

    def example(
        self, corpus_id: str, steps: int, ticket: int, request: gr.Request, event: gr.EventData
    ) -> Generator[Update, None, None]:
        """A prepared query, which is put into the fields."""

        def prepare() -> tuple[Query, Update]:
            example = self.service.corpus(corpus_id).spec.examples[int(event.index)]
            return self._prepared(corpus_id, example.text, example.image, example.video, steps)

        yield from self._run(request, ticket, prepare)

    def choose(self, corpus_id: str, ticket: int, request: gr.Request) -> Generator[Update, None, None]:
        """Another collection, with its first query."""
        yield from self._run(request, ticket, lambda: self._open(f"c={corpus_id}"))

    def open(self, address: str, ticket: int, request: gr.Request) -> Generator[Update, None, None]:
        """What the page's address asks for when it is loaded."""
        self.service.sessions.of(request.session_hash).shown = self.default.id  # as the page is drawn
        yield from self._run(request, ticket, lambda: self._open(address or ""))

    def clear(self, corpus_id: str, ticket: int, request: gr.Request) -> Generator[Update, None, None]:
        """Empties the fields and the results."""
        session, parts = self.service.sessions.of(request.session_hash), self.parts
        with session.search.take(int(ticket)) as is_newest:
            if is_newest:
                session.last = None
                steps = self.service.corpus(corpus_id).default_steps
                fields = {parts.text: "", parts.image: None, parts.video: None, parts.steps: steps}
                yield fields | self._nothing(render.status("Cleared."))
            # Gradio sends the last message twice: fields that are emptied in it lose what is written in between.
            yield {parts.status: gr.skip()}

    def add(
        self, uploads: list[Upload], corpus_id: str, request: gr.Request
    ) -> Generator[tuple[Any, Any, str], None, None]:
        """Files into the private collection."""
        session, corpus = self.service.sessions.of(request.session_hash), self.service.corpus(corpus_id)
        before = len(session.own(corpus_id))
        adding = self.service.add(session, corpus, uploads)
        refusals = yield from _with_progress(adding, lambda sentence: (gr.skip(), gr.skip(), render.status(sentence)))
        own = session.own(corpus_id)
        now = render.status(f"{render.counted(len(own) - before, 'item')} added.")
        # Whoever has chosen another collection meanwhile sees the files of that one.
        shown = render.own_files(own) if session.shown in (None, corpus_id) else gr.skip()
        yield None, shown, now + render.refused(*refusals)

    def remove(self, corpus_id: str, request: gr.Request) -> tuple[str, str]:
        """The private collection is emptied."""
        session = self.service.sessions.of(request.session_hash)
        with session.lock:
            session.items.pop(corpus_id, None)
        return render.own_files(()), render.status("Your files are removed.")

    def playable(self, film: Upload | None, request: gr.Request) -> tuple[Any, Any]:
        """A copy of a query's film that the browser plays, where it does not play the film itself."""
        if film is None:
            return gr.skip(), gr.skip()
        session = self.service.sessions.of(request.session_hash)
        try:
            copy = self.service.playable(session, film)
        except ValueError as error:
            return None, render.refused(str(error))
        return copy or gr.skip(), gr.skip()

    def show(self, request: gr.Request, event: gr.EventData) -> str:
        """A result, enlarged."""
        result = self.service.sessions.of(request.session_hash).last
        if result is None or not 0 <= int(event.index) < len(result.hits):
            return ""
        return render.detail(int(event.index) + 1, result.hits[int(event.index)], result.content.get("text", ""))

    def cancelled(self) -> str:
        return render.status("Cancelled.")

    def states(self) -> str:
        """Of every collection a progress bar while it is being embedded, then what it holds. The page shows that of the
        chosen one (`choice_style`), so that an answer which comes late never shows another's."""
        return render.by_collection({corpus.id: self._state(corpus) for corpus in self.service.corpora})

    def tick(self) -> tuple[str, gr.Timer]:
        is_ready = all(corpus.collection.is_ready for corpus in self.service.corpora)
        return self.states(), gr.Timer(active=not is_ready)

    def leave(self, request: gr.Request) -> None:
        """The session ends: all that belongs to it goes."""
        self.service.sessions.end(request.session_hash)

    def prepared_queries(self) -> str:
        """Buttons for the prepared queries of every collection. The page shows those of the chosen one from the moment
        on in which it is chosen, so that a click never means another's."""
        return render.by_collection({corpus.id: self._examples_of(corpus) for corpus in self.service.corpora})

    def _run(
        self, request: gr.Request, ticket: int, prepare: Callable[[], tuple[Query, Update]]
    ) -> Generator[Update, None, None]:
        """One search, from the fields that it fills to its results; it stops where a newer one has begun."""
        session, parts = self.service.sessions.of(request.session_hash), self.parts
        overtakes = session.search.is_running
        with session.search.take(int(ticket)) as is_newest:
            if not is_newest:
                yield {parts.status: gr.skip()}
                return
            files: Update = {}
            try:
                query, filled = prepare()
                if query.corpus.id != session.shown:
                    filled |= self._collection_parts(query, session)
                # Sent with every message: Gradio's browser side merges a later "no change" into the file itself, and on
                # a busy machine it may draw the fields of two runs that follow closely in the wrong order.
                again = filled if overtakes else (parts.image, parts.video)
                files = {part: filled[part] for part in again if part in filled}
                yield {parts.status: render.status("searching…")} | filled
                session.shown = query.corpus.id
                steps = self.service.query(session, query)
                result = yield from _with_progress(
                    _while(steps, lambda: session.search.is_newest(ticket)),
                    lambda sentence: files | {parts.status: render.status(sentence)},
                )
            except ValueError as error:
                yield files | self._nothing(render.refused(str(error)))
                return
            if result is not None and session.search.is_newest(ticket):
                yield files | self._found(result, session, request)

    def _query(self, corpus_id: str, text: str, image: Upload | None, video: Upload | None, steps: int) -> Query:
        corpus, text = self.service.corpus(corpus_id), text or ""
        link = self.examples.link(corpus, text, image, video, int(steps))
        return Query(corpus, text, image, video, int(steps), link)

    def _prepared(self, corpus_id: str, text: str, image: str, video: str, steps: int) -> tuple[Query, Update]:
        """A prepared query, and the fields filled with it."""
        files = [self.examples.file(name) for name in (image, video)]
        uploads = [Upload(path, path.name) if path else None for path in files]
        query = self._query(corpus_id, text, *uploads, steps)
        parts = self.parts
        return query, {parts.text: text, parts.image: files[0], parts.video: files[1], parts.steps: int(steps)}

    def _open(self, address: str) -> tuple[Query, Update]:
        asked = self.examples.request(address)
        media = (asked.example.image, asked.example.video) if asked.example else ("", "")
        return self._prepared(asked.corpus.id, asked.text, *media, asked.num_latent_steps)

    def _collection_parts(self, query: Query, session: Session) -> Update:
        """What the page shows of a query's collection. Its first run brings it along, whichever that is: the run of the
        choice may have been overtaken before it began."""
        parts, corpus = self.parts, query.corpus
        return {
            parts.corpus: corpus.id,
            parts.text: gr.Textbox(query.text, info=corpus.model_line, placeholder=corpus.spec.placeholder),
            parts.steps: gr.Slider(value=query.num_latent_steps, maximum=corpus.max_steps, info=corpus.steps_line),
            parts.own: render.own_files(session.own(corpus.id)),
        }

    def _examples_of(self, corpus: Corpus) -> str:
        return render.examples([query.label for query in corpus.spec.examples], self.examples.thumbnails(corpus))

    def _found(self, result: QueryResult, session: Session, request: gr.Request) -> Update:
        parts, corpus, trace = self.parts, self.service.corpus(result.corpus), result.trace
        own = session.own(corpus.id)
        mine = f", {len(own)} of them yours" if own else ""
        sentence = (
            f"The best {len(result.hits)} of {len(self.service.candidates(session, corpus)):,} items{mine} for "
            f"{result.description}: {render.counted(trace.num_latent_steps, 'latent step')}, "
            f"{trace.total_ms:.1f} ms in the model."
        )
        heading = render.status(f"The last query: {result.description}.")
        return {
            parts.results: render.results(result.hits, result.content.get("text", "")),
            parts.status: render.status(sentence),
            parts.takeaway: takeaway(result, _address(request)),
            parts.link: result.link,
            parts.diagnostics: heading,
            parts.compare: heading,
            parts.variants: "",
        }

    def _nothing(self, status: str) -> Update:
        """No results, and why."""
        parts = self.parts
        empty = dict.fromkeys((parts.results, parts.takeaway, parts.link, parts.variants), "")
        return empty | {parts.status: status, parts.diagnostics: NO_QUERY, parts.compare: NO_QUERY}

    def _state(self, corpus: Corpus) -> str:
        collection = corpus.collection
        if not collection.is_ready:
            try:
                collection.check()
            except ValueError as error:
                return render.progress(collection.done, collection.total, str(error))
        kinds = [item.kind for item in collection.items]
        counts = [
            render.counted(kinds.count(kind), name)
            for kind, name in (("image", "picture"), ("video", "film"), ("page", "page"), ("text", "text"))
            if kind in kinds
        ]
        return render.status(f"The collection holds {', '.join(counts)}.")


def _address(request: gr.Request) -> str:
    """Where the visitor found the page."""
    scheme = request.headers.get("x-forwarded-proto", "http").split(",")[0]
    return f"{scheme}://{request.headers.get('x-forwarded-host') or request.headers['host']}"


def _while(steps: Generator[str, None, Result], goes_on: Callable[[], bool]) -> Generator[str, None, Result | None]:
    """The same, but it ends, with nothing, as soon as `goes_on` says no."""
    while True:
        try:
            sentence = next(steps)
        except StopIteration as stop:
            return stop.value
        if not goes_on():
            steps.close()
            return None
        yield sentence


def _with_progress(steps: Generator[str, None, Result], shown: Callable[[str], Any]) -> Generator[Any, None, Result]:
    """Passes on what is being done, but not more often than a page can take; closing it closes `steps`."""
    last = time.monotonic()
    while True:
        try:
            sentence = next(steps)
        except StopIteration as stop:
            return stop.value
        if time.monotonic() - last >= _SECONDS_BETWEEN_UPDATES:
            last = time.monotonic()
            yield shown(sentence)
