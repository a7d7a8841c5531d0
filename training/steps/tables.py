"""Tables from the JSON of `training.steps.diagnose`: read-outs, causal tests, likeness of the steps."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from training.ablations.tables import interval

Entry = dict[str, Any]
_SEED = re.compile(r"-\d+\Z")


def groups(results: dict[str, Entry]) -> dict[str, list[Entry]]:
    """The entries of each set and model, runs that differ in the seed alone together: by `SET, MODEL`."""
    found: dict[str, list[Entry]] = {}
    for entry in results.values():
        found.setdefault(f"{entry['set']}, {_SEED.sub('', entry['model'])}", []).append(entry)
    return dict(sorted(found.items()))


def percent(entries: Iterable[Entry], read: Callable[[Entry], list[float]], sign: str = "") -> str:
    """A figure in percent: of one model with its interval over the queries, of several seeds with Student's."""
    figures = [read(entry) for entry in entries]
    mean, low, high = figures[0] if len(figures) == 1 else interval([figure[0] for figure in figures])
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def read_outs(results: dict[str, Entry]) -> str:
    """Hit@1 in percent by where a query is read, by the better of two ways to read the candidates: at the same place,
    or by their embedding."""
    found = groups(results)
    longest = max((one[0] for one in found.values()), key=lambda entry: entry["num_latent_steps"])
    names = list(longest["read_outs"])
    lines = [f"| | seeds | chance | {' | '.join(names)} |", f"|---|---:|---:|{'---:|' * len(names)}"]
    for title, entries in found.items():
        cells = [title, str(len(entries)), f"{100 * entries[0]['chance']:.1f}"]
        for name in names:
            there = name in entries[0]["read_outs"]
            cells.append(f"{100 * _mean(entries, name):.1f}" if there else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(entries: list[Entry], name: str) -> float:
    """By the better of the two ways to compare a read-out: with itself, or with the candidates' embeddings."""
    return sum(max(way[0] for way in entry["read_outs"][name].values()) for entry in entries) / len(entries)


def causal(results: dict[str, Entry]) -> str:
    """Hit@1 less the rollout's own with the inputs of all steps replaced; with those of another query, how often the
    answer moves along and how near the embedding stays."""
    found = groups(results)
    names = [name for name in next(iter(found.values()))[0]["causal"] if name != "as they are"]
    lines = [f"| | Hit@1 | {' | '.join(names)} | answer of the other query | cosine to the embedding |"]
    lines.append(f"|---|---:|{'---:|' * (len(names) + 2)}")
    for title, entries in found.items():
        cells = [title, percent(entries, lambda entry: entry["causal"]["as they are"]["hit"])]
        cells += [percent(entries, lambda entry, name=name: entry["causal"][name]["difference"], "+") for name in names]
        others = [entry["causal"]["another query"] for entry in entries]
        cells.append(f"{100 * sum(other['follows'] for other in others) / len(others):.1f}")
        cells.append(f"{sum(other['cosine'] for other in others) / len(others):.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def likeness(results: dict[str, Entry]) -> str:
    """Mean cosines between two steps of a query and between two queries at a step."""
    lines = [
        "| | two steps of a query | the same, less the mean of the step | two queries at z(1) | at the last step |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, entries in groups(results).items():
        likes = [entry["similarities"] for entry in entries]
        figures = [
            [_off_diagonal(like["between_steps"]) for like in likes],
            [_off_diagonal(like["between_steps_centred"]) for like in likes],
            [like["between_queries"][1] for like in likes],
            [like["between_queries"][-1] for like in likes],
        ]
        lines.append(f"| {title} | {' | '.join(f'{sum(own) / len(own):.2f}' for own in figures)} |")
    return "\n".join(lines)


def _off_diagonal(matrix: list[list[float]]) -> float:
    """Mean over the pairs of z(1) to z(K)."""
    values = [value for j, row in enumerate(matrix) for k, value in enumerate(row) if 1 <= j < k]
    return sum(values) / len(values)
