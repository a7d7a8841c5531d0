"""What bfloat16 and int8 weights cost in accuracy and gain in time on this CPU: the demo's photographs and their names.

python -m benchmarks.speed.weight_types --json benchmarks/results/weight_types.json
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from plume_embed.bench.report import environment
from plume_embed.bench.timing import LEAST_ROUNDS, interleaved
from plume_embed.encode.encoder import Encoder

ROOT = Path(__file__).parent.parent.parent
PHOTOGRAPHS = ROOT / "examples" / "photographs"
MODELS = ("plume-small", "plume-tiny")
TYPES = ("float32", "bfloat16", "int8")


def measure(model: str, budget_s: float) -> list[dict[str, Any]]:
    """Vectors and time of each type, a row a type; every name is a query for its picture."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    names, pictures = [file.stem.replace("_", " ") for file in files], [{"image": str(file)} for file in files]
    encoders = {dtype: Encoder(ROOT / "checkpoints" / model, device="cpu", dtype=dtype) for dtype in TYPES}
    vectors = {dtype: each.encode([*names, *pictures]) for dtype, each in encoders.items()}
    # The model alone: pictures are read and resized in the same time whatever its type.
    inputs = {dtype: dict(each.processor(names[:8])) for dtype, each in encoders.items()}
    cases = {dtype: lambda dtype=dtype: _embed(encoders[dtype], inputs[dtype]) for dtype in TYPES}
    timings = interleaved(cases, torch.device("cpu"), budget_s, min_rounds=LEAST_ROUNDS, max_rounds=60)
    rows = []
    for dtype, found in vectors.items():
        cosines = (found * vectors["float32"]).sum(axis=1)
        ranks = (found[: len(names)] @ found[len(names) :].T).argmax(axis=1)
        rows.append(
            {
                "model": model,
                "dtype": dtype,
                "items": len(found),
                "lowest_cosine": float(cosines.min()),
                "mean_cosine": float(cosines.mean()),
                "found_first": int((ranks == np.arange(len(names))).sum()),
                "queries": len(names),
                "times_float32": timings[dtype].ratio_to(timings["float32"]),
                "uncertainty": timings[dtype].ratio_uncertainty(timings["float32"]),
            }
        )
    return rows


@torch.inference_mode()
def _embed(encoder: Encoder, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return encoder.model(**batch).embeddings


def markdown(report: dict[str, Any]) -> str:
    """bfloat16 and int8 against float32 on the demo's photographs and their names."""
    lines = [
        "| model | weights | lowest cosine to float32 | mean | found first | time of float32 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        cells = [row["model"], row["dtype"], f"{row['lowest_cosine']:.5f}", f"{row['mean_cosine']:.5f}"]
        cells += [f"{row['found_first']} of {row['queries']}", _times(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(row: dict[str, Any]) -> str:
    if row["dtype"] == "float32":
        return "1.00"
    return f"{row['times_float32']:.2f} +- {100 * row['uncertainty']:.0f} %"


def main(
    to: Annotated[Path | None, typer.Option("--json", help="Results file. Default: none.")] = None,
    budget_s: Annotated[float, typer.Option(min=0, help="Seconds of timing for each model.")] = 15,
) -> None:
    """Compare the vectors and the time of all types of weights, in one run and one thread."""
    torch.set_num_threads(1)
    rows = [row for model in MODELS for row in measure(model, budget_s)]
    typer.echo(markdown({"rows": rows}))
    if to is not None:
        to.write_text(json.dumps({"rows": rows, **environment(torch.device("cpu"))}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
