"""Everything about speed that needs a GPU, within 9 minutes: `python -m benchmarks.gpu_suite --out DIR`.

Needs torch 2.11, transformers 5.17 and this repository. First the equality of the graph with the reference, then the
tables, the most important first; the JSON is written anew after every part, so that a run that is cut short has given
what it had. `--only` runs some parts again and keeps the others that the file has: ratios are of one part.
"""

import argparse
import copy
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from plume_embed.atomic import write_json
from plume_embed.bench.adapter import adapter_rows
from plume_embed.bench.inputs import random_batch, random_model
from plume_embed.bench.kernels import kernel_rows, kernel_times
from plume_embed.bench.limits import Machine, measure_machine
from plume_embed.bench.report import environment, now, slug, table
from plume_embed.bench.rollout import cot_rows, embed_with, implementations, rollout_rows
from plume_embed.bench.timing import interleaved
from plume_embed.model.attention_plume import attend_matmul, attend_sdpa
from plume_embed.model.modeling_plume import PlumeModel

LOOP_NAMES = ("reference", "cuda_graph")


def equality_rows(model: PlumeModel, lengths: tuple[int, ...], batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Every implementation against the reference over padded batches, in an order that changes the bucket each time.

    Rows of {name, dtype, worst_difference, error, error_of_reference, equal}. In float32 a difference of at most 1e-4
    is asked for. In half precision two ways to compute the same differ, and random weights make much of it over 8
    steps: there the error, the mean of 1 - cosine to the float32 reference of the same weights, must be at most a
    third above that of the reference.
    """
    exact = model if model.dtype == torch.float32 else copy.deepcopy(model).float()
    names = [name for name in implementations(model.device) if name != "reference"]
    worst = dict.fromkeys(names, 0.0)
    errors: dict[str, list[float]] = {name: [] for name in ("reference", *names)}
    for turn, (batch, longest) in enumerate((b, n) for n in lengths for b in batches):
        rows_of_batch = [max(16, longest - 17 * index) for index in range(batch)]
        inputs = random_batch(model, batch, max(rows_of_batch), seed=turn, lengths=rows_of_batch)
        wanted = embed_with(exact, inputs, "reference", 8).float()
        expected = embed_with(model, inputs, "reference", 8)
        for name in errors:
            found = embed_with(model, inputs, name, 8) if name != "reference" else expected
            errors[name] += (1 - torch.cosine_similarity(found.float(), wanted, dim=-1)).tolist()
            if name != "reference":
                worst[name] = max(worst[name], (expected - found).abs().max().item())
    rows, of_reference = [], statistics.fmean(errors["reference"])
    for name in names:
        error = statistics.fmean(errors[name])
        equal = worst[name] <= 1e-4 if exact is model else error <= 4 / 3 * of_reference + 1e-3
        rows.append(
            {
                "name": f"equality, {name}",
                "dtype": str(model.dtype),
                "worst_difference": worst[name],
                "error": error,
                "error_of_reference": of_reference,
                "equal": equal,
            }
        )
    return rows


@torch.no_grad()
def attention_rows(
    device: torch.device, dtype: torch.dtype, batches: tuple[int, ...] = (1, 8, 32), repeats: int = 100
) -> list[dict[str, Any]]:
    """Both forms of packed attention at the shapes of a step: 2 key heads of 128, 6 queries each, 713 slots.

    Beside the time of a call stands that of its kernels: a captured graph pays only for these.

    Args:
        repeats (`int`): Calls in one timed run; the times are of one call.
    """
    rows = []
    for batch in batches:
        like = {"device": device, "dtype": dtype}
        query = torch.randn(batch, 2, 6, 128, **like)
        key, value = torch.randn(batch, 2, 713, 128, **like), torch.randn(batch, 2, 713, 128, **like)
        tensors = query, key, value, torch.zeros(batch, 1, 1, 713, **like)

        def repeat(attend: Callable, tensors=tensors) -> None:
            for _ in range(repeats):
                attend(*tensors, 0.09)

        cases = {
            "sdpa": lambda repeat=repeat: repeat(attend_sdpa),
            "matmul": lambda repeat=repeat: repeat(attend_matmul),
        }
        for name, timing in interleaved(cases, device, budget_s=1, min_rounds=5, warm_up=2).items():
            each, spread = timing.median / repeats, timing.spread / repeats
            kernels = sum(ms for _, _, ms in kernel_times(cases[name], device)) / repeats
            where = {"name": f"packed attention, {name}", "batch": batch}
            rows.append({**where, "ms_median": each, "ms_spread": spread, "ms": kernels})
    return rows


def parts(device: torch.device, small: bool, machine: Machine) -> list[tuple[str, Callable[[], list[dict[str, Any]]]]]:
    """Names and functions of the parts, in order. `small` has the same parts in sizes for a test."""
    models: dict[torch.dtype, PlumeModel] = {}
    half, shape = torch.bfloat16, "test" if small else "2b"
    batches, lengths, budget = ((1, 2), (90, 120), 0.1) if small else ((1, 8, 32), (700, 1300, 200), 6.0)

    def model(dtype: torch.dtype) -> PlumeModel:
        if dtype not in models:
            for other in models.values():
                other.rollout_engine.release()
            models.clear()
            models[dtype] = random_model(shape, str(device), dtype)
        return models[dtype]

    def timed(batch: int, prefix: int, kind: str, **settings) -> Callable[[], list[dict[str, Any]]]:
        rounds = 1 if small else 3
        return lambda: rollout_rows(
            model(half), machine, batch, prefix, kind, budget_s=budget, min_rounds=rounds, **settings
        )

    plan = [
        ("equality in float32", lambda: equality_rows(model(torch.float32), lengths[:2], batches[:2])),
        ("equality in bfloat16", lambda: equality_rows(model(half), lengths, batches)),
    ]
    main = {"names": implementations(device)}
    few = {"names": LOOP_NAMES if device.type == "cuda" else ("static",), "steps": (8,), "released": False}
    for batch in batches:
        plan.append((f"image {lengths[0]} batch {batch}", timed(batch, lengths[0], "image", **main)))
    for batch in batches:
        plan.append((f"image {lengths[1]} batch {batch}", timed(batch, lengths[1], "image", **few)))
    loop = implementations(device)[-1] if device.type == "cuda" else "static"
    for batch in batches:
        plan.append((f"kernels, batch {batch}", lambda batch=batch: kernel_rows(model(half), batch, lengths[0], loop)))
    tokens = 8 if small else 48
    plan.append(
        ("explicit CoT, batch 1", lambda: cot_rows(model(half), 1, lengths[0], "image", measured_tokens=tokens))
    )
    plan.append(
        (
            f"explicit CoT, batch {batches[-1]}",
            lambda: cot_rows(
                model(half), batches[-1], lengths[0], "image", measured_tokens=tokens, caches=("growing",)
            ),
        )
    )
    plan.append(("attention", lambda: attention_rows(device, half, batches, repeats=1 if small else 100)))
    plan.append(("adapter", lambda: adapter_rows(model(half), batches, budget_s=2)))
    for kind, length in (("text", lengths[0]), ("video", lengths[0]), ("image", lengths[2 % len(lengths)])):
        for batch in batches:
            plan.append((f"{kind} {length} batch {batch}", timed(batch, length, kind, **few)))
    return plan


def markdown(report: dict[str, Any]) -> str:
    """Every implementation over pictures of 700 tokens, against a single pass and against the limit."""
    return _rows_markdown(report, lambda name: name.startswith("image 700"))


def others_markdown(report: dict[str, Any]) -> str:
    """The same for longer pictures, texts and films, with the graph and the reference alone."""
    return _rows_markdown(report, lambda name: name.startswith(("image 1300", "image 200", "text", "video")))


_SHOWN_PLACES = {"ms_median": 0, "samples_per_s": 0, "ratio_to_single_pass": 2, "times_limit": 2}


def _rows_markdown(report: dict[str, Any], is_shown: Callable[[str], bool]) -> str:
    lines = ["| | kind | batch | tokens | ms | items a second | over a single pass | times the limit | |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---|")
    for name, part in report["parts"].items():
        for row in part["rows"] if is_shown(name) else ():
            cells = [row["name"], row["kind"], row["batch"], row["prefix"]]
            for key, places in _SHOWN_PLACES.items():
                cells.append("" if row.get(key) is None else f"{row[key]:,.{places}f}")
            lines.append(f"| {' | '.join(map(str, [*cells, row.get('note') or '']))} |")
    return "\n".join(lines)


def kernels_markdown(report: dict[str, Any], longest: int = 6) -> str:
    """The longest kernels of one captured rollout at batch 1."""
    lines = ["| kernel | calls | ms | share |", "|---|---:|---:|---:|"]
    for row in report["parts"]["kernels, batch 1"]["rows"][: 1 + longest]:
        lines.append(f"| `{row['name'][:48]}` | {row['calls']:,} | {row['ms']:.2f} | {100 * row['share']:.0f} % |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs all parts that fit into the time; 1 if one failed or was not equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for <device>.json")
    parser.add_argument("--minutes", type=float, default=8.5, help="no part begins after this")
    parser.add_argument("--only", default="", help="beginnings of the names of the parts to run, with commas")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the suite itself")
    options = parser.parse_args(arguments)
    start, device = time.monotonic(), torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    machine = measure_machine(device, torch.bfloat16)
    conditions = environment(device) | machine.conditions()
    file = options.out / f"{slug(conditions['device'])}.json"
    done: dict[str, Any] = json.loads(file.read_text())["parts"] if options.only and file.exists() else {}
    skipped, failed, unequal = [], [], []
    plan, only = parts(device, options.small, machine), tuple(options.only.split(","))
    for beginning in only:
        if not any(name.startswith(beginning) for name, _ in plan):
            parser.error(f"no part begins with {beginning!r}; there are {', '.join(name for name, _ in plan)}")
    for name, part in plan:
        if not name.startswith(only):
            continue
        if time.monotonic() - start > 60 * options.minutes:
            skipped.append(name)
            continue
        begin = time.monotonic()
        try:
            rows = part()
        except Exception as error:  # one part must not cost the others: the machine is lent for minutes
            traceback.print_exc()
            failed.append({"name": name, "error": f"{type(error).__name__}: {error}"})
            continue
        seconds = time.monotonic() - begin
        print(f"\n{name} ({seconds:.0f} s)\n{table(rows)}", flush=True)
        unequal += [row["name"] for row in rows if row.get("equal") is False]
        done[name] = {"conditions": conditions | {"finished": now()}, "seconds": seconds, "rows": rows}
        write_json(file, {"benchmark": "gpu_suite", "device": conditions["device"], "failed": failed, "parts": done})
    print(f"\nskipped: {skipped}\nfailed: {failed}\nnot equal: {unequal}\nwritten: {file.name}")
    return int(bool(unequal or failed))


__all__ = ["attention_rows", "equality_rows", "kernels_markdown", "main", "markdown", "others_markdown", "parts"]

if __name__ == "__main__":
    sys.exit(main())
