"""Batches within a budget, and the processor ahead of the model: order, errors, bounds and ends."""

import math
import random
import threading
import time

import numpy as np
import pytest
import torch
from common import random_item

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.encode.batching import (
    PaddingReport,
    ProcessorCopies,
    most_tokens,
    plan_batches,
    read_ahead,
    read_together,
    run_ahead,
)


@pytest.mark.parametrize("seed", range(20))
def test_every_item_is_in_one_batch_within_the_budget_and_the_largest_come_first(seed):
    rng = random.Random(seed)
    sizes = [rng.choice((rng.randint(1, 60), rng.randint(300, 1300))) for _ in range(rng.randint(0, 80))]
    batches = plan_batches(sizes, token_budget=2000, max_items=rng.randint(1, 32))
    assert sorted(place for batch in batches for place in batch) == list(range(len(sizes)))
    assert all(len(batch) * max(sizes[place] for place in batch) <= 2000 for batch in batches)
    firsts = [sizes[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


def test_an_item_above_the_budget_has_a_batch_to_itself():
    assert plan_batches([10, 500, 10], token_budget=100, max_items=8) == [[1], [0, 2]]


def test_batches_by_tokens_waste_less_than_batches_by_number():
    rng = random.Random(0)
    sizes = [rng.choice((200, 1300)) + rng.randint(0, 40) for _ in range(200)]

    def padded(batches):
        return sum(len(batch) * max(sizes[place] for place in batch) for batch in batches) / sum(sizes) - 1

    in_order = [list(range(start, min(200, start + 8))) for start in range(0, 200, 8)]
    assert padded(plan_batches(sizes, 10_000, 64)) < 0.1 < 0.4 < padded(in_order)


@pytest.mark.parametrize("budget", [0, -1.0, math.nan, "1", None, True])
def test_a_budget_that_is_no_number_above_0_is_refused(budget):
    with pytest.raises(ValueError, match=f"token_budget must be a number above 0, got {budget!r}"):
        plan_batches([1], budget, 1)


@pytest.mark.parametrize("items", [0, -1, 2.5, math.nan, "8", None, True])
def test_a_number_of_items_that_is_no_whole_number_above_0_is_refused(items):
    with pytest.raises(ValueError, match=f"batch_size must be a whole number above 0, got {items!r}"):
        plan_batches([1], 10, items)


def test_numbers_of_numpy_and_a_budget_without_end_are_limits():
    assert plan_batches([1, 1], np.float32(1), np.int64(2)) == [[0], [1]]
    assert plan_batches([1, 1], math.inf, 2) == [[0, 1]]


def test_padding_is_counted():
    report = PaddingReport()
    report.add(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]))
    report.add(torch.tensor([[1, 1]]))
    assert (report.num_batches, report.num_rows, report.num_tokens, report.num_padded) == (2, 3, 8, 2)
    assert report.share_padded == 0.2
    assert PaddingReport().share_padded == 0


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_results_come_in_order_and_errors_at_their_place(num_threads):
    def work(number):
        time.sleep(0.002 * (number % 3))
        if number == 5:
            raise ValueError("five")
        return number * number

    seen = []
    for number, future in run_ahead(work, range(12), num_threads):
        seen.append((number, "error" if future.exception() else future.result()))
    assert seen == [(number, "error" if number == 5 else number * number) for number in range(12)]


def test_no_more_than_asked_for_is_ahead():
    begun = []
    for taken, _ in enumerate(run_ahead(begun.append, range(30), num_threads=2, ahead=3)):
        time.sleep(0.002)
        assert len(begun) <= taken + 4 + 1
    assert len(begun) == 30


def test_work_goes_on_while_the_caller_is_busy():
    done = threading.Event()
    results = run_ahead(lambda number: done.set() if number == 1 else None, range(3), num_threads=1)
    next(results)
    assert done.wait(timeout=5)
    results.close()


def test_leaving_the_loop_ends_the_threads():
    before = threading.active_count()
    for taken, _ in run_ahead(lambda group: group, range(100), num_threads=3):
        if taken == 2:
            break
    for number in read_ahead(range(100), ahead=3):
        if number == 2:
            break
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.02)
    assert threading.active_count() == before


def test_reading_ahead_keeps_the_order_its_bound_and_the_place_of_an_error():
    taken = []

    def source():
        for number in range(20):
            if number == 12:
                raise OSError("twelve")
            taken.append(number)
            yield number

    numbers = read_ahead(source(), ahead=3)
    for number in range(12):
        assert next(numbers) == number
        time.sleep(0.002)
        assert len(taken) <= number + 1 + 3 + 1
    with pytest.raises(OSError, match="twelve"):
        next(numbers)


