"""The tab "Search": its fields and results, and which event calls which handler."""

from dataclasses import dataclass

import gradio as gr

from space.page import render
from space.page.search_handlers import SearchHandlers, SearchParts
from space.page.widgets import UploadedFiles, UploadedImage, UploadedVideo, select_button

PLAIN = {"apply_default_css": False}  # the rules are those of page.css alone
# In the browser: a number for the run that begins, behind the inputs; and its end.
_BEGIN = "(...inputs) => [...inputs.slice(0, {count}), window.plume.begin('search')]"
_END = "() => window.plume.end('search')"
_CANCELLED = "() => window.plume.cancelled('search')"
_SHARE = "link => window.plume.share(link)"
_SCROLL = "() => window.plume.showResults()"


@dataclass(frozen=True)
class Headings:
    """What other tabs say about the last query; a search brings them up to date.

    Args:
        diagnostics, compare (`gr.HTML`): The lines that name the query.
        variants (`gr.HTML`): The cards of "Compare", which a new query clears.
    """

    diagnostics: gr.HTML
    compare: gr.HTML
    variants: gr.HTML


def make_search_tab(handlers: SearchHandlers, headings: Headings) -> None:
    """Draws the tab and connects its events."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            fields = _query_fields(handlers)
            button, clear, cancel = _buttons()
            examples = gr.HTML(handlers.prepared_queries(), elem_id="examples", js_on_load=select_button(), **PLAIN)
            files, remove, added, own = _own_files(handlers)
        with gr.Column(scale=3, min_width=280):
            state = gr.HTML(elem_id="collection-state")
            status = gr.HTML(elem_id="status", html_template='<div role="status">${value}</div>')
            results = gr.HTML(elem_id="results", js_on_load=select_button(), **PLAIN)
            takeaway = gr.HTML(elem_id="takeaway", **PLAIN)
            detail = gr.HTML(elem_id="detail", **PLAIN)
    timer = gr.Timer(1.0)
    for event in (gr.context.Context.root_block.load, timer.tick):
        event(handlers.tick, outputs=[state, timer], queue=False, show_progress="hidden", api_visibility="private")
    handlers.parts = parts = SearchParts(
        **fields,
        own=own,
        status=status,
        results=results,
        takeaway=takeaway,
        diagnostics=headings.diagnostics,
        compare=headings.compare,
        variants=headings.variants,
    )
    runs = _searches(handlers, parts, button, clear, examples)
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    adding = files.upload(
        handlers.add,
        [files, parts.corpus],
        [files, own, added],
        concurrency_id="model",
        trigger_mode="multiple",
        **hidden,
    )
    adding.success(None, js="() => window.plume.searchAgain()")
    remove.click(handlers.remove, parts.corpus, [own, added], queue=False, **hidden)
    cancelling = cancel.click(handlers.cancelled, None, status, cancels=[*runs, adding], queue=False, **hidden)
    cancelling.then(None, js=_CANCELLED)
    results.select(handlers.show, None, detail, queue=False, trigger_mode="multiple", **hidden).then(
        None, js="() => window.plume.openDetail()"
    )
    parts.video.upload(
        handlers.playable,
        parts.video,
        [parts.video, status],
        concurrency_id="films",  # each takes a process with up to a gigabyte
        concurrency_limit=handlers.service.settings.at_a_time,
        **hidden,
    )


def _query_fields(handlers: SearchHandlers) -> dict[str, gr.components.Component]:
    corpus, limits = handlers.default, handlers.service.settings.limits
    choices = [(one.spec.label, one.id) for one in handlers.service.corpora]
    chosen = gr.Radio(choices, value=corpus.id, label="Collection", visible=len(choices) > 1, elem_id="corpus")
    text = gr.Textbox(
        label="Text",
        info=corpus.model_line,
        placeholder=corpus.spec.placeholder,
        max_length=limits.text_characters,
        lines=1,
        elem_id="query-text",
    )
    with gr.Row():
        image = UploadedImage(
            label="Picture", sources=["upload", "clipboard"], height=190, min_width=120, elem_id="query-image"
        )
        video = UploadedVideo(label="Film", sources=["upload"], height=190, min_width=120, elem_id="query-video")
    steps = gr.Slider(
        0,
        corpus.max_steps,
        value=corpus.default_steps,
        step=1,
        label="Latent steps",
        info=corpus.steps_line,
        elem_id="steps",
    )
    ticket = gr.Number(visible=False)
    link = gr.Textbox(visible=False)
    return {
        "corpus": chosen,
        "text": text,
        "image": image,
        "video": video,
        "steps": steps,
        "ticket": ticket,
        "link": link,
    }


def _buttons() -> tuple[gr.Button, gr.Button, gr.Button]:
    with gr.Row():
        search = gr.Button("Search", variant="primary", min_width=110, elem_id="search")
        clear = gr.Button("Clear", min_width=80, elem_id="clear")
        cancel = gr.Button("Cancel", min_width=80, elem_id="cancel")  # seen only while something runs: page.css
    return search, clear, cancel


def _own_files(handlers: SearchHandlers) -> tuple[UploadedFiles, gr.Button, gr.HTML, gr.HTML]:
    settings = handlers.service.settings
    with gr.Accordion("Your own files", open=False):
        gr.Markdown(
            f"{settings.limits.sentence()} They join your searches only. {settings.keeping_sentence()} Vector drawings "
            "and addresses are not taken."
        )
        files = UploadedFiles(label="Add your own files", file_count="multiple", height=130, elem_id="own-files")
        remove = gr.Button("Remove my files", size="sm")
        added = gr.HTML(elem_id="added", html_template='<div role="status">${value}</div>')
        own = gr.HTML(render.own_files(()), elem_id="own")
    return files, remove, added, own


def _searches(
    handlers: SearchHandlers, parts: SearchParts, button: gr.Button, clear: gr.Button, examples: gr.HTML
) -> list:
    """The events that search. All are numbered and run at once: of several the last one wins, see [`Turns`]."""
    shared = {
        "outputs": parts.outputs,
        "concurrency_id": "model",
        "concurrency_limit": handlers.service.settings.at_a_time,
        "trigger_mode": "multiple",
        "api_visibility": "private",
        "show_progress": "minimal",
        "show_progress_on": [parts.results],
    }
    query = [parts.text, parts.image, parts.video, parts.steps, parts.corpus]
    by_hand = gr.on(
        [button.click, parts.text.submit],
        handlers.search,
        [*query, parts.ticket],
        js=_BEGIN.format(count=len(query)),
        **shared,
    )
    by_example = examples.select(
        handlers.example, [parts.corpus, parts.steps, parts.ticket], js=_BEGIN.format(count=2), **shared
    )
    by_corpus = parts.corpus.input(handlers.choose, [parts.corpus, parts.ticket], js=_BEGIN.format(count=1), **shared)
    page = gr.context.Context.root_block
    by_address = page.load(
        handlers.open, [parts.link, parts.ticket], js="() => [location.search, window.plume.begin('search')]", **shared
    )
    clearing = clear.click(
        handlers.clear,
        [parts.corpus, parts.ticket],
        js=_BEGIN.format(count=1),
        **(shared | {"show_progress": "hidden"}),
    )
    runs = [by_hand, by_example, by_corpus, by_address]
    for run in [*runs, clearing]:
        run.success(None, parts.link, js=_SHARE)
        # Not `then`: Gradio says that it follows a failure as well, and its page does not do so.
        run.success(None, js=_END)
        run.failure(None, js=_END)
    for run in (by_hand, by_example):
        run.then(None, js=_SCROLL)
    return runs
