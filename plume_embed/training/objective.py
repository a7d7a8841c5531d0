"""One side of a training batch through prefix -> latent steps -> suffix, and what the losses need of it.

Rows of different lengths run together: prefixes are padded on the left, suffixes on the right. A padded suffix position
comes after every position that counts, so under causal attention it changes none of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from plume_embed.model.modeling_plume import PlumeModel, PlumePrefix
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.training.efficiency.sharded import missing_media
from plume_embed.training.latents.branches import behind
from plume_embed.training.latents.traces import Trace, decoding_losses, distillation_losses, explicit_states


@dataclass
class SideBatch:
    """Rows of one side, ready for the model.

    Args:
        prefix (`dict`): From PlumeProcessor: `input_ids`, `attention_mask` [B, L], `position_ids` [B, 3, L], media.
        suffix_ids (`torch.Tensor` of shape [B, S], *optional*): Tokens behind the rollout, padded on the right, each
            row's last one the embedding token. `None` is a single pass: no rollout, the embedding is read at the last
            prefix token.
        suffix_lengths (`torch.Tensor` of shape [B], *optional*): Tokens of each suffix without padding.
        reads_prefix (`bool`): Whether the embedding is read at the last prefix token although there is a suffix, which
            is then supervised text and nothing else.
        trace ([`Trace`], *optional*): The written rationales that latent steps are held to.
    """

    prefix: dict[str, torch.Tensor]
    suffix_ids: torch.Tensor | None = None
    suffix_lengths: torch.Tensor | None = None
    reads_prefix: bool = False
    trace: Trace | None = None

    def __len__(self) -> int:
        return len(self.prefix["input_ids"])

    def to(self, device: torch.device | str) -> "SideBatch":
        """The same rows on another device."""
        moved = [None if t is None else t.to(device) for t in (self.suffix_ids, self.suffix_lengths)]
        prefix = {name: tensor.to(device) for name, tensor in self.prefix.items()}
        return SideBatch(prefix, *moved, self.reads_prefix, None if self.trace is None else self.trace.to(device))

    @property
    def supervised_tokens(self) -> torch.Tensor:
        """How many tokens of each row [B] have a share in `token_losses`; none in a single pass."""
        if self.suffix_lengths is None:
            return self.prefix["input_ids"].new_zeros(len(self))
        has_second = self.trace is not None and self.trace.is_text
        return self.suffix_lengths + self.trace.lengths if has_second else self.suffix_lengths


@dataclass
class SideOutput:
    """What a side contributes to the losses. Everything is per row, so that chunks of a batch can be joined.

    Args:
        gen (`torch.Tensor` of shape [B, D]): e_gen, float32, unit norm.
        anchor (`torch.Tensor` of shape [B, D]): e_anc, float32, unit norm.
        token_losses (`torch.Tensor` of shape [B]): Summed next-token losses of each row's suffix, float32; zero in a
            single pass.
        router_probs (`torch.Tensor` of shape [B, K, Me], *optional*): Routing probabilities; `None` without a router.
        early (`torch.Tensor` of shape [B, R, D], *optional*): e_gen after R smaller numbers of steps; `None` without.
        distil (`torch.Tensor` of shape [B], *optional*): Distances from the explicit trace, float32.
        decode (`torch.Tensor` of shape [B], *optional*): Losses of reading the rationale from the steps, float32.
    """

    gen: torch.Tensor
    anchor: torch.Tensor
    token_losses: torch.Tensor
    router_probs: torch.Tensor | None
    early: torch.Tensor | None = None
    distil: torch.Tensor | None = None
    decode: torch.Tensor | None = None

    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """All of them, in the order of the arguments."""
        return tuple(vars(self).values())


def make_side(
    processor: PlumeProcessor, items: Sequence, suffixes: Sequence[str] | None, reads_prefix: bool = False
) -> SideBatch:
    """Items and the texts behind their rollouts -> a batch.

    Args:
        items: Inputs for PlumeProcessor.
        suffixes (`Sequence[str]`, *optional*): From [`curriculum.suffix_text`]; `None` is a single pass.
        reads_prefix (`bool`): As in [`SideBatch`].

    Raises:
        ValueError: a suffix that does not end in its only embedding token.
    """
    return with_suffixes(processor, dict(processor(list(items))), suffixes, reads_prefix)


def with_suffixes(
    processor: PlumeProcessor,
    prefix: dict[str, torch.Tensor],
    suffixes: Sequence[str] | None,
    reads_prefix: bool = False,
) -> SideBatch:
    """[`make_side`] for a prefix that the processor has made before."""
    if suffixes is None:
        return SideBatch(prefix)
    gen_id = processor.special_token_ids()["embedding_token_id"]
    rows = [torch.tensor(processor.tokenizer.encode(suffix, add_special_tokens=False)) for suffix in suffixes]
    for suffix, row in zip(suffixes, rows, strict=True):
        if row[-1] != gen_id or (row == gen_id).sum() != 1:
            raise ValueError(f"A suffix must end in its only <gen_emb>, got {suffix[-80:]!r}.")
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=processor.tokenizer.pad_token_id)
    return SideBatch(prefix, ids, torch.tensor([len(row) for row in rows]), reads_prefix)


def run_side(model: PlumeModel, side: SideBatch, num_latent_steps: int, early_steps: Sequence[int] = ()) -> SideOutput:
    """Prefix, `num_latent_steps` latent steps and suffix of one side, with gradients.

    Args:
        model ([`PlumeModel`]): Any `position_mode`; `"released_training"` gives the released trainer's values.
        side ([`SideBatch`]): The rows.
        num_latent_steps (`int`): Ignored in a single pass (a side without suffixes).
        early_steps (`Sequence[int]`): Smaller numbers of steps of the same rollout, behind which the suffix is read as
            well; 0 is the last prefix token, as in a single pass.
    """
    prefix = model.prefix(**side.prefix)
    anchor = F.normalize(prefix.anchor.float(), dim=-1)  # [B, D]
    if side.suffix_ids is None:
        no_loss = anchor.new_zeros(len(anchor))
        return SideOutput(F.normalize(prefix.z0.float(), dim=-1), anchor, no_loss, None)
    latents, router_probs = model.latents(prefix, num_latent_steps)
    early = [_read_after(model, prefix, side, steps) for steps in early_steps]
    trace = side.trace if latents else None
    distils = trace is not None and trace.losses.distils
    explicit = explicit_states(model, prefix, trace) if distils else None  # [B, T, D]
    hidden = model.suffix(prefix, num_latent_steps, side.suffix_ids)  # [B, S, D]
    rows = torch.arange(len(hidden), device=hidden.device)
    gen = prefix.z0 if side.reads_prefix else hidden[rows, side.suffix_lengths - 1]  # [B, D]
    # Each suffix token is predicted from the state before it, the first one from z(K); latents carry no label.
    last = latents[-1] if latents else prefix.z0
    states = torch.cat((last.unsqueeze(1), hidden[:, :-1]), dim=1)  # [B, S, D]
    token_losses = suffix_token_losses(model, states, side.suffix_ids, side.suffix_lengths)
    if explicit is not None and trace.is_text:  # the explicit trace stays a skill
        states = torch.cat((prefix.z0.unsqueeze(1), explicit[:, :-1]), dim=1)
        token_losses = token_losses + suffix_token_losses(model, states, trace.token_ids, trace.lengths)
    has_router = num_latent_steps > 0 and model.config.adapter_type == "moe"
    return SideOutput(
        gen=F.normalize(gen.float(), dim=-1),
        anchor=anchor,
        token_losses=token_losses,
        router_probs=torch.stack(router_probs, dim=1) if has_router else None,
        early=torch.stack(early, dim=1) if early else None,
        distil=None if explicit is None else distillation_losses(latents, gen, explicit, trace),
        decode=decoding_losses(model, latents, trace) if trace is not None and trace.losses.decodes else None,
    )


def _read_after(model: PlumeModel, prefix: PlumePrefix, side: SideBatch, num_latent_steps: int) -> torch.Tensor:
    """e_gen [B, D] after fewer steps than the cache holds, as a call with that K gives it."""
    if num_latent_steps == 0:
        return F.normalize(prefix.z0.float(), dim=-1)
    hidden = model.suffix(behind(prefix, num_latent_steps), num_latent_steps, side.suffix_ids)  # [B, S, D]
    rows = torch.arange(len(hidden), device=hidden.device)
    return F.normalize(hidden[rows, side.suffix_lengths - 1].float(), dim=-1)


def suffix_token_losses(
    model: PlumeModel, states: torch.Tensor, token_ids: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Summed next-token losses of each row's suffix, [B] float32; logits are made for the tokens that count only.

    Args:
        states (`torch.Tensor` of shape [B, S, D]): The state that predicts each token.
        token_ids (`torch.Tensor` of shape [B, S]), lengths (`torch.Tensor` of shape [B]): As in [`SideBatch`].
    """
    counts = torch.arange(token_ids.shape[1], device=token_ids.device) < lengths.unsqueeze(1)  # [B, S]
    logits = model.next_token_logits(states[counts])  # [N, V]
    losses = F.cross_entropy(logits.float(), token_ids[counts], reduction="none")  # [N]
    row = counts.nonzero()[:, 0]  # [N]
    return losses.new_zeros(len(token_ids)).index_add(0, row, losses)


class PlumeForTraining(nn.Module):
    """What DDP and FSDP wrap: several batches through the model in one forward call.

    Args:
        model ([`PlumeModel`] or a `PeftModel` over one): The model to train.

    Attributes:
        calls_everything (`bool`): Run the vision tower equally often whatever a side holds (`sharded.py`).
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.calls_everything = False  # PlumeTrainer sets it where weights are sharded
        self._no_split_modules = sorted(self.plume._no_split_modules)  # what FSDP shards one by one, unless told

    @property
    def plume(self) -> PlumeModel:
        """The model itself, under whatever adapters peft has put into it."""
        return self.model if isinstance(self.model, PlumeModel) else self.model.get_base_model()

    def forward(
        self, sides: list[SideBatch], num_latent_steps: int, early_steps: Sequence[int] = ()
    ) -> list[SideOutput]:
        """[`run_side`] for each."""
        outputs = []
        for side in sides:
            nothing = missing_media(self.plume, side.prefix) if self.calls_everything else None
            output = run_side(self.plume, side, num_latent_steps, early_steps)
            outputs.append(output if nothing is None else replace(output, gen=output.gen + nothing))
        return outputs
