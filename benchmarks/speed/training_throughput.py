"""Pairs a CPU second in training: a batch through the rollout together, against one sample after the other.

    python -m benchmarks.speed.training_throughput --json benchmarks/results/training_throughput.json

Both compute the same loss and the same gradients of the same pairs: texts of unequal length on either side, K = 8,
forward and backward. The loop is what released trainers do: a rollout for each sample, the loss over all of them.
Seconds are process CPU time with one thread a process. With two processes each has half of the pairs, DDP adds the
gradients up, and the seconds of both count.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer

from plume_embed.atomic import write_json
from plume_embed.bench.inputs import SHAPES, random_batch, random_model
from plume_embed.bench.report import environment
from plume_embed.model.family_plume import SmallSizes
from plume_embed.training.loss.batch_loss import LossWeights, TrainingBatch, batch_losses, join
from plume_embed.training.objective import PlumeForTraining, SideBatch

SHAPE = "6x192"
NUM_STEPS = 8
PREFIX = (24, 48)  # fewest and most tokens
BATCHES = (16, 64)
WAYS = ("together", "one by one")
_OF_THE_FILE = ("device", "machine", "vector_instructions", "threads", "versions", "commit", "clock", "finished")


def make_batch(wrapped: PlumeForTraining, pairs: int, seed: int) -> TrainingBatch:
    """Pairs of texts of unequal length, both sides with latent steps."""
    rng, config = random.Random(seed), wrapped.plume.config
    suffix = torch.tensor(config.suffix_token_ids).expand(pairs, -1)  # [N, S]
    sides = []
    for side in range(2):
        lengths = [PREFIX[1], *(rng.randint(*PREFIX) for _ in range(pairs - 1))]
        prefix = random_batch(wrapped.plume, pairs, PREFIX[1], seed=2 * seed + side, lengths=lengths)
        sides.append(SideBatch(prefix, suffix, torch.full((pairs,), suffix.shape[1])))
    keys = torch.arange(pairs) + 1_000_000 * seed
    return TrainingBatch([sides[0]], [sides[1]], torch.arange(pairs), keys, NUM_STEPS)


def rows_of(side: SideBatch) -> list[SideBatch]:
    """Every row as a batch of its own, without its padding."""
    if side.suffix_ids is None or side.suffix_lengths is None:
        raise ValueError("A side without suffixes has no rollout to take apart.")
    rows = []
    for row, length in enumerate(side.prefix["attention_mask"].sum(dim=1).tolist()):
        prefix = {name: tensor[row : row + 1, ..., -length:] for name, tensor in side.prefix.items()}
        rows.append(SideBatch(prefix, side.suffix_ids[row : row + 1], side.suffix_lengths[row : row + 1]))
    return rows


def step(wrapped: torch.nn.Module, batch: TrainingBatch, way: str) -> torch.Tensor:
    """The gradients of one batch; returns its loss."""
    queries, targets = batch.queries[0], batch.targets[0]
    if way == "together":
        outputs = wrapped([queries, targets], NUM_STEPS)
    else:
        single = wrapped([*rows_of(queries), *rows_of(targets)], NUM_STEPS)
        outputs = [join(single[: len(queries)]), join(single[len(queries) :])]
    loss, _ = batch_losses(outputs[0], outputs[1], batch, LossWeights())
    loss.backward()
    return loss.detach()


def measure(pairs: int, rounds: int) -> dict[str, Any]:
    """Both ways by turns in this process, of `pairs` pairs on all processes together.

    Returns:
        By way: CPU `seconds` of every round, the sum over the processes, and `pairs_per_s` by their median: pairs a
        CPU second. So two processes at half the pairs each have the rate of one, less what they lose.
    """
    torch.set_num_threads(1)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    wrapped = PlumeForTraining(random_model(SHAPE)).train()
    module = torch.nn.parallel.DistributedDataParallel(wrapped, find_unused_parameters=True) if world > 1 else wrapped
    batch = make_batch(wrapped, pairs // world, seed=rank)
    seconds = {way: [] for way in WAYS}
    for index in range(rounds + 1):  # the first is the warm-up
        for way in WAYS if index % 2 else WAYS[::-1]:
            wrapped.zero_grad()
            spent = torch.tensor(_cpu_seconds(lambda way=way: step(module, batch, way)))
            if world > 1:
                dist.all_reduce(spent)
            if index:
                seconds[way].append(spent.item())
    return {way: {"seconds": times, "pairs_per_s": pairs / statistics.median(times)} for way, times in seconds.items()}


def _cpu_seconds(function: Callable[[], Any]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def _in_two_processes(pairs: int, rounds: int) -> dict[str, Any]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher += ["-m", "benchmarks.speed.training_throughput", "--worker", str(pairs), "--rounds", str(rounds)]
    done = subprocess.run(launcher, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def markdown(report: dict[str, Any]) -> str:
    """Pairs a CPU second through the rollout together, against one sample after the other."""
    lines = [
        "| batch | processes | timed steps | together, pairs/CPU s | one by one, pairs/CPU s | times, least to most |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for row in report["rows"]:
        rates = [f"{row['ways'][way]['pairs_per_s']:.1f}" for way in ("together", "one by one")]
        together, alone = (row["ways"][way]["seconds"] for way in ("together", "one by one"))
        times = sorted(other / ours for ours, other in zip(together, alone, strict=True))
        spread = f"{row['times']:.1f} ({times[0]:.1f} to {times[-1]:.1f})"
        lines.append(f"| {row['batch']} | {row['processes']} | {len(times)} | {' | '.join(rates)} | {spread} |")
    return "\n".join(lines)


def rows_in(file: Path) -> list[dict[str, Any]]:
    """The rows of a results file, each with the machine and versions that it was measured with."""
    report = json.loads(file.read_text()) if file.exists() else {"rows": []}
    about = {name: report[name] for name in _OF_THE_FILE if name in report}  # of before each row had its own
    return [{"conditions": about} | row for row in report["rows"]]


def main(
    to: Annotated[Path | None, typer.Option("--json", help="Results file. Default: none.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed steps of either way.")] = 5,
    batch: Annotated[list[int] | None, typer.Option(min=2, help="Sizes to measure. Default: 16 and 64.")] = None,
    worker: Annotated[int | None, typer.Option(help="Measure so many pairs here and print it.", hidden=True)] = None,
) -> None:
    """Measure both ways at every batch size, in one process and in two. Other sizes that the file holds stay,
    with the conditions that they were measured under."""
    if worker is not None:
        dist.init_process_group("gloo")
        result = measure(worker, rounds)
        if int(os.environ["RANK"]) == 0:
            print(json.dumps(result))
        dist.destroy_process_group()
        return
    report: dict[str, Any] = {"shape": SHAPE, "num_latent_steps": NUM_STEPS, "prefix": PREFIX, "rows": []}
    for pairs in batch or BATCHES:
        for processes, run in ((1, measure), (2, _in_two_processes)):
            ways = run(pairs, rounds)
            times = ways["together"]["pairs_per_s"] / ways["one by one"]["pairs_per_s"]
            row = {"batch": pairs, "processes": processes, "times": times, "ways": ways}
            report["rows"].append(row | {"conditions": environment(torch.device("cpu"))})
            typer.echo(f"batch {pairs}, {processes} processes: {times:.2f} times the loop")
    if to is not None:
        others = [row for row in rows_in(to) if row["batch"] not in (batch or BATCHES)]
        report["rows"] = sorted(others + report["rows"], key=lambda row: (row["batch"], row["processes"]))
        write_json(to, report)


SHAPES.setdefault(SHAPE, (8_000, SmallSizes(192, 6, 768, 64, 1, 0.02, heads=6, key_value_heads=2, vision_heads=1)))

if __name__ == "__main__":
    typer.run(main)
