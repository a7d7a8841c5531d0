"""The scripts behind docs/results/speed.md measure what they say, and what was measured is what is claimed."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.speed import riding_steps, training_throughput
from benchmarks.speed.training_throughput import WAYS, make_batch, rows_of, step
from plume_embed.bench.inputs import random_model
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


def test_steps_that_ride_along_are_timed_beside_steps_apart():
    rows = riding_steps.measure(budget_s=0, layers=1, batches=(1, 2))
    assert [row["batch"] for row in rows] == [1, 2]
    assert all(row["times"] > 0 and row["apart_ms"] > 0 and row["rounds"] == 3 for row in rows)
    measured = json.loads((RESULTS / "riding_steps.json").read_text())["rows"]
    assert measured[0]["times"] > measured[-1]["times"] > 0.9
