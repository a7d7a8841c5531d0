"""plume-embed: PLUME (arXiv 2604.02073), universal multimodal embeddings by latent reasoning.

The model lives in the `*_plume.py` files, which the Hub copies as they stand. In a checkout or an editable install they
are one folder up and join this package's path; in a wheel they lie beside this file.
"""

from pathlib import Path as _Path

if not (_Path(__file__).parent / "modeling_plume.py").is_file():
    __path__.append(str(_Path(__file__).parent.parent))

from transformers import AutoConfig, AutoModel, AutoProcessor

from plume_embed.adapter_plume import PlumeAdapter
from plume_embed.configuration_plume import PlumeConfig
from plume_embed.modeling_plume import PlumeModel, PlumeOutput
from plume_embed.processing_plume import PlumeProcessor

AutoConfig.register("plume", PlumeConfig, exist_ok=True)
AutoModel.register(PlumeConfig, PlumeModel, exist_ok=True)
AutoProcessor.register(PlumeConfig, PlumeProcessor, exist_ok=True)

__version__ = "0.1.0"
__all__ = ["PlumeAdapter", "PlumeConfig", "PlumeModel", "PlumeOutput", "PlumeProcessor", "__version__"]
