"""The model under its import name. The files are links to the top-level `*_plume.py`, which the Hub copies.

Importing this package registers PLUME with `AutoConfig`, `AutoModel` and `AutoProcessor`.
"""

from pathlib import Path

_FIRST_BYTES = Path(__file__).with_name("configuration_plume.py").read_bytes()[:3]
if _FIRST_BYTES == b"../":
    raise ImportError(
        "The links in plume_embed/model became text files: this Git checkout was made without symbolic links. Run "
        "`git config core.symlinks true` and then `git checkout -- plume_embed/model` (on Windows with developer mode "
        "on), or install a build with `pip install .`, which needs no links."
    )

from transformers import AutoConfig, AutoModel, AutoProcessor

from plume_embed.model.adapter_plume import PlumeAdapter
from plume_embed.model.configuration_plume import PlumeConfig
from plume_embed.model.modeling_plume import PlumeModel, PlumeOutput
from plume_embed.model.processing_plume import PlumeProcessor

AutoConfig.register("plume", PlumeConfig, exist_ok=True)
AutoModel.register(PlumeConfig, PlumeModel, exist_ok=True)
AutoProcessor.register(PlumeConfig, PlumeProcessor, exist_ok=True)

__all__ = ["PlumeAdapter", "PlumeConfig", "PlumeModel", "PlumeOutput", "PlumeProcessor"]
