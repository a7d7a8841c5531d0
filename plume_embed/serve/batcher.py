"""Requests of many clients -> batches of one model.

Each item is processed as soon as it comes, in threads ahead of the model: texts in a thread of their own, so that no
film is before them. What is ready waits with its true length. One thread runs the model; each time it is free, it cuts
the next batch out of all that waits, whoever sent it.

A small model embeds a text in the time of a few hundred hand-overs between threads, so there are few: the thread of the
texts takes all that have come at once, and the thread of the model is woken when the first item is ready and when a
batch is to be cut.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import BatchFeature

from plume_embed.encode.batching import plan_batches
from plume_embed.encode.encoder import Encoder, without_place
from plume_embed.serve.gathering import Gathering
from plume_embed.serve.memory import Trimmer
from plume_embed.serve.metrics import Metrics
from plume_embed.serve.settings import Limits

# Processed items wait in memory; beyond so many batches of tokens the threads ahead pause.
_BATCHES_AHEAD = 8


class QueueFullError(RuntimeError):
    """The queue is full.

    Args:
        retry_after (`int`): Seconds after which it may have room.
    """

    def __init__(self, retry_after: int):
        super().__init__("The server is busy: its queue is full.")
        self.retry_after = retry_after


class RequestTooLargeError(ValueError):
    """A request alone is over what the queue holds, so it will never have room; the message names the limit."""


class StoppedError(RuntimeError):
    """The server is stopping."""


class ItemFailedError(ValueError):
    """An item cannot be embedded; the message is the reason.

    Args:
        reason (`str`)
        part (`str`, *optional*): Which field of the request is at fault, where that is known.
    """

    def __init__(self, reason: str, part: str | None = None):
        super().__init__(reason)
        self.part = part


@dataclass(frozen=True)
class Embedded:
    """A vector [D], float32, unit norm, and how many tokens its item has, the prompt's and the visual ones included."""

    vector: np.ndarray
    num_tokens: int


@dataclass(frozen=True)
class Incoming:
    """An item as a request brings it.

    Args:
        content: What [`PlumeProcessor`] takes, or a function that gives it (and may fetch or decode).
        num_bytes (`int`): Of its text and files.
        has_media (`bool`): Whether pictures or films have to be decoded.
        part_at_fault: Finds the field that is at fault, see [`ItemFailedError`], where the processor has refused it.
    """

    content: Any
    num_bytes: int
    has_media: bool
    part_at_fault: Callable[[], str | None] = lambda: None


@dataclass(eq=False)
class _Job:
    incoming: Incoming | None  # until it leaves: a future and what is called when it is done keep each other alive
    num_latent_steps: int
    num_bytes: int
    is_text: bool
    future: Future[Embedded] = field(default_factory=Future)
    batch: BatchFeature | None = None
    num_tokens: int = 0


