"""The half of an encoder that needs no model: sizes, batches, and the processor. It may run on another machine."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import BatchFeature

from plume_embed.encode.batching import TOKEN_BUDGET, ProcessorCopies, most_tokens, plan_batches, settings_of
from plume_embed.encode.sizes import TokenEstimate
from plume_embed.model import PlumeProcessor
from plume_embed.model.inputs_plume import ItemError, is_one_conversation

_TABLES = ("DataFrame", "Table", "RecordBatch")  # of pandas, polars and Arrow


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
        processor ([`PlumeProcessor`]): A setting of it counts from the next call on, and so does another processor.
    """

    def __init__(self, processor: PlumeProcessor):
        self.processor = processor

    @property
    def processor(self) -> PlumeProcessor:
        """See the class."""
        return self._processor

    @processor.setter
    def processor(self, processor: PlumeProcessor) -> None:
        self._processor, self._processors = processor, ProcessorCopies(processor)
        self._estimated: tuple[dict[str, str], TokenEstimate] | None = None  # the settings that it was made by

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, another process and a hash get: not what can be made again."""
        return vars(self) | {"_estimated": None}

    def num_tokens(self, item: Any) -> float:
        """Roughly the tokens of an item; see [`TokenEstimate`]."""
        return self.token_estimate(item)

    @property
    def token_estimate(self) -> TokenEstimate:
        """`num_tokens` by the settings of now, for many items."""
        settings, estimated = settings_of(self.processor), self._estimated
        if estimated is None or estimated[0] != settings:
            with self._processors.borrow() as processor:
                estimated = self._estimated = settings, TokenEstimate(processor)
        return estimated[1]

    def row_tokens(self, text: str) -> int:
        """Tokens of a row that holds this text alone, its prompt included; see [`PlumeProcessor.row_length`]."""
        with self._processors.borrow() as processor:
            return processor.row_length(text)

    def least_tokens(self, text: str) -> int:
        """Tokens of a text that is far beyond the processor's limit, at least; see [`PlumeProcessor.least_length`]."""
        with self._processors.borrow() as processor:
            return processor.least_length(text)

    def fits(self, text: str) -> bool:
        """Whether the text fits into one row of the processor; it is tokenised only where that is not plain."""
        if self.token_estimate.prompt + most_tokens(text) <= self.processor.max_length:
            return True
        return not self.least_tokens(text) and self.row_tokens(text) <= self.processor.max_length

    def process(self, items: list[Any]) -> BatchFeature:
        """A batch of the processor, a row for each item, of a copy of its own: several threads may ask at once."""
        # Else chat messages that come into one batch could be taken for one conversation.
        rows = [[item] if isinstance(item, dict) and "role" in item else item for item in items]
        with self._processors.borrow() as processor:
            return processor(rows)

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
        return plan_batches([*map(self.token_estimate, items)], token_budget, batch_size)

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


def listed(items: Iterable[Any]) -> list[Any]:
    """Items as they are run through, so that a place is a position: a Series of pandas looks up by label.

    Raises:
        ValueError: one item, one conversation, or a table, instead of a list of items.
    """
    if type(items).__name__ in _TABLES:  # its columns would be run through
        name = type(items).__name__
        raise ValueError(f"Hand over a list of items, got a {name}: pass one column, encode(table['text']).")
    if isinstance(items, str | bytes | bytearray | dict | Path | Image.Image):
        raise ValueError(f"Hand over a list of items: encode([...]), got one {type(items).__name__}.")
    try:
        once = iter(items)
    except TypeError as error:  # a number, None, an array without axes
        raise ValueError(f"Hand over a list of items: encode([...]), got one {type(items).__name__}.") from error
    rows = _arrow_values(items) if type(items).__module__.startswith("pyarrow.") else list(once)
    if is_one_conversation(rows):
        roles = ", ".join(str(message["role"]) for message in rows)
        raise ValueError(f"Hand over a list of items: encode([[...]]), got one conversation (roles {roles}).")
    return rows


def _arrow_values(items: Any) -> list[Any]:
    """Of an array of Arrow its values as Python's own: run through, it gives objects of Arrow."""
    import pyarrow  # here, because what is of Arrow has imported it, and else it takes its time

    return items.to_pylist() if isinstance(items, pyarrow.Array | pyarrow.ChunkedArray) else list(items)


def without_place(error: ValueError) -> str:
    """The message of an error of the processor, without the item's place in the batch and its looks."""
    return error.reason if isinstance(error, ItemError) else str(error)
