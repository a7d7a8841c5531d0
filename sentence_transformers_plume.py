# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""What sentence-transformers needs: the files that make a saved folder load there, and batches that it cuts."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature

# With these files beside it, a folder loads as SentenceTransformer(folder, trust_remote_code=True): the model's output
# is pooled and normalised already, so there is one module and no more.
_FORWARD = {"method": "forward", "method_output_name": "embeddings"}
SENTENCE_TRANSFORMERS_FILES = {
    "modules.json": [
        {
            "idx": 0,
            "name": "0",
            "path": "",
            "type": "sentence_transformers.base.modules.transformer.Transformer",
            "kwargs": ["num_latent_steps", "task"],
        }
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": _FORWARD,
            "image": _FORWARD,
            "video": _FORWARD,
            "message": {**_FORWARD, "format": "structured"},
        },
        "module_output_name": "sentence_embedding",
        "processing_kwargs": {"text": {"truncation": False}},
        "unpad_inputs": False,
    },
    "config_sentence_transformers.json": {
        "model_type": "SentenceTransformer",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}


def write_sentence_transformers_files(folder: Path) -> None:
    """Writes the files that are not there yet.

    Those that are there stay as they are: sentence-transformers writes its own, with the user's prompts, before it
    saves the processor.
    """
    for name, content in SENTENCE_TRANSFORMERS_FILES.items():
        if not (folder / name).exists():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")


class PlumeBatch(BatchFeature):
    """A batch of [`PlumeProcessor`], which knows how many images and videos each row has.

    sentence-transformers writes these numbers into a batch and cuts `pixel_values` by them where a loss runs in parts
    (its cached losses). It counts the parts of a message: blank images are not among them, keys that hold `None` are,
    and a film is one part also where its frames are pictures (`BackboneFamily.media_counts`). What it writes is
    replaced by what there is.

    Args:
        media_counts (`dict[str, torch.Tensor]`, *optional*): By the library's names for them, each of shape [B].
    """

    _media_counts: dict[str, torch.Tensor] = {}  # of a copy that a library makes from the values alone

    def __init__(self, data: dict[str, Any] | None = None, media_counts: dict[str, torch.Tensor] | None = None):
        if media_counts is not None:
            self._media_counts = media_counts
        super().__init__(data)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, self._media_counts.get(name, value))
