"""What a run began with, as digests: it goes on with the same data, and with LoRA with the same model.

Places are no part of a digest, so a run whose data were moved goes on.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from plume_embed.atomic import write_json
from plume_embed.encode.encoder import fingerprint
from plume_embed.stored import naming, read_json
from plume_embed.training.data.keys import item_key
from plume_embed.training.data.pair_rows import PairRow
from plume_embed.training.data.pairs_task import PairsTask
from plume_embed.training.recipe import DataSettings, Recipe
from plume_embed.training.resuming import BEGINNING_FILE
from plume_embed.training.tasks import Task


@dataclass(frozen=True)
class Beginning:
    """What a run began with.

    Args:
        model (`str`, *optional*): SHA-256 of the files at `model.path`; `None` of a fresh model.
        data (`tuple[tuple[str, str]]`): Name and SHA-256 of each file of the data, in order. Of pairs it is that of the
            rows, with the content of their media; of a corpus that of the files, which hold its media or name them.
    """

    model: str | None
    data: tuple[tuple[str, str], ...]


def beginning_of(recipe: Recipe, task: Task) -> Beginning:
    """What lies at the places that the recipe names now.

    Raises:
        ValueError: a medium of the pairs that cannot be read, by name.
    """
    path = recipe.model.path
    model = fingerprint(Path(path)) if path is not None and Path(path).is_dir() else None
    data = _of_pairs(recipe, task) if isinstance(task, PairsTask) else _of_files(recipe.data)
    return Beginning(model, tuple(data))


def keep_beginning(folder: Path, beginning: Beginning) -> None:
    """Writes it into a run's folder."""
    write_json(folder / BEGINNING_FILE, dataclasses.asdict(beginning))


def check_beginning(recipe: Recipe, now: Beginning, console: Console) -> Beginning | None:
    """What the run in output_dir truly began with; `None` of one that an older version began, which kept nothing.

    Args:
        now ([`Beginning`]): Of the recipe that is to go on.
        console (`Console`): Where it is said what could not be checked, or differs without harm.

    Raises:
        ValueError: the data differ, or with LoRA the model: its checkpoints hold the updates alone. Or what was kept
            cannot be read.
    """
    out = Path(recipe.output_dir)
    file = out / BEGINNING_FILE
    if not file.is_file():
        console.print(
            f"{out} was begun by an older version, which kept no digests: whether its data and the model that it began "
            "with are still the same was not checked."
        )
        return None
    kept = read_json(file)
    with naming(file):
        begun = Beginning(kept["model"], tuple((str(name), str(digest)) for name, digest in kept["data"]))
    changed = _first_change(begun.data, now.data)
    if changed is not None:
        raise ValueError(
            f"{out} holds a run of other data: {changed}. Give the data that it began with to go on, or another "
            "output_dir to begin anew."
        )
    if begun.model != now.model:
        if recipe.lora is not None:
            raise ValueError(
                f"{out} holds a LoRA run of another model than model.path={recipe.model.path} is now, and its "
                "checkpoints hold the updates alone. Give the model that it began with to go on, or another "
                "output_dir to begin anew."
            )
        console.print(
            f"model.path={recipe.model.path} holds other files than when the run began: its weights come from the "
            "checkpoint, its tokenizer and settings from there."
        )
    return begun


def _first_change(before: tuple[tuple[str, str], ...], now: tuple[tuple[str, str], ...]) -> str | None:
    if len(before) != len(now):
        names = [", ".join(name for name, _ in files) or "none" for files in (before, now)]
        return f"its files were {names[0]} and are {names[1]}"
    for (old_name, old), (name, new) in zip(before, now, strict=True):
        if old != new:
            was = "" if name == old_name else f" (then {old_name})"
            return f"the content or the place of {name}{was} has changed"
    return None


def _of_pairs(recipe: Recipe, task: PairsTask) -> Iterator[tuple[str, str]]:
    """Of the rows, not of bytes: they are divided by what their media hold."""
    rows: dict[str, list[str]] = {}
    for row in (*task.train_rows, *task.validation, *task.held_out):
        file, _, number = row.where.rpartition(":")
        rows.setdefault(file, []).append(f"{number} {_keys(row)}")
    given = [str(Path(name)) for name in (*recipe.data.files, *recipe.pairs.held_out_files)]
    for file in given or [""]:  # rows of data.dataset have a number alone
        lines = "\n".join(sorted(rows.get(file, [])))  # whichever part they are in
        yield Path(file).name or "data.dataset", hashlib.sha256(lines.encode()).hexdigest()


def _keys(row: PairRow) -> list[int]:
    return [item_key(item) for item in (row.question, row.positive, *row.negatives)]


def _of_files(data: DataSettings) -> Iterator[tuple[str, str]]:
    for root, file in _files(data):
        with file.open("rb") as opened:
            yield str(file.relative_to(root)), hashlib.file_digest(opened, "sha256").hexdigest()


def _files(data: DataSettings) -> Iterator[tuple[Path, Path]]:
    """Each file with the folder that its name is relative to; what is no file of this machine, such as a data set of
    the Hub or what a class of one's own understands by `data.files`, cannot be compared."""
    yield from ((Path(name).parent, Path(name)) for name in data.files if Path(name).is_file())
    if data.folder:
        root = Path(data.folder)
        found: Iterable[Path] = [*root.glob("train/*.parquet"), *root.glob("*.parquet"), *root.glob("media/*.parquet")]
        yield from ((root, file) for file in sorted(found))
    if data.dataset and Path(data.dataset).is_dir():
        root = Path(data.dataset)  # where `datasets` keeps what it computes under cache-*
        found = (file for file in root.rglob("*") if file.is_file() and not file.name.startswith(("cache-", ".")))
        yield from ((root, file) for file in sorted(found))
