"""The decoder's linear layers with int8 weights, by torchao (`pip install "plume-embed[int8]"`)."""

from typing import Any

import torch

from plume_embed.model import PlumeModel


def store_in_int8(model: PlumeModel) -> None:
    """Rounds the weights of the decoder's linear layers to int8, with one scale an output channel, in place.

    They take a quarter of their memory. They are multiplied in float32, so that a vector does not depend on its batch;
    activations stay as they are. Word vectors, tower and adapter keep their type.

    Args:
        model ([`PlumeModel`]): On a CPU, in float32.

    Raises:
        ValueError: the model is elsewhere or in another type, or torchao is not installed.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ValueError(
            f"int8 weights are for a CPU and a model in float32, and this one is on {model.device} in {model.dtype}: "
            "use bfloat16 there."
        )
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError('int8 weights need torchao: pip install "plume-embed[int8]".') from error
    backbone: Any = model.backbone
    quantize_(backbone.get_decoder(), Int8WeightOnlyConfig())
