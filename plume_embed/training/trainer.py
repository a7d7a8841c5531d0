"""PlumeTrainer: transformers' Trainer with PLUME's batches, stages and losses.

DDP, FSDP, DeepSpeed, bf16, LoRA, reporting and the loop itself are the ecosystem's own. Ours are: batches that are a
function of the step, moments zeroed at a stage change, the learning rate of each stage, named losses, checkpoints in
safetensors that appear complete or not at all (DeepSpeed adds files of its own, which are pickles).
"""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from rich.console import Console
from safetensors.torch import load_model, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from transformers.trainer_utils import IntervalStrategy, TrainOutput

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.stored import naming
from plume_embed.training import checkpoints
from plume_embed.training.curriculum import Curriculum
from plume_embed.training.efficiency.lora import load_updates
from plume_embed.training.efficiency.sharded import is_sharded, settle_strategy
from plume_embed.training.efficiency.vision_attention import group_vision_attention
from plume_embed.training.gates import Gates, GateSettings
from plume_embed.training.log import append_log, cut_log
from plume_embed.training.loss.batch_loss import LossWeights, TrainingBatch, batch_losses
from plume_embed.training.loss.grad_cache import average_gradients, cached_backward
from plume_embed.training.objective import PlumeForTraining
from plume_embed.training.tasks import Task

_STATE_FILE = "trainer_state.json"


class StepDataset(Dataset):
    """The batches of a run by step."""

    def __init__(self, task: Task, curriculum: Curriculum):
        self.task, self.curriculum = task, curriculum

    def __len__(self) -> int:
        return self.curriculum.max_steps

    def __getitem__(self, step: int) -> TrainingBatch:
        return self.task.batch(step, self.curriculum.at(step))


def _only(batches: list[TrainingBatch]) -> TrainingBatch:
    return batches[0]


class CurriculumRate(torch.optim.lr_scheduler.LRScheduler):
    """The curriculum's learning rate, a function of the step alone."""

    def __init__(self, optimizer: torch.optim.Optimizer, curriculum: Curriculum):
        self.curriculum = curriculum
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        step = min(self.last_epoch, self.curriculum.max_steps - 1)
        return [self.curriculum.at(step).learning_rate for _ in self.optimizer.param_groups]

    def go_to(self, step: int) -> None:
        """Sets the rate of a step, as if all before it had been made."""
        self.last_epoch = step
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


class _LogsWhereARunMayGoOn(TrainerCallback):
    """Logs in front of every checkpoint and at the end of every stage, whatever `logging_steps` is.

    The sums between two logs are not part of a checkpoint, so a run that goes on there has the same log as one that was
    never interrupted.
    """

    def __init__(self, curriculum: Curriculum):
        self.curriculum = curriculum

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save or self.curriculum.is_stage_start(state.global_step):
            control.should_log = True


