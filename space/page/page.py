"""The page: four tabs over a [`Service`], in Gradio."""

import json
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from space.content.sessions import QueryResult, Session
from space.page import charts, diagnostics, render
from space.page.about import about
from space.page.widgets import InlineGallery, UploadedFiles, UploadedImage, UploadedVideo
from space.service import Service, Upload

ROOT = Path(__file__).parent.parent.parent
QUERIES = json.loads((ROOT / "space" / "queries.json").read_text())
EXAMPLES = [query for query in QUERIES if query["example"]]
_SECONDS_BETWEEN_UPDATES = 0.25
_SCROLL = "() => { if (innerWidth < 700) document.querySelector('#status').scrollIntoView({behavior: 'smooth'}) }"

Result = TypeVar("Result")


def make_page(service: Service) -> gr.Blocks:
    """The Gradio app; `launch` it with what app.py says."""
    handlers = Handlers(service)
    with gr.Blocks(title="PLUME: search by latent reasoning", analytics_enabled=False, delete_cache=(300, 900)) as page:
        gr.HTML(
            "<h1>Search by latent reasoning</h1><p>PLUME finds pictures, films and documents by a text, a picture, a "
            "film, or any of them together. Instead of writing down its thoughts it takes a few latent steps; the "
            "second tab shows what they do.</p>",
            elem_id="intro",
        )
        with gr.Tabs():
            with gr.Tab("Search"):
                _search_tab(service, handlers)
            with gr.Tab("Diagnostics") as diagnostics_tab:
                _diagnostics_tab(handlers, diagnostics_tab)
            with gr.Tab("Compare") as compare_tab:
                _compare_tab(handlers, compare_tab)
            with gr.Tab("About"):
                gr.HTML(about(service.encoder), elem_id="about")
        page.unload(handlers.leave)
    return page


def _search_tab(service: Service, handlers: "Handlers") -> None:
    limits = service.settings.limits
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            text = gr.Textbox(
                label="Query text",
                placeholder="a short name, for example: banana",
                max_length=limits.text_characters,
                lines=1,
            )
            with gr.Row():
                image = UploadedImage(
                    label="Query image",
                    sources=["upload", "clipboard"],
                    height=190,
                    min_width=120,
                    elem_id="query-image",
                )
                video = UploadedVideo(
                    label="Query video", sources=["upload"], height=190, min_width=120, elem_id="query-video"
                )
            steps = gr.Slider(
                0,
                service.max_steps,
                value=min(service.encoder.latent_steps(), service.max_steps),
                step=1,
                label="Latent steps",
                info="0 reads the embedding at once: a single pass. The collection was embedded with the model's own "
                f"{service.encoder.latent_steps()}.",
            )
            with gr.Row():
                button = gr.Button("Search", variant="primary", min_width=120)
                cancel = gr.Button("Cancel", min_width=100)
            examples = gr.Dataset(
                label="Try one of these",
                components=["textbox"],
                samples=[[example["label"]] for example in EXAMPLES],
                sample_labels=[example["label"] for example in EXAMPLES],
                type="index",
                elem_id="examples",
                samples_per_page=len(EXAMPLES),
            )
            with gr.Accordion("Your own files", open=False):
                gr.Markdown(
                    f"{limits.sentence()} They join your searches only, and are gone when you leave the page. Vector "
                    "drawings and addresses are not taken."
                )
                files = UploadedFiles(
                    label="Add your own files", file_count="multiple", height=130, elem_id="own-files"
                )
                remove = gr.Button("Remove my files", size="sm")
                added = gr.HTML(elem_id="added", html_template='<div role="status">${value}</div>')
                own = gr.HTML(render.own_files(()), elem_id="own")
        with gr.Column(scale=3, min_width=280):
            state = gr.HTML(handlers.collection_state, elem_id="collection-state")
            status = gr.HTML(elem_id="status", html_template='<div role="status">${value}</div>')
            results = InlineGallery(
                label="Results", elem_id="results", columns=4, height="auto", object_fit="contain", buttons=[]
            )
    timer = gr.Timer(1.0)
    timer.tick(handlers.tick, outputs=[state, timer], queue=False, show_progress="hidden", api_visibility="private")

    query = {"inputs": [text, image, video, steps], "outputs": [results, status]}
    shared = {"concurrency_id": "model", "concurrency_limit": service.settings.at_a_time}
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    found = gr.on(
        [button.click, text.submit],
        handlers.search,
        **query,
        **shared,
        api_name="search",
        show_progress="minimal",
        show_progress_on=[results],
    )
    found.then(None, js=_SCROLL)
    loaded = examples.click(handlers.load_example, examples, [text, image, video], **hidden)
    loaded_found = loaded.success(handlers.search, **query, **shared, api_visibility="private", show_progress="minimal")
    loaded_found.then(None, js=_SCROLL)
    adding = files.upload(handlers.add, files, [files, own, added], **shared, **hidden)
    remove.click(handlers.remove, None, [own, added], queue=False, **hidden)
    cancel.click(handlers.cancelled, None, status, cancels=[found, loaded_found, adding], queue=False, **hidden)


