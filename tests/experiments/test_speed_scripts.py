"""The scripts behind docs/results/speed.md measure what they say, and what was measured is what is claimed."""

import itertools
import json
import os
import socket
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import ann, serve_load
from benchmarks.speed import riding_steps, rollout_parts, training_throughput
from benchmarks.speed.training_throughput import WAYS, make_batch, rows_of, step
from plume_embed.bench.inputs import random_model
from plume_embed.bench.report import commit
from plume_embed.bench.timing import LEAST_ROUNDS
from plume_embed.training.objective import PlumeForTraining

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"


def test_training_together_and_one_by_one_give_the_same_loss_and_gradients():
    wrapped = PlumeForTraining(random_model(training_throughput.SHAPE)).train()
    batch, losses, gradients = make_batch(wrapped, 3, seed=1), [], []
    assert len({row.prefix["input_ids"].shape[1] for row in rows_of(batch.queries[0])}) > 1
    for way in WAYS:
        wrapped.zero_grad()
        losses.append(step(wrapped, batch, way))
        gradients.append({name: p.grad for name, p in wrapped.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*losses)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-3, msg=name)


def test_training_through_the_rollout_is_measured_against_the_loop_in_one_process_and_two():
    rows = json.loads((RESULTS / "training_throughput.json").read_text())["rows"]
    assert {(16, 1), (16, 2)} <= {(row["batch"], row["processes"]) for row in rows}
    for row in rows:
        rates = [row["ways"][way]["pairs_per_s"] for way in WAYS]
        assert row["times"] == pytest.approx(rates[0] / rates[1])
    assert rows[0]["times"] > 5


def test_the_cpu_seconds_of_all_processes_count(monkeypatch):
    """Two processes that spend a second each on a step of 4 pairs do 2 pairs a CPU second."""
    monkeypatch.setattr(training_throughput, "_cpu_seconds", lambda function: 1.0)
    monkeypatch.setattr(training_throughput.torch.nn.parallel, "DistributedDataParallel", lambda module, **_: module)
    for name, stub in (("is_initialized", True), ("get_rank", 0), ("get_world_size", 2)):
        monkeypatch.setattr(training_throughput.dist, name, lambda stub=stub: stub)
    monkeypatch.setattr(training_throughput.dist, "all_reduce", lambda spent: spent.mul_(2))
    found = training_throughput.measure(4, rounds=1)
    assert found == {way: {"seconds": [2.0], "pairs_per_s": 2.0} for way in WAYS}
    for row in json.loads((RESULTS / "training_throughput.json").read_text())["rows"]:
        for way in row["ways"].values():
            assert way["pairs_per_s"] == pytest.approx(row["batch"] / statistics.median(way["seconds"]))


def test_rows_that_stay_in_the_file_keep_the_conditions_that_they_were_measured_under(tmp_path, monkeypatch):
    before, to = json.loads((RESULTS / "training_throughput.json").read_text()), tmp_path / "results.json"
    to.write_text(json.dumps(before))
    ways = {way: {"seconds": [1.0], "pairs_per_s": 2.0} for way in WAYS}
    monkeypatch.setattr(training_throughput, "measure", lambda pairs, rounds: ways)
    monkeypatch.setattr(training_throughput, "_in_two_processes", lambda pairs, rounds: ways)
    training_throughput.main(to=to, batch=[2])
    rows = {(row["batch"], row["processes"]): row["conditions"] for row in json.loads(to.read_text())["rows"]}
    assert {rows[2, 1]["commit"], rows[2, 2]["commit"]} == {commit()}
    assert rows[16, 1]["finished"] == rows[16, 2]["finished"] == before["finished"]
    training_throughput.main(to=to, batch=[3])
    assert json.loads(to.read_text())["rows"][0]["conditions"] == rows[2, 1]


@pytest.fixture
def known(tmp_path, monkeypatch) -> Path:
    """The committed results of approximate neighbours as if they had been measured here."""
    found = json.loads(ann.RESULTS.read_text()) | {"lancedb": ann.lancedb.__version__, "cores": os.cpu_count()}
    (tmp_path / "ann.json").write_text(json.dumps(found))
    monkeypatch.setattr(ann, "make_table", lambda *_: pytest.fail("a million vectors for nothing"))
    return tmp_path / "ann.json"


def ask_for(to: Path, *arguments: str):
    command = typer.Typer()
    command.command()(ann.main)
    return CliRunner().invoke(command, ["--json", str(to), *arguments])


def test_vectors_are_made_only_where_something_is_left_to_measure(known):
    done = ask_for(known, "--variant", "binary")
    assert done.exit_code == 0 and "1,000,000 vectors" in done.output


@pytest.mark.parametrize(
    ("asked", "said"), [(("--rows", "50000"), "has results with rows 1000000"), (("--variant", "bin"), "no variant")]
)
def test_results_of_another_run_are_not_replaced_and_an_unknown_variant_is_named(known, asked, said):
    before = known.read_bytes()
    done = ask_for(known, *asked)
    assert done.exit_code == 2 and said in " ".join(done.output.replace("│", " ").split())
    assert known.read_bytes() == before


@pytest.fixture
def answers():
    """A server that drops the first connections and then answers 503, 200, 503 and so on; its address."""
    dropped, asked = itertools.count(), itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            if next(dropped) < 2:
                self.request.shutdown(socket.SHUT_RDWR)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            content = b'{"embedding": 1}'
            self.send_response(200 if next(asked) % 2 else 503)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_requests_that_are_dropped_or_refused_count_as_failed_and_the_client_goes_on(answers):
    load = serve_load.Load()
    serve_load.send(answers, [b"{}"], 1, time.perf_counter() + 0.5, load)
    assert load.failed > 2 and load.answered > 2 and len(load.latencies) == load.answered
    assert load.failed - load.answered in (2, 3)  # two dropped, and every other one refused


def test_steps_that_ride_along_are_timed_beside_steps_apart():
    rows = riding_steps.measure(budget_s=0, layers=1, batches=(1, 2))
    assert [row["batch"] for row in rows] == [1, 2]
    assert all(row["times"] > 0 and row["apart_ms"] > 0 and row["rounds"] == LEAST_ROUNDS for row in rows)
    measured = json.loads((RESULTS / "riding_steps.json").read_text())["rows"]
    assert measured[0]["times"] > measured[-1]["times"] > 0.9


def test_the_parts_of_a_rollout_and_what_they_leave_are_the_whole_of_it():
    rows = rollout_parts.measure("test", budget_s=0, prefix=20)
    for layout in rollout_parts.LAYOUTS:
        shares = {row["part"]: row["share"] for row in rows if row["layout"] == layout}
        assert shares.pop("rollout") == 1 and shares.pop("read the weights") > 0
        assert sum(shares.values()) == pytest.approx(1) and len(shares) == 4
    found = rollout_parts.operators("test", implementations=("static",), prefix=20)
    assert found[0]["name"] == "all operators" and all(row["name"].startswith("aten::") for row in found[1:])
    assert found[0]["ms"] >= sum(row["ms"] for row in found[1:]) and found[0]["calls"] > 1000
    report = {"rows": rows, "operators": found}
    assert "| the rest |" in rollout_parts.markdown(report) and "| `aten::" in rollout_parts.operators_markdown(report)
