"""What a run did, as pictures and as the numbers behind them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plume_embed.atomic import write_json
from plume_embed.stored import naming
from plume_embed.training.log import LOG_FILE, MERGED_FOLDER, MODEL_FOLDER, RESULTS_FILE, read_log

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes

    from plume_embed.model.modeling_plume import PlumeModel
    from plume_embed.training.recipe import Recipe

STAGE_SHADES = ("0.97", "0.91")
_TERMS = {
    "loss": "loss",
    "ce": "suffix cross-entropy",
    "nce_gen": "generative InfoNCE",
    "nce_anchor": "anchor InfoNCE",
}


@dataclass(frozen=True)
class _Point:
    """An entry of the log: the means of some steps up to this one."""

    step: int
    stage: int
    latent_steps: int
    terms: dict[str, float]


def write_report(run_dir: Path, out: Path, explicit: Path | None = None, samples: int = 200) -> list[Path]:
    """Writes PNG files and `report.json`.

    Args:
        run_dir (`Path`): A finished run; of one with LoRA `merged/` is read.
        out (`Path`): Folder for the files.
        explicit (`Path`, *optional*): A finished run of stage 0 alone on the same data.
        samples (`int`): Queries for the cosines (the paper's 200); experts are counted on ten times as many.

    Returns:
        The files. A single pass has no latent states, a run without a router no experts, and one that logged nothing
        no curve, so no such files.

    Raises:
        ValueError: no finished run, one without a whole model, a file of it that is damaged, or `explicit` beside a
            run without latent steps.
    """
    import matplotlib

    matplotlib.use("Agg")
    from plume_embed.training.diagnostics import evenly_spaced, expert_activation, explicit_cosines, latent_cosines

    recipe, model = _load(run_dir)
    has_latents = model.config.num_latent_steps > 0 and recipe.curriculum.stages[-1] > 0
    if explicit is not None and not has_latents:
        raise ValueError(f"{run_dir} has no latent steps to set beside those of --explicit; leave it out.")
    points = _logged(run_dir)
    task = _task(recipe)
    queries = task.samples(10 * samples)
    # Of every kind: a corpus is sorted by kind.
    some = [queries[place] for place in evenly_spaced(len(queries), samples)]
    target_steps = recipe.curriculum.num_latent_steps if recipe.target_rollout else 0
    out.mkdir(parents=True, exist_ok=True)
    numbers: dict = {"run": run_dir.name, "samples": len(some)}
    written = [_curve(points, out / "curve.png")] if points else []
    if has_latents:
        numbers["latent_cosine"] = _spread(latent_cosines(model, task.processor, some, target_steps))
        if explicit is not None:
            other, writer = _load(explicit)
            found = explicit_cosines(writer, _task(other).processor, some, other.target_rollout)
            numbers["explicit_cosine"] = _spread(found)
        written.append(_cosines(numbers, out / "latent_cosine.png"))
        if model.config.adapter_type == "moe":
            tasks, inputs = expert_activation(model, task.processor, queries)
            numbers |= {"experts_by_task": tasks, "experts_by_input": inputs, "expert_samples": len(queries)}
            written.append(_experts(tasks, "task", out / "experts_by_task.png"))
            written.append(_experts(inputs, "input type", out / "experts_by_input.png"))
    write_json(out / "report.json", numbers)
    return [*written, out / "report.json"]


def _load(run_dir: Path) -> tuple["Recipe", "PlumeModel"]:
    from plume_embed.encode.encoder import load_model
    from plume_embed.training.recipe import recipe_from

    results, folder = run_dir / RESULTS_FILE, run_dir / MODEL_FOLDER
    if (folder / "adapter_config.json").is_file() and (run_dir / MERGED_FOLDER).is_dir():
        folder = run_dir / MERGED_FOLDER  # of a LoRA run
    if not results.is_file():
        raise ValueError(
            f"{run_dir} has no results.json: the run has not ended; go on with plume-embed train --resume."
        )
    with naming(results):
        recipe = recipe_from(json.loads(results.read_text(encoding="utf-8"))["recipe"])
    if not (folder / "model.safetensors").is_file():
        raise ValueError(
            f"{folder} holds no whole model; for a LoRA run without merged/, write that with "
            "plume_embed.training.efficiency.lora.load_lora and save_pretrained."
        )
    return recipe, load_model(folder).eval()


def _task(recipe: "Recipe"):
    from plume_embed.training.run import make_task

    return make_task(recipe)


def _spread(cosines: "torch.Tensor") -> dict[str, list[float]]:
    """Mean and standard deviation over the samples at each place."""
    return {"mean": cosines.mean(dim=0).tolist(), "std": cosines.std(dim=0, correction=0).tolist()}


def _logged(run_dir: Path) -> list[_Point]:
    """What a run logged of its losses: nothing where it is shorter than `logging_steps`."""
    entries = read_log(run_dir, having="loss")
    with naming(run_dir / LOG_FILE):
        return [
            _Point(
                int(entry["step"]),
                int(entry["stage"]),
                int(entry["latent_steps"]),
                {name: float(entry[name]) for name in _TERMS if name in entry},
            )
            for entry in entries
        ]


def _curve(points: list[_Point], path: Path) -> Path:
    """Loss terms over the steps, the stages as bands behind them."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    _stage_bands(axes, points)
    for name, label in _TERMS.items():
        line = [(point.step, point.terms[name]) for point in points if name in point.terms]
        if line:
            axes.plot(*zip(*line, strict=True), label=label, linewidth=2 if name == "loss" else 1.2)
    axes.set(xlabel="step", ylabel="loss (nats, without weights but for the sum)", xlim=(0, points[-1].step))
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _save(figure, path)


def _stage_bands(axes: "Axes", points: list[_Point]) -> None:
    start = 0
    for index, point in enumerate(points):
        is_last = index == len(points) - 1
        if is_last or points[index + 1].stage != point.stage:
            axes.axvspan(start, point.step, color=STAGE_SHADES[point.stage % 2], zorder=0)
            stage, steps = point.stage, point.latent_steps
            is_narrow = point.step - start < 0.08 * points[-1].step  # numbers alone, or labels overlap
            text = f"{stage}\n{steps}" if is_narrow else f"stage {stage}\nK = {steps}"
            axes.text(
                (start + point.step) / 2,
                1.01,
                text,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=7,
            )
            start = point.step


def _cosines(numbers: dict, path: Path) -> Path:
    """The paper's figure 6: cosine to the positive target along the rollout, mean and spread."""
    import numpy as np
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    count = len(numbers["latent_cosine"]["mean"])
    places = np.linspace(0, 1, count)
    shown = [("latent_cosine", "PLUME: latent states", places, "o-")]
    if "explicit_cosine" in numbers:
        along = np.linspace(0, 1, len(numbers["explicit_cosine"]["mean"]))
        shown.append(("explicit_cosine", "explicit chain of thought: its tokens", along, "-"))
    for name, label, along, style in shown:
        mean, std = (np.array(numbers[name][key]) for key in ("mean", "std"))
        (line,) = axes.plot(along, mean, style, label=label, markersize=4)
        axes.fill_between(along, mean - std, mean + std, alpha=0.2, color=line.get_color(), linewidth=0)
    labels = ["z(0)", *(f"z({k})" for k in range(1, count - 1)), "gen"]
    axes.set_xticks(places, labels)
    axes.set(xlabel="along the rollout (explicit: from the first token to the last)", ylim=(None, 1.02))
    axes.set_ylabel(f"cosine to the positive target\n(mean and standard deviation, {numbers['samples']} samples)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return _save(figure, path)


def _experts(shares: dict[str, list[float]], name: str, path: Path) -> Path:
    """The paper's figures 5 and 9: share of latent steps that use each routed expert."""
    from matplotlib import pyplot as plt

    rows = sorted(shares)
    count = len(shares[rows[0]])
    figure, axes = plt.subplots(figsize=(1.6 + 1.1 * count, 1.2 + 0.42 * len(rows)), layout="constrained")
    image = axes.imshow([shares[row] for row in rows], vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for y, row in enumerate(rows):
        for x, share in enumerate(shares[row]):
            axes.text(x, y, f"{100 * share:.0f} %", ha="center", va="center", color="white" if share > 0.6 else "black")
    axes.set_xticks(range(count), [f"expert {index + 1}" for index in range(count)])
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(f"latent steps that use an expert, by {name}", fontsize=10)
    figure.colorbar(image, ax=axes, format=lambda share, _: f"{100 * share:.0f} %")
    return _save(figure, path)


def _save(figure, path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
