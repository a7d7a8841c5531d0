# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""A FastVLM that may project its tower's map as semantic tokens instead of through two linear layers.

    s_ij = softmax((W f_ij + b) / tau) T P + V f_ij

f_ij is the tower's map at one place, W and b the tower's own classifier, T a table with one text vector a class, P a
map to the language model's width, and V, where it is wanted, a way past the classes that starts at zero. The classes
carry what the tower knows; a picture then speaks in the vectors of texts from the first step of training on.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import FastVlmConfig, FastVlmModel


@strict
class PlumeFastVlmConfig(FastVlmConfig):
    r"""`FastVlmConfig` with the choice of the projector.

    Args:
        semantic_classes (`int`, defaults to 0): Classes of the tower's classifier; 0 is the library's projector.
        semantic_table_size (`int`, defaults to 384): Width of T, of a text vector.
        semantic_temperature (`float`, defaults to 1.0): tau.
        semantic_detail (`bool`, defaults to `True`): Whether there is a V.
    """

    semantic_classes: int = 0
    semantic_table_size: int = 384
    semantic_temperature: float = 1.0
    semantic_detail: bool = True

    def validate_architecture(self):
        """Checks values against each other; called by `@strict` after every construction."""
        super().validate_architecture()
        if self.semantic_classes < 0 or self.semantic_table_size < 1 or self.semantic_temperature <= 0:
            raise ValueError(
                "semantic_classes must be 0 or more, semantic_table_size at least 1 and semantic_temperature above 0, "
                f"got {self.semantic_classes}, {self.semantic_table_size} and {self.semantic_temperature}."
            )


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero; a class of its own, because the library initialises weights by module."""


class SemanticProjector(nn.Module):
    """f [N, places, C] -> s [N, places, D], the equation above.

    Attributes:
        classifier (`nn.Linear`): W [classes, C] and b.
        table (`nn.Embedding`): T [classes, table size].
        projection (`nn.Linear`): P.
        detail (`nn.Linear`, *optional*): V.
    """

    def __init__(self, config: PlumeFastVlmConfig):
        super().__init__()
        channels, hidden_size = config.vision_config.hidden_size, config.text_config.hidden_size
        self.temperature = config.semantic_temperature
        self.classifier = nn.Linear(channels, config.semantic_classes)
        self.table = nn.Embedding(config.semantic_classes, config.semantic_table_size)
        self.projection = nn.Linear(config.semantic_table_size, hidden_size, bias=False)
        self.detail = ZeroLinear(channels, hidden_size, bias=False) if config.semantic_detail else None

    def class_probs(self, features: torch.Tensor) -> torch.Tensor:
        """The classes of every place, [N, places, C] -> [N, places, classes] float32."""
        return (self.classifier(features).float() / self.temperature).softmax(dim=-1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[N, places, C] -> [N, places, D]."""
        probs = self.class_probs(features).to(features.dtype)
        # The table is called, not read: what a LoRA adds, and a table that lies offloaded, come with the call alone.
        table = self.table(torch.arange(probs.shape[-1], device=probs.device))  # [classes, table size]
        tokens = self.projection(probs @ table)
        return tokens if self.detail is None else tokens + self.detail(features)


class PlumeFastVlmModel(FastVlmModel):
    """`FastVlmModel` with the projector of its config, and a tower that always runs as in evaluation.

    In training, batch normalisation would make a picture's tokens depend on the other pictures of the batch. The
    tower's weights can be trained all the same.
    """

    config_class = PlumeFastVlmConfig

    def __init__(self, config: PlumeFastVlmConfig):
        super().__init__(config)
        if config.semantic_classes:
            self.multi_modal_projector = SemanticProjector(config)
            self.post_init()
        self.vision_tower.eval()  # a new module is in training mode

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ZeroLinear):
            nn.init.zeros_(module.weight)

    def train(self, mode: bool = True) -> "PlumeFastVlmModel":
        """As of every module, but for the tower."""
        super().train(mode)
        self.vision_tower.eval()
        return self

    def merger_modules(self) -> list[nn.Module]:
        """What maps to the language model's width: of semantic tokens not the classifier and the table."""
        projector = self.multi_modal_projector
        if not isinstance(projector, SemanticProjector):
            return [projector]
        return [part for part in (projector.projection, projector.detail) if part is not None]

    @torch.no_grad()
    def load_tower(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Takes over the weights of a timm model of the tower's architecture, and of its classifier where there is one.

        Args:
            state_dict: As `timm.create_model(architecture).state_dict()` has it; the classifier is called `classifier`.

        Raises:
            ValueError: a tensor is missing, unexpected or of another shape.
        """
        head = {name: tensor for name, tensor in state_dict.items() if name.startswith("classifier.")}
        body = {name: tensor for name, tensor in state_dict.items() if name not in head}
        parts = [(self.vision_tower.timm_model, body)]
        if isinstance(self.multi_modal_projector, SemanticProjector):
            classifier = {name.removeprefix("classifier."): tensor for name, tensor in head.items()}
            parts.append((self.multi_modal_projector.classifier, classifier))
        for module, tensors in parts:
            try:
                module.load_state_dict(tensors)
            except RuntimeError as error:
                raise ValueError(
                    f"These are not the weights of {self.config.vision_config.architecture}: {error}"
                ) from error


__all__ = ["PlumeFastVlmConfig", "PlumeFastVlmModel", "SemanticProjector"]
