"""The model under its import name. The files are links to the top-level `*_plume.py`, which the Hub copies.

The first use of a class registers PLUME with `AutoConfig`, `AutoModel` and `AutoProcessor`. Importing this package
imports nothing else: a process that only reads files takes `images_plume` and `videos_plume`, which need no torch.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plume_embed.model.adapter_plume import PlumeAdapter
    from plume_embed.model.configuration_plume import PlumeConfig
    from plume_embed.model.modeling_plume import PlumeModel, PlumeOutput
    from plume_embed.model.processing_plume import PlumeProcessor

_FIRST_BYTES = Path(__file__).with_name("configuration_plume.py").read_bytes()[:3]
if _FIRST_BYTES == b"../":
    raise ImportError(
        "The links in plume_embed/model became text files: this Git checkout was made without symbolic links. Run "
        "`git config core.symlinks true` and then `git checkout -- plume_embed/model` (on Windows with developer mode "
        "on), or install a build with `pip install .`, which needs no links."
    )

_MODULES = {
    "PlumeAdapter": "adapter_plume",
    "PlumeConfig": "configuration_plume",
    "PlumeModel": "modeling_plume",
    "PlumeOutput": "modeling_plume",
    "PlumeProcessor": "processing_plume",
}
__all__ = ["PlumeAdapter", "PlumeConfig", "PlumeModel", "PlumeOutput", "PlumeProcessor"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register()
    return _named(name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _named(name: str) -> Any:
    return getattr(import_module(f"plume_embed.model.{_MODULES[name]}"), name)


@cache
def _register() -> None:
    from transformers import AutoConfig, AutoModel, AutoProcessor

    config = _named("PlumeConfig")
    AutoConfig.register("plume", config, exist_ok=True)
    AutoModel.register(config, _named("PlumeModel"), exist_ok=True)
    AutoProcessor.register(config, _named("PlumeProcessor"), exist_ok=True)