class Batcher:
    """Takes items from any thread and gives their vectors; equal to [`Encoder.encode`] whatever else is there.

    Args:
        encoder ([`Encoder`])
        limits ([`Limits`])
        metrics ([`Metrics`])
    """

    def __init__(self, encoder: Encoder, limits: Limits, metrics: Metrics):
        self._encoder, self._limits, self._metrics = encoder, limits, metrics
        self._lock = threading.Lock()  # of all that follows
        # Where the thread of the model waits, and where those of pictures and films do.
        self._due, self._room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._ready: list[_Job] = []  # the oldest first
        self._num_items = self._num_bytes = self._texts_ahead = 0
        self._is_stopping = self._last_was_long = False
        self._gathering, self._seconds_per_item = Gathering(), 0.0
        self._incoming_texts: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()  # None: no more will come
        self._texts = threading.Thread(target=self._process_texts, name="plume-texts", daemon=True)
        self._media = ThreadPoolExecutor(limits.threads, thread_name_prefix="plume-media")
        self._model = threading.Thread(target=self._run, name="plume-model", daemon=True)
        self._texts.start()
        self._model.start()

    def submit(self, items: Sequence[Incoming], num_latent_steps: int) -> list[Future[Embedded]]:
        """Queues the items of a request; all of them or none.

        Args:
            items: In their order.
            num_latent_steps (`int`): K.

        Returns:
            A future for each; a cancelled one is not worked on. An item that cannot be embedded raises
            ItemFailedError there.

        Raises:
            RequestTooLargeError: there is no room for them in an empty queue either.
            QueueFullError: there is no room for them now.
            StoppedError: the server is stopping.
        """
        jobs = [_Job(item, num_latent_steps, item.num_bytes, not item.has_media) for item in items]
        num_bytes = sum(item.num_bytes for item in items)
        self._check_size(len(jobs), num_bytes)
        with self._lock:
            if self._is_stopping:
                raise StoppedError("The server is stopping.")
            if (
                self._num_items + len(jobs) > self._limits.queue_items
                or self._num_bytes + num_bytes > self._limits.queue_bytes
            ):
                raise QueueFullError(max(1, round(self._num_items * self._seconds_per_item)))
            self._count(len(jobs), num_bytes)
            self._gathering.came(len(jobs), time.perf_counter())
            self._texts_ahead += sum(job.is_text for job in jobs)
            for job in jobs:
                job.future.add_done_callback(lambda _, job=job: self._leave(job))
                if job.is_text:
                    self._incoming_texts.put(job)
                else:
                    self._media.submit(self._process_media, job)
            self._wake_model()
        return [job.future for job in jobs]

    def stop(self) -> None:
        """Takes nothing more, finishes what is there, and ends the threads."""
        with self._lock:
            self._is_stopping = True
            self._incoming_texts.put(None)
            self._due.notify()
        self._texts.join()
        self._media.shutdown(wait=True)
        with self._lock:
            self._due.notify()
        self._model.join()

    def is_running(self) -> bool:
        """Whether its threads are there and take items."""
        return self._model.is_alive() and self._texts.is_alive() and not self._is_stopping

    def _check_size(self, num_items: int, num_bytes: int) -> None:
        """Refuses what does not fit into an empty queue: whoever is told to come again would do so for ever."""
        most_items, most_bytes = self._limits.queue_items, self._limits.queue_bytes
        if num_items > most_items:
            raise RequestTooLargeError(
                f"{num_items} items are over the {most_items} that the queue holds (--max-queue); send several "
                "requests."
            )
        if num_bytes > most_bytes:
            raise RequestTooLargeError(
                f"{num_bytes} bytes of texts and files are over the {most_bytes} that the queue holds (queue_bytes); "
                "send several requests."
            )

    def _count(self, num_items: int, num_bytes: int) -> None:
        self._num_items += num_items
        self._num_bytes += num_bytes
        self._metrics.waiting.set(self._num_items)

    def _leave(self, job: _Job) -> None:
        job.incoming = job.batch = None
        with self._lock:
            self._count(-1, -job.num_bytes)
            if self._is_done():
                self._due.notify()

    def _process_texts(self) -> None:
        """The thread of the texts: each time all that wait, a batch of them at most."""
        while (jobs := _taken(self._incoming_texts, self._limits.batch_size)) is not None:
            self._process(jobs)

    def _process_media(self, job: _Job) -> None:
        """In a thread of the pictures and films; they wait while enough is ready. Texts do not: they are small."""
        most = _BATCHES_AHEAD * self._limits.token_budget
        with self._lock:
            self._room.wait_for(lambda: sum(job.num_tokens for job in self._ready) < most)
        self._process([job])

    def _process(self, jobs: list[_Job]) -> None:
        """Items through the processor, ahead of the model; one that fails or has left is not ready."""
        try:
            self._prepare(jobs)
        except BaseException as error:  # else the thread would end, and no other item would have its turn
            for job in jobs:
                _fail(job, error)
        self._now_ready(jobs)

    def _prepare(self, jobs: list[_Job]) -> None:
        contents, wanted = [], []
        for job in jobs:
            try:
                if (incoming := job.incoming) is not None:
                    contents.append(incoming.content() if callable(incoming.content) else incoming.content)
                    wanted.append(job)
            except BaseException as error:
                _fail(job, error)
        for job, result in zip(wanted, self._encoder.process_each(contents) if contents else [], strict=True):
            if isinstance(result, BaseException):
                incoming = job.incoming if isinstance(result, ValueError) else None
                _fail(job, result, incoming.part_at_fault() if incoming is not None else None)
            else:
                job.batch, job.num_tokens = result, int(result["attention_mask"].sum())

    def _now_ready(self, jobs: list[_Job]) -> None:
        with self._lock:
            self._texts_ahead -= sum(job.is_text for job in jobs)
            was_empty = not self._ready
            for job in jobs:
                if job.future.done():
                    job.batch = None  # it left while it was prepared
                elif job.batch is not None:
                    self._ready.append(job)
            if was_empty and self._ready:
                self._due.notify()
            else:
                self._wake_model()

    def _wake_model(self) -> None:
        if self._ready and self._is_enough():
            self._due.notify()

    def _run(self) -> None:
        trimmer = Trimmer(time.monotonic)
        while True:
            with self._lock:
                self._due.wait_for(lambda: self._ready or self._is_done())
                if not self._ready:
                    return
                self._due.wait_for(self._is_enough, timeout=self._gathering.seconds)
                jobs = self._take_batch()
                self._room.notify_all()
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if jobs:
                self._embed(jobs)
                trimmer.after_a_batch()

    def _is_done(self) -> bool:
        return self._is_stopping and self._num_items == 0

    def _is_enough(self) -> bool:
        """Whether the next batch is cut at once: it is full, or nothing more is on its way."""
        if self._is_stopping or len(self._ready) >= self._limits.batch_size:
            return True
        return not self._texts_ahead and not self._gathering.num_expected(time.perf_counter())

    def _take_batch(self) -> list[_Job]:
        """The next batch: the oldest job and those that go best with it, of one K and like length.

        Short and long jobs take turns where both wait. So a short text waits for one batch of films at most, however
        many films are before it, and a film's turn comes, however many texts come.
        """
        turns = [[job for job in self._ready if self._is_long(job) == is_long] for is_long in (False, True)]
        waiting = turns[not self._last_was_long] or turns[self._last_was_long]
        leader = waiting[0]
        alike = [job for job in waiting if job.num_latent_steps == leader.num_latent_steps]
        plan = plan_batches([job.num_tokens for job in alike], self._limits.token_budget, self._limits.batch_size)
        chosen = next(places for places in plan if 0 in places)
        batch = [alike[place] for place in sorted(chosen)]
        self._ready = [job for job in self._ready if job not in batch]
        self._last_was_long = self._is_long(leader)
        return batch

    def _is_long(self, job: _Job) -> bool:
        """Whether a full batch of such jobs is over the budget of tokens."""
        return job.num_tokens * self._limits.batch_size > self._limits.token_budget

    def _embed(self, jobs: list[_Job]) -> None:
        started = time.perf_counter()
        try:
            vectors = self._vectors(jobs)
        except ValueError as error:
            if len(jobs) == 1:
                _fail(jobs[0], error)
            else:
                for job in jobs:  # out of memory, or a row that overflows: each for itself
                    self._embed([job])
            return
        except BaseException as error:
            for job in jobs:
                _fail(job, error)
            return
        ended = time.perf_counter()
        seconds = ended - started
        with self._lock:
            self._gathering.answered(len(jobs), seconds, ended)
        self._seconds_per_item += 0.1 * (seconds / len(jobs) - self._seconds_per_item)
        num_tokens = [job.num_tokens for job in jobs]
        self._metrics.batch(num_tokens, seconds)
        for job, vector, number in zip(jobs, vectors, num_tokens, strict=True):
            job.future.set_result(Embedded(vector, number))

    def _vectors(self, jobs: list[_Job]) -> np.ndarray:
        batch = self._encoder.processor.collate([job.batch for job in jobs if job.batch is not None])
        return self._encoder.embed(batch, jobs[0].num_latent_steps)


def _taken(waiting: "queue.SimpleQueue[_Job | None]", most: int) -> list[_Job] | None:
    """All that wait, the first waited for; `None` where no more will come."""
    job, jobs = waiting.get(), []
    while job is not None:
        jobs.append(job)
        if len(jobs) == most or waiting.empty():
            return jobs
        job = waiting.get()
    if jobs:
        waiting.put(None)  # for the next call
    return jobs or None


def _fail(job: _Job, error: BaseException, part: str | None = None) -> None:
    """Gives a job its error; a ValueError is the item's fault, or that of a part of it."""
    if isinstance(error, ValueError) and not isinstance(error, ItemFailedError):
        error = ItemFailedError(without_place(error), part)
    if not job.future.done() and (job.future.running() or job.future.set_running_or_notify_cancel()):
        job.future.set_exception(error)
