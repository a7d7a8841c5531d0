"""From a recipe to a trained model: task, model, trainer, evaluation, results.json."""

import dataclasses
from pathlib import Path

import torch
from rich.console import Console
from torch.distributed.fsdp import FSDPModule
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.integrations import get_reporting_integration_callbacks

from plume_embed.atomic import write_json
from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.outputs import check_output_folder
from plume_embed.stored import read_json
from plume_embed.training import checkpoints
from plume_embed.training.beginning import Beginning, beginning_of, check_beginning, keep_beginning
from plume_embed.training.data.pairs_task import PairsTask, comparison_table
from plume_embed.training.efficiency.layer_checkpoint import checkpoint_layers
from plume_embed.training.efficiency.lora import add_lora, load_lora
from plume_embed.training.efficiency.sharded import asks_for_deepspeed, refuse_stage_3
from plume_embed.training.log import LOG_FILE, MERGED_FOLDER, MODEL_FOLDER, RESULTS_FILE, read_log
from plume_embed.training.objective import PlumeForTraining
from plume_embed.training.recipe import Recipe
from plume_embed.training.resuming import check_recipe, holds_run, keep_recipe, remove_run, results_of
from plume_embed.training.tasks import Task, make_task
from plume_embed.training.trainer import PlumeTrainer, load_weights

_BEFORE = "before.json"


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """The recipe in the Trainer's words. What is not set here is the curriculum's or the task's."""
    is_cpu, deepspeed = not torch.accelerator.is_available(), asks_for_deepspeed()
    return TrainingArguments(
        output_dir=recipe.output_dir,
        max_steps=recipe.curriculum.max_steps,
        per_device_train_batch_size=1,  # one item of the data set is one step
        learning_rate=max(recipe.curriculum.learning_rates),
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.adam_beta2,
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.bf16,
        use_cpu=is_cpu and not deepspeed,  # else bf16 is refused there; with it DeepSpeed would be left out
        ddp_backend="gloo" if is_cpu and deepspeed else None,  # else every process would take itself for all of them
        seed=recipe.seed,
        logging_steps=recipe.logging_steps,
        save_strategy="steps" if recipe.save_steps or recipe.early_stopping else "no",
        save_steps=recipe.early_stopping.every if recipe.early_stopping else recipe.save_steps or 500,
        **_evaluation(recipe),
        save_total_limit=2,
        report_to=recipe.report_to,
        disable_tqdm=True,
        dataloader_num_workers=recipe.workers,
        ddp_find_unused_parameters=True,  # stage 0 does not use the adapter
        logging_nan_inf_filter=False,
    )


def _evaluation(recipe: Recipe) -> dict:
    """What early stopping asks of the Trainer."""
    stopping = recipe.early_stopping
    if stopping is None:
        return {}
    return {
        "eval_strategy": "steps",
        "eval_steps": stopping.every,
        "metric_for_best_model": f"eval_{stopping.metric}",
        "greater_is_better": True,
        "load_best_model_at_end": True,
    }


