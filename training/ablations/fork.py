"""Runs that share their beginning: rows of an ablation that differ only after stage 0 go on from one trunk.

In stage 0 there is no latent step, so the adapter gets no gradient, and what comes later in the curriculum is not read.
At the end of stage 0 the moments of the optimiser are zeroed. A fork therefore takes the trunk's backbone, its own
adapter's initial weights and no moments, and is bit by bit the run that would have trained by itself; a test holds it
to that. Whether two recipes may share is checked value by value, never assumed.
"""

import dataclasses
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from plume_embed.training import checkpoints
from plume_embed.training.beginning import beginning_of, keep_beginning
from plume_embed.training.log import LOG_FILE
from plume_embed.training.recipe import Recipe
from plume_embed.training.resuming import keep_recipe
from plume_embed.training.run import make_task
from training.ablations.archive import check_is_of

# The length of the run is read through the end of stage 0 and the rates in it, which are compared.
_OF_LATER_STAGES = ("max_steps", "num_latent_steps", "stages", "shares", "num_segments", "learning_rates")
_OF_LATER_STAGES += ("dealing", "anytime_steps", "anytime_reads")


def fork_step(recipe: Recipe) -> int:
    """The step behind stage 0."""
    return recipe.curriculum.stage_ends()[0]


def stays(recipe: Recipe) -> bool:
    """Whether the whole run is stage 0."""
    return recipe.curriculum.stages == (0,)


def why_not_forked(recipe: Recipe, trunk: Recipe) -> str | None:
    """What keeps a recipe from going on behind stage 0 of another; `None` where their stage 0 is the same.

    A recipe with K = 0 may fork as well: then it is a single pass that was fine-tuned from stage 0, another run than
    the same recipe by itself.
    """
    step, own = fork_step(trunk), fork_step(recipe)
    if recipe.curriculum.stages[0] != 0 or (own <= step if stays(recipe) else own != step):
        return f"stage 0 does not end at step {step} in both"
    if stays(recipe) and recipe.curriculum.has_suffix != trunk.curriculum.has_suffix:
        return "one writes a rationale and the other does not"
    if stays(recipe) and recipe.model.plume != trunk.model.plume:
        return "model.plume differs, and moments are kept"
    if recipe.weight_decay:
        return "weight_decay is not 0"
    mine, theirs = (_what_stage_0_reads(r, step) for r in (recipe, trunk))
    different = [name for name, value in mine.items() if value != theirs[name]]
    return f"{', '.join(different)} differ" if different else None


def _what_stage_0_reads(recipe: Recipe, step: int) -> dict:
    values = dataclasses.asdict(recipe)
    for name in ("output_dir", "save_steps", "logging_steps", "workers", "report_to", "split"):
        del values[name]
    del values["model"]["plume"]  # the adapter and its steps
    for name in _OF_LATER_STAGES:
        del values["curriculum"][name]
    for name in ("distil", "distil_to", "rehearse", "decode"):  # of latent steps
        del values["loss"][name]
    return values | {"learning_rates": [recipe.curriculum.at(index).learning_rate for index in range(step)]}


def fork(recipe: Recipe, trunk: Recipe) -> None:
    """Puts a checkpoint behind stage 0 into the recipe's output_dir; `run(recipe, resume=True)` goes on from it.

    Args:
        recipe ([`Recipe`]): What is to run.
        trunk ([`Recipe`]): What `run(trunk, stop_after=fork_step(trunk))` has run.

    Raises:
        ValueError: their stage 0 is not the same, or the trunk has not run.
    """
    reason = why_not_forked(recipe, trunk)
    if reason is not None:
        raise ValueError(f"{recipe.output_dir} cannot go on from {trunk.output_dir}: {reason}.")
    step = fork_step(trunk)
    source = Path(trunk.output_dir) / f"checkpoint-{step}"
    if not source.is_dir():
        raise ValueError(f"No such checkpoint: {source}; run the trunk up to step {step}.")
    check_is_of(source.parent, trunk)
    out = Path(recipe.output_dir)
    task = make_task(recipe, 0, 1)
    keep_recipe(recipe)
    keep_beginning(out, beginning_of(recipe, task))
    own = task.make_model()
    trained = load_file(source / "model.safetensors")
    weights = {
        name: tensor if name.startswith("adapter.") else trained[name] for name, tensor in own.state_dict().items()
    }
    with checkpoints.written_at_once(out / source.name) as partial:
        own.save_pretrained(partial, state_dict=weights)
        if stays(recipe):
            shutil.copy(source / "optimizer.safetensors", partial / "optimizer.safetensors")
        else:
            save_file({}, partial / "optimizer.safetensors")
        for name in ("random-0.safetensors", "trainer_state.json"):
            shutil.copy(source / name, partial / name)
        checkpoints.save_time(partial, checkpoints.TimeSpent())  # the trunk has its own
    shutil.copy(Path(trunk.output_dir) / LOG_FILE, out / LOG_FILE)
