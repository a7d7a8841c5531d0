"""The tab "Diagnostics": what happened inside the rollout of the last query."""

from collections.abc import Generator
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr
import numpy as np

from space import diagnostics
from space.content.sessions import QueryResult, Session
from space.page import charts, render
from space.page.search_handlers import NO_QUERY
from space.page.snippets import trace_file
from space.service import Service
from space.steps import Intervention
from space.trace import Trace

TRAJECTORIES = (
    "## What each state is near\nA point is the cosine between a state and a candidate; the candidates are the best "
    "results. The states begin at the anchor, a token of the prefix before any step, and at z(0), the end of the "
    "prefix; they end at the embedding. Training pulls only the embedding to its target: a line may fall on the way."
)
ROUTING = (
    "## Which experts each step chose\nA column is a latent step. The cells with a number are the experts that the "
    "router chose, and the number is the weight with which they count. The shared expert always counts in full and is "
    "not shown. Columns that differ say that the experts share out the work."
)
RANKING = (
    "## What the steps changed\nThe anchor's ranking beside the final one; ▲ says that the steps and the embedding "
    "token brought an item up."
)
TIMING = (
    "## Where the time goes\nEach bar is a part of this query, the median of several runs; the prefix is the pass over "
    "text, pictures and frames. Decoding of media is not in it."
)
SWEEP = "## Another number of steps\nThe same query with K steps; the results follow the slider."
TAMPERING = (
    "## Do the latents carry anything?\nThe same query, its latents replaced by noise of the same length, or by those "
    "of another query. If nothing changes, the model does not use what they hold."
)


@dataclass(frozen=True)
class DiagnosticsParts:
    """The components of the tab, in the order of its outputs."""

    heading: gr.HTML
    summary: gr.HTML
    trajectories: gr.Plot
    routing: gr.Plot
    ranking: gr.HTML
    timing: gr.Plot
    numbers: gr.HTML
    steps: gr.Slider
    swept: gr.HTML
    tampered: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """All of them."""
        return [getattr(self, part.name) for part in fields(self)]


def make_diagnostics_tab(service: Service, tab: gr.Tab) -> gr.HTML:
    """Draws the tab and connects its events.

    Returns:
        The line that names the query.
    """
    handlers = DiagnosticsHandlers(service)
    ticket = gr.Number(visible=False)
    heading = gr.HTML(NO_QUERY, elem_id="diagnostics-query")
    summary = gr.HTML(elem_id="diagnostics-summary")
    with gr.Column(elem_id="diagnostics-body"):  # page.css shows it by `summary`
        with gr.Column(elem_id="diagnostics-rollout"):
            gr.Markdown(TRAJECTORIES)
            trajectories = gr.Plot(label="Cosine of each state to the best results", elem_id="trajectories")
            gr.Markdown(ROUTING)
            routing = gr.Plot(label="Routing weights by step and expert", elem_id="routing")
            gr.Markdown(RANKING)
            ranking = gr.HTML(elem_id="anchor-ranking")
            gr.Markdown(TIMING)
            timing = gr.Plot(label="Milliseconds of prefix, steps and suffix", elem_id="timing")
            numbers = gr.HTML(elem_id="diagnostics-numbers")
            gr.Markdown(TAMPERING)
            tamper = gr.Button("Replace the latents", elem_id="tamper")
            tampered = gr.HTML(elem_id="tampered")
        gr.Markdown(SWEEP)
        steps = gr.Slider(0, service.corpora[0].max_steps, step=1, label="K", elem_id="sweep")
        swept = gr.HTML(elem_id="swept", html_template='<div role="status">${value}</div>')
    refresh = gr.Button("Refresh", visible="hidden", elem_id="refresh-diagnostics")
    handlers.parts = parts = DiagnosticsParts(
        heading, summary, trajectories, routing, ranking, timing, numbers, steps, swept, tampered
    )
    shared = {
        "concurrency_id": "model",
        "concurrency_limit": service.settings.at_a_time,
        "api_visibility": "private",
        "show_progress": "hidden",
    }
    gr.on(
        [tab.select, refresh.click],
        handlers.show,
        ticket,
        parts.outputs,
        js="() => [window.plume.number()]",
        trigger_mode="multiple",
        **shared,
    )
    steps.release(handlers.sweep, steps, swept, trigger_mode="always_last", **shared)
    tamper.click(handlers.tamper, None, tampered, trigger_mode="always_last", **shared)
    return heading


