"""The transition adapter: two batched products over all experts against a loop over the chosen ones."""

from typing import Any

import torch

from plume_embed.bench.released_style import looped_experts
from plume_embed.bench.timing import interleaved
from plume_embed.model.modeling_plume import PlumeModel


@torch.no_grad()
def adapter_rows(model: PlumeModel, batches: tuple[int, ...] = (1, 8, 32), budget_s: float = 5) -> list[dict[str, Any]]:
    """Rows of {name, batch, ms_median, ms_spread, ratio_to_batched} for one transition."""
    rows, adapter = [], model.adapter
    for batch in batches:
        z, anchor = (
            torch.randn(batch, model.config.hidden_size, device=model.device).to(model.dtype) for _ in range(2)
        )

        def batched(z=z, anchor=anchor) -> torch.Tensor:
            return adapter(z, anchor, z, 1)[0]

        def looped(z=z, anchor=anchor) -> torch.Tensor:
            return z + looped_experts(adapter, adapter.layer_norm(z), adapter.route(z, anchor, z, 1))

        timings = interleaved({"batched": batched, "looped": looped}, model.device, budget_s, 5, 200, warm_up=3)
        for name, timing in timings.items():
            rows.append(
                {
                    "name": f"adapter {name}",
                    "batch": batch,
                    "ms_median": timing.median,
                    "ms_spread": timing.spread,
                    "samples_per_s": 1000 * batch / timing.median,
                    "ratio_to_batched": timing.ratio_to(timings["batched"]),
                }
            )
    return rows
