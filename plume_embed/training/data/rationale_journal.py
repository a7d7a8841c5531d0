"""What the rationales of a corpus have cost and brought: a JSONL file beside the corpus, which goes on over runs.

Its first line says who writes, each further one what an input got, and the tokens that it took. It stays when the
corpus is finished, so nothing is asked and paid for twice.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plume_embed.atomic import write_text


class Journal:
    """The journal of a corpus, read when it is opened.

    Args:
        path (`Path`): Of the journal; made if it is not there.
        writer: What decides the rationales, by name, as JSON holds it.

    Attributes:
        turns: The assistant's turn of each input that has one, by the input's key.
        tokens (`int`): Of all requests of all runs, as far as they were answered.

    Raises:
        ValueError: another writer has begun the corpus, with the remedy.
    """

    def __init__(self, path: Path, writer: Mapping[str, Any]):
        self._path, self.turns, self.tokens = path, dict[int, str](), 0
        begun_by: Any = None
        for entry in _entries(path):
            match entry:
                case {"writer": begun_by}:
                    pass
                case {"key": int(key), "turn": str(turn)}:
                    self.turns[key] = turn
            self.tokens += entry.get("tokens", 0)
        if begun_by == writer:
            self._append("\n")  # behind a line that a kill may have cut short
        elif self.turns:
            raise ValueError(_of_another(path, begun_by, writer))
        else:  # nothing to mix with: a first run with a wrong name, say
            self.tokens = 0
            write_text(path, _line({"writer": writer}))

    def add(self, key: int, turn: str | None, tokens: int) -> None:
        """Writes down what an input got, `None` where it got nothing, and the tokens of its requests."""
        self.tokens += tokens
        if turn is not None:
            self.turns[key] = turn
        self._append(_line({"key": key, "turn": turn, "tokens": tokens}))

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal, without one that a kill cut short."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            yield entry


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"


def _of_another(path: Path, begun_by: Any, writer: Mapping[str, Any]) -> str:
    """The error where a corpus would mix rationales of two writers."""
    if begun_by is None:
        return (
            f"{path} does not say who wrote its rationales. Delete it to begin anew; if it was the same, put this line "
            f"first: {json.dumps({'writer': writer})}"
        )
    named = [name for name in {**begun_by, **writer} if begun_by.get(name) != writer.get(name)]
    was, now = (", ".join(f"{name} {one.get(name)}" for name in named) for one in (begun_by, writer))
    moved = f" If it is the same model at another address, write that into the first line of {path}."
    return (
        f"The rationales of this corpus were begun by another writer: {was}, not {now}. Ask that one, take another "
        f"--out, or delete {path} to begin anew.{moved if named == ['endpoint'] else ''}"
    )
