"""Settings of the command line, KEY=VALUE, as keyword arguments of PlumeConfig."""

import json
from collections.abc import Sequence
from typing import Any

from plume_embed.model.configuration_plume import PlumeConfig

_DECIDED_BY_THE_BACKBONE = {
    "backbone_config",
    "anchor_token_id",
    "latent_start_token_id",
    "latent_end_token_id",
    "embedding_token_id",
    "suffix_token_ids",
}
SETTABLE = tuple(name for name in PlumeConfig.__annotations__ if name not in _DECIDED_BY_THE_BACKBONE)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`["num_experts=8", "adapter_type=mlp"]` -> `{"num_experts": 8, "adapter_type": "mlp"}`.

    A value is read as JSON, so true, 8 and 0.1 have their types; what is no JSON is a string.

    Raises:
        ValueError: no "=", or a field that PlumeConfig does not have.
    """
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, got {setting!r}.")
        if name not in SETTABLE:
            raise ValueError(f"--set {name}: no such setting; there are {', '.join(SETTABLE)}.")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed
