"""The tab "Compare": the last query by a single pass, by latent steps, and by an explicit rationale."""

from collections.abc import Generator

import gradio as gr

from space.page import render
from space.page.search_handlers import NO_QUERY
from space.service import Service

INTRODUCTION = (
    "The last query once more, in three variants: read at once (**single pass**), after **latent steps**, and after an "
    "**explicit rationale**, which the model writes word by word. The times are those of this machine, now; other "
    "visitors share it. A pass over the layers costs the same everywhere."
)


def make_compare_tab(service: Service, tab: gr.Tab) -> tuple[gr.HTML, gr.HTML]:
    """Draws the tab and connects its events.

    Returns:
        The line that names the query, and the cards.
    """
    handlers = CompareHandlers(service)
    gr.Markdown(INTRODUCTION)
    ticket = gr.Number(visible=False)
    heading = gr.HTML(NO_QUERY, elem_id="compare-query")
    with gr.Row():
        button = gr.Button("Compare", variant="primary", min_width=120, elem_id="compare")
        cancel = gr.Button("Cancel", min_width=100, elem_id="cancel-compare")  # seen while something runs: page.css
    state = gr.HTML(elem_id="compared-state", html_template='<div role="status">${value}</div>')
    variants = gr.HTML(elem_id="variants")
    outputs, hidden = [heading, variants, state], {"api_visibility": "private", "show_progress": "hidden"}
    tab.select(handlers.open, None, outputs, queue=False, trigger_mode="always_last", **hidden)
    comparing = button.click(
        handlers.compare,
        ticket,
        outputs,
        js="() => [window.plume.begin('compare')]",
        concurrency_id="model",
        concurrency_limit=service.settings.at_a_time,
        trigger_mode="multiple",
        **hidden,
    )
    cancelling = cancel.click(handlers.cancelled, None, state, cancels=[comparing], queue=False, **hidden)
    for event in (comparing.success, comparing.failure):  # not `then`, see the search
        event(None, js="() => window.plume.end('compare')")
    cancelling.then(None, js="() => window.plume.cancelled('compare')")
    return heading, variants


class CompareHandlers:
    """What happens on the tab's events. The heading and the cards below it always leave together.

    Args:
        service ([`Service`])
    """

    def __init__(self, service: Service):
        self.service = service

    def open(self, request: gr.Request) -> tuple[str, str, str]:
        """The last query, and its cards if it was compared."""
        session = self.service.sessions.of(request.session_hash)
        if session.last is None:
            return NO_QUERY, "", ""
        compared = session.compared
        cards = compared[1] if compared and compared[0] is session.last else []
        heading = render.status(f"The last query: {session.last.description}.")
        return heading, render.variant_cards(cards) if cards else "", render.status("Done." if cards else "")

    def compare(self, ticket: int, request: gr.Request) -> Generator[tuple[str, str, str], None, None]:
        """Card after card."""
        session = self.service.sessions.of(request.session_hash)
        with session.compare.take(int(ticket)) as is_newest:
            if not is_newest:
                yield self.open(request)
                return
            result, cards = session.last, []
            heading = render.status(f"The last query: {result.description}.") if result else NO_QUERY
            try:
                yield heading, "", render.status("computing…")
                for card in self.service.compare(session):
                    if session.last is not result or not session.compare.is_newest(int(ticket)):
                        yield self.open(request)  # a newer query or a newer comparison has begun
                        return
                    cards.append(card)
                    yield heading, render.variant_cards(cards), render.status("computing…")
            except ValueError as error:
                yield heading, "", render.refused(str(error))
                return
            session.compared = (result, cards)
            yield heading, render.variant_cards(cards), render.status("Done.")

    def cancelled(self) -> str:
        return render.status("Cancelled.")
