"""Charts of the rollout, for Plotly, without a background: the page's own shows through in light and in dark mode."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from space.diagnostics import Choice
from space.trace import Trace

# Okabe and Ito's colours, told apart by colour-blind people, in the tones that show on white and on black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#999999", "#B8A800")
MARKERS = ("circle", "square", "diamond", "triangle-up", "star", "x", "cross", "hexagon")
# Text and grid are coloured by the page's style sheet (page.css), which knows the mode; this is for a page without it.
_INK, _GRID = "#808691", "rgba(128,134,145,0.35)"
_CLEAR = "rgba(0,0,0,0)"


def trajectory_chart(cosines: np.ndarray, states: Sequence[str], names: Sequence[str]) -> go.Figure:
    """One line a candidate, from the anchor over z(0) and the latent steps to the embedding.

    Args:
        cosines (`np.ndarray` of shape [C, S])
        states: Names of the S states.
        names: Of the candidates, best first; shown as they are, so markup in them is made harmless.
    """
    figure = go.Figure()
    for place, (row, name) in enumerate(zip(cosines.tolist(), names, strict=True)):
        figure.add_scatter(
            x=list(states),
            y=row,
            name=_plain(f"{place + 1}. {name}"),
            mode="lines+markers",
            line={"color": COLOURS[place % len(COLOURS)], "width": 2},
            marker={"symbol": MARKERS[place % len(MARKERS)], "size": 9},
            hovertemplate="%{x}: %{y:.3f}",
        )
    figure.update_xaxes(type="category", tickmode="linear", fixedrange=True)
    figure.update_yaxes(title="cosine to the candidate", fixedrange=True)
    return _laid_out(figure, height=430)


def routing_chart(router_probs: np.ndarray, chosen: Sequence[Sequence[Choice]]) -> go.Figure:
    """Routing probabilities, a column a step and a row an expert; the chosen ones carry their weight.

    Args:
        router_probs (`np.ndarray` of shape [K, Me])
        chosen: For each step the experts that it chose.
    """
    num_steps, num_experts = router_probs.shape
    marks = [["" for _ in range(num_steps)] for _ in range(num_experts)]
    for step, choices in enumerate(chosen):
        for choice in choices:
            marks[choice.expert][step] = f"{choice.weight:.2f}"
    figure = go.Figure(
        go.Heatmap(
            x=[str(step) for step in range(1, num_steps + 1)],
            y=[f"expert {expert}" for expert in range(1, num_experts + 1)],
            z=router_probs.T.tolist(),
            text=marks,
            texttemplate="%{text}",
            zmin=0,
            zmax=1,
            xgap=3,
            ygap=3,
            # Opaque and light, so that dark numbers are readable in both themes.
            colorscale=[[0, "#eaf3f9"], [1, "#6fb1d8"]],
            textfont={"size": 12, "color": "#18181b"},
            showscale=False,
            hovertemplate="step %{x}, %{y}: %{z:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="latent step", showgrid=False, type="category", fixedrange=True)
    figure.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True)
    return _laid_out(figure, height=170 + 46 * num_experts)


def timing_chart(trace: Trace, runs: int) -> go.Figure:
    """Milliseconds of the prefix, of each latent step and of the suffix, medians of several runs."""
    parts = [("prefix", trace.prefix_ms, COLOURS[0])]
    parts += [(f"step {step}", elapsed, COLOURS[1]) for step, elapsed in enumerate(trace.step_ms, start=1)]
    if trace.num_latent_steps:
        parts.append(("suffix", trace.suffix_ms, COLOURS[2]))
    names, times, colours = (list(column) for column in zip(*parts, strict=True))
    figure = go.Figure(
        go.Bar(
            x=times,
            y=names,
            orientation="h",
            marker_color=colours,
            text=[f"{elapsed:.1f} ms" for elapsed in times],
            textposition="auto",
            hovertemplate="%{y}: %{x:.2f} ms<extra></extra>",
        )
    )
    title = "milliseconds, one run" if runs == 1 else f"milliseconds, median of {runs} runs"
    figure.update_xaxes(title=title, rangemode="tozero", fixedrange=True)
    figure.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True)
    return _laid_out(figure, height=140 + 28 * len(parts))


def _laid_out(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 8, "t": 48, "b": 8},
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        font={"color": _INK, "size": 13},
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
        hovermode="closest",
        hoverlabel={"bgcolor": "#18181b", "font": {"color": "#fafafa"}},
        dragmode=False,
        uirevision=None,
    )
    figure.update_xaxes(title_standoff=14, automargin=True, gridcolor=_GRID, zerolinecolor=_GRID, linecolor=_GRID)
    figure.update_yaxes(title_standoff=14, automargin=True, gridcolor=_GRID, zerolinecolor=_GRID, linecolor=_GRID)
    return figure


def _plain(text: str) -> str:
    """Without Plotly's markup: it renders some tags, links among them."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
