"""The Ray engine: reading, decoding and preparing are CPU tasks, the model lives in a pool of actors.

The driver hands out shards. Whoever dies, Ray tells, and the shard is handed out again; what is published stays. So
nothing depends on Ray's own bookkeeping, and a run may go on with the local engine, or the other way round.
"""

import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from plume_embed.corpus.leases import Leases
from plume_embed.corpus.rows import Slice
from plume_embed.corpus.shards import Chunk, Job, ShardWriter, read_chunks
from plume_embed.encode.encoder import Encoder
from plume_embed.encode.prepare import Prepared, Preparer
from plume_embed.freed_memory import keep_freed_memory
from plume_embed.model.processing_plume import PlumeProcessor

_TRIES = 5  # of a shard whose workers die: then something in it kills them
_CHUNKS_AHEAD = 2  # that wait for the model, and bound the memory
_WAIT_SECONDS = 0.5  # for a shard that a worker of another run is at


@dataclass(frozen=True)
class RayOptions:
    """The cluster.

    Args:
        workers (`int`): Actors, each with the model.
        gpus_per_worker (`float`): 0 for CPUs; a part of 1 shares a GPU.
        address (`str`, *optional*): Of a cluster that runs, or "auto"; by default one on this machine.
        device, dtype: Of the model, see [`Encoder`].
    """

    workers: int = 1
    gpus_per_worker: float = 0.0
    address: str | None = None
    device: str | None = None
    dtype: str = "auto"


@dataclass(frozen=True)
class _Model:
    """What workers load; see [`Encoder`]."""

    folder: Path
    device: str | None
    dtype: str


class RayEngine:
    """Makes shards on a cluster.

    Args:
        folder (`Path`): Of the model, where every node finds it.
        options ([`RayOptions`])

    Raises:
        ValueError: the cluster is too small, or cannot be reached.
    """

    def __init__(self, folder: Path, options: RayOptions):
        self._folder, self._options = folder, options

    def __call__(self, job: Job, slices: Iterator[Slice], on_shard: Callable[[Slice, int], None]) -> None:
        """See [`Engine`]."""
        first = next(slices, None)
        if first is None:
            return
        self._start()
        try:
            _Run(job, self._folder, self._options, first, slices).finish(on_shard)
        finally:
            ray.shutdown()

    def _start(self) -> None:
        options = self._options
        needed = options.workers + 1  # and one for the reading
        own = {} if options.address else {"num_cpus": max(needed, 2 * options.workers), "include_dashboard": False}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="lancedb fork support")  # Ray's processes never call it
                ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(f"Ray cannot start or be reached ({str(error).splitlines()[0]}).") from error
        there = ray.cluster_resources()
        if there.get("CPU", 0) < needed or there.get("GPU", 0) < options.gpus_per_worker * options.workers:
            ray.shutdown()
            raise ValueError(
                f"{options.workers} workers need {needed} CPUs and {options.gpus_per_worker * options.workers:g} GPUs, "
                f"the cluster has {there.get('CPU', 0):g} and {there.get('GPU', 0):g}: lower --workers."
            )


@ray.remote(num_cpus=1, max_retries=2)
def _read(job: Job, model: _Model, one: Slice, batch_size: int) -> Iterator[tuple[Chunk, list[Prepared]]]:
    """The rows of a slice, read, decoded and prepared for the model, chunk by chunk."""
    preparer = _preparer(model.folder, job.made_by.max_image_pixels)
    for chunk in read_chunks(job, one, preparer):
        yield chunk.without_contents(), list(preparer.prepare(chunk.items, batch_size))


@cache  # for this process, which reads many slices
def _preparer(folder: Path, max_image_pixels: int) -> Preparer:
    processor = PlumeProcessor.from_pretrained(folder)
    processor.max_image_pixels = max_image_pixels
    return Preparer(processor)


class _Worker:
    """An actor with the model."""

    _encoder: Encoder
    _leases: Leases

    def __init__(self, job: Job, model: _Model):
        keep_freed_memory()
        self._job, self._model = job, model
        self._writer: ShardWriter | None = None

    def load(self) -> None:
        """Loads the model: not when the actor is made, since of what fails there Ray says only that the actor died."""
        model, made_by = self._model, self._job.made_by
        self._encoder = Encoder(model.folder, model.device, model.dtype, made_by.max_image_pixels)
        if self._encoder.fingerprint != made_by.fingerprint:
            raise ValueError(
                f"{model.folder} holds another model on one of the nodes, or a setting of the encoder's processor was "
                "changed after it was loaded; give all nodes the same folder, and save what you changed in it."
            )
        self._leases = Leases(self._job.work / "leases")

    def begin(self, one: Slice) -> str:
        """ "busy" while another worker is at it, "done" where it is there, else "begun"."""
        if not self._leases.claim(one.name):
            return "busy"
        if self._job.is_done(one):
            self._leases.release(one.name)
            return "done"
        self._writer = ShardWriter(self._job, one)
        return "begun"

    def add(self, part: tuple[Chunk, list[Prepared]]) -> bool:
        """Embeds a chunk; False where a batch of several rows fails and they must come one by one."""
        assert self._writer is not None
        chunk, batches = part
        vectors, reasons = self._encoder.encode_prepared(batches, self._job.made_by.num_latent_steps)
        if any(len(batch.places) > 1 and batch.places[0] in reasons for batch in batches):
            return False
        self._writer.add(chunk, vectors, reasons)
        return True

    def publish(self, one: Slice) -> int:
        """Publishes the shard; how many items were embedded for it."""
        assert self._writer is not None
        self._writer.publish()
        self._leases.release(one.name)
        return self._writer.num_embedded

    def begin_again(self, one: Slice) -> None:
        """Forgets what it has of the shard."""
        self._writer = ShardWriter(self._job, one)


