from __future__ import annotations

import pytest

from amqpflow.delivery.backoff import LONGEST_PAUSE, Backoff, jittered


def test_waits_double_up_to_the_longest() -> None:
    waits = [0.0]
    for _ in range(7):
        waits.append(Backoff(0.5).after(waits[-1]))
    assert waits == [0, 0.5, 1, 2, 4, 8, LONGEST_PAUSE, LONGEST_PAUSE]
    assert Backoff(1, 30).after(0.2) == 1


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 5.0), (0.5, 7.5), (1.0, 10.0)])
def test_clients_come_back_within_half_of_a_wait_of_each_other(chance: float, expected: float) -> None:
    assert jittered(10.0, chance) == expected


def test_a_try_that_timed_out_has_waited_already() -> None:
    assert jittered(10.0, 1.0, took=4.0) == 6.0
    assert jittered(0.5, 1.0, took=10.0) == 0.0
