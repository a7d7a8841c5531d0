"""LoRA through peft: low-rank updates of the language model, PLUME's own adapter trained in full."""

from pathlib import Path

from peft import LoraConfig, PeftModel, TaskType, get_peft_model, set_peft_model_state_dict
from peft.utils import load_peft_weights

from plume_embed.model.arguments_plume import refuse_pickled_weights
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.training.recipe import LoraSettings


def add_lora(model: PlumeModel, settings: LoraSettings) -> PeftModel:
    """Wraps a model; only the low-rank updates and PLUME's adapter are trained, and saved."""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        modules_to_save=["adapter"],
        task_type=TaskType.FEATURE_EXTRACTION,
    )
    return get_peft_model(model, config)


def load_updates(model: PeftModel, folder: Path) -> None:
    """Reads the updates of `folder` into a model that [`add_lora`] wrapped.

    Raises:
        RuntimeError: they are of other shapes.
    """
    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))


def load_lora(model: PlumeModel, folder: Path) -> PlumeModel:
    """A model with the updates of `folder` merged into its weights: an ordinary PlumeModel again.

    Raises:
        ValueError: the updates are a pickle.
    """
    refuse_pickled_weights(folder)
    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
