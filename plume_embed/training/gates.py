"""Early gates: warnings, while a run is young, that its curriculum is not going to work.

A stage builds on the one before it. Where that has not been learnt, the rest of the run is lost, and the last stage
shows it only at the end.
"""

from collections import deque
from dataclasses import dataclass

import torch

from plume_embed.training.curriculum import Curriculum

WINDOW = 10  # steps whose mean is compared with a threshold


@dataclass(frozen=True)
class GateSettings:
    """Thresholds; `None` is no gate.

    Args:
        explicit_hit_at_1 (`float`, *optional*): Hit@1 of greedy chain of thought that stage 0 must end with. For tasks
            that can evaluate it.
        explicit_queries (`int`): On how many queries.
        suffix_ce (`float`, *optional*): Suffix cross-entropy below which each middle stage must end.
        gen_nce (`float`, *optional*): Generative InfoNCE that the last stage must have been below once ...
        gen_nce_steps (`int`): ... within so many steps.
    """

    explicit_hit_at_1: float | None = None
    explicit_queries: int = 256
    suffix_ce: float | None = None
    gen_nce: float | None = None
    gen_nce_steps: int = 90


class Gates:
    """Watches a run, step by step.

    Args:
        settings ([`GateSettings`]): Thresholds.
        curriculum ([`Curriculum`]): Of the run.
    """

    def __init__(self, settings: GateSettings, curriculum: Curriculum):
        self.settings, self.curriculum = settings, curriculum
        self._values: dict[str, deque] = {}
        self._stage: int | None = None
        self._lowest_gen = float("inf")
        self._saw_stage_begin = False

    def wants_explicit(self, step: int) -> bool:
        """Whether greedy chain of thought is to be evaluated in front of this step: stage 0 has just ended."""
        curriculum = self.curriculum
        ends = curriculum.stage_ends()
        is_first_end = curriculum.stages[0] == 0 and len(ends) > 1 and step == ends[0]
        writes = curriculum.num_latent_steps > 0  # else the embedding is read in front of the text
        return is_first_end and writes and self.settings.explicit_hit_at_1 is not None

    def explicit(self, step: int, hit_at_1: float) -> list[str]:
        """What is wrong with this Hit@1 in front of `step`."""
        limit = self.settings.explicit_hit_at_1
        if limit is None or hit_at_1 > limit:
            return []
        return [
            f"stage 0 ended at step {step} with {100 * hit_at_1:.1f} % Hit@1 in explicit chain of thought, not above "
            f"{100 * limit:g} %; give it more steps."
        ]

    def after(self, step: int, terms: dict[str, torch.Tensor]) -> list[str]:
        """What is wrong behind `step`, given the terms of its loss by name."""
        state = self.curriculum.at(step)
        if state.stage != self._stage:
            self._stage, self._values, self._lowest_gen = state.stage, {}, float("inf")
            self._saw_stage_begin = state.stage_step == 0  # not in a run that goes on within the stage
        for name, value in terms.items():
            self._values.setdefault(name, deque(maxlen=WINDOW)).append(value)
        is_stage_end = state.stage_step == state.stage_length - 1
        if state.stage < self.curriculum.num_segments:
            return self._suffix_gate(step, state.stage) if is_stage_end and state.stage > 0 else []
        return self._gen_gate(step, state.stage_step, state.stage_length)

    def _suffix_gate(self, step: int, stage: int) -> list[str]:
        limit = self.settings.suffix_ce
        if limit is None or "ce" not in self._values or self._mean("ce") < limit:
            return []
        return [
            f"stage {stage} ended at step {step + 1} with a suffix cross-entropy of {self._mean('ce'):.3f}, not below "
            f"{limit:g}: what its latent steps replace has not been learnt."
        ]

    def _gen_gate(self, step: int, stage_step: int, stage_length: int) -> list[str]:
        limit, last = self.settings.gen_nce, min(self.settings.gen_nce_steps, stage_length) - 1
        if limit is None or "nce_gen" not in self._values or stage_step > last:
            return []
        if stage_step >= WINDOW - 1 or stage_step == last:
            self._lowest_gen = min(self._lowest_gen, self._mean("nce_gen"))
        if stage_step < last or self._lowest_gen < limit or not self._saw_stage_begin:
            return []
        carrier = "the rollout" if self.curriculum.num_latent_steps else "the single pass"
        return [
            f"generative InfoNCE has not been below {limit:g} in the first {last + 1} steps of the last stage (lowest "
            f"{self._lowest_gen:.2f} at step {step + 1}): {carrier} does not carry the answer."
        ]

    def _mean(self, name: str) -> float:
        return torch.stack(list(self._values[name])).mean().item()
