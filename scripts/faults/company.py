"""Two writers at once, and readers beside a writer."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from scripts.faults.commands import Command, Ended, compare, index_rows, parquet_rows, run
from scripts.faults.inputs import change_folder, write_folder, write_jsonl

_QUERY = "a red bicycle"
_NEAR = 1e-4  # of two scores; LanceDB's sums are its own
_BUSY = ("is being updated by another process", "is being written by another process")


def two_writers(work: Path, model: Path, size: int, times: int) -> list[dict[str, Any]]:
    """Two runs of one command on one output: one goes through, the other says so in one line or finds it done."""
    folder = write_folder(work / "files", size)
    source = write_jsonl(work / "rows.jsonl", folder, size)
    rows = []
    for name, begin, out, lock, read in (
        ("index", ("index", folder), work / "index", work / "index", index_rows),
        ("embed", ("embed", source), work / "out.parquet", work / "out.parquet.partial", parquet_rows),
    ):
        whole, refused, is_right, lost, extra = None, 0, True, 0, 0
        for number in range(times + 1):
            _remove(out)
            arguments = (*begin, "--to", out, "--model", model, "--batch-size", 1)
            first = Command(*arguments)
            if number == 0:  # undisturbed
                is_right = first.end().code == 0
                whole = read(out)
                continue
            if number % 2:  # by turns: both start together, or the second one while the first has the lock
                first.wait_for_lock(lock)
            both = Command(*arguments).end(), first.end()
            refused += sum(ended.code == 2 for ended in both)
            is_right &= any(ended.code == 0 for ended in both) and all(map(_is_right, both))
            difference = compare(read(out), whole)
            lost, extra = lost + difference.lost, extra + difference.extra
            is_right &= difference.is_none
        rows.append(
            {
                "command": name,
                "times": times,
                "refused": refused,
                "is_right": is_right,
                "lost": lost,
                "extra": extra,
            }
        )
    return rows


def reader_beside_writer(work: Path, model: Path, size: int, searches: int) -> dict[str, Any]:
    """An index is searched while it is updated: every search answers, with files that it holds and their right scores.

    Args:
        searches (`int`): Commands `search` that are started meanwhile; between them it is read by this process.
    """
    from plume_embed import Encoder
    from plume_embed.index.search import open_index

    encoder = Encoder(model)
    query = encoder.encode([_QUERY])[0]
    folder, db = write_folder(work / "folder", size), work / "index"
    first = run("index", folder, "--to", db, "--model", model)
    before = index_rows(db)
    change_folder(folder)
    writer = Command("index", folder, "--to", db, "--model", model, "--batch-size", 1)
    is_right, reads, beside = first.code == 0 and writer.wait_for_lock(db), [], []
    while writer.process.poll() is None:
        if len(beside) < searches:
            beside.append(Command("search", folder, _QUERY, "--to", db, "--model", model))
        reads.append(open_index(folder, db, encoder).search(query))
    written = writer.end()
    answers = [command.end() for command in beside]
    scores: dict[tuple[str, str], list[float]] = {}  # what has changed meanwhile has either of two
    for rows in (before, index_rows(db)):
        for place, row in rows.items():
            scores.setdefault(place, []).append(float(query @ np.float32(row["vector"])))
    hits = [hit for found in reads for hit in found]
    wrong = sum(
        not any(abs(hit.score - one) < _NEAR for one in scores.get((hit.path, hit.locator), ())) for hit in hits
    )
    wrong += sum(len(found) < 5 for found in reads) + sum(answer.code != 0 for answer in answers)
    return {
        "reads": len(reads),
        "searches": len(answers),
        "searches_that_said_so": sum(_BUSY[0] in answer.err for answer in answers),
        "wrong": wrong,
        "is_right": is_right and written.code == 0 and wrong == 0,
    }


def _is_right(ended: Ended) -> bool:
    return ended.code == 0 or (ended.is_one_line and any(words in ended.err for words in _BUSY))


def _remove(out: Path) -> None:
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)