def test_reading_goes_on_while_the_caller_is_busy():
    second = threading.Event()

    def source():
        yield 1
        second.set()
        yield 2

    numbers = read_ahead(source(), ahead=1)
    next(numbers)
    assert second.wait(timeout=5)
    assert list(numbers) == [2]


def test_a_result_comes_out_while_the_next_group_is_waited_for():
    may_go_on = threading.Event()

    def groups():
        yield 1
        assert may_go_on.wait(timeout=5)
        yield 2

    results = run_ahead(lambda group: 10 * group, groups(), num_threads=2)
    group, done = next(results)
    assert (group, done.result()) == (1, 10)
    may_go_on.set()
    assert [group for group, _ in results] == [2]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_sources_taken_together_come_one_after_the_other(num_threads, ahead):
    def source(number: int):
        for step in range(number % 4):
            time.sleep(0.001 * ((7 * number + step) % 3))
            yield number, step

    together = list(read_together(map(source, range(30)), num_threads, ahead))
    assert together == [(number, step) for number in range(30) for step in range(number % 4)]


def test_two_sources_are_taken_at_once():
    begun = threading.Barrier(2, timeout=5)

    def source(number: int):
        begun.wait()
        yield number

    assert list(read_together(map(source, range(2)), num_threads=2, ahead=4)) == [0, 1]


def test_what_waits_of_all_sources_is_bounded_and_the_first_is_never_held_up():
    taken, first_may_go_on = [], threading.Event()

    def source(number: int):
        if number == 0:
            assert first_may_go_on.wait(timeout=5)
        for step in range(5):
            taken.append((number, step))
            yield number, step

    sizes = {"num_bytes": lambda element: 40, "max_bytes": 100}
    together = read_together(map(source, range(4)), num_threads=3, ahead=50, **sizes)
    threading.Timer(0.3, first_may_go_on.set).start()
    assert next(together) == (0, 0)
    time.sleep(0.1)
    assert len(taken) <= 1 + 3 + 3, "one is out, two wait and one that is needed next, and each thread has one in hand"
    assert list(together) == [(number, step) for number in range(4) for step in range(5)][1:]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_error_of_a_source_or_between_sources_comes_at_its_place(num_threads):
    def source(number: int):
        yield number
        if number == 2:
            raise OSError("two")

    def sources(end: int):
        yield from map(source, range(end))
        raise KeyError("no more sources")

    for end, error, before in [(9, OSError, [0, 1, 2]), (2, KeyError, [0, 1])]:
        seen = []
        with pytest.raises(error):
            seen.extend(read_together(sources(end), num_threads, ahead=4))
        assert seen == before


@pytest.mark.parametrize(
    "text", ["a", "xqzw" * 50, "\u00e9\u4e2d\U0001f600" * 9, "\ufdfa\u0390\U0001d160" * 20, "\x00\r\n\t " * 9]
)
def test_no_text_has_more_tokens_than_is_said_without_tokenising_it(text, released_model_dir):
    tokenizer = PlumeProcessor.from_pretrained(released_model_dir).tokenizer
    assert len(tokenizer.encode(text, add_special_tokens=False)) <= most_tokens(text)


def test_a_copy_of_the_processor_is_lent_to_one_at_a_time_and_lent_again(released_model_dir):
    copies = ProcessorCopies(PlumeProcessor.from_pretrained(released_model_dir))
    with copies.borrow() as first, copies.borrow() as second:
        assert first is not second
    with copies.borrow() as again:
        assert again is first or again is second


def test_the_vectors_are_those_of_one_thread(released_model_dir):
    model, processor = (
        PlumeModel.from_pretrained(released_model_dir).eval(),
        PlumeProcessor.from_pretrained(released_model_dir),
    )
    rng = random.Random(0)
    items = [random_item(rng) for _ in range(24)]
    sizes = [processor([item])["input_ids"].shape[1] for item in items]
    vectors = torch.zeros(len(items), model.config.hidden_size)
    batches = plan_batches(sizes, token_budget=1500, max_items=8)
    with torch.inference_mode():
        expected = torch.cat([model(**processor([item])).embeddings for item in items])
        copies = ProcessorCopies(processor)

        def work(places):
            with copies.borrow() as own:
                return own([items[place] for place in places])

        for places, future in run_ahead(work, batches, num_threads=3):
            vectors[places] = model(**future.result()).embeddings
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=0)
