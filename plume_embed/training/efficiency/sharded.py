"""What FSDP2 and DeepSpeed need beyond a Trainer: refusals, and the same calls on every process.

Both spread weights, gradients or moments over the processes, which talk to each other in the hooks of single modules.
So every process must call the same modules equally often, also when its rows hold no picture and those of another do.
"""

import os
from dataclasses import replace

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin, compare_versions
from transformers import TrainingArguments

from plume_embed.model.modeling_plume import PlumeModel

_MIN_DEEPSPEED = "0.19"
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether FSDP or DeepSpeed runs the training."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def asks_for_deepspeed() -> bool:
    """Whether `accelerate launch` was told to use DeepSpeed, which has CPUs of its own."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def settle_strategy(accelerator: Accelerator, args: TrainingArguments, evaluates_in_training: bool) -> None:
    """Refuses what would train otherwise than asked for, or wait for ever, and keeps the recipe's word on the rest.

    Args:
        args (`TrainingArguments`): Precision and clipping of the recipe.
        evaluates_in_training (`bool`): Whether one process is going to run the model between two steps.

    Raises:
        ValueError: with the remedy.
    """
    precision = "bf16" if args.bf16 else "no"
    if accelerator.mixed_precision != precision:
        raise ValueError(
            f"accelerate was launched with mixed precision {accelerator.mixed_precision}, the recipe says {precision}; "
            "leave --mixed_precision out and set bf16 in the recipe."
        )
    asks_for_fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if (asks_for_fsdp or asks_for_deepspeed()) and not is_sharded(accelerator):
        raise ValueError(
            f"{'FSDP' if asks_for_fsdp else 'DeepSpeed'} was asked for, but accelerate would run "
            f"{accelerator.distributed_type.value} here: it needs several processes, FSDP an accelerator in each."
        )
    if dist.is_initialized() and dist.get_world_size() != accelerator.num_processes:
        raise ValueError(
            f"{dist.get_world_size()} processes run, and accelerate takes them for {accelerator.num_processes}: it "
            "has no backend for this device."
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        refuse_stage_3(accelerator.state.deepspeed_plugin)
        _settle_deepspeed(accelerator.state.deepspeed_plugin.deepspeed_config, args.max_grad_norm)
    if accelerator.distributed_type == DistributedType.FSDP:
        if evaluates_in_training:
            raise ValueError(
                "gates.explicit_hit_at_1 runs the model in one process, which does not hold all weights; set it to "
                "null."
            )
        _settle_fsdp(accelerator.state.fsdp_plugin)


def _settle_fsdp(plugin: FullyShardedDataParallelPlugin) -> None:
    if plugin.fsdp_version != 2:
        raise ValueError(
            "FSDP 1 cannot run a layer several times in a forward pass, as a rollout does: fsdp_version 2."
        )
    if plugin.activation_checkpointing:
        raise ValueError(
            "fsdp_activation_checkpointing would write every key into the cache twice: set checkpoint_layers instead."
        )
    if plugin.mixed_precision_policy is not None:
        # Embeddings leave the model in float32, and gradients are summed in it, over processes and over chunks.
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, output_dtype=None, reduce_dtype=torch.float32
        )


def _settle_deepspeed(config: dict, max_grad_norm: float) -> None:
    if compare_versions("deepspeed", "<", _MIN_DEEPSPEED):
        raise ValueError(
            f"DeepSpeed before {_MIN_DEEPSPEED} has not been tried, and old ones round the rotary frequencies to bf16; "
            "install a newer one."
        )
    for section in ("optimizer", "scheduler"):
        if section in config:
            raise ValueError(
                f"The DeepSpeed config has a section {section}, which would replace the recipe's; remove it."
            )
    if config.get("gradient_clipping", "auto") not in ("auto", max_grad_norm):
        raise ValueError(
            f"The DeepSpeed config clips gradients at {config['gradient_clipping']}, the recipe at {max_grad_norm}; "
            "set max_grad_norm in the recipe and leave gradient_clipping out of the config."
        )
    config["gradient_clipping"] = max_grad_norm
    # The recipe's own AdamW, also where its moments are offloaded; gradients are summed in float32.
    config["zero_allow_untested_optimizer"], config["zero_force_ds_cpu_optimizer"] = True, False
    config["communication_data_type"] = "fp32"
    config.setdefault("data_types", {})["grad_accum_dtype"] = "fp32"


def refuse_stage_3(plugin: DeepSpeedPlugin | None) -> None:
    """For `run` to call before it makes a model, whose weights stage 3 would take away while they are drawn.

    Raises:
        ValueError: the plugin is of ZeRO stage 3.
    """
    if plugin is not None and plugin.zero_stage == 3:
        raise ValueError(
            "ZeRO stage 3 waits for ever where one process has pictures and another none: it fetches the weights of "
            "single modules, the embedding's before the vision tower's. Use stage 2, or FSDP, which shards weights too."
        )


def missing_media(model: PlumeModel, prefix: dict[str, torch.Tensor]) -> torch.Tensor:
    """Zero, by way of the vision tower: one smallest blank picture for each of images and videos that a batch lacks.

    Args:
        prefix (`dict`): Of a [`SideBatch`].

    Returns:
        A scalar to add to what the loss uses, so that the tower's weights have a gradient (of zero) everywhere.

    DeepSpeed sums gradients in the order in which they are complete. A gradient is complete with what was computed
    first, so a token is looked up before any picture: the embedding's is the last one on every process.
    """
    zero = 0.0 * model.get_input_embeddings()(prefix["input_ids"][:1, :1]).float().sum()
    for features in model.family.missing_features(model.backbone, tuple(prefix)):
        zero = zero + 0.0 * features.float().sum()
    return zero
