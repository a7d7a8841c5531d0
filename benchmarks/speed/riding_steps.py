"""What it would save that latent steps ride along in the passes of the next batches' prefixes.

    python -m benchmarks.speed.riding_steps --json benchmarks/results/riding_steps.json

With eight batches under way, one pass could hold the prefix of the newest and a step of each of the others: the weights
would be read once for 256 + K + S rows of each item instead of K + 1 times. What is timed is the linear layers of the
12 x 512 backbone, three of the twelve, at these numbers of rows, which is all that could gain: attention has a cache of
its own for every item. So the result is a bound from above on the gain over batches of the same size, and over the
larger batches that `encode` forms anyway.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from plume_embed.bench.inputs import random_model
from plume_embed.bench.report import environment
from plume_embed.bench.timing import LEAST_ROUNDS, interleaved

PREFIX, STEPS, SUFFIX = 256, 8, 5
BATCHES = (1, 2, 4, 8, 16)
LAYERS = 3  # of the twelve: their weights are many times what a core keeps near itself, and the others are alike


@torch.no_grad()
def measure(budget_s: float, layers: int = LAYERS, batches: tuple[int, ...] = BATCHES) -> list[dict[str, Any]]:
    """Rows of {batch, rounds, times, uncertainty, apart_ms, riding_ms}: milliseconds an item in these layers.

    Args:
        layers, batches: How many of the decoder's layers are timed, and sizes of batches; fewer for a test.
    """
    decoder: Any = random_model("12x512").backbone.get_decoder()
    linear = [
        module for layer in decoder.layers[:layers] for module in layer.modules() if isinstance(module, nn.Linear)
    ]
    sizes = {module.in_features for module in linear}

    def products(*rows: int) -> None:
        for count in rows:
            inputs = {size: ones[size][:count] for size in sizes}
            for module in linear:
                module(inputs[module.in_features])

    ones = {size: torch.ones(max(batches) * (PREFIX + STEPS + SUFFIX), size) for size in sizes}
    results = []
    for batch in batches:
        steps = [batch] * (STEPS - 1) + [batch * (1 + SUFFIX)]
        together = batch * (PREFIX + STEPS + SUFFIX)
        cases = {
            "apart": lambda batch=batch, steps=steps: products(batch * PREFIX, *steps),
            "riding": lambda together=together: products(together),
        }
        timings = interleaved(
            cases, torch.device("cpu"), budget_s, min_rounds=LEAST_ROUNDS, max_rounds=40, steady_against="riding"
        )
        results.append(
            {
                "batch": batch,
                "rounds": len(timings["apart"].times),
                "times": timings["apart"].ratio_to(timings["riding"]),
                "uncertainty": timings["apart"].ratio_uncertainty(timings["riding"]),
                **{f"{name}_ms": timing.median / batch for name, timing in timings.items()},
            }
        )
    return results


def markdown(report: dict[str, Any]) -> str:
    """The linear layers with steps in passes of their own, and riding along in the next batches' prefixes."""
    lines = [
        "| batch | rounds | steps apart, ms an item | riding along, ms an item | gain at most |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        gain = f"{row['times']:.2f} +- {100 * row['uncertainty']:.0f} %"
        lines.append(f"| {row['batch']} | {row['rounds']} | {row['apart_ms']:.0f} | {row['riding_ms']:.0f} | {gain} |")
    return "\n".join(lines)


def main(
    to: Annotated[Path | None, typer.Option("--json", help="Results file. Default: none.")] = None,
    budget_s: Annotated[float, typer.Option(min=0, help="Seconds for each batch size.")] = 12,
) -> None:
    """Time the linear layers with steps apart and riding along, in one run and one thread."""
    torch.set_num_threads(1)
    rows = measure(budget_s)
    typer.echo(markdown({"rows": rows}))
    if to is not None:
        report = {
            "prefix": PREFIX,
            "steps": STEPS,
            "suffix": SUFFIX,
            "layers": LAYERS,
            "rows": rows,
            **environment(torch.device("cpu")),
        }
        to.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
