"""What the text side is taught: vectors of all-MiniLM-L6-v2, turned into fewer dimensions that keep their cosines."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from plume_embed.atomic import replacing

SHARD = 4096


class Teacher:
    """all-MiniLM-L6-v2: the mean of its last states over a text's tokens, unit norm.

    Args:
        folder (`Path`): From [`sources.teacher_folder`].
    """

    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def encode(self, texts: list[str], batch_size: int = 128) -> np.ndarray:
        """Vectors [N, 384], float32, in the order of the texts."""
        vectors = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            hidden = self.model(**batch).last_hidden_state  # [B, L, 384]
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors


def cached_vectors(texts: list[str], teacher: Path, folder: Path) -> np.ndarray:
    """Vectors [N, 384] of all texts; every `SHARD` of them is a file, so that a run killed goes on where it was.

    The file's name has a digest of its texts: vectors of other texts are never taken for theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, shards = None, []
    for start in range(0, len(texts), SHARD):
        shard = texts[start : start + SHARD]
        digest = hashlib.sha256(json.dumps(shard).encode()).hexdigest()[:16]
        file = folder / f"{start:07d}-{digest}.npy"
        if not file.exists():
            model = model or Teacher(teacher)
            with replacing(file) as partial:
                np.save(partial, model.encode(shard).astype(np.float16))
        shards.append(np.load(file).astype(np.float32))
    return np.concatenate(shards)


def reduction(vectors: np.ndarray, size: int) -> np.ndarray:
    """The [384, size] orthonormal map that keeps most of the vectors, from their second moments (no centring: the
    cosine is to be kept)."""
    moments = vectors.T.astype(np.float64) @ vectors.astype(np.float64)
    _, axes = np.linalg.eigh(moments)  # in ascending order
    return axes[:, ::-1][:, :size].astype(np.float32).copy()
