"""Files that are read back: what is damaged, or of another form, is one ValueError that names the file. And the paths
that can be stored."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

if TYPE_CHECKING:
    import pyarrow as pa

# What reading and taking apart a file of the wrong content raises.
_OF_CONTENT = (ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError)
_OF_BYTES = (zipfile.BadZipFile, zlib.error, SafetensorError, OSError)


@contextmanager
def naming(file: Path, remedy: str = "") -> Iterator[None]:
    """Around the reading of a file: what goes wrong becomes a ValueError that names it, and says what to do.

    Raises:
        FileNotFoundError: it is not there.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except KeyError as error:
        raise ValueError(_damaged(file, f"it lacks {error}", remedy)) from error
    except (*_OF_CONTENT, *_OF_BYTES) as error:
        raise ValueError(_damaged(file, str(error) or type(error).__name__, remedy)) from error


def read_json(file: Path, remedy: str = "") -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: it holds none.
    """
    with naming(file, remedy):
        return json.loads(file.read_text(encoding="utf-8"))


def why_no_model(folder: Path) -> str:
    """Of a folder without a config.json why it is no model, a sentence or two."""
    lora = folder / "adapter_config.json"
    if not lora.is_file():
        return f"{folder} is no model folder: it has no config.json."
    saved = read_json(lora)
    base = (saved.get("base_model_name_or_path") if isinstance(saved, dict) else None) or "its model"
    return (
        f"{folder} holds a LoRA over {base} and no model: merge it, PeftModel.from_pretrained(model, folder)"
        f".merge_and_unload(), and save the result and the processor of {base} into one folder with save_pretrained "
        "(`plume-embed train` has done so in merged/)."
    )


def read_arrays(file: Path, *names: str, remedy: str = "") -> list[NDArray]:
    """Arrays of an `.npz` file by name; none of them may be made of pickles.

    Raises:
        ValueError: it is none, or lacks one.
    """
    with naming(file, remedy):
        stored = np.load(file)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("it is no .npz file")
        with stored:
            return [stored[name] for name in names]


def read_rows(file: Path, schema: pa.Schema, remedy: str = "") -> list[dict[str, Any]]:
    """The rows of a Parquet file, its columns checked against a schema; no value may be missing.

    Raises:
        ValueError: it is none, lacks a column, or a column has another type.
    """
    import pyarrow.parquet as pq

    with naming(file, remedy):
        table = pq.read_table(file)
        check_columns(table.schema, schema)
        empty = [field.name for field in schema if table.column(field.name).null_count]
        if empty:
            raise ValueError(f"the column {empty[0]} has rows without a value")
        return table.select(schema.names).to_pylist()


def check_columns(found: pa.Schema, wanted: pa.Schema) -> None:
    """Compares names and types of columns; there may be more.

    Raises:
        ValueError: one is missing or has another type.
    """
    for field in wanted:
        if field.name not in found.names:
            raise ValueError(f"it lacks the column {field.name}; it has {', '.join(found.names)}")
        if not found.field(field.name).type.equals(field.type):
            raise ValueError(f"the column {field.name} holds {found.field(field.name).type}, not {field.type}")


def printable(text: str) -> str:
    """A text that can be stored and shown: what was no UTF-8 in the name of a file is written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_utf8(path: Path) -> None:
    """Refuses a path that Parquet, LanceDB and `datasets` cannot open or store.

    Raises:
        ValueError: it is not valid UTF-8, with the remedy.
    """
    shown = printable(str(path))
    if shown != str(path):
        raise ValueError(
            f"{shown} is not valid UTF-8, and Parquet and LanceDB take no other path: rename what has \\udc in it."
        )


def _damaged(file: Path, reason: str, remedy: str) -> str:
    reason = " ".join(reason.split()).rstrip(".")
    return f"{file} is damaged or of another form: {reason}.{f' {remedy}' if remedy else ''}"
