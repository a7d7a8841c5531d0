"""Requests of many clients are batched together: equal vectors, no film before a text, nothing left behind."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from common import random_item
from serve_thread import running

from plume_embed.serve.batcher import (
    Batcher,
    Incoming,
    ItemFailedError,
    QueueFullError,
    RequestTooLargeError,
    StoppedError,
)
from plume_embed.serve.client import RemoteEncoder
from plume_embed.serve.metrics import Metrics
from plume_embed.serve.settings import DEFAULT_LIMITS, Limits

NUM_CLIENTS = 32
LONG = {"text": "word " * 60}


def text(words: str = "hi") -> Incoming:
    return Incoming({"text": words}, len(words), has_media=False)


@pytest.fixture
def batcher(encoder):
    opened = Batcher(encoder, DEFAULT_LIMITS, Metrics())
    yield opened
    opened.stop()


def test_32_clients_get_the_vectors_of_encode_whatever_else_is_in_flight(server, encoder):
    """Texts, pictures and films of several clients, with two numbers of latent steps, stand in each other's batches."""
    rng = random.Random(5)
    items = [[random_item(rng) if rng.random() < 0.5 else {"text": f"text {n}"} for n in range(2)] for _ in range(32)]
    steps = [rng.choice((8, 2)) for _ in items]
    start = threading.Barrier(NUM_CLIENTS)

    def ask(place: int) -> np.ndarray:
        remote = RemoteEncoder(server)
        start.wait()
        vectors, errors = remote.encode_readable(items[place], num_latent_steps=steps[place])
        assert errors == {}
        return vectors

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        found = list(pool.map(ask, range(NUM_CLIENTS)))
    for some, number, vectors in zip(items, steps, found, strict=True):
        assert np.abs(vectors - encoder.encode(some, num_latent_steps=number)).max() < 1e-5


def test_items_of_several_clients_share_a_batch(encoder, monkeypatch):
    rows, embed = [], encoder.embed
    monkeypatch.setattr(
        encoder, "embed", lambda batch, steps: rows.append(len(batch["input_ids"])) or embed(batch, steps)
    )
    with running(encoder) as address, ThreadPoolExecutor(NUM_CLIENTS) as pool:
        remotes = [RemoteEncoder(address) for _ in range(NUM_CLIENTS)]
        list(pool.map(lambda remote: [remote.encode_readable([{"text": "a"}]) for _ in range(4)], remotes))
    assert sum(rows) == 4 * NUM_CLIENTS and len(rows) < 2 * NUM_CLIENTS


def test_a_text_is_answered_while_every_film_thread_is_at_a_slow_film(batcher):
    never = threading.Event()

    def slow() -> dict:
        assert never.wait(60)
        return {"text": "a film"}

    films = batcher.submit([Incoming(slow, 1, has_media=True) for _ in range(6)], 8)
    assert batcher.submit([text()], 8)[0].result(30).vector.shape == (64,)
    assert not any(film.done() for film in films)
    never.set()
    assert [film.result(30).vector.shape for film in films] == [(64,)] * 6


def test_a_text_waits_for_one_long_batch_at_most_and_a_long_one_for_one_of_texts(encoder, monkeypatch):
    short = encoder.row_tokens("hi")
    limits = Limits(batch_size=2, token_budget=2 * (short + 10))
    batches, held, first, embed = [], threading.Event(), threading.Event(), encoder.embed

    def noted(batch, steps):
        batches.append("long" if batch["input_ids"].shape[1] > short else "short")
        first.set()
        assert held.wait(60)
        return embed(batch, steps)

    monkeypatch.setattr(encoder, "embed", noted)
    opened = Batcher(encoder, limits, Metrics())
    films = opened.submit([Incoming(LONG, 1, has_media=True) for _ in range(5)], 8)
    assert first.wait(60)
    texts = opened.submit([text() for _ in range(6)], 8)
    ends = time.monotonic() + 30
    while len(opened._ready) < 10:  # all are processed, one is in the model
        assert time.monotonic() < ends
        time.sleep(0.01)
    held.set()
    assert all(future.result(30) for future in [*films, *texts])
    opened.stop()
    assert batches == ["long", "short", "long", "short", "long", "short", "long", "long"]


def test_texts_that_come_while_others_are_processed_are_processed_together(encoder, monkeypatch):
    groups, held, process = [], threading.Event(), encoder.process_each

    def noted(items):
        groups.append(len(items))
        assert held.wait(60)
        return [one for item in items for one in process([item])]

    monkeypatch.setattr(encoder, "process_each", noted)
    opened = Batcher(encoder, Limits(batch_size=4), Metrics())
    futures = opened.submit([text()], 8)
    ends = time.monotonic() + 30
    while not groups:
        assert time.monotonic() < ends
    futures += [future for number in range(6) for future in opened.submit([text(f"text {number}")], 8)]
    futures[3].cancel()
    held.set()
    assert all(future.result(30) for future in futures if not future.cancelled())
    opened.stop()
    assert groups == [1, 3, 2]  # of the first four that waited, one was cancelled


