# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""The files that make a saved folder load in sentence-transformers."""

import json
from pathlib import Path

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
            "kwargs": ["num_latent_steps"],
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
