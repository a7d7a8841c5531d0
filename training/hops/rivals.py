"""Rivals of the latent rollout on the same code: K positions behind the prefix, filled in fewer passes than K.

    parallel   K learned tokens in one pass (LaME); with `shared_slot` one token K times, a pause
    jacobi     T sweeps over K slots at once (PCCoT): the first sweep has learned tokens, every later one the adapter's
               output for the state that the slot before had in the sweep before

In both, slot k stands at the position of latent step k, and the suffix behind all of them. After t sweeps the first t
latents are those of the serial rollout, so T = K is PLUME itself. There is no fast engine for them: experiments only.
"""

from typing import Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.modeling_plume import PlumeModel, PlumePrefix
from plume_embed.model.positions_plume import latent_positions
from plume_embed.training.latents.branches import behind


@strict
class RivalConfig(PlumeConfig):
    r"""Config of a [`RivalModel`].

    Args:
        rollout (`"parallel"` or `"jacobi"`, defaults to `"parallel"`): How the K positions are filled.
        sweeps (`int`, defaults to 1): T, the passes over them; 1 for `"parallel"`.
        shared_slot (`bool`, defaults to `False`): Whether all slots begin with one learned token.

    Raises:
        ValueError: more than one sweep for `"parallel"`, or none.
    """

    model_type = "plume_rival"

    rollout: Literal["parallel", "jacobi"] = "parallel"
    sweeps: int = 1
    shared_slot: bool = False

    def validate_rival(self):
        """Checks the values above; called by `@strict` after every construction."""
        if self.sweeps < 1 or (self.rollout == "parallel" and self.sweeps > 1):
            raise ValueError(f"sweeps must be 1 for parallel and at least 1 for jacobi, got {self.sweeps}.")


class RivalModel(PlumeModel):
    """PlumeModel whose K positions are filled at once; the learned tokens are part of the adapter."""

    config_class = RivalConfig
    config: RivalConfig

    def __init__(self, config: RivalConfig):
        super().__init__(config)
        self.rollout_implementation = "reference"
        num_slots = 1 if config.shared_slot else config.num_step_embeddings
        self.adapter.slots = nn.Parameter(torch.empty(num_slots, config.hidden_size))
        nn.init.normal_(self.adapter.slots, std=config.get_text_config().initializer_range)

    def latents(
        self, prefix: PlumePrefix, num_latent_steps: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
        """As in PlumeModel; the routing probabilities are those of the last sweep, zero where it had learned tokens."""
        if num_latent_steps == 0:
            return [], []
        rows, slots = len(prefix.z0), self.adapter.slots
        tokens = slots.expand(num_latent_steps, -1) if self.config.shared_slot else slots[:num_latent_steps]
        inputs = list(tokens.unsqueeze(1).expand(-1, rows, -1))  # K times [B, D]
        states: list[torch.Tensor] = []
        probs: list[torch.Tensor | None] = []
        for sweep in range(1, self.config.sweeps + 1):
            if self.config.rollout == "jacobi":
                probs = self._refine(prefix, inputs, states)
            is_last = sweep == self.config.sweeps
            states = self._sweep(prefix if is_last else behind(prefix, 0), inputs)
        if self.config.adapter_type == "moe":
            nothing = prefix.z0.new_zeros(rows, self.config.num_experts, dtype=torch.float32)
            probs = [nothing if p is None else p for p in probs or [None] * num_latent_steps]
        return states, probs

    def _refine(
        self, prefix: PlumePrefix, inputs: list[torch.Tensor], states: list[torch.Tensor]
    ) -> list[torch.Tensor | None]:
        """Puts z~(k-1) where z(k-1) is known: of step 1 always, of the others from the second sweep on."""
        probs: list[torch.Tensor | None] = [None] * len(inputs)
        for step, z in enumerate([prefix.z0, *states][: len(inputs)], start=1):
            inputs[step - 1], probs[step - 1] = self.adapter(z, prefix.anchor, prefix.z0, step)
        return probs

    def _sweep(self, prefix: PlumePrefix, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        where = (self.config.position_mode, prefix.start_position, prefix.length)
        positions = torch.cat([latent_positions(*where, step) for step in range(1, len(inputs) + 1)], dim=-1)
        hidden = self.extend(prefix, torch.stack(inputs, dim=1), positions, num_cached_steps=0)  # [B, K, D]
        return list(hidden.unbind(dim=1))
