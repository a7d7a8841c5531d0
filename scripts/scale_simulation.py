"""A corpus on a cluster, event by event: decoding against the model, stragglers, and nodes that die.

A worker is one GPU with its share of the CPU cores. It takes shards from one list. Within a shard, cores decode chunks
ahead of the model, as far as the buffer goes; a chunk that was decoded waits for the model, and the other way round. A
slow worker takes longer for everything. When a node dies, all its workers lose the shards they are at and come back
after a while; such a shard is made again from its beginning, by whoever is free first.
"""

import heapq
from dataclasses import dataclass

import numpy as np

_DRAWN = 512  # different shards; of a larger corpus each stands for several


@dataclass(frozen=True)
class Cluster:
    """What is simulated; times in seconds.

    Args:
        workers (`int`): GPUs.
        workers_per_node (`int`): They die together.
        cores (`int`): That decode for one worker.
        chunk_decode (`float`): One core for one chunk, on average.
        chunk_model (`float`): The model for one chunk.
        chunks_per_shard (`int`)
        buffer (`int`): Decoded chunks that may wait for the model.
        decode_spread (`float`): Standard deviation of the logarithm of a chunk's decoding time.
        slow_share (`float`): Of the workers are stragglers.
        slow_factor (`float`): They take so many times as long.
        node_mean_life (`float`): Until a node dies; infinite: never.
        node_return (`float`): Until another one takes its place.
    """

    workers: int = 1
    workers_per_node: int = 1
    cores: int = 1
    chunk_decode: float = 1.0
    chunk_model: float = 1.0
    chunks_per_shard: int = 32
    buffer: int = 2
    decode_spread: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 1.0
    node_mean_life: float = float("inf")
    node_return: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Args:
        seconds (`float`): Until the last shard was done.
        model_seconds (`float`): In which models computed something that counts, of all workers.
        lost_seconds (`float`): Of work at shards that were lost.
        deaths (`int`): Of nodes.
        busy (`float`): Share of all workers' time in which the model computed something that counts.
        stragglers (`int`): Slow workers, as the seed drew them.
    """

    seconds: float
    model_seconds: float
    lost_seconds: float
    deaths: int
    busy: float
    stragglers: int


def shard_seconds(cluster: Cluster, random: np.random.Generator) -> float:
    """One shard at a worker of ordinary speed.

    Chunk i is decoded by the core that is free first, but not before the model has taken chunk i - buffer - 1; the
    model takes it when it is decoded and the chunk before is done.
    """
    noise = random.lognormal(-(cluster.decode_spread**2) / 2, cluster.decode_spread, cluster.chunks_per_shard)
    free, taken, end = [0.0] * cluster.cores, [], 0.0
    for number, factor in enumerate(noise):
        room = taken[number - cluster.buffer - 1] if number > cluster.buffer else 0.0
        decoded = max(heapq.heappop(free), room) + cluster.chunk_decode * factor
        heapq.heappush(free, decoded)
        taken.append(max(decoded, end))
        end = taken[-1] + cluster.chunk_model
    return end


def simulate(cluster: Cluster, shards: int, seed: int = 0) -> Outcome:
    """Runs a number of shards to the end."""
    random = np.random.default_rng(seed)
    speeds = np.where(random.random(cluster.workers) < cluster.slow_share, cluster.slow_factor, 1.0)
    nodes = -(-cluster.workers // cluster.workers_per_node)
    dies = (
        random.exponential(cluster.node_mean_life, nodes) if np.isfinite(cluster.node_mean_life) else [np.inf] * nodes
    )
    dies = list(dies)
    times = [shard_seconds(cluster, random) for _ in range(min(shards, _DRAWN))]
    is_ready = [(0.0, worker) for worker in range(cluster.workers)]  # a heap: when a worker is free
    left, deaths, lost, last, counted = shards, 0, 0.0, 0.0, 0.0
    at_work: dict[int, float] = {}  # worker -> when it began its shard
    ends: list[tuple[float, int]] = []  # a heap: when a worker's shard is done
    death = int(np.argmin(dies))  # of which node the next one is
    while left or at_work:
        start = is_ready[0][0] if is_ready and left else np.inf
        end = ends[0][0] if ends else np.inf
        if dies[death] <= min(start, end):
            now = dies[death]
            mine = range(death * cluster.workers_per_node, min((death + 1) * cluster.workers_per_node, cluster.workers))
            for worker in mine:
                if worker in at_work:
                    lost += now - at_work.pop(worker)
                    left += 1
            is_ready = [one for one in is_ready if one[1] not in mine] + [(now + cluster.node_return, w) for w in mine]
            ends = [one for one in ends if one[1] not in mine]
            heapq.heapify(is_ready)
            heapq.heapify(ends)
            dies[death] = now + cluster.node_return + random.exponential(cluster.node_mean_life)
            deaths += 1
            death = int(np.argmin(dies))
        elif start <= end:
            now, worker = heapq.heappop(is_ready)
            left -= 1
            at_work[worker] = now
            heapq.heappush(ends, (now + times[random.integers(len(times))] * speeds[worker], worker))
        else:
            last, worker = heapq.heappop(ends)
            del at_work[worker]
            counted += cluster.chunks_per_shard * cluster.chunk_model
            heapq.heappush(is_ready, (last, worker))
    busy = counted / (last * cluster.workers)
    return Outcome(last, counted, lost, deaths, busy, int((speeds != 1.0).sum()))
