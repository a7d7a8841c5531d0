"""How the weights of the decoder lie in memory: row by row, as they are loaded, or column by column."""

from typing import Any

import torch
from torch import nn

from plume_embed.model import PlumeModel


@torch.no_grad()
def store_by_column(model: PlumeModel) -> None:
    """Lays the weights of the decoder's linear layers out column by column, in place.

    A CPU's library multiplies a few rows faster with such a weight, which is what a latent step is; the vectors stay
    within 1e-5. There is no second copy to go stale: the parameters are the same objects with the same values. Copies
    of the model, loading, moving and training keep the layout, and files are written as ever. Weights that are mapped
    from a file become memory of the process, one layer at a time.

    Args:
        model ([`PlumeModel`]): On a CPU, in float32: elsewhere nothing was measured to gain.

    Raises:
        ValueError: the model is on another device or in another type.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ValueError(
            f"Weights are stored by column on a CPU in float32, and this model is on {model.device} in {model.dtype}: "
            "leave the layout as it is."
        )
    backbone: Any = model.backbone
    decoder: nn.Module = backbone.get_decoder()
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()