def _diagnostics_tab(handlers: "Handlers", tab: gr.Tab) -> None:
    result = gr.HTML(handlers.NOTHING_ASKED, elem_id="diagnostics-query")
    with gr.Column(visible=False) as body:
        gr.Markdown(
            "### What each step moves towards\nA point is the cosine between the state after a latent step and a "
            "candidate; the candidates are the best results. A line that rises says that the steps move towards it; "
            "lines that part say that the steps tell the candidates apart. Training pulls only what follows, the state "
            "at the embedding token, to its target: a line may fall, and the order at the right end need not be final."
        )
        trajectories = gr.Plot(label="Cosine of each latent state to the best results", elem_id="trajectories")
        gr.Markdown(
            "### Which experts each step chose\nA column is a latent step. The cells with a number are the experts "
            "that the router chose, and the number is the weight with which they count; the stronger the colour, the "
            "more weight. The shared expert always counts in full and is not shown. Columns that differ say that the "
            "experts share out the work."
        )
        routing = gr.Plot(label="Routing weights by step and expert", elem_id="routing")
        gr.Markdown(
            "### What the steps changed\nThe anchor is the state at one token of the prefix, before any latent step. "
            "Its ranking stands beside the final one; ▲ says that the steps and the embedding token brought an item up."
        )
        ranking = gr.HTML(elem_id="anchor-ranking")
        gr.Markdown(
            "### Where the time goes\nEach bar is a part of this one query, measured as it was computed; the prefix is "
            "the pass over text, pictures and frames. Decoding of media is not in it."
        )
        timing = gr.Plot(label="Milliseconds of prefix, steps and suffix", elem_id="timing")
        numbers = gr.HTML(elem_id="diagnostics-numbers")
    tab.select(
        handlers.diagnostics,
        None,
        [result, body, trajectories, routing, ranking, timing, numbers],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _compare_tab(handlers: "Handlers", tab: gr.Tab) -> None:
    gr.Markdown(
        "The last query once more, in three variants: read at once (**single pass**), after **latent steps**, and "
        "after an **explicit rationale**, which the model writes word by word. The times are those of this machine, "
        "now; other visitors share it."
    )
    result = gr.HTML(handlers.NOTHING_ASKED, elem_id="compare-query")
    with gr.Row():
        button = gr.Button("Compare", variant="primary", min_width=120)
        cancel = gr.Button("Cancel", min_width=100, elem_id="cancel-compare")
    state = gr.HTML(elem_id="compared-state", html_template='<div role="status">${value}</div>')
    variants = gr.HTML(elem_id="variants")
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    tab.select(handlers.about_to_compare, None, result, queue=False, **hidden)
    comparing = button.click(
        handlers.compare,
        None,
        [result, variants, state],
        concurrency_id="model",
        concurrency_limit=handlers.service.settings.at_a_time,
        **hidden,
    )
    cancel.click(handlers.cancelled, None, state, cancels=[comparing], queue=False, **hidden)


class Handlers:
    """What happens on the page's events. Refusals are shown on the page, as sentences.

    Args:
        service ([`Service`])
    """

    NOTHING_ASKED = render.status("There is no query yet: search for something in the first tab.")

    def __init__(self, service: Service):
        self.service = service
        self._example_files = service.sessions.upload_folder / "examples"

    def search(
        self, text: str, image: Upload | None, video: Upload | None, steps: int, request: gr.Request
    ) -> Generator[tuple[Any, str], None, None]:
        """The results and a line about them; in between, what is being done."""
        try:
            asking = self.service.query(request.session_hash, text, image, video, int(steps))
            result = yield from _with_progress(asking, lambda sentence: (gr.skip(), render.status(sentence)))
        except ValueError as error:
            yield [], render.refused(str(error))
            return
        hits = [(hit.item.thumbnail, render.caption(rank, hit)) for rank, hit in enumerate(result.hits, start=1)]
        yield hits, render.status(self._found(result, self.service.sessions.of(request.session_hash)))

    def add(self, uploads: list[Upload], request: gr.Request) -> Generator[tuple[Any, str, str], None, None]:
        """Files into the private collection."""
        session_id = request.session_hash
        session = self.service.sessions.of(session_id)
        before = len(session.items)
        try:
            adding = self.service.add(session_id, uploads)
            refusals = yield from _with_progress(
                adding, lambda sentence: (gr.skip(), gr.skip(), render.status(sentence))
            )
        except ValueError as error:
            refusals = [str(error)]
        now = render.status(f"{render.counted(len(session.items) - before, 'item')} added.")
        yield None, render.own_files(session.items), now + render.refused(*refusals)

    def remove(self, request: gr.Request) -> tuple[str, str]:
        session = self.service.sessions.of(request.session_hash)
        with session.lock:
            session.items = []
        return render.own_files(()), render.status("Your files are removed.")

    def load_example(self, index: int) -> tuple[str, Path | None, Path | None]:
        """Puts a prepared query into the fields."""
        example = EXAMPLES[index]
        return example["text"], self._example_file(example["image"]), self._example_file(example["video"])

    def cancelled(self) -> str:
        return render.status("Cancelled.")

    def diagnostics(self, request: gr.Request) -> list[Any]:
        """The second tab for the last query."""
        session = self.service.sessions.of(request.session_hash)
        result = session.last
        if result is None:
            return [self.NOTHING_ASKED, gr.update(visible=False), *(gr.skip(),) * 5]
        trace = result.trace
        if trace.num_latent_steps == 0:
            sentence = (
                f"The last query, {result.description}, was a single pass: there were no latent steps to look into."
            )
            return [render.status(sentence), gr.update(visible=False), *(gr.skip(),) * 5]
        shown = result.hits[: self.service.settings.trajectories]
        names = [hit.item.name for hit in shown]
        cosines = diagnostics.trajectories(trace.latent_states, [hit.item.vector for hit in shown])
        routing, experts = None, "This model has no router."
        if trace.router_probs is not None:
            chosen = diagnostics.chosen_experts(
                trace.router_probs, self.service.encoder.model.config.num_experts_per_tok
            )
            routing = charts.routing_chart(trace.router_probs, chosen)
            experts = "Experts chosen: " + "; ".join(
                f"step {step}: " + ", ".join(f"expert {choice.expert + 1} ({choice.weight:.2f})" for choice in choices)
                for step, choices in enumerate(chosen, start=1)
            )
        sentence = (
            f"The last query: {result.description}; K = {trace.num_latent_steps}, {trace.num_tokens} tokens, "
            f"{trace.total_ms:.1f} ms."
        )
        return [
            render.status(sentence),
            gr.update(visible=True),
            charts.trajectory_chart(cosines, names),
            routing,
            render.rank_table(
                self.service.rank_changes(session, trace, len(shown)), len(self.service.candidates(session))
            ),
            charts.timing_chart(trace),
            render.numbers_table(trace, cosines, names, experts),
        ]

    def about_to_compare(self, request: gr.Request) -> str:
        result = self.service.sessions.of(request.session_hash).last
        return self.NOTHING_ASKED if result is None else render.status(f"The last query: {result.description}.")

    def compare(self, request: gr.Request) -> Generator[tuple[str, str, str], None, None]:
        """Card after card."""
        session = self.service.sessions.of(request.session_hash)
        cards = []
        try:
            yield self.about_to_compare(request), "", render.status("computing…")
            for variant, hits in self.service.compare(session):
                cards.append((variant, hits))
                yield gr.skip(), render.variant_cards(cards), render.status("computing…")
        except ValueError as error:
            yield gr.skip(), "", render.refused(str(error))
            return
        yield gr.skip(), render.variant_cards(cards), render.status("Done.")

    def leave(self, request: gr.Request) -> None:
        """The session ends: all that belongs to it goes."""
        self.service.sessions.end(request.session_hash)

    def collection_state(self) -> str:
        """A progress bar while the collection is being embedded, then what it holds."""
        collection = self.service.collection
        if not collection.is_ready:
            try:
                collection.check()
            except ValueError as error:
                return render.progress(collection.done, collection.total, str(error))
        kinds = [item.kind for item in collection.items]
        sentence = ", ".join(
            render.counted(kinds.count(kind), name)
            for kind, name in (("image", "picture"), ("video", "film"), ("page", "document page"))
        )
        return render.status(f"The bundled collection holds {sentence}.")

    def tick(self) -> tuple[str, gr.Timer]:
        return self.collection_state(), gr.Timer(active=not self.service.collection.is_ready)

    def _found(self, result: QueryResult, session: Session) -> str:
        trace = result.trace
        own = f", {len(session.items)} of them yours" if session.items else ""
        searched = len(self.service.candidates(session))
        return (
            f"The best {len(result.hits)} of {searched} items{own} for {result.description}: "
            f"{render.counted(trace.num_latent_steps, 'latent step')}, {trace.total_ms:.1f} ms in the model."
        )

    def _example_file(self, name: str) -> Path | None:
        """A copy in the upload folder, the only folder that is served."""
        if not name:
            return None
        copy = self._example_files / Path(name).name
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
        return copy


def _with_progress(steps: Generator[str, None, Result], shown) -> Generator[Any, None, Result]:
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
