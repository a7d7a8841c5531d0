"""Where the time of the rollout goes on a CPU, and so why it is above its limit.

    python -m benchmarks.speed.rollout_parts --json benchmarks/results/rollout_parts.json

The limit supposes that the weights are read once a pass as fast as one long vector. Timed here, in turns: reading the
weights of all K passes so; the products of the decoder's linear layers with them, the adapter and the attention, each
alone; and the whole rollout behind a prefix. What the parts leave of the whole are norms, activations, rotary
embeddings, the writing of the cache, and Python between them. Then torch's profiler lists the operators of one rollout,
step by step and compiled.
"""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import nn

from plume_embed.bench.inputs import random_batch, random_model
from plume_embed.bench.kernels import kernel_times
from plume_embed.bench.limits import rollout_passes
from plume_embed.bench.report import environment
from plume_embed.bench.rollout import run_alone
from plume_embed.bench.timing import LEAST_ROUNDS, Timing, interleaved
from plume_embed.encode.weight_layout import store_by_column
from plume_embed.model import PlumeModel
from plume_embed.model.attention_plume import attend_sdpa

PREFIX, STEPS = 256, 8
LAYOUTS = ("by row", "by column")
READING, PRODUCTS, ADAPTER, ATTENTION, REST = "read the weights", "products", "adapter", "attention", "the rest"
ROLLOUT = "rollout"
LONGEST = 7  # operators that are listed
IMPLEMENTATIONS = ("static", "compiled")
_GRAPH_HASH = re.compile(r"^## Call (CompiledFxGraph) \w+$")


@torch.no_grad()
def measure(shape: str, budget_s: float, prefix: int = PREFIX) -> list[dict[str, Any]]:
    """Rows of {layout, part, ms, share, uncertainty, rounds}, at batch 1; the rest has no interval of its own.

    Args:
        shape (`str`): One of `SHAPES`.
        prefix (`int`): Tokens in front of the rollout.
    """
    by_row = random_model(shape)
    by_column = copy.deepcopy(by_row)
    store_by_column(by_column)
    cases: dict[str, Callable[[], Any]] = {ADAPTER: _adapter(by_row), ATTENTION: _attention(by_row, prefix)}
    cases[READING] = _reading(by_row)
    for layout, model in zip(LAYOUTS, (by_row, by_column), strict=True):
        cases[f"{PRODUCTS}, {layout}"] = _products(model, prefix)
        cases[f"{ROLLOUT}, {layout}"] = _rollout(model, prefix)
    timings = interleaved(cases, torch.device("cpu"), budget_s, min_rounds=LEAST_ROUNDS, max_rounds=60)
    return [row for layout in LAYOUTS for row in _rows(layout, timings)]


def _rows(layout: str, timings: dict[str, Timing]) -> list[dict[str, Any]]:
    whole, products = timings[f"{ROLLOUT}, {layout}"], timings[f"{PRODUCTS}, {layout}"]
    parts = {PRODUCTS: products, ATTENTION: timings[ATTENTION], ADAPTER: timings[ADAPTER]}
    shares = {part: timing.ratio_to(whole) for part, timing in parts.items()}
    rows = [_row(layout, name, timing, whole) for name, timing in {READING: timings[READING], **parts}.items()]
    share = 1 - sum(shares.values())
    rows.append({"layout": layout, "part": REST, "ms": share * whole.median, "share": share})
    return [*rows, _row(layout, ROLLOUT, whole, whole)]


def _row(layout: str, part: str, timing: Timing, whole: Timing) -> dict[str, Any]:
    uncertainty = timing.ratio_uncertainty(whole)
    return {
        "layout": layout,
        "part": part,
        "ms": timing.median,
        "share": timing.ratio_to(whole),
        "uncertainty": None if math.isinf(uncertainty) else uncertainty,
        "rounds": len(timing.times),
    }


def _linear(model: PlumeModel) -> list[nn.Linear]:
    backbone: Any = model.backbone
    return [module for module in backbone.get_decoder().layers.modules() if isinstance(module, nn.Linear)]


def _reading(model: PlumeModel) -> Callable[[], None]:
    """Each weight of the decoder's layers and of the adapter once a pass, as one long vector."""
    backbone: Any = model.backbone
    parameters = [*backbone.get_decoder().layers.parameters(), *model.adapter.parameters()]
    vectors = [parameter.detach().flatten() for parameter in parameters]

    def read() -> None:
        for _ in range(STEPS):
            for vector in vectors:
                torch.dot(vector, vector)

    return read


