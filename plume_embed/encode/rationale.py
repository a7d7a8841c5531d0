"""Explicit chain of thought: a model decodes its rationale greedily up to `<gen_emb>` and is read there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BatchFeature

from plume_embed.encode.batching import TOKEN_BUDGET, plan_batches
from plume_embed.encode.encoder import Encoder
from plume_embed.encode.prepare import listed, without_place
from plume_embed.model.modeling_plume import PlumeModel

MAX_NEW_TOKENS = 512
# Among so many rows at least one has to come to `<gen_emb>` by itself, or the model has not learned to write.
NUM_PROBED = 32


@dataclass
class Rationale:
    """What [`generate_rationale`] gives.

    Args:
        embeddings (`torch.Tensor` of shape [B, D]): float32, unit norm, read at `<gen_emb>`.
        token_ids (`list[list[int]]`): What each row decoded, its last token `<gen_emb>`.
        finished (`torch.Tensor` of shape [B]): Whether the row came to `<gen_emb>` by itself.
    """

    embeddings: torch.Tensor
    token_ids: list[list[int]]
    finished: torch.Tensor


@dataclass
class Written:
    """What a [`RationaleEncoder`] has written so far.

    Attributes:
        num_rows: Rationales.
        num_tokens: Tokens of all of them, `<gen_emb>` included.
        num_cut: Rationales that were cut at the token limit: their vectors are read at a `<gen_emb>` put in there.
    """

    num_rows: int = 0
    num_tokens: int = 0
    num_cut: int = 0

    @property
    def mean_tokens(self) -> float:
        """Tokens of a rationale."""
        return self.num_tokens / max(1, self.num_rows)


class RationaleEncoder:
    """The model of an [`Encoder`], read behind a rationale that it writes, instead of behind latent steps.

    Args:
        encoder ([`Encoder`]): Its model, processor and device are used.
        max_new_tokens (`int`): Where a rationale is cut.

    Attributes:
        written ([`Written`]): What was written so far; `num_cut` tells how many vectors are not the model's own end.

    Raises:
        ValueError: a limit below 1.
    """

    def __init__(self, encoder: Encoder, max_new_tokens: int = MAX_NEW_TOKENS):
        if max_new_tokens < 1:
            raise ValueError(f"A rationale needs at least 1 token, got max_new_tokens = {max_new_tokens}.")
        self.encoder, self.max_new_tokens = encoder, max_new_tokens
        self.written = Written()

    def encode_readable(
        self, items: Iterable[Any], batch_size: int, token_budget: float = TOKEN_BUDGET
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Vectors [N, D], float32, unit norm; what cannot be embedded leaves a row of NaN and its reason, by its place.

        Args:
            items: As of [`Encoder.encode`].
            batch_size (`int`): Most items in a pass of the model.
            token_budget (`float`): Most tokens in a pass, those that may be written included.

        Raises:
            ValueError: none of the first rationales came to `<gen_emb>`: the model does not write any; or one item, one
                conversation or a table instead of a list.
        """
        rows = listed(items)
        vectors = np.full((len(rows), self.encoder.dimension), np.nan, dtype=np.float32)
        errors: dict[int, str] = {}
        sizes = [size + self.max_new_tokens for size in map(self.encoder.token_estimate, rows)]
        for places in plan_batches(sizes, token_budget, batch_size):
            try:
                vectors[places] = self._embed([rows[place] for place in places])
            except ValueError:
                for place in places:  # one of them is at fault: find it, and keep the others
                    try:
                        vectors[place] = self._embed([rows[place]])[0]
                    except ValueError as error:
                        errors[place] = without_place(error)
            self._check_that_it_writes(NUM_PROBED)
        self._check_that_it_writes(1)
        return vectors, errors

    def _embed(self, items: list[Any]) -> np.ndarray:
        rationales: list[Rationale] = []

        def write(batch: BatchFeature) -> torch.Tensor:
            rationales.append(generate_rationale(self.encoder.model, dict(batch), max_new_tokens=self.max_new_tokens))
            return rationales[0].embeddings

        vectors = self.encoder.vectors(self.encoder.process(items), write)
        rationale = rationales[0]
        self.written.num_rows += len(items)
        self.written.num_tokens += sum(map(len, rationale.token_ids))
        self.written.num_cut += int((~rationale.finished).sum())
        return vectors

    def _check_that_it_writes(self, at_least: int) -> None:
        written = self.written
        if written.num_rows >= at_least and written.num_cut == written.num_rows:
            raise ValueError(
                f"None of {written.num_rows} rationales came to the embedding token within {self.max_new_tokens} "
                "tokens: the model was not trained to write rationales. Use the paradigm latent or single, train it "
                "with the curriculum's stage 0, or allow more tokens."
            )


@torch.inference_mode()
def generate_rationale(
    model: PlumeModel,
    batch: dict[str, torch.Tensor],
    num_latent_steps: int = 0,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Rationale:
    """Decodes greedily behind `num_latent_steps` latent steps, all rows together.

    Args:
        batch: From PlumeProcessor.
        num_latent_steps (`int`): 0 for an explicit-CoT model; more for the middle stages of the curriculum.
        max_new_tokens (`int`): Where a row is cut: `<gen_emb>` is put in, and `finished` says so.

    Raises:
        ValueError: the config does not say which token is the embedding token.
    """
    if model.config.embedding_token_id is None:
        raise ValueError("The config lacks embedding_token_id; make the model with `plume-embed init` or `convert`.")
    prefix = model.prefix(**batch)
    z = [prefix.z0, *model.latents(prefix, num_latent_steps)[0]][-1]
    gen_id = model.config.embedding_token_id
    rows, states = [[] for _ in z], torch.zeros_like(z)
    done = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    finished = done.clone()
    for index in range(max_new_tokens):
        tokens = model.next_token_logits(z).argmax(dim=-1)  # [B]
        finished |= ~done & (tokens == gen_id)
        if index == max_new_tokens - 1:
            tokens = torch.full_like(tokens, gen_id)
        # A token behind the rollout is a suffix of one: the tokens before it count as steps that the cache holds.
        z = model.suffix(prefix, num_latent_steps + index, tokens.unsqueeze(1))[:, 0]  # [B, D]
        for row, token, was_done in zip(rows, tokens.tolist(), done.tolist(), strict=True):
            if not was_done:
                row.append(token)
        ends = ~done & (tokens == gen_id)  # [B]
        states = torch.where(ends.unsqueeze(1), z, states)
        done |= ends
        if done.all():
            break
    return Rationale(F.normalize(states.float(), dim=-1), rows, finished)
