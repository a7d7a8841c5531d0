"""Many visitors at once: `python -m space.tools.load_test [--visitors 20] [--seconds 60]`.

Starts the Space in a process of its own and lets as many clients search, each with its own session, one query after
another, over the same queue as the page. Prints failures, latency, and the server's memory over time.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from space.content.corpora import CorpusSpec, PreparedQuery, read_specs

ROOT = Path(__file__).parent.parent.parent
_START_SECONDS = 300


@dataclass
class Tally:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--port", type=int, default=7899)
    parser.add_argument("--collection", default="", help="which one is searched; the default one without")
    arguments = parser.parse_args()
    spec = next((one for one in read_specs() if arguments.collection in ("", one.id)), None)
    if spec is None:
        parser.error(f"no collection {arguments.collection!r}; there are {', '.join(one.id for one in read_specs())}")
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w") as log:
        environment = os.environ | {"GRADIO_SERVER_PORT": str(arguments.port), "PLUME_SPACE_DATA": f"{folder}/data"}
        command = [sys.executable, str(ROOT / "space" / "app.py")]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{arguments.port}"
            function = _wait(address, server, Path(folder) / "log")
            measure(address, function, server.pid, spec, arguments.visitors, arguments.seconds)
        finally:
            server.terminate()
            server.wait(30)


def measure(address: str, function: int, pid: int, spec: CorpusSpec, visitors: int, seconds: float) -> None:
    """Lets the visitors search, and prints what was seen."""
    queries = [query for query in spec.prepared if query.kind == "text"]
    warm = Tally()
    alone = [search(address, function, "warm", spec.id, query, warm) for query in queries]
    tally, end = Tally(), time.monotonic() + seconds
    memory = [megabytes(pid)]

    def visit(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            place = turn % len(queries)
            search(address, function, f"visitor{number}", spec.id, queries[place], tally, alone[place])
            turn += 1

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(visitors)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(5, seconds / 6))
        memory.append(megabytes(pid))
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(tally.seconds, n=100) if len(tally.seconds) > 1 else [float("nan")] * 99
    done = len(tally.seconds)
    print(f"{visitors} visitors for {seconds:.0f} s on {os.cpu_count()} cores: {done} searches, {done / seconds:.1f}/s")
    print(f"failed: {len(tally.failures + warm.failures)} {sorted(set(tally.failures + warm.failures))[:5]}")
    print(f"seconds: median {cuts[49]:.2f}, 95 % {cuts[94]:.2f}, 99 % {cuts[98]:.2f}, longest {max(tally.seconds):.2f}")
    print(f"memory of the server, MB: start {memory[0]}, end {memory[-1]}, over time {memory}")


def search(
    address: str,
    function: int,
    session: str,
    collection: str,
    query: PreparedQuery,
    tally: Tally,
    expected: list[str] | None = None,
) -> list[str]:
    """One search over the queue; results other than those of a visitor who is alone count as a failure.

    Returns:
        The names of the results.
    """
    started, failure, names = time.monotonic(), "no answer", []
    try:
        with httpx.Client(base_url=address, timeout=120) as client:
            body = {"data": [query.text, None, None, None, collection], "fn_index": function, "session_hash": session}
            joined = client.post("/gradio_api/queue/join", json=body)
            if joined.status_code != 200:
                raise ValueError(f"{joined.status_code} {joined.text[:200]}")
            with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
                for line in events.iter_lines():
                    message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                    if message.get("msg") == "process_completed":
                        output = message["output"]
                        names = [row["name"] for row in output["data"][0]] if message["success"] else []
                        failure = "" if names else f"no results: {output}"[:200]
                        break
    except (httpx.HTTPError, ValueError) as error:
        failure = f"{type(error).__name__}: {error}"[:200]
    if not failure and expected is not None and names != expected:
        failure = f"{query.label}: other results than alone"
    with tally.lock:
        if failure:
            tally.failures.append(failure)
        else:
            tally.seconds.append(time.monotonic() - started)
    return names


def megabytes(pid: int) -> int:
    """Resident memory of a process and of those that it has started."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue
        parent = re.search(r"^PPid:\s+(\d+)", status, re.M)
        if int(folder.name) == pid or (parent and int(parent[1]) == pid):
            resident = re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)
            total += int(resident[1]) // 1024 if resident else 0
    return total


def _wait(address: str, server: subprocess.Popen, log: Path) -> int:
    """Until the collections are ready. Gives the number of the search function."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit(f"the Space did not start:\n{log.read_text()[-2000:]}")
        try:
            config = httpx.get(f"{address}/config").json()
            if log.read_text().count("is ready") == len(read_specs()):
                return next(d["id"] for d in config["dependencies"] if d["api_name"] == "search")
        except (httpx.HTTPError, ValueError):
            pass
        time.sleep(0.5)
    raise SystemExit(f"the Space was not ready after {_START_SECONDS} seconds:\n{log.read_text()[-2000:]}")


if __name__ == "__main__":
    main()