def _products(model: PlumeModel, prefix: int) -> Callable[[], None]:
    layers, new = _linear(model), [each.new for each in rollout_passes(model, prefix, STEPS)]
    inputs = {(n, m.in_features): torch.randn(1, n, m.in_features) for n in set(new) for m in layers}

    def multiply() -> None:
        for n in new:
            for layer in layers:
                F.linear(inputs[n, layer.in_features], layer.weight, layer.bias)

    return multiply


def _adapter(model: PlumeModel) -> Callable[[], None]:
    z0, anchor = torch.randn(2, 1, model.config.hidden_size)

    def refine() -> None:
        for step in range(1, STEPS + 1):
            model.adapter(z0, anchor, z0, step)

    return refine


def _attention(model: PlumeModel, prefix: int) -> Callable[[], None]:
    text: Any = model.config.get_text_config()
    heads, key_heads = text.num_attention_heads, text.num_key_value_heads
    size, passes = text.hidden_size // heads, rollout_passes(model, prefix, STEPS)
    ends = [each.cached + each.new for each in passes]
    keys, values = torch.randn(2, text.num_hidden_layers, 1, key_heads, ends[-1], size)
    queries = [torch.randn(1, key_heads, each.new * heads // key_heads, size) for each in passes]
    masks = [torch.zeros(1, 1, query.shape[2], end) for query, end in zip(queries, ends, strict=True)]

    def attend() -> None:
        for query, mask, end in zip(queries, masks, ends, strict=True):
            for key, value in zip(keys, values, strict=True):
                attend_sdpa(query, key[:, :, :end], value[:, :, :end], mask, size**-0.5)

    return attend


def _rollout(model: PlumeModel, prefix: int) -> Callable[[], None]:
    made = model.prefix(**random_batch(model, 1, prefix, "text"))
    return lambda: run_alone(model, made, STEPS, "static")


@torch.no_grad()
def operators(
    shape: str, implementations: tuple[str, ...] = IMPLEMENTATIONS, prefix: int = PREFIX
) -> list[dict[str, Any]]:
    """Rows of {implementation, name, calls, ms} of one rollout at batch 1: all operators, then the longest ones."""
    model = random_model(shape)
    made = model.prefix(**random_batch(model, 1, prefix, "text"))
    rows = []
    for name in implementations:
        merged: dict[str, tuple[int, float]] = {}
        for operator, calls, ms in kernel_times(lambda name=name: run_alone(model, made, STEPS, name), model.device):
            operator = _GRAPH_HASH.sub(r"\1", operator)  # of which there is one for each number of positions
            before = merged.get(operator, (0, 0.0))
            merged[operator] = before[0] + calls, before[1] + ms
        whole = tuple(map(sum, zip(*merged.values(), strict=True)))
        longest = sorted(merged.items(), key=lambda each: -each[1][1])[:LONGEST]
        for operator, (calls, ms) in [("all operators", whole), *longest]:
            rows.append({"implementation": name, "name": operator, "calls": calls, "ms": ms})
    return rows


def operators_markdown(report: dict[str, Any]) -> str:
    """Operators of one rollout, by torch's profiler."""
    lines = ["| | operator | calls | ms |", "|---|---|---:|---:|"]
    for row in report["operators"]:
        lines.append(f"| {row['implementation']} | `{row['name']}` | {row['calls']:,} | {row['ms']:.1f} |")
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """The parts of the rollout, with the weights as they are loaded and laid out column by column."""
    cells = {(row["layout"], row["part"]): row for row in report["rows"]}
    lines = [
        "| one thread, batch 1, K = 8 | ms | share of the rollout | weights by column, ms | share of the rollout |",
        "|---|---:|---:|---:|---:|",
    ]
    for part in dict.fromkeys(part for _, part in cells):
        found = [cells[layout, part] for layout in LAYOUTS]
        shown = [f"{one['ms']:.0f} | {_share(one)}" for one in found]
        lines.append(f"| {part} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _share(row: dict[str, Any]) -> str:
    certain = row.get("uncertainty")
    return f"{100 * row['share']:.0f} %" + (f" +- {100 * row['share'] * certain:.0f}" if certain else "")


def main(
    to: Annotated[Path | None, typer.Option("--json", help="Results file. Default: none.")] = None,
    shape: Annotated[str, typer.Option(help="Backbone: layers x width.")] = "12x512",
    budget_s: Annotated[float, typer.Option(min=0, help="Seconds of timing.")] = 60,
) -> None:
    """Time the parts of the rollout and the whole of it in turns, in one run and one thread."""
    torch.set_num_threads(1)
    report = {"shape": shape, "prefix": PREFIX, "steps": STEPS, "rows": measure(shape, budget_s)}
    report["operators"] = operators(shape)
    typer.echo(markdown(report))
    typer.echo("\n" + operators_markdown(report))
    if to is not None:
        to.write_text(json.dumps(report | environment(torch.device("cpu")), indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
