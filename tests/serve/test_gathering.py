"""A batch waits for clients that come back at once, and for no others."""

import pytest

from plume_embed.serve.gathering import Gathering


def rounds(share_back: float, count: int = 20) -> Gathering:
    """After batches of 32 rows that took 0.2 s each, a share of whose clients asked again within 10 ms."""
    gathering = Gathering()
    for number in range(count):
        gathering.answered(32, 0.2, float(number))
        gathering.came(round(share_back * 32), number + 0.01)
    gathering.answered(32, 0.2, float(count))
    return gathering


def test_nothing_is_expected_before_the_first_batch():
    assert Gathering().num_expected(0.0) == 0


def test_clients_that_come_back_are_waited_for_until_they_are_there():
    gathering = rounds(1.0)
    assert gathering.num_expected(20.0) == 32
    gathering.came(20, 20.01)
    assert gathering.num_expected(20.02) == 12
    gathering.came(12, 20.02)
    assert gathering.num_expected(20.02) == 0


def test_no_wait_for_clients_that_do_not_come_back():
    assert rounds(0.2).num_expected(20.0) == 0


def test_a_part_that_comes_back_is_waited_for_and_the_rest_is_not():
    gathering = rounds(0.75)
    gathering.came(24, 20.01)
    assert gathering.num_expected(20.01) == 0


def test_what_comes_while_there_is_no_wait_shows_that_clients_come_back():
    gathering = rounds(0.0)
    for number in range(20, 30):
        gathering.came(32, number + 0.01)
        gathering.answered(32, 0.2, number + 1.0)
    assert gathering.num_expected(30.0) > 28


def test_a_lone_client_is_waited_for_no_longer_than_it_takes_it_to_come():
    gathering = Gathering()
    gathering.answered(1, 0.05, 0.0)
    gathering.came(1, 0.002)
    assert gathering.num_expected(0.002) == 0


@pytest.mark.parametrize(("seconds", "wait"), [(0.2, 0.04), (30.0, 0.25)])
def test_a_wait_is_short_beside_a_batch(seconds, wait):
    gathering = Gathering()
    gathering.answered(32, seconds, 0.0)
    assert gathering.seconds == pytest.approx(wait)
    assert gathering.num_expected(wait - 0.001) == 32
    assert gathering.num_expected(wait + 0.001) == 0
