"""Batches of like cost, and the processor running ahead of the model in threads."""

import copy
import numbers
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    import torch

    from plume_embed.model import PlumeProcessor

# Defaults of everything that embeds many items.
BATCH_SIZE = 32
TOKEN_BUDGET = 16_384  # 8 pages of 2,000 tokens, or 32 pictures of 500
THREADS_AHEAD = 2

# No token is shorter than a byte, and no normalisation makes a text more than three times as long.
_GROWTH = 3

# Of a processor, what is no setting itself.
_PARTS = frozenset({"image_processor", "video_processor", "tokenizer", "_prompts", "_media_ids"})

Group = TypeVar("Group")
Result = TypeVar("Result")


def most_tokens(text: str) -> int:
    """The most tokens that a text can have, without tokenising it."""
    return len(text) if text.isascii() else _GROWTH * len(text.encode(errors="replace"))


def check_batch_limits(batch_size: int, token_budget: float = TOKEN_BUDGET) -> None:
    """Refuses limits that no batch could meet.

    Raises:
        ValueError: a number of items that is no whole number above 0, or a budget that is no number above 0.
    """
    if not isinstance(batch_size, numbers.Integral) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number above 0, got {batch_size!r}.")
    if not isinstance(token_budget, numbers.Real) or isinstance(token_budget, bool) or not token_budget > 0:
        raise ValueError(f"token_budget must be a number above 0, got {token_budget!r}.")


def plan_batches(sizes: Sequence[float], token_budget: float, max_items: int) -> list[list[int]]:
    """Places of the items in batches whose padded size stays within a budget, the largest items first.

    A batch costs what its longest row costs, times its rows; like sizes go together, so that little is padding. With
    the largest first a lack of memory shows at once, and the buckets of the fast rollout are made biggest first.

    Args:
        sizes (`Sequence[float]`): Tokens of each item, the visual ones included, as well as they are known beforehand.
        token_budget (`float`): Tokens of a batch with its padding. An item above it has a batch to itself.
        max_items (`int`): Rows of a batch.

    Returns:
        `list[list[int]]`: Every place once.

    Raises:
        ValueError: as [`check_batch_limits`].
    """
    check_batch_limits(max_items, token_budget)
    batches: list[list[int]] = []
    longest = 0.0
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        if batches and len(batches[-1]) < max_items and longest * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(place)
        else:
            batches.append([place])
            longest = sizes[place]
    return batches


@dataclass
class PaddingReport:
    """How much of the batches was padding; where the model groups prefixes, it computes only part of it."""

    num_batches: int = 0
    num_rows: int = 0
    num_tokens: int = 0
    num_padded: int = 0

    def add(self, attention_mask: "torch.Tensor") -> None:
        """Counts a batch by its mask [B, L] on the CPU."""
        self.num_batches += 1
        self.num_rows += attention_mask.shape[0]
        self.num_tokens += int(attention_mask.sum())
        self.num_padded += attention_mask.numel() - int(attention_mask.sum())

    @property
    def share_padded(self) -> float:
        """Padding in all positions, from 0 to 1."""
        return self.num_padded / max(1, self.num_tokens + self.num_padded)

    def __str__(self) -> str:
        return f"{100 * self.share_padded:.0f} % padding"


