"""The model that a run goes on from, out of the folder that its recipe names."""

import torch

from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.training.recipe import Recipe


def model_of_folder(recipe: Recipe) -> PlumeModel:
    """The model of `model.path`, in float32, with the recipe's K for queries and for documents.

    Raises:
        ValueError: it embeds documents in a single pass, and the recipe would train them with steps; or the recipe asks
            for more steps than it has embeddings for.
    """
    settings = recipe.model
    assert settings.path is not None  # the tasks ask
    config = PlumeConfig.from_pretrained(settings.path)
    known, most = config.document_latent_steps, config.num_step_embeddings
    steps = {"curriculum.num_latent_steps": (recipe.curriculum.num_latent_steps,)}
    steps["pairs.sampled_steps"] = recipe.pairs.sampled_steps
    for name, given in steps.items():  # the model's own message has not the recipe's names
        if max(given, default=0) > most:
            raise ValueError(f"{name} must lie in 0..{most}, the steps that this model can make, got {max(given)}.")
    if known is not None and recipe.target_rollout and "document_latent_steps" not in settings.plume:
        raise ValueError(
            f"{settings.path} embeds documents with {known} latent steps: go on with --set target_rollout=false, or "
            "train them with steps by --set model.plume={document_latent_steps: null}."
        )
    model = PlumeModel.from_pretrained(settings.path, dtype=torch.float32, **recipe.step_fields | settings.plume)
    if settings.freeze_vision:
        model.freeze_vision()
    return model
