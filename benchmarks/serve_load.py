"""32 clients ask a server for a minute: throughput beside `encode` on the same machine, failed requests, memory.

    python -m benchmarks.serve_load --json benchmarks/results/serve_load.json

The server is the command `plume-embed serve` as it stands. Each client sends one item, waits for its vector and sends
the next: texts, and in the second load a photograph as every fourth. `encode` embeds the same items as a list, in a
process of its own, before and after. Each has one thread for the model. Linux only.

Two ratios are printed. By the clock: the clients' own work and all other programs on the machine count against the
server, which needs a second core for HTTP while the model computes. By CPU seconds of the server's process beside those
of `encode`: neither counts, but waiting does not either. On a shared machine the second is the steadier one.
"""

import base64
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from plume_embed.atomic import write_json

ROOT = Path(__file__).parent.parent
PHOTOGRAPHS = sorted((ROOT / "examples" / "photographs").glob("*.jpg"))
WORDS = ("a", "red", "bicycle", "near", "the", "lake", "two", "dogs", "on", "snow", "old", "house", "green", "door")
_TEXTS_PER_PHOTOGRAPH = 3
_ITEMS = 256
_SAMPLE_SECONDS = 1.0
_PAUSE_SECONDS = 0.05  # behind a connection that failed: a server that is gone must not be asked a million times


@dataclass
class Load:
    """What the clients saw, and what the server took.

    Args:
        seconds (`float`): From the first request to the last answer.
        answered, failed (`int`): Requests.
        latencies: Seconds of each request that was answered.
        cpu_seconds, client_cpu_seconds (`float`): Of the server's process, and of the one with all clients.
        rows_per_batch (`float`): Mean.
        memory: Its resident bytes, once a second. The median of the first third and of the last are reported.
    """

    seconds: float = 0.0
    answered: int = 0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    client_cpu_seconds: float = 0.0
    rows_per_batch: float = 0.0
    memory: list[int] = field(default_factory=list)


def items(texts_only: bool) -> list[dict[str, Any]]:
    """Texts of 2 to 30 words, and photographs as they lie in their folder."""
    rng, photographs = random.Random(0), itertools.cycle(PHOTOGRAPHS)
    found: list[dict[str, Any]] = []
    for number in range(_ITEMS):
        if not texts_only and number % (_TEXTS_PER_PHOTOGRAPH + 1) == _TEXTS_PER_PHOTOGRAPH:
            found.append({"image": next(photographs)})
        else:
            found.append({"text": " ".join(rng.choices(WORDS, k=rng.randint(2, 30)))})
    return found


def body(item: dict[str, Any]) -> bytes:
    """The item as a request."""
    if "text" in item:
        return json.dumps({"input": item["text"], "encoding_format": "base64"}).encode()
    url = f"data:image/jpeg;base64,{base64.b64encode(item['image'].read_bytes()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return json.dumps({"messages": [{"role": "user", "content": content}], "encoding_format": "base64"}).encode()