def test_the_model_is_woken_when_a_batch_is_due_and_not_for_every_item(encoder, monkeypatch):
    opened = Batcher(encoder, DEFAULT_LIMITS, Metrics())
    for number in range(4):  # it learns that the clients come back
        [future.result(30) for future in opened.submit([text(f"{number} {n}") for n in range(32)], 8)]
    sleeps, rows, due = [], [], opened._due
    wait, embed = due.wait, encoder.embed
    monkeypatch.setattr(due, "wait", lambda timeout=None: sleeps.append(timeout) or wait(timeout))
    monkeypatch.setattr(
        encoder, "embed", lambda batch, steps: rows.append(len(batch["input_ids"])) or embed(batch, steps)
    )
    futures = [future for n in range(32) for future in opened.submit([text(f"again {n}")], 8)]
    assert all(future.result(30) for future in futures)
    opened.stop()
    assert sum(rows) == len(futures)
    assert len(sleeps) < len(futures) / 2


def test_one_item_at_fault_fails_alone(batcher, encoder):
    good, bad, last = batcher.submit([text("a"), text("word " * 20_000), text("b")], 8)
    with pytest.raises(ItemFailedError, match="max_length"):
        bad.result(30)
    found = np.stack([good.result(30).vector, last.result(30).vector])
    assert np.abs(found - encoder.encode(["a", "b"])).max() < 1e-5


def test_an_error_of_our_own_fails_its_items_and_the_texts_after_it_have_their_turn(encoder, monkeypatch):
    opened = Batcher(encoder, DEFAULT_LIMITS, Metrics())
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "process_each", lambda contents: [])  # one result for each item is missing
        with pytest.raises(ItemFailedError):
            opened.submit([text("a")], 8)[0].result(30)
    assert opened.is_running()
    assert opened.submit([text("b")], 8)[0].result(30).num_tokens > 0
    opened.stop()
    assert not opened.is_running()


def test_a_batch_that_runs_out_of_memory_is_embedded_one_by_one(batcher, encoder, monkeypatch):
    embed = encoder.embed

    def small_memory(batch, steps):
        if len(batch["input_ids"]) > 1:
            raise ValueError("Out of memory; lower the batch size.")
        return embed(batch, steps)

    expected = encoder.encode(["a", "b", "c"])
    monkeypatch.setattr(encoder, "embed", small_memory)
    futures = batcher.submit([text("a"), text("b"), text("c")], 8)
    assert np.abs(np.stack([future.result(30).vector for future in futures]) - expected).max() < 1e-5


def test_an_error_of_the_model_reaches_its_requests_and_the_server_goes_on(batcher, encoder, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(encoder, "embed", lambda batch, steps: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            batcher.submit([text()], 8)[0].result(30)
    assert batcher.submit([text()], 8)[0].result(30).num_tokens == encoder.row_tokens("hi")


def test_the_queue_is_bounded_by_items_and_by_bytes_and_empties(encoder, monkeypatch):
    held, embed = threading.Event(), encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda *args: held.wait(60) and embed(*args))
    opened = Batcher(encoder, Limits(queue_items=3, queue_bytes=100), Metrics())
    kept = opened.submit([text("a"), text("b")], 8)
    with pytest.raises(QueueFullError) as full:
        opened.submit([text("c"), text("d")], 8)
    assert full.value.retry_after >= 1
    with pytest.raises(QueueFullError):
        opened.submit([text("e" * 99)], 8)
    kept += opened.submit([text("c")], 8)
    held.set()
    assert all(future.result(30) for future in kept)
    ends = time.monotonic() + 30
    while opened._num_items:  # an item leaves the queue just after its vector is there
        assert time.monotonic() < ends
    assert opened.submit([text("a"), text("b"), text("c")], 8)[2].result(30)
    opened.stop()


def test_what_an_empty_queue_cannot_hold_is_refused_by_the_limits_name_and_not_told_to_come_again(encoder):
    opened = Batcher(encoder, Limits(queue_items=2, queue_bytes=100), Metrics())
    with pytest.raises(RequestTooLargeError, match=r"3 items are over the 2 .*--max-queue"):
        opened.submit([text()] * 3, 8)
    with pytest.raises(RequestTooLargeError, match=r"101 bytes .* over the 100 .*queue_bytes"):
        opened.submit([text("e" * 101)], 8)
    assert all(future.result(30) for future in opened.submit([text(), text("e" * 98)], 8))
    opened.stop()


def test_a_stop_finishes_what_is_there_and_takes_nothing_more(encoder):
    opened = Batcher(encoder, DEFAULT_LIMITS, Metrics())
    futures = opened.submit([text(f"text {number}") for number in range(40)], 8)
    opened.stop()
    assert all(future.done() and future.result() for future in futures)
    assert not opened.is_running()
    with pytest.raises(StoppedError):
        opened.submit([text()], 8)