def run_ahead(
    work: Callable[[Group], Result], groups: Iterable[Group], num_threads: int = 2, ahead: int = 4
) -> Iterator[tuple[Group, "Future[Result]"]]:
    """Each group with its finished result, in order, while threads work on the groups behind it.

    Decoding and resizing release Python's lock, so threads are enough, and items need not be copied to processes.
    Closing the generator early, or an error in the caller's loop, stops the threads after what they are at.

    Args:
        work (`Callable`): Called with a group, by several threads at once.
        groups (`Iterable`): Taken by one thread at a time; while it waits for a group, those before it come out.
        num_threads (`int`): 0 works in the caller's thread.
        ahead (`int`): Results that may wait to be taken, which bounds the memory.

    Yields:
        The group and a future that is done: `result()` gives what the function returned, or raises what it raised.
    """
    if num_threads < 0 or ahead < 1:
        raise ValueError(f"num_threads must be at least 0 and ahead at least 1, got {num_threads} and {ahead}.")

    def calls() -> Iterator[Iterator[tuple[Group, Future[Result]]]]:
        for group in groups:
            yield ((one, _done(work, one)) for one in (group,))

    if num_threads == 0:
        yield from chain.from_iterable(calls())
    else:
        yield from read_together(calls(), num_threads, max(1, ahead + 1 - num_threads))  # the others are in the works


def read_ahead(
    source: Iterable[Group], ahead: int, num_bytes: Callable[[Group], int] = lambda element: 0, max_bytes: int = 2**28
) -> Iterator[Group]:
    """The elements of an iterable, which a thread takes while the caller is busy with those before.

    Args:
        source (`Iterable`): Taken in another thread; what it raises is raised here, at its place.
        ahead, num_bytes, max_bytes: See [`read_together`].
    """
    return read_together([source], 1, ahead, num_bytes, max_bytes)