def encode_rates(model: Path, texts_only: bool, seconds: float) -> tuple[float, float]:
    """Items of `Encoder.encode` a second and a CPU second, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.serve_load", "--encode-seconds", str(seconds), "--model", str(model)]
    command += ["--texts-only"] if texts_only else []
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=True)
    by_clock, by_cpu = json.loads(done.stdout.splitlines()[-1])
    return by_clock, by_cpu


def encode(model: Path, texts_only: bool, seconds: float) -> tuple[float, float]:
    """What [`encode_rates`] runs."""
    from plume_embed.encode.encoder import Encoder

    encoder, some = Encoder(model), items(texts_only)
    encoder.encode(some[:64])
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        encoder.encode(some)
        count += len(some)
    return count / (time.perf_counter() - started), count / (time.process_time() - cpu)


def ask(host: str, bodies: list[bytes], first: int, ends: float, load: Load, lock: threading.Lock) -> None:
    """One client. A request whose connection is refused, reset or silent has failed; the next one connects anew."""
    connection = HTTPConnection(host, timeout=120)
    for place in itertools.count(first):
        started = time.perf_counter()
        if started >= ends:
            break
        try:
            given = bodies[place % len(bodies)]
            connection.request("POST", "/v1/embeddings", given, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()  # whatever the status: without it the connection takes no other request
            is_good = answer.status == 200 and b'"embedding"' in content
        except (OSError, HTTPException):
            connection.close()
            time.sleep(_PAUSE_SECONDS)
            is_good = False
        with lock:
            load.answered += is_good
            load.failed += not is_good
            if is_good:
                load.latencies.append(time.perf_counter() - started)
    connection.close()


def send(
    host: str, bodies: list[bytes], clients: int, ends: float, load: Load, process: psutil.Process | None = None
) -> list[int]:
    """All clients until a moment; returns the resident bytes of a process meanwhile."""
    lock, memory = threading.Lock(), []
    threads = [threading.Thread(target=ask, args=(host, bodies, 8 * n, ends, load, lock)) for n in range(clients)]
    for thread in threads:
        thread.start()
    while process is not None and time.perf_counter() < ends:
        memory.append(process.memory_info().rss)
        time.sleep(_SAMPLE_SECONDS)
    for thread in threads:
        thread.join()
    return memory


def measure(model: Path, texts_only: bool, clients: int, seconds: float) -> Load:
    """Starts a server, sends it the load and stops it."""
    command = [sys.executable, "-m", "plume_embed", "serve", "--model", str(model), "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        host = server.stdout.readline().partition("http://")[2].partition("/")[0]
        bodies, load = [body(item) for item in items(texts_only)], Load()
        send(host, bodies, clients, time.perf_counter() + seconds / 4, Load())  # warm, batches of every size included
        process = psutil.Process(server.pid)
        before, own, batches = sum(process.cpu_times()[:2]), time.process_time(), batch_rows(host)
        started = time.perf_counter()
        load.memory = send(host, bodies, clients, started + seconds, load, process)
        load.seconds = time.perf_counter() - started
        if not load.answered:
            raise RuntimeError(f"The server answered none of {load.failed:,} requests.")
        load.cpu_seconds = sum(process.cpu_times()[:2]) - before
        load.client_cpu_seconds = time.process_time() - own
        rows, count = (after - earlier for after, earlier in zip(batch_rows(host), batches, strict=True))
        load.rows_per_batch = rows / count
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait()
    if code != 0:
        raise RuntimeError(f"The server ended with code {code}.")
    return load


def batch_rows(host: str) -> tuple[float, float]:
    """Rows of all batches so far, and batches, as the server counts them."""
    connection = HTTPConnection(host, timeout=120)
    connection.request("GET", "/metrics")
    counters = dict(line.rsplit(" ", 1) for line in connection.getresponse().read().decode().splitlines())
    connection.close()
    return float(counters["plume_batch_rows_sum"]), float(counters["plume_batch_rows_count"])


def report(load: Load, alone: list[tuple[float, float]]) -> dict[str, Any]:
    """The figures of a load beside the rates of `encode`, by the clock and by the CPU."""
    by_clock, by_cpu = load.answered / load.seconds, load.answered / load.cpu_seconds
    encode_by_clock, encode_by_cpu = (statistics.mean(rates) for rates in zip(*alone, strict=True))
    ordered = sorted(load.latencies)
    third = len(load.memory) // 3
    return {
        "requests": load.answered,
        "failed": load.failed,
        "seconds": round(load.seconds, 1),
        "items_per_second": round(by_clock, 1),
        "encode_items_per_second": round(encode_by_clock, 1),
        "ratio": round(by_clock / encode_by_clock, 2),
        "items_per_cpu_second": round(by_cpu, 1),
        "encode_items_per_cpu_second": round(encode_by_cpu, 1),
        "cpu_ratio": round(by_cpu / encode_by_cpu, 2),
        "client_cpu_ms_per_item": round(1000 * load.client_cpu_seconds / load.answered, 2),
        "rows_per_batch": round(load.rows_per_batch, 1),
        "median_ms": round(1000 * ordered[len(ordered) // 2]),
        "p99_ms": round(1000 * ordered[int(0.99 * len(ordered))]),
        "memory_mb": [round(statistics.median(part) / 1e6) for part in (load.memory[:third], load.memory[-third:])],
    }


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")] = ROOT / "checkpoints" / "plume-small",
    clients: Annotated[int, typer.Option(help="That ask at the same time.")] = 32,
    seconds: Annotated[float, typer.Option(help="Of each load.")] = 60.0,
    json_to: Annotated[Path | None, typer.Option("--json", help="Where to write the result.")] = None,
    encode_seconds: Annotated[float, typer.Option(hidden=True)] = 0.0,
    texts_only: Annotated[bool, typer.Option("--texts-only", hidden=True)] = False,
) -> None:
    """Measures two loads: texts alone, and texts with photographs."""
    if encode_seconds:
        print(json.dumps(encode(model, texts_only, encode_seconds)))
        return
    loads = {}
    for name, only in (("texts", True), ("texts and photographs", False)):
        before = encode_rates(model, only, seconds / 4)
        load = measure(model, only, clients, seconds)
        loads[name] = report(load, [before, encode_rates(model, only, seconds / 4)])
        print(name, json.dumps(loads[name]), flush=True)
    if json_to is not None:
        write_json(json_to, {"model": model.name, "clients": clients, "cores": os.cpu_count(), "loads": loads})


if __name__ == "__main__":
    typer.run(main)
