"""The rollout against a single pass, the released style and explicit chain of thought: one run, the same weights."""

import copy
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from plume_embed.bench import cot
from plume_embed.bench.inputs import random_batch
from plume_embed.bench.limits import Machine, Pass, rollout_passes, work
from plume_embed.bench.released_style import embed_one_by_one
from plume_embed.bench.timing import STEADY, Timing, interleaved
from plume_embed.encode.weight_layout import store_by_column
from plume_embed.model.modeling_plume import PlumeModel


class NotAvailableError(RuntimeError):
    """An implementation fell through to another, so that its time would be another's."""


SINGLE_PASS = "single pass"
RELEASED = "released style, one by one"
BY_COLUMN = "static, weights by column"
OPTIMISED_COT = "explicit CoT at the speed of our steps"
MAX_ROUNDS = 60
CPU_IMPLEMENTATIONS = ("reference", "static", "compiled")
CUDA_IMPLEMENTATIONS = (*CPU_IMPLEMENTATIONS, "cuda_graph")


def implementations(device: torch.device) -> tuple[str, ...]:
    """What is compared on a device; the last but one on CPU and the last on CUDA is what `"auto"` takes."""
    return CUDA_IMPLEMENTATIONS if device.type == "cuda" else CPU_IMPLEMENTATIONS


def ours(device: torch.device) -> str:
    """What `"auto"` takes."""
    return "cuda_graph" if device.type == "cuda" else "static"


def embed_with(model: PlumeModel, inputs: dict[str, torch.Tensor], implementation: str, steps: int) -> torch.Tensor:
    """Embeddings [B, D] by one implementation and no other.

    Raises:
        NotAvailableError: the implementation fell through to another.
    """
    model.rollout_implementation = implementation
    with _as_asked(model, implementation if steps else None), torch.no_grad():
        return model(**inputs, num_latent_steps=steps).embeddings


def rollout_rows(
    model: PlumeModel,
    machine: Machine,
    batch: int,
    prefix: int,
    kind: str = "text",
    steps: tuple[int, ...] = (4, 6, 8),
    budget_s: float = 60,
    min_rounds: int = 3,
    released: bool = True,
    names: Iterable[str] | None = None,
) -> list[dict[str, Any]]:
    """One batch size and prefix: a single pass (K = 0), every implementation at the largest K, the default one at the
    other K, and the released style; then the rollout alone, without its prefix. Each row has the least that it can cost
    on the machine, but for prefixes with media, whose towers are not counted. What falls through to another
    implementation is not timed: its row says "not run", and why.

    Args:
        machine ([`Machine`]): From `measure_machine`.
        steps (`tuple[int, ...]`): K, the largest last.
        released (`bool`): Whether to run the released style, which takes one sample at a time.
        names (`Iterable[str]`, *optional*): The implementations; all of the device by default.
    """
    device, inputs = model.device, random_batch(model, batch, prefix, kind)
    default, most, wanted = ours(device), steps[-1], tuple(names or implementations(device))
    cases: dict[str, Callable[[], Any]] = {SINGLE_PASS: lambda: embed_with(model, inputs, default, 0)}
    about: dict[str, int] = {SINGLE_PASS: 0}
    for name in wanted:
        cases[name] = lambda name=name: embed_with(model, inputs, name, most)
        about[name] = most
    for k in steps[:-1]:
        cases[f"{default}, K = {k}"] = lambda k=k: embed_with(model, inputs, default, k)
        about[f"{default}, K = {k}"] = k
    if released:
        cases[RELEASED] = lambda: embed_one_by_one(model, inputs, most)
        about[RELEASED] = most
    by_column = _by_column(model)
    if by_column is not None:
        cases[BY_COLUMN] = lambda twin=by_column: embed_with(twin, inputs, "static", most)
        about[BY_COLUMN] = most
    missing = _taken_out(cases)
    timings = interleaved(cases, device, budget_s, min_rounds, MAX_ROUNDS, warm_up=0, steady_against=SINGLE_PASS)
    where = {"batch": batch, "prefix": prefix, "kind": kind}
    rows = [row(name, timing, timings, default, {**where, "steps": about[name]}) for name, timing in timings.items()]
    for each in rows if kind == "text" else ():
        passes = [Pass(prefix), *rollout_passes(model, prefix, each["steps"])]
        # The released style takes one sample at a time.
        times, together = (batch, 1) if each["name"] == RELEASED else (1, batch)
        each |= _limit_columns(model, machine, together, passes * times, each["ms_median"])
    rows += [_not_run(name, why, {**where, "steps": about[name]}) for name, why in missing.items()]
    by_column = None if BY_COLUMN in missing else by_column
    alone = tuple(name for name in wanted if name not in missing)
    alone_rows = _rollout_alone(model, by_column, inputs, where, most, budget_s / 4, min_rounds, alone)
    for each in alone_rows:
        passes = rollout_passes(model, prefix, most)
        each |= _limit_columns(model, machine, batch, passes, each["ms_median"])
    return rows + alone_rows


