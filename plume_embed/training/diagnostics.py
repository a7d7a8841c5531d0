"""What happens inside a rollout: how near each latent state is to the target, and which experts are used by what.

The paper's figures 5, 6 and 9 as numbers; `report.py` draws them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from plume_embed.encode.rationale import generate_rationale
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor

BATCH = 64


@dataclass(frozen=True)
class Sample:
    """A query with its positive target.

    Args:
        query, target: Items for PlumeProcessor.
        task (`str`): What kind of query it is.
    """

    query: Any
    target: Any
    task: str

    @property
    def input_type(self) -> str:
        """What the query is made of: "text", "image", "video", "text + image", "text + video" ..."""
        if isinstance(self.query, str):
            return "text"
        return " + ".join(kind for kind in ("text", "image", "video") if kind in self.query)


def evenly_spaced(length: int, count: int) -> list[int]:
    """Numbers of `count` rows of so many, or of all where there are fewer, at equal distances."""
    count = min(count, length)
    return [number * length // count for number in range(count)]


def _batches(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    return [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]


def _target_embeddings(
    model: PlumeModel, processor: PlumeProcessor, samples: Sequence[Sample], num_latent_steps: int
) -> torch.Tensor:
    batch = processor([sample.target for sample in samples]).to(model.device)
    return model(**batch, num_latent_steps=num_latent_steps).embeddings  # [B, D]


@torch.inference_mode()
def latent_cosines(
    model: PlumeModel, processor: PlumeProcessor, samples: Sequence[Sample], target_latent_steps: int
) -> torch.Tensor:
    """Cosine between the positive target and z(0), z(1) ... z(K), and last the embedding itself: [samples, K + 2].

    Args:
        model ([`PlumeModel`]): In eval mode, with K >= 1.
        target_latent_steps (`int`): 0 where the model was trained with targets in a single pass.
    """
    if model.config.num_latent_steps < 1:
        raise ValueError("A single pass has no latent states; use a model with num_latent_steps >= 1.")
    rows = []
    for chunk in _batches(samples):
        targets = _target_embeddings(model, processor, chunk, target_latent_steps)
        batch = processor([sample.query for sample in chunk]).to(model.device)
        output = model(**batch, output_latent_states=True)
        z0 = model(**batch, num_latent_steps=0).embeddings.unsqueeze(1)  # [B, 1, D]
        latent = F.normalize(output.latent_states.float(), dim=-1)  # [B, K, D]
        states = torch.cat((z0, latent, output.embeddings.unsqueeze(1)), dim=1)  # [B, K + 2, D]
        rows.append(torch.einsum("bkd,bd->bk", states, targets).cpu())
    return torch.cat(rows)


@torch.inference_mode()
def explicit_cosines(
    model: PlumeModel, processor: PlumeProcessor, samples: Sequence[Sample], target_writes: bool, points: int = 32
) -> torch.Tensor:
    """The same along a greedy chain of thought: [samples, points], the states from the last prefix token to `<gen_emb>`
    read at `points` places at equal distances, because rationales differ in length.

    Args:
        model ([`PlumeModel`]): Of stage 0, in eval mode.
        target_writes (`bool`): Whether the model was trained with targets behind their rationale, as queries are, so
            that they are read there; else in a single pass.
    """
    rows = []
    for chunk in _batches(samples):
        if target_writes:
            batch = processor([sample.target for sample in chunk]).to(model.device)
            targets = generate_rationale(model, dict(batch)).embeddings  # [B, D]
        else:
            targets = _target_embeddings(model, processor, chunk, 0)
        batch = processor([sample.query for sample in chunk]).to(model.device)
        written = generate_rationale(model, dict(batch)).token_ids
        ids = [torch.tensor(tokens, device=model.device) for tokens in written]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=processor.tokenizer.pad_token_id)
        prefix = model.prefix(**batch)
        hidden = torch.cat((prefix.z0.unsqueeze(1), model.suffix(prefix, 0, padded)), dim=1)  # [B, 1 + S, D]
        cosines = torch.einsum("bsd,bd->bs", F.normalize(hidden.float(), dim=-1), targets)  # [B, 1 + S]
        last = torch.tensor([len(tokens) for tokens in written], device=model.device).unsqueeze(1)  # [B, 1]
        places = (torch.linspace(0, 1, points, device=model.device) * last).round().long()  # [B, points]
        rows.append(cosines.gather(1, places).cpu())
    return torch.cat(rows)


@torch.inference_mode()
def expert_activation(
    model: PlumeModel, processor: PlumeProcessor, samples: Sequence[Sample]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Share of latent steps in which each routed expert is among the top Kr, by task and by input type.

    Args:
        model ([`PlumeModel`]): In eval mode, with a router.

    Returns:
        Two dictionaries, each with Me shares per name, which add up to Kr.
    """
    if model.config.adapter_type != "moe" or model.config.num_latent_steps < 1:
        raise ValueError('Only a rollout with adapter_type="moe" has experts to choose from.')
    by_task, by_input = defaultdict(list), defaultdict(list)
    for chunk in _batches(samples):
        batch = processor([sample.query for sample in chunk]).to(model.device)
        probs = model(**batch, output_router_probs=True).router_probs  # [B, K, Me]
        top = probs.topk(model.config.num_experts_per_tok, dim=-1).indices
        active = torch.zeros_like(probs).scatter(-1, top, 1.0).mean(dim=1).cpu()  # [B, Me]
        for sample, row in zip(chunk, active, strict=True):
            by_task[sample.task].append(row)
            by_input[sample.input_type].append(row)
    return _means(by_task), _means(by_input)


def _means(groups: dict[str, list[torch.Tensor]]) -> dict[str, list[float]]:
    return {name: torch.stack(rows).mean(dim=0).tolist() for name, rows in groups.items()}
