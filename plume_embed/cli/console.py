"""What the command line shows: names and errors in one harmless line, progress, tables, reports."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from plume_embed.command import error_line, one_line

if TYPE_CHECKING:
    from plume_embed.index.search import Hit
    from plume_embed.index.update import UpdateReport

_WIDTH_OF_PIPES = 160
_SNIPPET_WIDTH = 80
_TYPES_NAMED = 5
_PATTERNS_NAMED = 5


def make_console(stderr: bool = False, quiet: bool = False) -> Console:
    """A console that neither interprets markup nor breaks lines in a pipe at 80 columns."""
    console = Console(stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH_OF_PIPES
    return console


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal; yields a function of (done, total)."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else a stdout that goes to a file would land on the terminal
    )
    with bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=total > 0)


@contextmanager
def working(title: str) -> Iterator[None]:
    """A spinner on stderr, where that is a terminal."""
    console = make_console(stderr=True)
    if console.is_terminal:
        with console.status(title) as status:
            status.update(spinner="dots")  # draws at once: its own thread would wait while modules are imported
            yield
    else:
        yield


def print_hits(console: Console, hits: "list[Hit]", with_folder: bool = False) -> None:
    """The results as a table; with several folders each path begins with its own."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rank", justify="right", no_wrap=True, min_width=4)
    table.add_column("score", justify="right", no_wrap=True, min_width=6)
    table.add_column("file", overflow="fold")
    has_text = any(hit.snippet for hit in hits)  # pictures have none: no empty column
    if has_text:
        table.add_column("text", overflow="fold")
    for rank, hit in enumerate(hits, start=1):
        snippet = one_line(hit.snippet)
        if len(snippet) > _SNIPPET_WIDTH:
            snippet = snippet[: _SNIPPET_WIDTH - 1] + "…"
        shown = one_line(f"{hit.folder}/") + place(hit) if with_folder else place(hit)
        if hit.copies:
            shown += f" (and {len(hit.copies):,} more)"
        table.add_row(str(rank), f"{hit.score:.3f}", Text(shown), *([Text(snippet)] if has_text else []))
    console.print(table, soft_wrap=False)


def place(hit: "Hit") -> str:
    """A hit's file with the page or passage, in one line."""
    return one_line(f"{hit.path}#{hit.locator}" if hit.locator else hit.path)


def hits_as_json(hits: "list[Hit]", **around: Any) -> str:
    """The machine-readable form of a search: what is `around`, then the results, best first."""
    results = [
        {
            "rank": rank,
            "score": round(hit.score, 6),
            "path": hit.path,
            "locator": hit.locator,
            "kind": hit.kind,
            "snippet": hit.snippet,
            "folder": hit.folder,
            "copies": list(hit.copies),
        }
        for rank, hit in enumerate(hits, start=1)
    ]
    return json.dumps({**around, "results": results}, indent=2)


def print_paths(hits: "list[Hit]", end: str) -> None:
    """The files of the results on stdout, each once, as bytes: a path need not be text."""
    files = dict.fromkeys(os.path.join(hit.folder, hit.path) for hit in hits)
    sys.stdout.flush()
    for file in files:
        sys.stdout.buffer.write(os.fsencode(file) + end.encode())
    sys.stdout.buffer.flush()


def print_unreadable(console: Console, path: str, reason: str) -> None:
    console.print(f"unreadable: {one_line(path)}: {error_line(reason)}")


def print_left_out(console: Console, report: "UpdateReport") -> None:
    """The files that are not read for their type, and the links that are not followed."""
    for path in report.others:
        console.print(f"of another type: {one_line(path)}")
    for path in report.links:
        console.print(f"link not followed: {one_line(path)}")


def summary(report: "UpdateReport", num_told: int, all_told: bool) -> str:
    """An update in one line; what did not happen is left out, except the embedding.

    Args:
        num_told (`int`): How much of what is unreadable has just been listed.
        all_told (`bool`): Whether the files of other types and the links have.
    """
    listed = "" if all_told else " (--verbose lists them)"
    parts = [f"{counted(report.num_items, 'item')} of {counted(report.num_files, 'file')} in the index"]
    parts.append(f"{report.embedded:,} embedded now")
    if report.reused:
        parts.append(f"{report.reused:,} reused from moved or equal files")
    if report.removed_files:
        parts.append(f"{counted(report.removed_files, 'file')} gone or changed")
    if report.left_out_files:
        parts.append(f"{counted(report.left_out_files, 'file')} newly left out")
    if report.unreadable:
        hint = "" if num_told == len(report.unreadable) else " (--verbose lists them)"
        parts.append(f"{len(report.unreadable):,} unreadable{hint}")
    if report.away_files:
        kept = f"{counted(report.away_files, 'file')} kept whose folder is empty now"
        parts.append(f"{kept}, as where a drive is away (--prune removes them)")
    if report.kept_files > report.away_files:
        others = counted(report.kept_files - report.away_files, "file")
        parts.append(f"{others} kept that cannot be looked at now")
    if report.other_types:
        parts.append(other_types(report.other_types, listed))
    parts += _left_out(report.excluded)
    if report.links:
        parts.append(f"{counted(len(report.links), 'link')} not followed{listed}")
    return "; ".join(parts)


def _left_out(excluded: Mapping[str, int]) -> list[str]:
    """What rules leave out: by `--exclude`, which the index remembers, with its patterns, and by other rules."""
    patterns = [pattern for pattern in excluded if pattern]
    parts = []
    if patterns:
        number = sum(excluded[pattern] for pattern in patterns)
        named = ", ".join(f"`{one_line(pattern)}`" for pattern in patterns[:_PATTERNS_NAMED])
        more = f" and {len(patterns) - _PATTERNS_NAMED:,} more" if len(patterns) > _PATTERNS_NAMED else ""
        back = "it" if number == 1 else "them"
        parts.append(f"{number:,} left out by {named}{more} (`--exclude ''` brings {back} back)")
    if excluded.get(""):
        parts.append(f"{excluded['']:,} left out by .plumeignore or by default")
    return parts


def other_types(counts: Mapping[str, int], listed: str) -> str:
    """The files of other types by their suffixes, the most frequent ones by name; then how they are `listed`."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    named = [f"{number:,} {one_line(suffix) if suffix else 'without a suffix'}" for suffix, number in ordered]
    rest = sum(number for _, number in ordered[_TYPES_NAMED:])
    shown = ", ".join(named[:_TYPES_NAMED]) + (f", {rest:,} more{listed}" if rest else "")
    return f"{counted(sum(counts.values()), 'file')} of other types left out: {shown}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def print_json(text: str) -> None:
    sys.stdout.write(text + "\n")


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {self.unit}/s" if task.speed else f"- {self.unit}/s")
