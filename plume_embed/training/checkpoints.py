"""Checkpoints of a run: safetensors and JSON only, and never half a checkpoint under its final name.

DeepSpeed alone adds its own files, pickles that are to be trusted like a program.
"""

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from plume_embed.atomic import write_json
from plume_embed.stored import naming, read_json

_TIME_FILE = "time.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def last_checkpoint(output_dir: Path) -> Path | None:
    """The checkpoint of the highest step, or `None`."""
    return max(_checkpoints(output_dir), key=_step, default=None)


def begin(folder: Path) -> None:
    """Makes the folder that several processes may write into before [`finish`] gives it the name of `folder`."""
    shutil.rmtree(partial_of(folder), ignore_errors=True)
    partial_of(folder).mkdir(parents=True)


def partial_of(folder: Path) -> Path:
    """Where a checkpoint lies while it is written."""
    return folder.with_name(f".partial-{folder.name}")


def finish(folder: Path) -> None:
    """Puts a complete checkpoint on the disk and under its name."""
    partial = partial_of(folder)
    for path in [*partial.rglob("*"), partial]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    old = folder.with_name(f".old-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():  # of an earlier run beyond the step that this one resumed from
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


@contextmanager
def written_at_once(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder` that takes its name when it is complete and on the disk."""
    begin(folder)
    yield partial_of(folder)
    finish(folder)


def remove_old(output_dir: Path, keep: int, best: str | None = None) -> None:
    """Removes all but the `keep` last checkpoints and the best one."""
    found = sorted(_checkpoints(output_dir), key=_step)
    for path in found[: max(0, len(found) - keep)]:
        if best is None or path != Path(best):
            shutil.rmtree(path)


def optimizer_tensors(optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, torch.Tensor]:
    """The tensors of the optimiser's state, by parameter number; settings come from the recipe.

    Sharded ones are gathered, so all processes must call this.

    Args:
        keep (`bool`): Whether this process wants them; else {}.
    """
    tensors = {}
    for number, entry in optimizer.state_dict()["state"].items():
        for name, tensor in entry.items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if keep:
                tensors[f"{number}.{name}"] = whole.cpu().contiguous()
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Reads the file that [`optimizer_tensors`] were saved in."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    with naming(path):
        tensors = load_file(path)
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        parameter = parameters[int(number)]
        if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
            tensor = distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
        state.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_random_state(path: Path) -> None:
    """The random states of Python, NumPy and PyTorch of this process."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    kind, keys, *rest = np.random.get_state(legacy=True)
    others = {"python": json.dumps(random.getstate()), "numpy": json.dumps([kind, np.asarray(keys).tolist(), *rest])}
    save_file(tensors, path, metadata=others)


def load_random_state(path: Path) -> None:
    """Reads what [`save_random_state`] wrote."""
    from safetensors import safe_open

    with naming(path):
        with safe_open(path, framework="pt") as file:
            others = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version, internal, gauss = json.loads(others["python"])
        random.setstate((version, tuple(internal), gauss))
        kind, keys, *rest = json.loads(others["numpy"])
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(tensors.pop("cpu"))
    if tensors:
        torch.cuda.set_rng_state_all([tensors[f"cuda.{index}"] for index in range(len(tensors))])


@dataclass(frozen=True)
class TimeSpent:
    """The time that the training took up to a checkpoint, over all parts of a run; what was lost at a kill and made
    again does not count.

    Args:
        seconds (`float`): By the clock.
        cpu_seconds (`float`): Of the main process, all its threads together.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0


def save_time(folder: Path, spent: TimeSpent) -> None:
    """Writes it into a checkpoint."""
    write_json(folder / _TIME_FILE, asdict(spent))


def load_time(folder: Path) -> TimeSpent | None:
    """What [`save_time`] wrote; `None` of a checkpoint of an older version, which kept none.

    Raises:
        ValueError: it cannot be read.
    """
    file = folder / _TIME_FILE
    if not file.is_file():
        return None
    kept = read_json(file)
    with naming(file):
        return TimeSpent(float(kept["seconds"]), float(kept["cpu_seconds"]))


def _checkpoints(output_dir: Path) -> list[Path]:
    return [path for path in output_dir.glob("checkpoint-*") if _NAME.fullmatch(path.name)]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))
