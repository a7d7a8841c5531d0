"""Full and read-only disks: small file systems in memory, where they may be mounted, else the nearest stand-in."""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from scripts.faults.commands import Ended, Rows, compare, index_rows, parquet_rows, run
from scripts.faults.inputs import change_folder, write_folder, write_jsonl

# Parts of what the result takes: the disk is full at the first write, in the middle, shortly before the end.
SIZES = (0.1, 0.5, 0.9)
_LARGE = 256 * 2**20
_LEAST = 16 * 4096
_FULL = ("No space left on device", "File too large")


def can_mount(work: Path) -> bool:
    """Whether file systems in memory can be mounted here: on Linux, as root."""
    place = work / "can-mount"
    place.mkdir()
    try:
        with _mounted(place, _LEAST):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        place.rmdir()


def full_disk(work: Path, model: Path, size: int, sizes: tuple[float, ...] = SIZES) -> list[dict[str, Any]]:
    """`index` and `embed` on disks that are too small: one line says so; with room the same command goes on."""
    folder = write_folder(work / "files", size)
    source = write_jsonl(work / "rows.jsonl", folder, size)
    mounts = can_mount(work)
    rows = []
    for name, begin, out_name, read in (
        ("index", ("index", folder), "index", index_rows),
        ("embed", ("embed", source), "out.parquet", parquet_rows),
    ):
        command = partial(_command, begin, model)
        _check(run(*command(work / f"whole-{out_name}")))
        whole = read(work / f"whole-{out_name}")
        for part in sizes:
            place = work / f"{name}-{part}"
            place.mkdir()
            attempt = _on_small_disk if mounts else _with_small_files
            took = _bytes(work / f"whole-{out_name}") if mounts else _largest(work / f"whole-{out_name}")
            failed, finished, found = attempt(place, round(part * took), command(place / out_name), read, out_name)
            rows.append(_full_row(name, mounts, part, failed, finished, found, whole))
    return rows


def read_only(work: Path, model: Path, size: int) -> list[dict[str, Any]]:
    """Writing to a read-only disk is one line; reading an index there goes on; nothing there is harmed."""
    if not can_mount(work):
        return []
    source = write_jsonl(work / "rows.jsonl", write_folder(work / "files", size), size)
    place = work / "disk"
    place.mkdir()
    rows = []
    with _mounted(place, _LARGE):
        folder = write_folder(place / "folder", size)
        db = place / "there.index"
        _check(run("index", folder, "--to", db, "--model", model))
        before = index_rows(db)
        change_folder(folder)
        _mount("-o", "remount,ro", place)
        cases: dict[str, tuple[bool, tuple[Any, ...]]] = {
            "a new index": (False, ("index", folder, "--to", place / "new.index")),
            "a new index inside the folder": (False, ("index", folder)),
            "an update of the index": (False, ("index", folder, "--to", db)),
            "a search that updates": (False, ("search", folder, "a bicycle", "--to", db)),
            "a search with --no-update": (True, ("search", folder, "a bicycle", "--to", db, "--no-update")),
            "a folder searched with its index elsewhere": (True, ("search", folder, "a bicycle", "--to", work / "db")),
            "embed": (False, ("embed", source, "--to", place / "out.parquet")),
        }
        for name, (works, arguments) in cases.items():
            ended = run(*arguments, "--model", model)
            is_right = ended.code == 0 if works else ended.is_one_line and "Read-only file system" in ended.err
            rows.append({"case": name, "code": ended.code, "is_right": is_right, "said": _said(ended, work)})
        is_whole = compare(index_rows(db), before).is_none
        rows.append({"case": "the index afterwards", "code": 0, "is_right": is_whole, "said": ""})
        _mount("-o", "remount,rw", place)
    return rows


def _command(begin: tuple[Any, ...], model: Path, out: Path) -> tuple[Any, ...]:
    return (*begin, "--to", out, "--model", model, "--batch-size", 4)


def _full_row(
    name: str, mounts: bool, part: float, failed: Ended, finished: Ended, found: Rows, whole: Rows
) -> dict[str, Any]:
    difference = compare(found, whole)
    says_it = failed.is_one_line and any(words in failed.err for words in _FULL) and "damaged" not in failed.err
    return {
        "command": name,
        "stand_in": "" if mounts else "a limit on the size of files",
        "part": part,
        "code": failed.code,
        "is_right": (failed.code == 0 or says_it) and finished.code == 0 and difference.is_none,
        "lost": difference.lost,
        "extra": difference.extra,
        "said": failed.err if failed.code and not says_it else "",
    }


def _on_small_disk(
    place: Path, size: int, arguments: tuple[Any, ...], read: Callable[[Path], Rows], out_name: str
) -> tuple[Ended, Ended, Rows]:
    with _mounted(place, max(size, _LEAST)):
        failed = run(*arguments)
        _mount("-o", f"remount,size={_LARGE}", place)
        return failed, run(*arguments), read(place / out_name)


def _with_small_files(
    place: Path, size: int, arguments: tuple[Any, ...], read: Callable[[Path], Rows], out_name: str
) -> tuple[Ended, Ended, Rows]:
    limit = (size, resource.RLIM_INFINITY)
    failed = run(*arguments, preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, limit))
    return failed, run(*arguments), read(place / out_name)


@contextmanager
def _mounted(place: Path, size: int) -> Iterator[None]:
    if sys.platform != "linux":
        raise OSError("no tmpfs")
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, capture_output=True)  # a file may be open still


def _mount(*arguments: Any) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def _check(ended: Ended) -> None:
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code}: {ended.err}")


def _said(ended: Ended, work: Path) -> str:
    return ended.err.strip().replace(str(work), "...") if ended.code else ""


def _bytes(place: Path) -> int:
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in files)


def _largest(place: Path) -> int:
    return max((file.stat().st_size for file in place.rglob("*") if file.is_file()), default=place.stat().st_size)
