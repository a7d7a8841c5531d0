"""Pairs of one's own as a task for the trainer: the last stage of the curriculum, without any rationale."""

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plume_embed.atomic import write_text
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.reading.options import Options
from plume_embed.training.curriculum import CurriculumState, suffix_text
from plume_embed.training.data.corpus import SubsetBalancedBatches, check_shares
from plume_embed.training.data.keys import item_key
from plume_embed.training.data.pair_rows import (
    PairRow,
    as_plain_row,
    open_pages,
    read_pairs,
    rows_of_dataset,
)
from plume_embed.training.data.pair_scores import SCORES, PairPool, mean_scores
from plume_embed.training.data.start import model_of_folder
from plume_embed.training.diagnostics import Sample, evenly_spaced
from plume_embed.training.loss.batch_loss import TrainingBatch
from plume_embed.training.objective import SideBatch, make_side
from plume_embed.training.recipe import Recipe

_ITEM = re.compile(r"Item (\d+): ")
_NOT_THERE = -1
HELD_OUT_FILE = "held_out.jsonl"
_EVALUATED_AT_ONCE = 32
_WELL_ABOVE = 1.5  # times the share that was asked for
_SHARED_POSITIVES = (
    "Where many pairs share a positive, such as a label, train on all of them with pairs.held_out=0 and "
    "early_stopping=null, and score other pairs with `plume-embed evaluate pairs FILE`."
)
_FEW_CANDIDATES = 20  # of which one in 20 and more is found first by chance