def _death(error: RayError) -> RayError:
    """That somebody died, or what they had is lost. What a task raised itself is raised here, as it was raised there.

    A task that was given what another one failed to make passes on its error.
    """
    cause: BaseException = error
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    if not isinstance(cause, RayError):
        raise cause from error
    return cause


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


class _Run:
    """One run: a thread for each worker takes slices from a queue and sees them through."""

    def __init__(self, job: Job, folder: Path, options: RayOptions, first: Slice, slices: Iterator[Slice]):
        self._model = _Model(folder, options.device, options.dtype)
        self._options = options
        self._job, self._plain_job = ray.put(job), job
        self._slices: Iterable[Slice] = slices
        self._again: list[tuple[Slice, int]] = [(first, 0)]  # with how often it was tried
        self._lock = threading.Lock()
        self._results: queue.Queue[tuple[Slice, int] | BaseException | None] = queue.Queue()
        self._ended = threading.Event()
        self._at_work = 0

    def finish(self, on_shard: Callable[[Slice, int], None]) -> None:
        """Until every slice has its shard, or one cannot be made."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._options.workers)]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                result = self._results.get()
                if result is None:
                    running -= 1
                elif isinstance(result, BaseException):
                    raise result
                else:
                    on_shard(*result)
        finally:
            self._ended.set()

    def _work(self) -> None:
        try:
            worker = self._new_worker()
            while not self._ended.is_set():
                taken = self._take()
                if taken is None:
                    break
                one, tries = taken
                try:
                    embedded = self._make(worker, one)
                except RayError as error:
                    death = _death(error)
                    if tries + 1 == _TRIES:
                        raise ValueError(
                            f"Shard {one.name} cannot be made: {_TRIES} times its workers died. Something in it kills "
                            f"them ({_named(death)}); its rows are {one.spec}."
                        ) from error
                    ray.kill(worker)
                    worker = self._new_worker()
                    self._put_back(one, tries + 1)
                    continue
                if embedded is None:
                    self._put_back(one, tries)
                    self._ended.wait(_WAIT_SECONDS)
                    continue
                with self._lock:
                    self._at_work -= 1
                self._results.put((one, embedded))
            self._results.put(None)
        except BaseException as error:
            self._results.put(error)

    def _new_worker(self) -> Any:
        """An actor that has loaded the model. What keeps it from that is no fault of a shard.

        Raises:
            ValueError: its process dies again and again; and whatever loading raises.
        """
        options = self._options
        resources: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
        if options.gpus_per_worker:
            resources["num_gpus"] = options.gpus_per_worker
        actor: Any = ray.remote(**resources)(_Worker)
        for tries in range(_TRIES):
            worker = actor.remote(self._job, self._model)
            try:
                ray.get(worker.load.remote())
                return worker
            except RayError as error:
                death = _death(error)
                if tries + 1 == _TRIES:
                    raise ValueError(
                        f"No worker starts: {_TRIES} times its process died while it loaded {self._model.folder} "
                        f"({_named(death)}). Most often memory is short: lower --workers."
                    ) from error
                ray.kill(worker)
        raise AssertionError("the last try returns or raises")

    def _take(self) -> tuple[Slice, int] | None:
        """The next slice; None when all are done. What somebody is at may come back, so it is waited for."""
        while not self._ended.is_set():
            with self._lock:
                if self._again:
                    taken = self._again.pop()
                else:
                    following = next(iter(self._slices), None)
                    taken = None if following is None else (following, 0)
                if taken is not None:
                    self._at_work += 1
                    return taken
                if self._at_work == 0:
                    return None
            self._ended.wait(_WAIT_SECONDS)
        return None

    def _put_back(self, one: Slice, tries: int) -> None:
        with self._lock:
            self._at_work -= 1
            self._again.insert(0, (one, tries))

    def _make(self, worker: Any, one: Slice) -> int | None:
        """Sees a slice through; how many items were embedded, None while another run is at it."""
        state = ray.get(worker.begin.remote(one))
        if state != "begun":
            return 0 if state == "done" else None
        for batch_size in (self._plain_job.batch_size, 1):
            if self._pass_on(worker, one, batch_size):
                return ray.get(worker.publish.remote(one))
            ray.get(worker.begin_again.remote(one))
        raise AssertionError("a batch of one row cannot ask for smaller ones")

    def _pass_on(self, worker: Any, one: Slice, batch_size: int) -> bool:
        """Hands the chunks of a slice from the reader to the worker, whose model never waits for the driver."""
        reader = _read.options(num_returns="streaming", _generator_backpressure_num_objects=_CHUNKS_AHEAD)
        previous = None
        parts: Any = reader.remote(self._job, self._model, one, batch_size)  # references, as they come
        for part in parts:
            following = worker.add.remote(part)
            if previous is not None and not ray.get(previous):
                return False
            previous = following
        return previous is None or ray.get(previous)
