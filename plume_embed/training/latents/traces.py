"""What each latent step stands for: the written rationale beside a rollout, and two losses that hold steps to it.

The text that all steps together replace is dealt anew over them, in as many parts as there are steps: a part may lie
outside the segment that the curriculum replaced with its step. Then

    distillation   z(k) comes near to the state that the model itself has where it has read part k of the data's
                   rationale, and the embedding to that at its end (the idea of CODI, arXiv 2502.21074, at every step)
    decoding       part k is to be read from z(k) alone, by the model's own language model with nothing else before it
                   (the step supervision of SIM-CoT, arXiv 2509.20317, without a decoder of its own)

Both are of training only and change nothing in the model's own path.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache

from plume_embed.model.modeling_plume import PlumeModel, PlumePrefix
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.training.curriculum import Curriculum, CurriculumState, TraceText
from plume_embed.training.latents.branches import behind


@dataclass(frozen=True)
class TraceLosses:
    """What is asked of a trace.

    Args:
        distils, decodes (`bool`): Which losses.
        rehearses (`bool`): Where it distils, whether its tokens are trained as text as well.
        distil_to (`str`): What distillation holds to states: "all", the "steps" or the "embedding" alone.
    """

    distils: bool
    decodes: bool
    rehearses: bool = True
    distil_to: Literal["all", "steps", "embedding"] = "all"


@dataclass
class Trace:
    """The explicit traces of a batch.

    Args:
        token_ids (`torch.Tensor` of shape [B, T]): Of the suffixes, padded on the right.
        lengths (`torch.Tensor` of shape [B]): Tokens of each, without padding.
        spans (`torch.Tensor` of shape [B, K, 2]): Place of each part's first token, and the place behind its last one.
        losses ([`TraceLosses`]): What is asked of them.
    """

    token_ids: torch.Tensor
    lengths: torch.Tensor
    spans: torch.Tensor
    losses: TraceLosses

    def to(self, device: torch.device | str) -> "Trace":
        """The same traces on another device."""
        tensors = [tensor.to(device) for tensor in (self.token_ids, self.lengths, self.spans)]
        return Trace(*tensors, losses=self.losses)

    @property
    def is_text(self) -> bool:
        """Whether its tokens have a share in the cross-entropy."""
        return self.losses.distils and self.losses.rehearses


def make_trace(processor: PlumeProcessor, texts: Sequence[TraceText], losses: TraceLosses) -> Trace:
    """Tokens of the traces, and where each part lies in them.

    Raises:
        ValueError: the tokenizer cannot say which characters a token stands for.
    """
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for; loss.distil and loss.decode "
            "need a fast tokenizer."
        )
    rows, spans = [], []
    for text in texts:
        encoded = tokenizer(text.suffix, add_special_tokens=False, return_offsets_mapping=True)
        rows.append(torch.tensor(encoded["input_ids"]))
        spans.append(_spans(text, [start for start, _ in encoded["offset_mapping"]]))
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    return Trace(ids, torch.tensor([len(row) for row in rows]), torch.tensor(spans), losses)


def traces_of(
    processor: PlumeProcessor,
    curriculum: Curriculum,
    state: CurriculumState,
    rationales: Sequence[str],
    losses: TraceLosses,
) -> Trace | None:
    """Traces of one side of a batch; `None` where neither loss is asked for or the state has no latent step."""
    if not (losses.distils or losses.decodes) or state.num_latent_steps == 0:
        return None
    return make_trace(processor, [curriculum.trace(each, state) for each in rationales], losses)


def _spans(text: TraceText, starts: Sequence[int]) -> list[tuple[int, int]]:
    """A token belongs to the part that it begins in. `starts` has the first character of each token."""
    ends = [text.start + length for length in accumulate(map(len, text.parts), initial=0)]
    places = [bisect_left(starts, end) for end in ends]
    return list(pairwise(places))


def explicit_states(model: PlumeModel, prefix: PlumePrefix, trace: Trace) -> torch.Tensor:
    """States [B, T, D] of the model where it reads its own rationale behind the prefix, without latent steps."""
    return model.suffix(behind(prefix, 0), 0, trace.token_ids)


def distillation_losses(
    latents: Sequence[torch.Tensor], gen: torch.Tensor, states: torch.Tensor, trace: Trace
) -> torch.Tensor:
    """Distance of a rollout from the explicit trace, [B] float32: the mean over what is held of its steps and its
    embedding state; 0 where nothing is.

    A step is held to the last token of its part. A distance is the smooth L1 between two states, in units of the root
    mean square of the explicit one, which gets no gradient.

    Args:
        latents (`Sequence[torch.Tensor]`): z(1) to z(K), each [B, D].
        gen (`torch.Tensor` of shape [B, D]): The state at the embedding token.
        states (`torch.Tensor` of shape [B, T, D]): From [`explicit_states`].
    """
    starts, ends = trace.spans.unbind(dim=-1)  # [B, K] each
    places = torch.cat((ends - 1, (trace.lengths - 1).unsqueeze(1)), dim=1)  # [B, K + 1]
    holds_steps, holds_embedding = (trace.losses.distil_to in ("all", name) for name in ("steps", "embedding"))
    embedding = torch.full_like(ends[:, :1], holds_embedding, dtype=torch.bool)
    counts = torch.cat(((ends > starts) & holds_steps, embedding), dim=1)
    rows = torch.arange(len(states), device=states.device).unsqueeze(1)  # [B, 1]
    explicit = states[rows, places.clamp_min(0)].detach().float()  # [B, K + 1, D]
    own = torch.stack((*latents, gen), dim=1).float()  # [B, K + 1, D]
    unit = explicit.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-6)
    distances = F.smooth_l1_loss(own / unit, explicit / unit, reduction="none").mean(dim=-1)  # [B, K + 1]
    return (distances * counts).sum(dim=1) / counts.sum(dim=1).clamp_min(1)


def decoding_losses(model: PlumeModel, latents: Sequence[torch.Tensor], trace: Trace) -> torch.Tensor:
    """Cross-entropy of each part read from its own step alone, [B] float32: the mean over a row's tokens.

    Args:
        latents (`Sequence[torch.Tensor]`): z(1) to z(K), each [B, D].
    """
    starts, ends = trace.spans.unbind(dim=-1)  # [B, K] each
    sizes = ends - starts
    nothing = latents[0].new_zeros(len(sizes), dtype=torch.float32)
    has_text = bool(sizes.any())
    if not has_text:  # one token that does not count: of several processes each has to run the same modules
        sizes = torch.zeros_like(sizes)
        sizes[0, 0] = 1
    row, step = sizes.nonzero(as_tuple=True)  # of the N parts that are not empty
    within = torch.arange(int(sizes.max()), device=sizes.device)  # [n]
    counts = within < sizes[row, step].unsqueeze(1)  # [N, n]
    places = (starts[row, step].unsqueeze(1) + within).clamp_max(trace.token_ids.shape[1] - 1)
    tokens = trace.token_ids[row.unsqueeze(1), places]  # [N, n]
    z = torch.stack(list(latents), dim=1)[row, step]  # [N, D]
    embeds = torch.cat((z.unsqueeze(1), model.get_input_embeddings()(tokens[:, :-1]).to(z.dtype)), dim=1)  # [N, n, D]
    hidden = model.extend(_nothing_before(model, z), embeds, within.expand(len(row), 3, -1), num_cached_steps=0)
    losses = F.cross_entropy(model.next_token_logits(hidden[counts]).float(), tokens[counts], reduction="none")
    of_row = row.unsqueeze(1).expand_as(counts)[counts]
    return has_text * nothing.index_add(0, of_row, losses) / sizes.sum(dim=1).clamp_min(1)


def _nothing_before(model: PlumeModel, z: torch.Tensor) -> PlumePrefix:
    """A prefix of no token."""
    none = torch.zeros(len(z), 0, dtype=torch.long, device=z.device)
    start, length = none.new_zeros(len(z), 3), none.new_zeros(len(z))
    return PlumePrefix(DynamicCache(config=model.config.get_text_config()), none, start, length, z, z)