def read_together(
    sources: Iterable[Iterable[Group]],
    num_threads: int,
    ahead: int,
    num_bytes: Callable[[Group], int] = lambda element: 0,
    max_bytes: int = 2**28,
) -> Iterator[Group]:
    """The elements of several iterables, one iterable after the other, while threads take those that come next.

    Args:
        sources (`Iterable`): Taken by one thread at a time, and each by one thread; what they raise is raised here, at
            its place.
        num_threads (`int`): Sources that are taken at once.
        ahead (`int`): Elements that may wait, which bounds the memory; what is needed next may always.
        num_bytes (`Callable`): How large an element is.
        max_bytes (`int`): Bytes that may wait.
    """
    queue = _OrderedQueue(ahead, max_bytes)
    remaining, taking = iter(sources), threading.Lock()

    def take() -> None:
        while not queue.is_left:
            with taking:
                line = queue.new_line()
                try:
                    source = next(remaining, None)
                except BaseException as error:
                    queue.put(line, lambda error=error: _raise(error), 0)
                    source = None
                if source is None:
                    queue.end(line, is_last=True)
                    return
            try:
                for element in source:
                    if not queue.put(line, lambda element=element: element, num_bytes(element)):
                        return
            except BaseException as error:
                queue.put(line, lambda error=error: _raise(error), 0)
            del source
            queue.end(line)

    threads = [threading.Thread(target=take, name="plume-read-ahead", daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    try:
        while (element := queue.get()) is not None:
            yield element()
    finally:
        queue.leave()
        for thread in threads:
            thread.join()


@dataclass
class _Line:
    """What waits of one source, as functions that give it, with the bytes of each."""

    waiting: "deque[tuple[Callable[[], Any], int]]" = field(default_factory=deque)
    has_ended: bool = False
    is_last: bool = False


class _OrderedQueue:
    """Elements of several lines that are filled at once and emptied one after the other, bounded over all lines.

    Args:
        ahead (`int`): Elements that may wait.
        max_bytes (`int`): Bytes that may wait. The next element to be taken may wait whatever else does, so that lines
            behind it cannot hold it up.
    """

    def __init__(self, ahead: int, max_bytes: int):
        self._ahead, self._max_bytes = ahead, max_bytes
        self._lines: deque[_Line] = deque()
        self._count = self._bytes = 0
        self._changed = threading.Condition()
        self.is_left = False

    def new_line(self) -> _Line:
        """A line behind all others, as soon as there is room for an element."""
        line = _Line()
        with self._changed:
            self._changed.wait_for(lambda: self.is_left or self._count < self._ahead)
            self._lines.append(line)
        return line

    def put(self, line: _Line, element: Callable[[], Any], num_bytes: int) -> bool:
        """Puts an element in, as soon as there is room; `False` when nobody takes elements any more."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_left or self._has_room(line, num_bytes))
            line.waiting.append((element, num_bytes))
            self._count, self._bytes = self._count + 1, self._bytes + num_bytes
            self._changed.notify_all()
            return not self.is_left

    def end(self, line: _Line, is_last: bool = False) -> None:
        """Nothing comes in this line any more; nor in any behind it, if it is the last."""
        with self._changed:
            line.has_ended, line.is_last = True, is_last
            self._changed.notify_all()

    def get(self) -> Callable[[], Any] | None:
        """The next element; `None` at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._lines and (self._lines[0].waiting or self._lines[0].has_ended))
                line = self._lines[0]
                if line.waiting:
                    element, num_bytes = line.waiting.popleft()
                    self._count, self._bytes = self._count - 1, self._bytes - num_bytes
                    self._changed.notify_all()
                    return element
                if line.is_last:
                    return None
                self._lines.popleft()
                self._changed.notify_all()

    def leave(self) -> None:
        """Nobody takes elements any more."""
        with self._changed:
            self.is_left = True
            self._changed.notify_all()

    def _has_room(self, line: _Line, num_bytes: int) -> bool:
        if line is self._lines[0] and not line.waiting:
            return True
        is_within = not self._bytes or self._bytes + num_bytes <= self._max_bytes
        return self._count < self._ahead and is_within


class ProcessorCopies:
    """Copies of a processor for threads to borrow: tokenizers are not safe to share. As many as are out at once, and
    new ones once a setting of the processor has changed; see [`settings_of`].

    Args:
        processor ([`PlumeProcessor`]): What is copied, never used itself.
    """

    def __init__(self, processor: "PlumeProcessor"):
        self._processor, self._spare, self._copying = processor, queue.SimpleQueue(), threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied, or sent to another process, it begins anew: neither a queue nor a lock can be."""
        return type(self), (self._processor,)

    @contextmanager
    def borrow(self) -> Iterator["PlumeProcessor"]:
        """A copy that nobody else uses."""
        settings = settings_of(self._processor)
        made_by, copied = self._taken()
        if made_by != settings:
            with self._copying:
                copied = copy.deepcopy(self._processor)
        try:
            yield copied
        finally:
            self._spare.put((settings, copied))

    def _taken(self) -> tuple[dict[str, str] | None, Any]:
        try:
            return self._spare.get_nowait()
        except queue.Empty:
            return None, None


def settings_of(processor: "PlumeProcessor") -> dict[str, str]:
    """All that can be set of a processor and of its parts, by name, to tell what has changed; in microseconds.

    As text, since values such as a size are changed in place, and any can be compared so. Of the tokenizer it is the
    limit and its like and the tokens that were added, not the vocabulary, which is large and stays.
    """
    tokenizer = processor.tokenizer
    plain = {name: value for name, value in vars(tokenizer).items() if isinstance(value, str | int | float | None)}
    tokens = {"special": tokenizer.special_tokens_map, "added": tokenizer.added_tokens_decoder, "all": len(tokenizer)}
    image_processor, video_processor = processor.image_processor, processor.video_processor
    parts = {
        "processor": {name: value for name, value in vars(processor).items() if name not in _PARTS},
        "tokenizer": plain,
        "tokens": tokens,
        "image_processor": vars(image_processor) | {"class": type(image_processor).__name__},
        "video_processor": vars(video_processor) | {"class": type(video_processor).__name__},
    }
    return {f"{part}.{name}": repr(value) for part, values in parts.items() for name, value in values.items()}


def _done(work: Callable[[Group], Result], group: Group) -> "Future[Result]":
    future: Future[Result] = Future()
    try:
        future.set_result(work(group))
    except Exception as error:
        future.set_exception(error)
    return future


def _raise(error: BaseException) -> NoReturn:
    raise error
