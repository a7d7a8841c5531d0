"""The half of an encoder that needs no model: sizes, batches, and the processor. It may run on another machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import BatchFeature

from plume_embed.encode.batching import TOKEN_BUDGET, ProcessorCopies, most_tokens, plan_batches
from plume_embed.encode.sizes import TokenEstimate
from plume_embed.model import PlumeProcessor
from plume_embed.model.inputs_plume import ItemError


@dataclass
class Prepared:
    """A batch for the model, or why there is none.

    Args:
        places (`list[int]`): Of its items.
        batch (`BatchFeature`, *optional*): From the processor; `None` for a single item that it refuses.
        reason (`str`): Why.
    """

    places: list[int]
    batch: BatchFeature | None
    reason: str = ""


class Preparer:
    """A processor that several threads may use, and the batches that it is given.

    Args:
        processor ([`PlumeProcessor`]): Of the model.

    Attributes:
        num_tokens ([`TokenEstimate`]): Roughly the tokens of an item.
    """

    def __init__(self, processor: PlumeProcessor):
        self.processor = processor
        self.num_tokens = TokenEstimate(processor)
        self._processors = ProcessorCopies(processor)

    @cached_property
    def _prompt_length(self) -> int:
        return self.process([""])["input_ids"].shape[1]

    def row_tokens(self, text: str) -> int:
        """Tokens of a row that holds this text alone, its prompt included."""
        with self._processors.borrow() as processor:
            length = len(processor.tokenizer.encode(text, add_special_tokens=False))
        return length + self._prompt_length

    def fits(self, text: str) -> bool:
        """Whether the text fits into one row of the processor; it is tokenised only where that is not plain."""
        if self._prompt_length + most_tokens(text) <= self.processor.max_length:
            return True
        return self.row_tokens(text) <= self.processor.max_length

    def process(self, items: list[Any]) -> BatchFeature:
        """A batch of the processor, of a copy of its own: several threads may ask at once."""
        with self._processors.borrow() as processor:
            return processor(items)

    def process_each(self, items: list[Any]) -> list[BatchFeature | BaseException]:
        """Each item as a batch of its own, texts in one call of the processor; for one that fails, its error.

        For threads that must not die of an item: a panic of a library in Rust is no `Exception`.
        """
        # Where texts get a picture, a batch does not say whose is whose.
        if len(items) == 1 or not self.processor.blank_image_for_text:
            try:
                return [*self.processor.separate(self.process(items))]
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                if len(items) == 1:
                    return [error]
        return [one for item in items for one in self.process_each([item])]

    def plan(self, items: Sequence[Any], batch_size: int, token_budget: float = TOKEN_BUDGET) -> list[list[int]]:
        """Places of the items in batches; see [`plan_batches`]."""
        return plan_batches([self.num_tokens(item) for item in items], token_budget, batch_size)

    def prepare(self, items: Sequence[Any], batch_size: int) -> Iterator[Prepared]:
        """The items in the batches in which [`Encoder.encode_readable`] embeds them."""
        for places in self.plan(items, batch_size):
            try:
                yield Prepared(places, self.process([items[place] for place in places]))
            except ValueError as error:
                if len(places) == 1:
                    yield Prepared(places, None, without_place(error))
                else:  # one of them is at fault: find it, and keep the others
                    for place in places:
                        yield from (Prepared([place], one.batch, one.reason) for one in self.prepare([items[place]], 1))


def without_place(error: ValueError) -> str:
    """The message of an error of the processor, without the item's place in the batch and its looks."""
    return error.reason if isinstance(error, ItemError) else str(error)