class PairsTask:
    """Batches of pairs, a function of the seed and the step, and an evaluation on pairs that were held out.

    Args:
        recipe ([`Recipe`]): Of the run: `data`, `pairs`, `model`, `curriculum`.
        rank, world_size (`int`): This process's share of the batch.
        report: Called with how many pairs are in each part, and with a message for each bad row of the data and for
            what may go wrong with them.

    Raises:
        ValueError: data or settings that cannot be trained on, with the remedy.
    """

    def __init__(
        self,
        recipe: Recipe,
        rank: int = 0,
        world_size: int = 1,
        report: Callable[[str], None] = lambda message: None,
    ):
        check_shares(recipe.batch_size, world_size)
        if recipe.model.path is None:
            raise ValueError("Pairs are for a trained model: give its folder with --set model.path=DIR.")
        if recipe.curriculum.stages != (recipe.curriculum.num_segments,):
            raise ValueError(
                f"Pairs have no rationales, so only the last stage can be trained: curriculum.stages must be "
                f"[{recipe.curriculum.num_segments}], got {list(recipe.curriculum.stages)}."
            )
        if recipe.loss.distil or recipe.loss.decode:
            raise ValueError("loss.distil and loss.decode need rationales, which pairs do not have; set them to 0.")
        if recipe.pairs.sampled_steps and recipe.curriculum.anytime_steps:
            raise ValueError(
                "pairs.sampled_steps draws K, curriculum.anytime_steps reads one rollout in several places; give one."
            )
        if recipe.early_stopping is not None and recipe.early_stopping.metric not in SCORES:
            raise ValueError(
                f"early_stopping.metric must be one of {', '.join(SCORES)}, got {recipe.early_stopping.metric!r}."
            )
        self.recipe, self.curriculum = recipe, recipe.curriculum
        report = report if rank == 0 else lambda message: None
        rows, self.held_out = self._split(report)
        self.train_rows, self.validation = self._without_validation(rows)
        if len(self.train_rows) < recipe.batch_size:
            raise ValueError(
                f"{len(rows) + len(self.held_out)} pairs: {len(self.held_out)} held out, {len(self.validation)} for "
                f"early stopping, {len(self.train_rows)} to train on; lower batch_size (now {recipe.batch_size}), or "
                "bring more."
            )
        self._report_parts(report)
        self._report_few_candidates(report)
        self.batches = SubsetBalancedBatches([""] * len(self.train_rows), recipe.batch_size, recipe.seed)
        self.rows = slice(rank, None, world_size)
        self.processor = PlumeProcessor.from_pretrained(recipe.model.path)
        self._reading = Options.of(self.processor)
        given = max((len(row.negatives) for row in self.train_rows), default=0)
        self._num_negatives = min(given, recipe.pairs.max_negatives)
        self._check_can_be_told_apart()

    def _read(self, files: Iterable[str], report: Callable[[str], None]) -> list[PairRow]:
        data = self.recipe.data
        return read_pairs([Path(name) for name in files], Path(data.media_root), data.max_bad_lines, report)

    def _split(self, report: Callable[[str], None]) -> tuple[list[PairRow], list[PairRow]]:
        """The rows to train on and those to evaluate on; no query or positive is on both sides."""
        data, pairs = self.recipe.data, self.recipe.pairs
        if bool(data.files) == bool(data.dataset) or data.folder:
            raise ValueError("Pairs come from data.files or data.dataset, as in --set data.files=[pairs.csv].")
        if data.files:
            rows = self._read(data.files, report)
        else:
            from plume_embed.local_datasets import open_dataset

            dataset = open_dataset(data.dataset)
            rows = rows_of_dataset(dataset, Path(data.media_root), data.max_bad_lines, report)
        if pairs.held_out_files:
            held_out = self._read(pairs.held_out_files, report)
            seen = {key for row in held_out for key in (item_key(row.query), item_key(row.positive))}
            kept = [row for row in rows if not seen & {item_key(row.query), item_key(row.positive)}]
            if len(kept) < len(rows):
                report(f"{len(rows) - len(kept)} pairs are left out of training: they are in pairs.held_out_files too.")
            return kept, held_out
        if not 0 <= pairs.held_out < 1:
            raise ValueError(f"pairs.held_out must lie in [0, 1), got {pairs.held_out}.")
        return _drawn_out(rows, pairs.held_out, f"held out {self.recipe.seed}")

    def _report_parts(self, report: Callable[[str], None]) -> None:
        """How many pairs each part has, and whether one came out larger than was asked for."""
        train, validation, held_out = map(len, (self.train_rows, self.validation, self.held_out))
        report(
            f"{train + validation + held_out} pairs: {train} to train on, {held_out} held out, {validation} for early "
            "stopping."
        )
        shares = self.recipe.pairs
        drawn = [("pairs.validation", shares.validation, validation, train + validation)]
        if not shares.held_out_files:
            drawn.insert(0, ("pairs.held_out", shares.held_out, held_out, train + validation + held_out))
        for name, share, count, of in drawn:
            # A few rows too many come of any data with equal items: whole groups are taken out.
            if count > _WELL_ABOVE * share * of + 1:
                report(
                    f"{name} is {share:g} and {count} of {of} pairs were taken, as pairs that share a query or a "
                    f"positive stay together. {_SHARED_POSITIVES}"
                )

    def _check_can_be_told_apart(self) -> None:
        """InfoNCE compares a query's positive with those of other queries.

        Raises:
            ValueError: there are no others, so that the loss is zero whatever the model does.
        """
        if self._num_negatives:
            return
        for name, items in (
            ("positive", [row.positive for row in self.train_rows]),
            ("query", [row.question for row in self.train_rows]),
        ):
            if len(set(map(item_key, items))) == 1:
                raise ValueError(
                    f"The {len(items)} pairs to train on all have the same {name}, so that there is nothing to tell it "
                    f"from. {_SHARED_POSITIVES} Or give negatives."
                )

    def _report_few_candidates(self, report: Callable[[str], None]) -> None:
        candidates = {item_key(item) for row in self.held_out for item in (row.positive, *row.negatives)}
        if 0 < len(candidates) < _FEW_CANDIDATES:
            report(
                f"The held-out pairs have {len(candidates)} candidates: among so few, Hit@1 says next to nothing. "
                "Raise pairs.held_out, or give pairs.held_out_files."
            )

    def _without_validation(self, rows: list[PairRow]) -> tuple[list[PairRow], list[PairRow]]:
        """The rows to train on and those that early stopping goes by; they share no item either."""
        if self.recipe.early_stopping is None:
            return rows, []
        share = self.recipe.pairs.validation
        if not 0 < share < 1:
            raise ValueError(
                f"Early stopping chooses by pairs.validation, a share in (0, 1), got {share}; or set early_stopping to "
                "null."
            )
        return _drawn_out(rows, share, f"validation {self.recipe.seed}")

    def keep_held_out(self, out: Path) -> None:
        """Writes the held-out rows into a run's folder, for `plume-embed evaluate pairs`; rows of decoded pictures,
        which `data.dataset` gives, are in no file."""
        if self.held_out and self.recipe.data.files:
            lines = [json.dumps(as_plain_row(row), ensure_ascii=False) + "\n" for row in self.held_out]
            write_text(out / HELD_OUT_FILE, "".join(lines))

    def make_model(self) -> PlumeModel:
        """The model of the recipe's folder, in float32."""
        return model_of_folder(self.recipe)

    def batch(self, step: int, state: CurriculumState) -> TrainingBatch:
        """The rows of this process in a step.

        Raises:
            ValueError: a medium that cannot be read, naming it and its row.
        """
        indices = self.batches[step][self.rows]
        rows, drawn = [self.train_rows[index] for index in indices], [self._drawn(index, step) for index in indices]
        targets = [(row.positive, f"{row.where}: positive") for row in rows]
        numbers = torch.full((len(rows), self._num_negatives), _NOT_THERE)
        keys = torch.zeros(len(rows), self._num_negatives, dtype=torch.long)
        for row, (pair, negatives) in enumerate(zip(rows, drawn, strict=True)):
            for column, negative in enumerate(negatives):
                numbers[row, column], keys[row, column] = len(targets), item_key(negative)
                targets.append((negative, f"{pair.where}: negative"))
        num_steps = self._latent_steps(step)
        return TrainingBatch(
            queries=self._chunks([(row.question, f"{row.where}: query") for row in rows], num_steps),
            targets=self._chunks(targets, num_steps if self.recipe.target_rollout else 0),
            target_of_query=torch.arange(len(rows)),
            target_keys=torch.tensor([item_key(row.positive) for row in rows]),
            num_latent_steps=num_steps,
            early_steps=state.early_steps,
            query_keys=torch.tensor([item_key(row.query) for row in rows]),
            question_keys=torch.tensor([item_key(row.question) for row in rows]),
            negatives=numbers if self._num_negatives else None,
            negative_keys=keys if self._num_negatives else None,
        )

    def _drawn(self, index: int, step: int) -> list[dict[str, Any]]:
        """Of a row by its number, which stays the same wherever its file lies: a run may go on elsewhere."""
        given = self.train_rows[index].negatives
        rng = random.Random(f"negatives {self.recipe.seed} {step} {index}")
        return rng.sample(given, min(self._num_negatives, len(given)))

    def _latent_steps(self, step: int) -> int:
        """K of a step: the curriculum's, or one of `sampled_steps`; the same on every process."""
        choices = self.recipe.pairs.sampled_steps or (self.curriculum.num_latent_steps,)
        return random.Random(f"latent steps {self.recipe.seed} {step}").choice(choices)

    def _chunks(self, sides: Sequence[tuple[dict[str, Any], str]], num_steps: int) -> list[SideBatch]:
        size, chunks = self.recipe.chunk_size or len(sides), []
        for start in range(0, len(sides), size):
            chunk = sides[start : start + size]
            suffixes = [suffix_text("", None, self.curriculum.latent_end)] * len(chunk) if num_steps else None
            with _naming_rows([where for _, where in chunk]):
                chunks.append(make_side(self.processor, [self._opened(item) for item, _ in chunk], suffixes))
        return chunks

    def samples(self, count: int) -> list[Sample]:
        """Held-out pairs, evenly spaced through them, for the diagnostics."""
        rows = self.held_out or self.train_rows
        chosen = [rows[index] for index in evenly_spaced(len(rows), count)]
        return [Sample(self._opened(row.question), self._opened(row.positive), "pairs") for row in chosen]

    def _opened(self, item: dict[str, Any]) -> dict[str, Any]:
        return open_pages(item, self._reading)

    def validate(self, model: PlumeModel) -> dict:
        """The scores that early stopping goes by, as [`evaluate`] gives them."""
        return self._scores(model, self.validation)

    def evaluate(self, model: PlumeModel, stage: int | None = None, count: int = 0) -> dict:
        """Scores on the held-out pairs, each query among all their positives and negatives.

        Returns:
            `hit_at_1`, `hit_at_5`, `hit_at_10` and `ndcg_at_10` in 0..1 by K of the curriculum, `queries`, `pool`, and
            `variants` with the same scores by other numbers of steps or dimensions; {} where nothing was held out.
        """
        return self._scores(model, self.held_out) if self.held_out else {}

    def _scores(self, model: PlumeModel, rows: list[PairRow]) -> dict:
        pool = PairPool.of(rows)
        own = self.curriculum.num_latent_steps
        found: dict[str, dict[str, float]] = {}
        for steps in dict.fromkeys((own, *self.recipe.pairs.sampled_steps, *self.curriculum.anytime_steps)):
            of_documents = steps if self.recipe.target_rollout else 0
            asked, answers = pool.embedded(
                lambda items, where, steps=steps: self._vectors(model, items, where, steps),
                lambda items, where, steps=of_documents: self._vectors(model, items, where, steps),
            )
            if not (np.isfinite(asked).all() and np.isfinite(answers).all()):
                raise ValueError("The model's vectors are NaN or infinite; lower the learning rate of its stage.")
            for size in (None, *(self.recipe.pairs.truncate if steps == own else ())):
                name = f"K={steps}" + ("" if size is None else f", {size} dimensions")
                found[name] = mean_scores(pool.scores(asked[:, :size], answers[:, :size]))
        counts = {"queries": len(pool.queries), "pool": len(pool.pool)}
        return {**found.pop(f"K={own}"), **counts, "variants": found}

    @torch.inference_mode()
    def _vectors(
        self, model: PlumeModel, items: Sequence[dict[str, Any]], where: Sequence[str], num_steps: int
    ) -> NDArray[np.float32]:
        was_training = model.training
        model.eval()
        try:
            parts = []
            for start in range(0, len(items), _EVALUATED_AT_ONCE):
                chunk = slice(start, start + _EVALUATED_AT_ONCE)
                with _naming_rows(where[chunk]):
                    batch = self.processor([self._opened(item) for item in items[chunk]])
                parts.append(model(**batch.to(model.device), num_latent_steps=num_steps).embeddings.cpu().numpy())
            return np.concatenate(parts)
        finally:
            model.train(was_training)