def _taken_out(cases: dict[str, Callable[[], Any]]) -> dict[str, str]:
    """Runs every case once, untimed, and takes out of `cases` what falls through to another: name -> why."""
    missing = {}
    for name in list(cases):
        try:
            cases[name]()
        except NotAvailableError as error:
            missing[name] = str(error)
            del cases[name]
    return missing


def _not_run(name: str, why: str, where: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, **where, "note": f"not run: {why}"}


def _by_column(model: PlumeModel) -> PlumeModel | None:
    """A copy with its weights stored by column, where that is possible."""
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    twin = copy.deepcopy(model)
    store_by_column(twin)
    return twin


def _limit_columns(
    model: PlumeModel, machine: Machine, batch: int, passes: list[Pass], ms_median: float
) -> dict[str, float]:
    least = work(model, batch, passes, machine)
    return {} if least is None else least.columns(ms_median)


def row(name: str, timing: Timing, timings: dict[str, Timing], default: str, where: dict[str, Any]) -> dict[str, Any]:
    """One row of the results, with the ratios of the same rounds; it says where they are not certain to 5 %."""
    single = timings[SINGLE_PASS]
    uncertainty = timing.ratio_uncertainty(single)
    unsteady = {}
    if timing is not single and uncertainty > STEADY:
        unsteady["note"] = (
            "too few rounds to be certain" if math.isinf(uncertainty) else f"not steady: +- {100 * uncertainty:.0f} %"
        )
    return {
        "name": name,
        **where,
        **unsteady,
        "ms_median": timing.median,
        "ms_spread": timing.spread,
        "rounds": len(timing.times),
        "samples_per_s": 1000 * where["batch"] / timing.median,
        "ratio_to_single_pass": timing.ratio_to(single),
        "ratio_uncertainty": None if math.isinf(uncertainty) else uncertainty,
        "times_ours": timing.ratio_to(timings[default]) if default in timings else None,
        "peak_bytes": timing.peak_bytes,
    }


def _rollout_alone(
    model: PlumeModel,
    by_column: PlumeModel | None,
    inputs: dict[str, torch.Tensor],
    where: dict[str, Any],
    steps: int,
    budget_s: float,
    min_rounds: int,
    names: tuple[str, ...],
) -> list[dict[str, Any]]:
    """The rollout from a prefix that is there already."""
    with torch.no_grad():
        prefix = model.prefix(**inputs)
    # The reference appends to the cache it is given, so it is not among them.
    names = tuple(name for name in names if name != "reference")
    cases: dict[str, Callable[[], Any]] = {
        name: lambda name=name: run_alone(model, prefix, steps, name) for name in names
    }
    if by_column is not None:
        cases[BY_COLUMN] = lambda: run_alone(by_column, prefix, steps, "static")
    timings = interleaved(cases, model.device, budget_s, min_rounds, MAX_ROUNDS)
    return [
        {
            "name": f"rollout alone, {name}",
            **where,
            "steps": steps,
            "ms_median": timing.median,
            "ms_spread": timing.spread,
            "rounds": len(timing.times),
            "peak_bytes": timing.peak_bytes,
        }
        for name, timing in timings.items()
    ]


