"""The curriculum from explicit to latent reasoning: segments, stages, suffixes (paper, section 3; shared terms there).

The rationale is cut into segments. At stage s of S the first s segments are replaced, left to right, by K s / S latent
steps; what is left of the rationale stays as supervised text behind them. Everything here is a pure function of the
text, of the settings and of the step, so that a run that was killed goes on exactly where it was.
"""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from plume_embed.model.prompt_plume import EMBEDDING_TOKEN, LATENT_END_TOKEN, PLUME_TOKENS

# A sentence ends at a full stop and the like before white space, at once after the CJK ones, or at a line end; quotes
# and brackets that close after it belong to it, and so does the white space.
_SENTENCE = re.compile(
    r".+?(?:[.!?…]+[\"'”’)\]]*(?=\s|\Z)|[。！？；｡]+[”’」』）】\"']*|[\n\r]|\Z)\s*",
    re.DOTALL,
)
_CONTROL = re.compile("|".join(map(re.escape, PLUME_TOKENS)) + r"|<\|[a-z_]+\|>|</?think>|</?answer>")
_ASSISTANT = re.compile(
    r"\s*<think>(?P<rationale>.*?)</think>\s*(?:<answer>(?P<answer>.*?)(?:</answer>\s*|\Z))?\Z", re.DOTALL
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each with the white space after it: joined, they are the text."""
    return _SENTENCE.findall(text)


def split_segments(rationale: str, num_segments: int, latents: Sequence[int] | None = None) -> list[str]:
    """Cuts a rationale into `num_segments` runs of nearly equally many sentences; the longer runs come first.

    With fewer sentences than segments it is cut into runs of nearly equally many characters instead, which may be
    empty. Joined, the segments are the rationale without the white space around it.

    Args:
        latents (`Sequence[int]`, *optional*): The latent steps that replace each segment. Then a segment is as long as
            its share of them, so that none has to fit into fewer steps than another of its length.
    """
    units = split_sentences(rationale.strip())
    if len(units) < num_segments:
        units = list(rationale.strip())
    if latents is None:
        size, larger = divmod(len(units), num_segments)
        ends = [size * (i + 1) + min(i + 1, larger) for i in range(num_segments)]
    else:
        ends = [-(-len(units) * done // sum(latents)) for done in accumulate(latents)]
    return ["".join(units[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def parse_assistant_turn(value: str) -> tuple[str, str | None]:
    """`<think>rationale</think><answer>summary</answer>` -> rationale and answer.

    The answer may be absent (`None`) or not closed; the embedding token that the published data carry behind it is
    dropped.

    Raises:
        ValueError: another form, or control tokens inside.
    """
    match = _ASSISTANT.match(value.replace(EMBEDDING_TOKEN, ""))
    if match is None:
        raise ValueError(
            "The assistant turn must read <think>...</think> or <think>...</think><answer>...</answer>, got "
            f"{value[:80]!r}."
        )
    rationale, answer = match["rationale"].strip(), match["answer"]
    control = _CONTROL.search(rationale + (answer or ""))
    if control:
        raise ValueError(f"The control token {control[0]!r} stands inside the rationale or the answer; remove it.")
    return rationale, answer.strip() if answer is not None and answer.strip() else None


LatentEnd = Literal["after_latents", "after_rationale"]


def suffix_text(remaining: str, answer: str | None, latent_end: LatentEnd) -> str:
    """The text behind the rollout, up to and including `<gen_emb>`.

    Args:
        remaining (`str`): What is left of the rationale, "" in the last stage.
        answer (`str`, *optional*): Kept in front of `<gen_emb>` where given.
        latent_end (`str`): Where the end token of the latents stands: between them and the rest of the rationale (the
            paper's placement), or behind that rest. Without a rest both are the same.
    """
    parts = (LATENT_END_TOKEN, remaining) if latent_end == "after_latents" else (remaining, LATENT_END_TOKEN)
    kept_answer = f"<answer>{answer}</answer>\n" if answer is not None else ""
    return f"{''.join(parts)}</think>\n{kept_answer}{EMBEDDING_TOKEN}"


@dataclass(frozen=True)
class CurriculumState:
    """Where a training step stands.

    Args:
        stage (`int`): s, 0 to `num_segments`.
        num_latent_steps (`int`): Latent steps of this stage.
        keeps_answer (`bool`): Whether the answer stays in the suffix.
        stage_step, stage_length (`int`): Steps done in this stage, and all its steps.
        learning_rate (`float`): Of this step.
        early_steps (`tuple[int]`): Smaller numbers of steps of the same rollout, ascending, behind which the embedding
            is read and trained as well.
    """

    stage: int
    num_latent_steps: int
    keeps_answer: bool
    stage_step: int
    stage_length: int
    learning_rate: float
    early_steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class TraceText:
    """The explicit trace of one item.

    Args:
        suffix (`str`): As in stage 0: the whole rationale, up to and including the embedding token.
        start (`int`): Where the rationale begins in it, in characters.
        parts (`tuple[str]`): The replaced text, dealt anew over all latent steps of a state in order, from the
            rationale's beginning on; may be "". Where segments differ in length, a step's part may lie outside the
            segment that the curriculum replaced with it.
    """

    suffix: str
    start: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Curriculum:
    """The stage schedule, a function of the step.

    Args:
        max_steps (`int`): Optimiser steps of the whole run.
        num_latent_steps (`int`): K, the latent steps of the last stage. 0 is a single pass, without any stage.
        stages (`tuple[int]`): The stages to go through, ascending. (0, 4) is the paper's "without curriculum".
        shares (`tuple[float]`): Share of the steps of every stage 0 to `num_segments`, on any scale. What a stage left
            out would have had goes to the last one.
        num_segments (`int`): S, into how many segments the rationale is cut; the last stage has this number.
        latent_end (`str`): See [`suffix_text`].
        answer_share (`float`): Share of the last stage, from its beginning, that keeps the answer in the suffix.
        learning_rates (`tuple[float]`): Peak of every stage 0 to `num_segments`.
        warmup (`float`): Of every stage: a number of steps, or below 1 a share of the stage; at most five sixths of it.
        decay (`str`): "linear" or "cosine", to zero at the end of the run.
        decay_share (`float`): Share of the run, at its end, that decays; 1 is all of it.
        single_pass_text (`bool`): With `num_latent_steps` = 0: whether what is left of the rationale at each stage
            stays as supervised text behind the prefix. The embedding is read at the last prefix token in any case;
            with the text this is the paper's "without latent transition", without it plain single pass.
        dealing (`str`): How a rationale is cut into segments: "equal", nearly equally long (paper), or "by_latents",
            each as long as its share of the latent steps, for a K that is no multiple of S.
        anytime_steps (`tuple[int]`): Numbers of latent steps below K that the model is to serve as well: in the last
            stage the contrastive loss is also read behind some of them, drawn anew for each step; (): K alone.
        anytime_reads (`int`): Of how many of them a step.
    """

    max_steps: int
    num_latent_steps: int = 8
    stages: tuple[int, ...] = (0, 1, 2, 3, 4)
    shares: tuple[float, ...] = (9.0, 1.0, 1.0, 1.0, 3.0)
    num_segments: int = 4
    latent_end: LatentEnd = "after_latents"
    answer_share: float = 0.5
    learning_rates: tuple[float, ...] = (5e-5, 5e-5, 5e-5, 5e-5, 5e-5)
    warmup: float = 0.03
    decay: Literal["linear", "cosine"] = "cosine"
    decay_share: float = 1.0
    single_pass_text: bool = False
    dealing: Literal["equal", "by_latents"] = "equal"
    anytime_steps: tuple[int, ...] = ()
    anytime_reads: int = 2

    def __post_init__(self) -> None:
        numbers = self.num_segments + 1
        if not self.stages or list(self.stages) != sorted(set(self.stages)) or self.stages[0] < 0:
            raise ValueError(f"curriculum.stages must ascend from 0, e.g. [0,1,2,3,4], got {list(self.stages)}.")
        if self.stages[-1] > self.num_segments:
            raise ValueError(f"curriculum.stages must lie in 0..num_segments={self.num_segments}: {list(self.stages)}.")
        if len(self.shares) != numbers or len(self.learning_rates) != numbers:
            raise ValueError(
                f"curriculum.shares and curriculum.learning_rates need one value for each stage 0..{self.num_segments},"
                f" got {len(self.shares)} and {len(self.learning_rates)}."
            )
        if self.latent_end not in ("after_latents", "after_rationale"):
            raise ValueError(f"curriculum.latent_end is after_latents or after_rationale, got {self.latent_end!r}.")
        if self.decay not in ("linear", "cosine"):
            raise ValueError(f"curriculum.decay is linear or cosine, got {self.decay!r}.")
        if self.single_pass_text and self.num_latent_steps > 0:
            raise ValueError("curriculum.single_pass_text is for curriculum.num_latent_steps=0.")
        if self.dealing not in ("equal", "by_latents"):
            raise ValueError(f"curriculum.dealing is equal or by_latents, got {self.dealing!r}.")
        if self.dealing == "by_latents" and self.num_latent_steps < 1:
            raise ValueError("curriculum.dealing=by_latents is for curriculum.num_latent_steps >= 1.")
        wrong = [steps for steps in self.anytime_steps if not 0 <= steps < self.num_latent_steps]
        if wrong or len(set(self.anytime_steps)) < len(self.anytime_steps):
            raise ValueError(
                f"curriculum.anytime_steps must differ and lie in 0..{self.num_latent_steps - 1}, below "
                f"num_latent_steps, which is trained in any case; got {list(self.anytime_steps)}."
            )
        if self.anytime_steps and not 1 <= self.anytime_reads <= len(self.anytime_steps):
            raise ValueError(
                f"curriculum.anytime_reads must lie in 1..{len(self.anytime_steps)}, got {self.anytime_reads}."
            )
        if self.anytime_steps and self.stages[-1] != self.num_segments:
            raise ValueError(
                f"curriculum.anytime_steps are trained in the last stage, {self.num_segments}, which "
                f"curriculum.stages={list(self.stages)} does not come to; add it, or set anytime_steps to []."
            )
        if self.max_steps < len(self.stages):
            raise ValueError(f"max_steps={self.max_steps} is less than one step for each of {len(self.stages)} stages.")

    @property
    def has_suffix(self) -> bool:
        """Whether there is text behind the prefix, supervised."""
        return self.num_latent_steps > 0 or self.single_pass_text

    def stage_ends(self) -> list[int]:
        """The step at which each of `stages` ends; every stage has at least one step, the last one ends the run."""
        lost = sum(share for stage, share in enumerate(self.shares) if stage not in self.stages)
        shares = [self.shares[stage] for stage in self.stages]
        shares[-1] += lost
        total, done, ends = sum(shares), 0.0, []
        for index, share in enumerate(shares):
            done += share
            end = max(round(self.max_steps * done / total), (ends[-1] if ends else 0) + 1)
            ends.append(min(end, self.max_steps - (len(shares) - 1 - index)))
        return ends

    def latent_steps(self, stage: int) -> int:
        """K s / S, rounded down."""
        return self.num_latent_steps * stage // self.num_segments

    def at(self, step: int) -> CurriculumState:
        """The state of step 0 to `max_steps` - 1."""
        if not 0 <= step < self.max_steps:
            raise ValueError(f"Step {step} is outside the run of {self.max_steps} steps.")
        ends = self.stage_ends()
        index = next(i for i, end in enumerate(ends) if step < end)
        start = ends[index - 1] if index else 0
        stage, length = self.stages[index], ends[index] - start
        is_last = stage == self.num_segments
        return CurriculumState(
            stage=stage,
            num_latent_steps=self.latent_steps(stage),
            keeps_answer=not is_last or (step - start) < self.answer_share * length,
            stage_step=step - start,
            stage_length=length,
            learning_rate=self._learning_rate(step, stage, step - start, length),
            early_steps=self._early_steps(step) if is_last else (),
        )

    def is_stage_start(self, step: int) -> bool:
        """Whether another stage begins with this step: the moments of the optimiser are zeroed in front of it."""
        return step in self.stage_ends()[:-1]

    def suffix(self, rationale: str, answer: str | None, state: CurriculumState) -> str:
        """The suffix text of one side in this state."""
        remaining = "".join(self._segments(rationale)[state.stage :])
        return suffix_text(remaining, answer if state.keeps_answer else None, self.latent_end)

    def trace(self, rationale: str, state: CurriculumState) -> TraceText:
        """The whole rationale of one side, and the part of it that each latent step of this state is held to: what the
        stages have replaced so far, dealt anew over all steps."""
        replaced = "".join(self._segments(rationale)[: state.stage])
        start = len(LATENT_END_TOKEN) if self.latent_end == "after_latents" else 0
        parts = split_segments(replaced, state.num_latent_steps)
        return TraceText(suffix_text(rationale.strip(), None, self.latent_end), start, tuple(parts))

    def _segments(self, rationale: str) -> list[str]:
        latents = None
        if self.dealing == "by_latents":
            done = [self.latent_steps(stage) for stage in range(self.num_segments + 1)]
            latents = [after - before for before, after in pairwise(done)]
        return split_segments(rationale, self.num_segments, latents)

    def _early_steps(self, step: int) -> tuple[int, ...]:
        """Of a step, the same on every process."""
        if not self.anytime_steps:
            return ()
        return tuple(sorted(random.Random(f"anytime {step}").sample(self.anytime_steps, self.anytime_reads)))

    def _learning_rate(self, step: int, stage: int, stage_step: int, stage_length: int) -> float:
        warmup = self.warmup if self.warmup >= 1 else self.warmup * stage_length
        warmup = min(warmup, stage_length * 5 / 6)  # else a short stage would never come to its rate
        factor = min(1.0, (stage_step + 1) / max(1.0, warmup))
        decay_start = self.max_steps * (1 - self.decay_share)
        done = max(0.0, (step - decay_start) / max(1.0, self.max_steps - decay_start))
        factor *= 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rates[stage] * factor