@contextmanager
def _naming_rows(where: Sequence[str]) -> Iterator[None]:
    """An error of the processor's item N names the N-th place instead."""
    try:
        yield
    except ValueError as error:
        match = _ITEM.match(str(error))
        if match is None:
            raise
        raise ValueError(f"{where[int(match[1])]}: {str(error).removeprefix(match[0])}") from error


def _drawn_out(rows: list[PairRow], share: float, seed: str) -> tuple[list[PairRow], list[PairRow]]:
    """The rows that stay, and a share of them or a little more that is taken out; none shares an item with the other
    side."""
    groups, out = _groups(rows), []
    random.Random(seed).shuffle(groups)
    while groups and len(out) < share * len(rows):
        out += groups.pop()
    return [rows[n] for group in groups for n in group], [rows[n] for n in sorted(out)]


def _groups(rows: Sequence[PairRow]) -> list[list[int]]:
    """Numbers of the rows that share an item, directly or through others: the loss asks both ways, so that a pair is
    known as well where its query is the positive of another."""
    parent = list(range(len(rows)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    first: dict[int, int] = {}
    for number, row in enumerate(rows):
        for key in (item_key(row.query), item_key(row.positive)):
            parent[root(number)] = root(first.setdefault(key, number))
    groups: dict[int, list[int]] = {}
    for number in range(len(rows)):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())


def comparison_table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Both evaluations as a table in Markdown, in percent."""
    lines = [f"| {before['queries']} held-out queries, pool of {before['pool']} | Hit@1 | Hit@5 | Hit@10 | NDCG@10 |"]
    lines.append("|---|---|---|---|---|")
    for label, found in (("before", before), ("after", after)):
        for variant, scores in (("", found), *found["variants"].items()):
            cells = " | ".join(f"{100 * scores[name]:.1f}" for name in SCORES)
            lines.append(f"| {label}{', ' if variant else ''}{variant} | {cells} |")
    return "\n".join(lines)