def cot_rows(
    model: PlumeModel,
    batch: int,
    prefix: int,
    kind: str = "text",
    measured_tokens: int = cot.NUM_TOKENS,
    caches: tuple[str, ...] = ("growing", "static"),
    rounds: int = 1,
    steps: int = 8,
) -> list[dict[str, Any]]:
    """Explicit chain of thought beside ours and a single pass, in the same rounds; ours as in [`rollout_rows`].

    Args:
        measured_tokens (`int`): Where fewer than 403, the time beyond the prefix is scaled up to 403, and the row says
            so; it flatters the chain of thought a little, whose later tokens cost more.
    """
    device, inputs, default = model.device, random_batch(model, batch, prefix, kind), ours(model.device)
    generator = cot.language_model(model)
    cases: dict[str, Callable[[], Any]] = {
        SINGLE_PASS: lambda: embed_with(model, inputs, default, 0),
        default: lambda: embed_with(model, inputs, default, steps),
    }
    missing = _taken_out(cases)
    for cache in caches:
        cases[f"explicit CoT, {cache} cache"] = lambda cache=cache: cot.write_rationale(
            generator, inputs, measured_tokens, static_cache=cache == "static"
        )
    for cache in caches:  # a short one of each, instead of a whole one, as the warm-up
        cot.write_rationale(generator, inputs, 4, static_cache=cache == "static")
    timings = interleaved(cases, device, budget_s=0, min_rounds=rounds, warm_up=0)
    factor = cot.NUM_TOKENS / measured_tokens
    if factor != 1:
        for name in (name for name in timings if name.startswith("explicit")):
            pairs = zip(timings[name].times, timings[SINGLE_PASS].times, strict=True)
            timings[name].times = [single + (time - single) * factor for time, single in pairs]
    rows, about = [], {"batch": batch, "prefix": prefix, "kind": kind}
    for name, timing in timings.items():
        where = {**about, "steps": None if name.startswith("explicit") else steps}
        rows.append(row(name, timing, timings, default, where))
        if name.startswith("explicit"):
            rows[-1] |= {"tokens": cot.NUM_TOKENS, "tokens_measured": measured_tokens}
            scaled = "" if factor == 1 else f"scaled up from {measured_tokens} tokens"
            rows[-1]["note"] = "; ".join(filter(None, (scaled, rows[-1].get("note"))))
    rows[0]["steps"] = 0
    rows += [_not_run(name, why, {**about, "steps": steps}) for name, why in missing.items()]
    if missing:
        return [*rows, _not_run(OPTIMISED_COT, missing[default], {**about, "steps": None, "tokens": cot.NUM_TOKENS})]
    return [*rows, _optimised_cot(model, inputs, timings, default, about, steps)]


def _optimised_cot(
    model: PlumeModel,
    inputs: dict[str, torch.Tensor],
    timings: dict[str, Timing],
    default: str,
    about: dict[str, Any],
    steps: int,
) -> dict[str, Any]:
    """What 403 tokens would cost at the speed of our own steps: an estimate, for the fair comparison that it is.

    The slope between two rollouts of different K is the cost of a step; a token has a language-modelling head instead
    of an adapter, which is left out of it. Where some round has no slope, there is no estimate.
    """
    few = max(1, steps // 2)
    with torch.no_grad():
        embed_with(model, inputs, default, few)
        pair = interleaved(
            {str(k): lambda k=k: embed_with(model, inputs, default, k) for k in (few, steps)}, model.device, 10, 3, 7
        )
    row = {"name": OPTIMISED_COT, **about, "steps": None, "tokens": cot.NUM_TOKENS}
    more = [all_steps - half for all_steps, half in zip(pair[str(steps)].times, pair[str(few)].times, strict=True)]
    if min(more) <= 0:  # a step takes less than the timings differ from round to round
        return row | {"note": "no estimate: a step is too short to be told from the rest"}
    total = timings[SINGLE_PASS].median + statistics.median(more) / (steps - few) * cot.NUM_TOKENS
    return row | {
        "ms_median": total,
        "samples_per_s": 1000 * about["batch"] / total,
        "ratio_to_single_pass": total / timings[SINGLE_PASS].median,
        "times_ours": total / timings[default].median,
        "note": "estimate",
    }


def run_alone(model: PlumeModel, prefix: Any, steps: int, name: str) -> None:
    with _as_asked(model, name), torch.no_grad():
        model.rollout_engine.run(model, prefix, steps, name)


@contextmanager
def _as_asked(model: PlumeModel, implementation: str | None) -> Iterator[None]:
    """Raises where another implementation has run: a benchmark must not time something else than it says.

    Args:
        implementation (`str`, *optional*): `None` where there are no steps to compute.
    """
    before = model.rollout_engine.last_run
    yield
    run = model.rollout_engine.last_run
    ran, reasons = ("reference", ()) if run is before or run is None else (run.implementation, run.reasons)
    if implementation not in (None, ran):
        why = reasons[0] if reasons else "Is the model in training mode? Call model.eval()."
        raise NotAvailableError(f"{implementation!r} did not run. {why}")