class _StopAfter(TrainerCallback):
    """Ends the run behind a step, with a checkpoint."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.step:
            control.should_training_stop = control.should_save = True


def run(
    recipe: Recipe,
    resume: bool = False,
    console: Console | None = None,
    stop_after: int | None = None,
    replace: bool = False,
) -> dict:
    """Trains, evaluates and writes `model/` and `results.json` into the recipe's output_dir.

    Args:
        recipe ([`Recipe`]): What to run.
        resume (`bool`): Go on from the last checkpoint in output_dir; from the beginning where there is none. Of a run
            that has ended nothing is trained again.
        console (`Console`, *optional*): Where to print.
        stop_after (`int`, *optional*): End behind this step with a checkpoint, as if the run had been killed there; the
            evaluation is that of the stage which the step belongs to.
        replace (`bool`): Begin anew in the place of the run that output_dir holds, which is removed.

    Returns:
        What `results.json` holds.

    Raises:
        ValueError: output_dir holds a run already and neither `resume` nor `replace` is set, or one that began with
            other settings or other data, or with LoRA with another model; or the model that it begins with is too small
            for the settings; or `report_to` is not installed; or nobody can write to output_dir.
    """
    console = console or Console(quiet=True)
    out = Path(recipe.output_dir)
    check_output_folder(out, "output_dir")
    if holds_run(out) and not replace:
        if not resume:
            raise ValueError(f"{out} holds a run already; give --resume, or another output_dir.")
        check_recipe(recipe)
        ended = results_of(out)
        if ended is not None:
            console.print(f"{out} holds this run, and it has ended: nothing is trained again.")
            return ended
    arguments = training_arguments(recipe)  # first of all: it is what says which of how many processes this one is
    refuse_stage_3(arguments.deepspeed_plugin)
    _check_reporters(arguments)
    process = arguments.distributed_state
    if replace:
        if process.is_main_process:
            remove_run(out)
        process.wait_for_everyone()
    checkpoint = checkpoints.last_checkpoint(out) if resume else None
    if resume and checkpoint is None:
        console.print(f"{out} holds no checkpoint: the run begins anew.")
        if process.is_main_process:
            (out / LOG_FILE).unlink(missing_ok=True)
        process.wait_for_everyone()
    if checkpoint is None and process.is_main_process:
        (out / _BEFORE).unlink(missing_ok=True)  # of a run that was killed in front of its first step
    set_seed(recipe.seed)
    if (recipe.loss.distil or recipe.loss.decode) and not any(
        map(recipe.curriculum.latent_steps, recipe.curriculum.stages)
    ):
        console.print("loss.distil and loss.decode do nothing here: no stage of the curriculum has a latent step.")
    last, num_segments = recipe.curriculum.stages[-1], recipe.curriculum.num_segments
    if recipe.curriculum.has_suffix and last < num_segments and recipe.task != "pairs":  # pairs have no text behind
        console.print(
            f"The curriculum ends in stage {last} of {num_segments}: the model writes the rest of the rationale in "
            "front of its embedding, which encode does not. It is one to train on from (model.path)."
        )
    task = make_task(recipe, process.process_index, process.num_processes, console)
    began: Beginning | None = None
    if process.is_main_process:  # now: what is trained may be written over the model's files
        began = beginning_of(recipe, task)
        if checkpoint is not None:
            began = check_beginning(recipe, began, console)
    model = task.make_model()
    _check_fits(recipe, model.config)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if recipe.checkpoint_layers:
        checkpoint_layers(model)
    if recipe.lora is not None:
        model = add_lora(model, recipe.lora)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    console.print(
        f"{recipe.task}: {num_parameters / 1e6:.2f} M parameters, {trained / 1e6:.2f} M of them trained, seed "
        f"{recipe.seed}, {recipe.curriculum.max_steps} steps"
    )
    callbacks: list[TrainerCallback] = [] if stop_after is None else [_StopAfter(stop_after)]
    if recipe.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(recipe.early_stopping.patience))
    before = _before(recipe, task, model, out, process.is_main_process)
    if checkpoint is None and began is not None:  # not earlier: what fails in front of the first step is no run
        keep_recipe(recipe)
        keep_beginning(out, began)
    trainer = PlumeTrainer(
        model,
        arguments,
        task,
        recipe.curriculum,
        recipe.loss,
        console,
        recipe.gates,
        validate=task.validate if isinstance(task, PairsTask) else None,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    spent = trainer.spent
    trainer.save_model(str(out / MODEL_FOLDER))  # on every process: a sharded model is gathered first
    results: dict = {}
    last_stage = recipe.curriculum.at((stop_after or recipe.curriculum.max_steps) - 1).stage
    if process.is_main_process:
        results = {
            "recipe": dataclasses.asdict(recipe),
            "seed": recipe.seed,
            **({"began_with": began.model} if began is not None and began.model is not None else {}),
            "parameters": num_parameters,
            **({} if spent is None else {"train_minutes": round(spent.seconds / 60, 2)}),
            "processes": process.num_processes,
            "sharded_modules": sum(isinstance(module, FSDPModule) for module in trainer.model.modules()),
            **({} if spent is None else {"train_cpu_minutes": round(spent.cpu_seconds / 60, 2)}),
            "resumed_from": checkpoint.name if checkpoint else None,
            "stopped_after": stop_after,
            "torch": torch.__version__,
            "device": str(trainer.args.device),
            "warnings": [entry["warning"] for entry in read_log(out, having="warning")],
            **before,
            **task.evaluate(_whole_model(trainer, recipe, out / MODEL_FOLDER), last_stage),
        }
        if recipe.lora is not None:
            _save_merged(task, out)
        write_json(out / RESULTS_FILE, results)
        if before:
            console.print(comparison_table(results["before"], results))
        hits = f"Hit@1 {100 * results['hit_at_1']:.1f} %, " if "hit_at_1" in results else ""
        took = "" if spent is None else f" in {spent.seconds / 60:.1f} minutes"
        console.print(f"{hits}trained{took}; see {out}")
    process.wait_for_everyone()
    return results


def _check_reporters(arguments: TrainingArguments) -> None:
    """Refuses, before anything is read, to report to what is unknown or not installed: the Trainer makes these later.

    Raises:
        ValueError: with the reason, and what to do.
    """
    for name in arguments.report_to:
        try:
            for reporter in get_reporting_integration_callbacks([name]):
                reporter()
        except (ValueError, RuntimeError, ImportError) as error:
            reason = str(error).rstrip(".")
            raise ValueError(f"report_to={name}: {reason}. Install it, or set report_to=none.") from error


def _check_fits(recipe: Recipe, config: PlumeConfig) -> None:
    """Refuses, before anything is evaluated or trained, settings that are beyond the model.

    Raises:
        ValueError: as many dimensions as its vectors have.
    """
    size = config.hidden_size
    for name, given in {"pairs.truncate": recipe.pairs.truncate, "loss.dimensions": recipe.loss.dimensions}.items():
        if max(given, default=0) >= size:
            raise ValueError(f"{name} must lie in 1..{size - 1}, below the size of this model, got {max(given)}.")


def _save_merged(task: Task, out: Path) -> None:
    """Writes `merged/`: the low-rank updates of `model/` within the weights, an ordinary model for every command."""
    load_lora(task.make_model(), out / MODEL_FOLDER).save_pretrained(out / MERGED_FOLDER)
    task.processor.save_pretrained(out / MERGED_FOLDER)


def _before(recipe: Recipe, task: Task, model: torch.nn.Module, out: Path, is_main: bool) -> dict:
    """`{"before": scores}` of a model that is fine-tuned, kept beside the run so that resuming does not lose it."""
    file = out / _BEFORE
    if not isinstance(task, PairsTask) or not is_main:
        return {}
    task.keep_held_out(out)
    if not file.is_file():
        found = task.evaluate(PlumeForTraining(model).plume)
        if not found:
            return {}
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, found)
    return {"before": read_json(file, "Remove it: the scores before the training are then measured again.")}


def _whole_model(trainer: PlumeTrainer, recipe: Recipe, saved: Path) -> PlumeModel:
    """What this process can run alone: the trained model, or where its weights are spread over processes a copy of what
    was saved."""
    if not trainer.is_fsdp_enabled:
        return trainer.plume
    model = trainer.task.make_model()
    if recipe.lora is not None:
        model = add_lora(model, recipe.lora)
    load_weights(model, saved)
    return PlumeForTraining(model).plume.to(trainer.args.device)