class PlumeTrainer(Trainer):
    """Trains a [`PlumeModel`] through a curriculum.

    Args:
        model (`PlumeModel` or a `PeftModel` over one): The model.
        args (`TrainingArguments`): From [`training_arguments`].
        task ([`Task`]): The data.
        curriculum ([`Curriculum`]): The stages.
        weights ([`LossWeights`]): Of the loss.
        console (`Console`, *optional*): Where the log goes besides `log.jsonl` and `report_to`.
        gates ([`GateSettings`], *optional*): Warnings that go where the log goes.
        validate (*optional*): Gives the numbers that early stopping goes by, the same on every process.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        args: TrainingArguments,
        task: Task,
        curriculum: Curriculum,
        weights: LossWeights,
        console: Console | None = None,
        gates: GateSettings | None = None,
        validate: Callable[[PlumeModel], dict] | None = None,
        **kwargs: Any,
    ):
        if args.gradient_accumulation_steps != 1:
            raise ValueError(
                "gradient_accumulation_steps must be 1: the negatives of a batch would be split. Set chunk_size "
                "instead, which gives the gradient of the whole batch in the memory of a chunk."
            )
        self.task, self.curriculum, self.weights, self.validate = task, curriculum, weights, validate
        self.console = console or Console(quiet=True)
        self.gates = Gates(gates or GateSettings(), curriculum)
        self._sums: dict[str, torch.Tensor] = {}
        self._steps_of: dict[str, int] = {}
        self._pairs, self._logged_at = 0, time.perf_counter()
        self._spent_before: checkpoints.TimeSpent | None = checkpoints.TimeSpent()
        self._began_at = (time.perf_counter(), time.process_time())
        dataset = StepDataset(task, curriculum)
        wrapped = PlumeForTraining(model)
        group_vision_attention(wrapped.plume)
        super().__init__(
            wrapped, args, train_dataset=dataset, eval_dataset=dataset, processing_class=task.processor, **kwargs
        )
        evaluates = self.gates.settings.explicit_hit_at_1 is not None or args.eval_strategy != IntervalStrategy.NO
        settle_strategy(self.accelerator, args, evaluates)
        wrapped.calls_everything = is_sharded(self.accelerator)
        self.remove_callback(PrinterCallback)
        self.add_callback(_LogsWhereARunMayGoOn(curriculum))

    @property
    def plume(self) -> PlumeModel:
        """The model itself."""
        return self.accelerator.unwrap_model(self.model).plume

    @property
    def spent(self) -> checkpoints.TimeSpent | None:
        """The time of the training until now, with that of the checkpoint it went on from; `None` where that kept
        none."""
        before, (began, cpu_began) = self._spent_before, self._began_at
        if before is None:
            return None
        return checkpoints.TimeSpent(
            before.seconds + time.perf_counter() - began, before.cpu_seconds + time.process_time() - cpu_began
        )

    def get_train_dataloader(self) -> DataLoader:
        """One item is one step of this process; a batch comes ready from the task, sharded by rank there."""
        return DataLoader(
            self.train_dataset,
            batch_size=1,
            sampler=SequentialSampler(self.train_dataset),
            collate_fn=_only,
            num_workers=self.args.dataloader_num_workers,
        )

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """One batch a step; there are no labels to count."""
        return [next(epoch_iterator)], None

    def floating_point_ops(self, inputs: TrainingBatch) -> int:
        """Not counted."""
        return 0

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """The curriculum's own rate instead of the library's schedules."""
        if self.lr_scheduler is None:
            self.lr_scheduler = CurriculumRate(optimizer or self.optimizer, self.curriculum)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: torch.nn.Module, inputs: TrainingBatch, num_items_in_batch=None) -> torch.Tensor:
        """Forward and backward of one step; the moments are zeroed first where a stage begins."""
        step = self.state.global_step
        if self.curriculum.is_stage_start(step):
            zero_moments(self.optimizer)
        if self.gates.wants_explicit(step) and self.args.should_save:
            found = self.task.evaluate(self.plume, 0, self.gates.settings.explicit_queries)
            self._warn(
                step + 1, self.gates.explicit(step, found["hit_at_1"])
            )  # of this step: a resumed run makes it anew
        model.train()
        batch = inputs.to(self.args.device)
        step_of = self._whole_step if self._is_whole(batch) else self._cached_step
        with self._attention():
            loss, terms = step_of(model, batch)
        if not torch.isfinite(loss):
            raise ValueError(f"The loss of step {step} is {loss.item()}; lower the learning rate of its stage.")
        self._note(step, batch, terms)
        self._warn(step + 1, self.gates.after(step, terms))
        return loss.detach() / self.args.world_size

    def _is_whole(self, batch: TrainingBatch) -> bool:
        """Whether a batch is one chunk a side, on every process: all have to average their gradients in the same way.

        Raises:
            ValueError: the processes share the weights and have chunks in different numbers.
        """
        chunks = torch.tensor([[len(batch.queries), len(batch.targets)]], device=self.args.device)
        everywhere = self.accelerator.gather(chunks)  # [W, 2]
        if not (everywhere == chunks).all() and (self.is_deepspeed_enabled or is_sharded(self.accelerator)):
            raise ValueError(
                f"The processes have {everywhere.sum(dim=1).tolist()} chunks in this step, and each has to run the "
                "sharded model equally often: set chunk_size to null, or give every pair equally many negatives."
            )
        return bool((everywhere == 1).all())

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """What early stopping goes by, the same on every process: its numbers under `eval_` names, logged."""
        if self.validate is None:
            raise ValueError("The trainer was given nothing to evaluate: set validate.")
        found = self.validate(self.plume)
        numbers = {name: value for name, value in found.items() if isinstance(value, float)}
        if self.args.should_save:
            append_log(Path(self.args.output_dir), {"step": self.state.global_step, "evaluation": numbers})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        self.console.print(f"step {self.state.global_step:5d}  held out: {shown}")
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in numbers.items()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _load_best_model(self) -> None:
        """The weights of the best evaluation; the checkpoint holds the model without the wrapper around it."""
        load_weights(self.model.model, Path(self.state.best_model_checkpoint))

    def _attention(self) -> AbstractContextManager:
        """With bf16 on a CPU plain attention, also where the backward pass recomputes a layer.

        There the fused kernel's backward pass is slow even for the one query a row has in a latent step: it took a
        third of a step of `tiny`. In float32 it is the faster one.
        """
        is_slow = self.args.bf16 and self.args.device.type == "cpu"
        return sdpa_kernel(SDPBackend.MATH) if is_slow else nullcontext()

    def _whole_step(self, model: torch.nn.Module, batch: TrainingBatch) -> tuple[torch.Tensor, dict]:
        with self.compute_loss_context_manager():
            queries, targets = model(batch.queries + batch.targets, batch.num_latent_steps, batch.early_steps)
            loss, terms = batch_losses(queries, targets, batch, self.weights)
        self.accelerator.backward(loss)
        return loss, terms

    def _cached_step(self, model: torch.nn.Module, batch: TrainingBatch) -> tuple[torch.Tensor, dict]:
        def forward(chunks, num_latent_steps, early_steps):
            with self.compute_loss_context_manager():
                return model(chunks, num_latent_steps, early_steps)

        if self.is_deepspeed_enabled:  # it steps behind the last chunk
            engine = self.accelerator.deepspeed_engine_wrapped
            return cached_backward(forward, batch, self.weights, engine.backward)
        if self.accelerator.distributed_type not in (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
            return cached_backward(forward, batch, self.weights)  # one process, or FSDP: reduced in every backward
        with self.accelerator.no_sync(model):
            loss_and_terms = cached_backward(forward, batch, self.weights)
        average_gradients(model.parameters())
        return loss_and_terms

    def _warn(self, step: int, warnings: list[str]) -> None:
        for warning in warnings if self.args.should_save else []:
            self.console.print(f"step {step:5d}  warning: {warning}")
            append_log(Path(self.args.output_dir), {"step": step, "warning": warning})

    def _note(self, step: int, batch: TrainingBatch, terms: dict[str, torch.Tensor]) -> None:
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._steps_of[name] = self._steps_of.get(name, 0) + 1
        self._pairs += len(batch.target_keys) * self.args.world_size
        state = self.curriculum.at(step)
        self._curriculum_logs = {
            "stage": state.stage,
            "latent_steps": state.num_latent_steps,
            "suffix_tokens": batch.suffix_tokens,
        }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means since the last log, the state of the curriculum and the speed."""
        if "loss" in logs and self._sums:
            now = time.perf_counter()
            logs |= {name: (total / self._steps_of[name]).item() for name, total in self._sums.items()}
            logs |= self._curriculum_logs | {"pairs_per_second": self._pairs / (now - self._logged_at)}
            self._sums, self._steps_of, self._pairs, self._logged_at = {}, {}, 0, now
            if self.args.should_save:
                append_log(Path(self.args.output_dir), {"step": self.state.global_step} | logs)
            self.console.print(_log_line(self.state.global_step, logs))
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """The model in its own format, without the wrapper around it."""
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        wrapper = self.accelerator.unwrap_model(self.model)
        if state_dict is not None:
            state_dict = {name.removeprefix("model."): tensor for name, tensor in state_dict.items()}
        wrapper.model.save_pretrained(folder, state_dict=state_dict)
        self.task.processor.save_pretrained(folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The whole model in its own format, however it is sharded while it trains. For all processes to call."""
        if is_sharded(self.accelerator):
            self._save(output_dir, self.accelerator.get_state_dict(self.model_wrapped))
        else:
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        output_dir = Path(self.args.output_dir)
        folder = output_dir / f"checkpoint-{self.state.global_step}"
        partial = checkpoints.partial_of(folder)
        if self.args.should_save:
            checkpoints.begin(folder)
        self.accelerator.wait_for_everyone()
        checkpoints.save_random_state(partial / f"random-{self.args.process_index}.safetensors")
        self.save_model(str(partial), _internal_call=True)
        if self.is_deepspeed_enabled:  # moments and shards in files of its own
            self.model_wrapped.save_checkpoint(str(partial))
        else:
            moments = checkpoints.optimizer_tensors(self.optimizer, keep=self.args.should_save)
            if self.args.should_save:
                save_file(moments, partial / "optimizer.safetensors")
        if self.state.best_global_step:  # else a resumed run would not know what to go back to
            self.state.best_model_checkpoint = str(output_dir / f"checkpoint-{self.state.best_global_step}")
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):  # how long nothing has become better
                self.state.stateful_callbacks[EarlyStoppingCallback.__name__] = callback.state()
        if self.args.should_save:
            self.state.save_to_json(str(partial / _STATE_FILE))
            if self.spent is not None:
                checkpoints.save_time(partial, self.spent)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.finish(folder)
            if self.args.save_total_limit:
                checkpoints.remove_old(output_dir, self.args.save_total_limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Trains; with a checkpoint's folder it goes on from there.

        Args:
            resume_from_checkpoint (`str`, *optional*): A `checkpoint-N` of a run in as many processes.
        """
        self._began_at = (time.perf_counter(), time.process_time())
        if resume_from_checkpoint is not None:
            folder = Path(resume_from_checkpoint)
            self._spent_before = checkpoints.load_time(folder)
            if not self.is_deepspeed_enabled:
                load_weights(self.model.model, folder)
            if self.args.should_save:
                with naming(folder / _STATE_FILE):
                    step = json.loads((folder / _STATE_FILE).read_text())["global_step"]
                cut_log(Path(self.args.output_dir), step)
            self.accelerator.wait_for_everyone()
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Nothing: [`train`] reads the weights, before anything shards them."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if not self.is_deepspeed_enabled:  # which has read its moments with its weights
            checkpoints.load_optimizer(self.optimizer, Path(checkpoint) / "optimizer.safetensors")
        self.lr_scheduler.go_to(self.state.global_step)

    def _load_callback_state(self) -> None:
        """Early stopping goes on counting. (transformers' own would take over the switches of the moment as well, and
        a run that was stopped at a step would stop again.)"""
        kept = self.state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
        for callback in self.callback_handler.callbacks:
            if kept is not None and isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience_counter = kept["attributes"]["early_stopping_patience_counter"]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Nothing where early stopping had ended the run already: it was killed behind its last step, and is owed its
        best weights and its evaluation, no further step."""
        if any(
            isinstance(callback, EarlyStoppingCallback)
            and callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
        ):
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        saved = sorted(Path(checkpoint).glob("random-*.safetensors"))
        if len(saved) != self.args.world_size:
            raise ValueError(
                f"{checkpoint} was written by {len(saved)} processes, not {self.args.world_size}; resume with as many "
                "processes as the run had."
            )
        checkpoints.load_random_state(Path(checkpoint) / f"random-{self.args.process_index}.safetensors")


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Reads the weights that a run saved into `folder`.

    Args:
        model (`PlumeModel` or a `PeftModel` over one): As it is before training.

    Raises:
        ValueError: they are damaged, or of a model of other shapes.
    """
    with naming(folder / "model.safetensors" if isinstance(model, PlumeModel) else folder):
        try:
            if isinstance(model, PlumeModel):
                load_model(model, folder / "model.safetensors")  # on the CPU, and from there where the model is
            else:
                load_updates(model, folder)
        except RuntimeError as error:  # torch's word for missing names and other shapes
            raise ValueError(f"the model to train has other weights: {error}") from error


def zero_moments(optimizer: torch.optim.Optimizer) -> None:
    """Adam starts afresh: moments and step counts are zero, what was minimised before is another function."""
    for entry in optimizer.state.values():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                value.zero_()
            elif name == "step":  # of optimisers that count with a number
                entry[name] = 0


def _log_line(step: int, logs: dict[str, float]) -> str:
    shown = {name: value for name, value in logs.items() if name not in ("epoch", "loss")}
    parts = [f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()]
    return f"step {step:5d}  loss {logs['loss']:.3f}  " + "  ".join(parts)