class DiagnosticsHandlers:
    """What the tab shows for the last query.

    Args:
        service ([`Service`])

    Attributes:
        parts ([`DiagnosticsParts`]): Set when the tab is drawn.
    """

    parts: DiagnosticsParts

    def __init__(self, service: Service):
        self.service = service

    def show(self, ticket: int, request: gr.Request) -> Generator[dict[Any, Any], None, None]:
        """The whole tab; the median times come last, because they take several runs."""
        session = self.service.sessions.of(request.session_hash)
        with session.diagnostics.take(int(ticket)):
            result = session.last
            if result is None:
                yield {self.parts.heading: NO_QUERY, self.parts.summary: ""}
                return
            trace = result.trace
            yield self._shown(session, result, trace)
            if trace.num_latent_steps and session.diagnostics.is_newest(int(ticket)):
                timed = self.service.timed(result)
                if session.last is result:
                    yield {
                        self.parts.timing: charts.timing_chart(timed, self.service.settings.timed_runs),
                        self.parts.numbers: self._numbers(result, timed),
                    }

    def sweep(self, steps: int, request: gr.Request) -> str:
        """The results of the last query with another number of steps."""
        session = self.service.sessions.of(request.session_hash)
        if session.last is None:
            return NO_QUERY
        vector = self.service.retraced(session.last, int(steps)).embedding
        return self._ranking(session, session.last, vector, f"K = {int(steps)}")

    def tamper(self, request: gr.Request) -> str:
        """The interventions on the last query, side by side."""
        session = self.service.sessions.of(request.session_hash)
        result = session.last
        if result is None or not result.trace.num_latent_steps:
            return NO_QUERY
        shown = [self._intervened(session, result, one) for one in self.service.interventions(result)]
        return render.intervention_cards(shown)

    def _shown(self, session: Session, result: QueryResult, trace: Trace) -> dict[Any, Any]:
        parts, top = self.parts, self.service.settings.shown
        sentence = (
            f"The last query: {result.description}; K = {trace.num_latent_steps}, {trace.num_tokens} tokens, "
            f"{trace.total_ms:.1f} ms."
        )
        max_steps = self.service.corpus(result.corpus).max_steps
        shown = {
            parts.heading: render.status(sentence),
            parts.steps: gr.Slider(value=trace.num_latent_steps, maximum=max_steps),
            parts.swept: self._ranking(session, result, trace.embedding, f"K = {trace.num_latent_steps}"),
            parts.tampered: "",
        }
        if not trace.num_latent_steps:
            single = "It was a single pass: there were no latent steps to look into."
            return shown | {parts.summary: render.summary(single, with_steps=False)}
        changes = self.service.rank_changes(session, result, top)
        items = self.service.candidates(session, self.service.corpus(result.corpus))
        names = [hit.item.name for hit in result.hits[:top]]
        return shown | {
            parts.summary: render.summary(diagnostics.summary([change for _, change in changes], top), with_steps=True),
            parts.trajectories: charts.trajectory_chart(self._cosines(result), [name for name, _ in trace.path], names),
            parts.routing: self._routing(result),
            parts.ranking: render.rank_table(changes, len(items)),
            parts.timing: charts.timing_chart(trace, 1),
            parts.numbers: self._numbers(result, trace),
        }

    def _cosines(self, result: QueryResult) -> np.ndarray:
        states = np.stack([state for _, state in result.trace.path])
        candidates = np.stack([hit.item.vector for hit in result.hits[: self.service.settings.shown]])
        return diagnostics.trajectories(states, candidates)

    def _chosen(self, result: QueryResult) -> list[list[diagnostics.Choice]]:
        config = self.service.corpus(result.corpus).encoder.model.config
        probs = result.trace.router_probs
        return [] if probs is None else diagnostics.chosen_experts(probs, config.num_experts_per_tok)

    def _routing(self, result: QueryResult) -> Any:
        probs = result.trace.router_probs
        return None if probs is None else charts.routing_chart(probs, self._chosen(result))

    def _numbers(self, result: QueryResult, trace: Trace) -> str:
        experts = "This model has no router."
        if trace.router_probs is not None:
            experts = "Experts chosen: " + "; ".join(
                f"step {step}: " + ", ".join(f"expert {choice.expert + 1} ({choice.weight:.2f})" for choice in choices)
                for step, choices in enumerate(self._chosen(result), start=1)
            )
        names = [hit.item.name for hit in result.hits[: self.service.settings.shown]]
        return render.numbers_table(trace, self._cosines(result), names, experts, trace_file(result, trace))

    def _ranking(self, session: Session, result: QueryResult, vector: np.ndarray, name: str) -> str:
        top = self.service.settings.shown
        hits = self.service.nearest(session, self.service.corpus(result.corpus), vector, top)
        return render.status(f"{name}: {self._effect(result, vector, hits)}") + render.hit_list(hits)

    def _intervened(self, session: Session, result: QueryResult, one: Intervention) -> tuple[Intervention, str, list]:
        corpus = self.service.corpus(result.corpus)
        hits = self.service.nearest(session, corpus, one.vector, self.service.settings.shown)
        return one, self._effect(result, one.vector, hits), hits

    def _effect(self, result: QueryResult, vector: np.ndarray, hits: list) -> str:
        original = {id(hit.item) for hit in result.hits[: len(hits)]}
        kept = sum(id(hit.item) in original for hit in hits)
        cosine = float(vector @ result.trace.embedding)
        return f"{kept} of the first {len(hits)} are those of the query; cosine of the two embeddings {cosine:.3f}."
