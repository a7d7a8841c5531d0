"""Peak memory of one training step: a batch of 1,024 in chunks of 16 beside a batch of 16.

    python -m benchmarks.training_memory --json benchmarks/results/training_memory.json

Every case is a process of its own. What is stated is how far the peak of the resident memory (VmHWM) rises above the
memory in front of the step, with the batch already made, in the last stage: K = 8 latent steps on the query side.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

# Larger than the recipe's model, so that activations and not the libraries are what is measured.
SIZES = {"hidden_size": 192, "layers": 6, "intermediate_size": 768, "vision_size": 64, "vision_depth": 2}
CASES = {
    "batch 16": {"batch_size": 16},
    "batch 16, layers recomputed": {"batch_size": 16, "checkpoint_layers": True},
    "batch 128": {"batch_size": 128},
    "batch 128, layers recomputed": {"batch_size": 128, "checkpoint_layers": True},
    "batch 1024 in chunks of 16": {"batch_size": 1024, "chunk_size": 16},
    "batch 1024 in chunks of 16, layers recomputed": {"batch_size": 1024, "chunk_size": 16, "checkpoint_layers": True},
}


def measure(changes: dict) -> dict:
    """One step in this process.

    Args:
        changes (`dict`): Fields of the recipe `hops`.

    Returns:
        `peak_mib` above the memory in front of the step, `batch_mib` of the batch itself, `model_mib` of the weights,
        `seconds` of CPU time.
    """
    import dataclasses
    import gc
    import time

    import torch

    from plume_embed.training.efficiency.layer_checkpoint import checkpoint_layers
    from plume_embed.training.efficiency.vision_attention import group_vision_attention
    from plume_embed.training.loss.batch_loss import batch_losses
    from plume_embed.training.loss.grad_cache import cached_backward
    from plume_embed.training.objective import PlumeForTraining
    from plume_embed.training.recipe import load_recipe
    from plume_embed.training.run import make_task
    from training.hops import HOPS

    torch.set_num_threads(1)
    recipe = load_recipe(HOPS, [f"model.{name}={value}" for name, value in SIZES.items()])
    task = make_task(dataclasses.replace(recipe, **changes))
    model = task.make_model()
    group_vision_attention(model)
    if changes.get("checkpoint_layers"):
        checkpoint_layers(model)
    wrapped = PlumeForTraining(model).train()
    step = recipe.curriculum.max_steps - 1
    batch = task.batch(step, recipe.curriculum.at(step))

    def one_step() -> None:
        if len(batch.queries) > 1:
            cached_backward(wrapped, batch, recipe.loss)
            return
        queries, targets = wrapped(batch.queries + batch.targets, batch.num_latent_steps)
        batch_losses(queries, targets, batch, recipe.loss)[0].backward()

    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # gradients are there in every step but the first
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    started = time.process_time()
    one_step()
    peak = _status("VmHWM")
    tensors = [tensor for side in batch.queries + batch.targets for tensor in side.prefix.values()]
    return {
        "peak_mib": round((peak - before) / 1024, 1),
        "batch_mib": round(sum(tensor.nbytes for tensor in tensors) / 2**20, 1),
        "model_mib": round(sum(parameter.nbytes for parameter in model.parameters()) / 2**20, 1),
        "seconds": round(time.process_time() - started, 1),
        "torch": torch.__version__,
    }


def _status(name: str) -> int:
    """A figure of /proc/self/status in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main(
    to: Annotated[Path | None, typer.Option("--json", help="Results file. Default: none.")] = None,
    case: Annotated[str | None, typer.Option(help="Measure this one here and print it.", hidden=True)] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Processes for each case; the largest peak counts.")] = 2,
) -> None:
    """Measure all cases, each in fresh processes. Linux only: it reads /proc."""
    if case is not None:
        print(json.dumps(measure(CASES[case])))
        return
    results: dict = {"sizes": SIZES, "num_latent_steps": 8, "device": "cpu", "threads": 1, "cases": {}}
    for name in CASES:
        command = [sys.executable, "-m", "benchmarks.training_memory", "--case", name]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            for _ in range(rounds)
        ]
        results["cases"][name] = max(runs, key=lambda run: run["peak_mib"]) | {
            "peaks_mib": [r["peak_mib"] for r in runs]
        }
        typer.echo(f"{name}: {results['cases'][name]}")
    if to is not None:
        to.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
