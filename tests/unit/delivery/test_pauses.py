from __future__ import annotations

import pytest

from amqpflow.delivery.pauses import spread, still_to_wait


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 5.0), (0.5, 7.5), (1.0, 10.0)])
def test_clients_come_back_within_half_of_a_wait_of_each_other(chance: float, expected: float) -> None:
    assert spread(10.0, chance) == expected


def test_a_try_that_timed_out_has_waited_already() -> None:
    assert still_to_wait(10.0, 1.0, took=4.0) == 6.0
    assert still_to_wait(0.5, 1.0, took=10.0) == 0.0
