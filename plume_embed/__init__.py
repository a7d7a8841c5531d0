"""plume-embed: PLUME (arXiv 2604.02073), universal multimodal embeddings by latent reasoning.

Importing this package imports nothing else. The first use of a public name imports it, and the first use of a model
class registers PLUME with the Auto classes of transformers.
"""

# Type checkers take this name for `typing.TYPE_CHECKING`, which costs an import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from plume_embed.encode.encoder import Encoder
    from plume_embed.model import PlumeAdapter, PlumeConfig, PlumeModel, PlumeOutput, PlumeProcessor

__version__ = "0.2.0"

_MODULES = {
    "Encoder": "plume_embed.encode.encoder",
    "PlumeAdapter": "plume_embed.model",
    "PlumeConfig": "plume_embed.model",
    "PlumeModel": "plume_embed.model",
    "PlumeOutput": "plume_embed.model",
    "PlumeProcessor": "plume_embed.model",
}
__all__ = ["Encoder", "PlumeAdapter", "PlumeConfig", "PlumeModel", "PlumeOutput", "PlumeProcessor", "__version__"]


def __getattr__(name: str) -> "Any":
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
