# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""The semantic-anchor-guided transition adapter: a router and its experts, nothing else (paper, section 3.3).

    pi(k)   = softmax(W_r [z(k-1) + c(x) ; e(k)] + b_r)
    u       = LayerNorm(z(k-1))
    z~(k-1) = z(k-1) + E0(u) + sum over the top Kr experts m of pi_m(k) E_m(u),      E(u) = W2 dropout(GELU(W1 u))

The selected probabilities are not renormalised. All experts are computed for all rows as two batched products with the
unselected ones gated to zero: at these sizes reading the weights is the cost, no row waits for another, nothing is
synchronised with the host, and every expert gets a gradient (zero, not None) in every step.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_plume import PlumeConfig

# The fields of a config that an adapter is built from.
ADAPTER_FIELDS = (
    "adapter_type",
    "num_experts",
    "num_experts_per_tok",
    "use_shared_expert",
    "expert_expansion",
    "mlp_inner_size",
    "adapter_dropout",
    "router_context",
    "use_step_embedding",
    "num_step_embeddings",
)
# Those of them by which it has other tensors.
TENSOR_FIELDS = frozenset(ADAPTER_FIELDS) - {"num_experts_per_tok", "adapter_dropout", "router_context"}


class PlumeExperts(nn.Module):
    """E two-layer experts D -> H -> D in stacked weights; the shared expert, where there is one, comes first."""

    def __init__(self, num_experts: int, hidden_size: int, inner_size: int, dropout: float):
        super().__init__()
        self.fc1_weight = nn.Parameter(torch.empty(num_experts, hidden_size, inner_size))
        self.fc1_bias = nn.Parameter(torch.empty(num_experts, 1, inner_size))
        self.fc2_weight = nn.Parameter(torch.empty(num_experts, inner_size, hidden_size))
        self.fc2_bias = nn.Parameter(torch.empty(num_experts, 1, hidden_size))
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """sum over e of gates[:, e] E_e(u); u [B, D], gates [B, E] -> [B, D]."""
        u = u.expand(self.fc1_weight.shape[0], -1, -1)  # [E, B, D]
        inner = self.activation(torch.baddbmm(self.fc1_bias, u, self.fc1_weight))  # [E, B, H]
        outputs = torch.baddbmm(self.fc2_bias, self.dropout(inner), self.fc2_weight)  # [E, B, D]
        return (gates.T.unsqueeze(-1).to(outputs.dtype) * outputs).sum(dim=0)  # [B, D]


class PlumeRouter(nn.Linear):
    """A linear layer in float32, whatever the weights' dtype and under autocast too: near a tie, rounding would choose
    another expert, and with it another vector."""

    def forward(self, router_input: torch.Tensor) -> torch.Tensor:
        """[B, in] -> logits [B, Me], float32."""
        with torch.autocast(device_type=router_input.device.type, enabled=False):
            return F.linear(router_input.float(), self.weight.float(), self.bias.float())


class PlumeAdapter(nn.Module):
    """z(k-1) -> z~(k-1), the refined hidden state that the backbone takes as the input embedding of step k.

    Args:
        config ([`PlumeConfig`]): `adapter_type` and the fields after it choose the variant.
    """

    def __init__(self, config: PlumeConfig):
        super().__init__()
        hidden_size = config.hidden_size
        self._built_from = {name: getattr(config, name) for name in ADAPTER_FIELDS}
        self.adapter_type = config.adapter_type
        self.router_context = config.router_context
        self.num_experts_per_tok = config.num_experts_per_tok
        self.use_shared_expert = config.use_shared_expert
        self.use_step_embedding = config.use_step_embedding
        self.num_step_embeddings = config.num_step_embeddings
        if self.adapter_type == "none":
            return
        is_moe = self.adapter_type == "moe"
        self.layer_norm = nn.LayerNorm(hidden_size)
        inner_size = config.expert_expansion * hidden_size
        if not is_moe and config.mlp_inner_size is not None:
            inner_size = config.mlp_inner_size
        self.experts = PlumeExperts(
            num_experts=config.num_experts + int(config.use_shared_expert) if is_moe else 1,
            hidden_size=hidden_size,
            inner_size=inner_size,
            dropout=config.adapter_dropout,
        )
        if is_moe:
            self.router = PlumeRouter(hidden_size * (2 if config.use_step_embedding else 1), config.num_experts)
            if config.use_step_embedding:
                self.step_embedding = nn.Embedding(config.num_step_embeddings, hidden_size)

    def check_config(self, config: PlumeConfig) -> None:
        """Refuses a config that says something else than the adapter was built from.

        Raises:
            ValueError: a field was set afterwards; it would hold in the saved folder, and not here.
        """
        changed = [name for name, value in self._built_from.items() if getattr(config, name) != value]
        if changed:
            raise ValueError(
                f"config.{changed[0]} was set to {getattr(config, changed[0])!r} after the model was built with "
                f"{self._built_from[changed[0]]!r}: set it back, or load the model with it, as in "
                f"PlumeModel.from_pretrained(folder, {changed[0]}={getattr(config, changed[0])!r})."
            )

    def route(self, z: torch.Tensor, anchor: torch.Tensor, z0: torch.Tensor, step: int) -> torch.Tensor:
        """pi(k): routing probabilities [B, Me] of step k = `step`, in float32 whatever the weights' dtype."""
        context = {"anchor": anchor, "prefix_last": z0}.get(self.router_context)
        router_input = z if context is None else z + context  # [B, D]
        if self.use_step_embedding:
            index = torch.full((1,), step - 1, dtype=torch.long, device=z.device)  # filled there: nothing is copied
            step_embedding = self.step_embedding(index).expand_as(z)  # [B, D]
            router_input = torch.cat((router_input, step_embedding), dim=-1)  # [B, 2D]
        return self.router(router_input).float().softmax(dim=-1)  # [B, Me]

    def forward(
        self, z: torch.Tensor, anchor: torch.Tensor, z0: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One transition.

        Args:
            z (`torch.Tensor` of shape [B, D]): z(k-1).
            anchor (`torch.Tensor` of shape [B, D]): c(x), the last-layer hidden state at the anchor token.
            z0 (`torch.Tensor` of shape [B, D]): z(0), the state at the start token (`router_context="prefix_last"`).
            step (`int`): k, from 1.

        Returns:
            z~(k-1) [B, D] and the routing probabilities [B, Me] (`None` unless `adapter_type="moe"`).
        """
        if self.adapter_type == "none":
            return z, None
        u = self.layer_norm(z)  # [B, D]
        if self.adapter_type == "mlp":
            return z + self.experts(u, u.new_ones(u.shape[0], 1)), None
        probs = self.route(z, anchor, z0, step)  # [B, Me]
        top = probs.topk(self.num_experts_per_tok, dim=-1)
        gates = torch.zeros_like(probs).scatter(-1, top.indices, top.values)  # [B, Me], not renormalised
        if self.use_shared_expert:
            gates = torch.cat((gates.new_ones(gates.shape[0], 1), gates), dim=-1)  # [B, 1 + Me]
        return z + self.experts(u, gates), probs


__all__ = ["ADAPTER_FIELDS", "TENSOR_FIELDS", "PlumeAdapter", "PlumeExperts", "PlumeRouter"]
