"""The local engine: one process, shard by shard; the next rows are read while the model works."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from plume_embed.corpus.leases import Leases
from plume_embed.corpus.rows import Slice
from plume_embed.corpus.shards import Job, ShardWriter, read_chunks
from plume_embed.encode.batching import read_ahead
from plume_embed.encode.encoder import Encoder

_WAIT_SECONDS = 0.5  # for a shard that another worker is at


def run_local(job: Job, slices: Iterable[Slice], encoder: Encoder, on_shard: Callable[[Slice, int], None]) -> None:
    """Makes the shards that are not there.

    Args:
        on_shard: Called with a slice that is done, and how many items were embedded for it.

    Raises:
        ValueError: the source has changed since it was planned.
    """
    leases, waiting = Leases(job.work / "leases"), deque[Slice]()
    try:
        for one in slices:
            if not _make(job, one, encoder, leases, on_shard):
                waiting.append(one)
        while waiting:
            if not _make(job, waiting[0], encoder, leases, on_shard):
                time.sleep(_WAIT_SECONDS)
                waiting.rotate(-1)
            else:
                waiting.popleft()
    finally:
        leases.close()


def _make(job: Job, one: Slice, encoder: Encoder, leases: Leases, on_shard: Callable[[Slice, int], None]) -> bool:
    """False while another worker is at the shard."""
    if not leases.claim(one.name):
        return False
    try:
        if job.is_done(one):
            on_shard(one, 0)
            return True
        writer = ShardWriter(job, one)
        ahead: Any = read_ahead(read_chunks(job, one, encoder), 1)  # a generator, whose thread ends with it
        with closing(ahead) as chunks:
            for chunk in chunks:
                vectors, reasons = encoder.encode_readable(chunk.items, job.batch_size, job.made_by.num_latent_steps)
                writer.add(chunk, vectors, reasons)
        writer.publish()
    finally:
        leases.release(one.name)
    on_shard(one, writer.num_embedded)
    return True
