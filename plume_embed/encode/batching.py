"""Batches of like cost, and the processor running ahead of the model in threads."""

import copy
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    import torch

# Defaults of everything that embeds many items.
BATCH_SIZE = 32
TOKEN_BUDGET = 16_384  # 8 pages of 2,000 tokens, or 32 pictures of 500
THREADS_AHEAD = 2

Group = TypeVar("Group")
Result = TypeVar("Result")


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
        ValueError: a budget or a number of items that no batch could meet.
    """
    if token_budget <= 0 or max_items < 1:
        raise ValueError(f"token_budget and max_items must be above 0, got {token_budget} and {max_items}.")
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
    """How much of what the model computed was padding."""

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
        groups (`Iterable`): Taken in the caller's thread, `ahead` groups before they are needed.
        num_threads (`int`): 0 works in the caller's thread.
        ahead (`int`): Results that may wait to be taken, which bounds the memory.

    Yields:
        The group and a future that is done: `result()` gives what the function returned, or raises what it raised.
    """
    if num_threads < 0 or ahead < 1:
        raise ValueError(f"num_threads must be at least 0 and ahead at least 1, got {num_threads} and {ahead}.")
    if num_threads == 0:
        for group in groups:
            yield group, _done(work, group)
        return
    waiting: deque[tuple[Group, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="plume-ahead")
    try:
        for group in groups:
            waiting.append((group, pool.submit(work, group)))
            if len(waiting) > ahead:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_ahead(
    source: Iterable[Group], ahead: int, num_bytes: Callable[[Group], int] = lambda element: 0, max_bytes: int = 2**28
) -> Iterator[Group]:
    """The elements of an iterable, which a thread takes while the caller is busy with those before.

    Args:
        source (`Iterable`): Taken in another thread; what it raises is raised here, at its place.
        ahead (`int`): Elements that may wait, which bounds the memory.
        num_bytes (`Callable`): How large an element is.
        max_bytes (`int`): Bytes that may wait; one element may wait whatever its size.
    """
    waiting: deque[tuple[int, Callable[[], Group] | None]] = deque()
    changed, has_left = threading.Condition(), False

    def is_full(size: int) -> bool:
        return len(waiting) >= ahead or (bool(waiting) and size + sum(one for one, _ in waiting) > max_bytes)

    def put(element: Callable[[], Group] | None, size: int = 0) -> bool:
        with changed:
            changed.wait_for(lambda: has_left or not is_full(size))
            waiting.append((size, element))
            changed.notify()
            return not has_left

    def take() -> None:
        try:
            for element in source:
                if not put(lambda element=element: element, num_bytes(element)):
                    return
        except BaseException as error:
            put(lambda error=error: _raise(error))
        put(None)

    thread = threading.Thread(target=take, name="plume-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: bool(waiting))
                _, element = waiting.popleft()
                changed.notify()
            if element is None:
                return
            yield element()
    finally:
        with changed:
            has_left = True
            changed.notify()
        thread.join()


class ProcessorCopies:
    """Copies of a processor for threads to borrow: tokenizers are not safe to share. As many as are out at once.

    Args:
        processor: What is copied, never used itself.
    """

    def __init__(self, processor: Any):
        self._processor, self._spare, self._copying = processor, queue.SimpleQueue(), threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """A copy that nobody else uses."""
        try:
            copied = self._spare.get_nowait()
        except queue.Empty:
            with self._copying:
                copied = copy.deepcopy(self._processor)
        try:
            yield copied
        finally:
            self._spare.put(copied)


def _finished(group: Group, future: "Future[Result]") -> tuple[Group, "Future[Result]"]:
    future.exception()  # waits
    return group, future


def _done(work: Callable[[Group], Result], group: Group) -> "Future[Result]":
    future: Future[Result] = Future()
    try:
        future.set_result(work(group))
    except Exception as error:
        future.set_exception(error)
    return future


def _raise(error: BaseException) -> NoReturn:
    raise error
