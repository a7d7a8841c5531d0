"""Where a vector is read: at `<gen_emb>`, or, to see what the latent steps add, before them or within them."""

from typing import Any, Literal

import torch
import torch.nn.functional as F

from plume_embed.model.modeling_plume import PlumeModel

ReadOut = Literal["embedding", "anchor", "state"]


def read_vectors(model: PlumeModel, batch: Any, num_latent_steps: int, read_out: ReadOut = "embedding") -> torch.Tensor:
    """Vectors [B, D] of a batch from PlumeProcessor, float32, unit norm.

    Args:
        num_latent_steps (`int`): K; not used by `"anchor"`.
        read_out (`str`): `"embedding"`, what the model is for; `"anchor"`, the state at `<disc_emb>`, which a single
            pass has; `"state"`, z(K), the last latent state.

    Raises:
        ValueError: no such read-out, or `"state"` without a step.
    """
    if read_out == "embedding":
        return model(**batch, num_latent_steps=num_latent_steps).embeddings
    if read_out == "anchor":
        return model(**batch, num_latent_steps=0, output_anchor_embeddings=True).anchor_embeddings
    if read_out != "state":
        raise ValueError(f"The read-outs are embedding, anchor and state, got {read_out!r}.")
    if num_latent_steps < 1:
        raise ValueError("The read-out state is z(K) and needs K >= 1; z(0) is the single pass.")
    states = model(**batch, num_latent_steps=num_latent_steps, output_latent_states=True).latent_states
    return F.normalize(states[:, -1].float(), dim=-1)
