"""When a breaker opens, for how long, and what closes it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from amqpflow.delivery.breaker import Breaker, Circuit, Phase, counted, half_opened, opened, tried

BREAKER = Breaker(failure_ratio=0.5, window=10, minimum=4, open_for=5, longest=15)


def after(outcomes: str, *, breaker: Breaker = BREAKER, apart: float = 0.1) -> Circuit:
    """The circuit after calls, `x` for one that failed."""
    circuit, now = Circuit(), 100.0
    for each in outcomes:
        circuit = counted(circuit, breaker, now, failed=each == "x")
        now += apart
    return circuit


@pytest.mark.parametrize(
    ("outcomes", "phase"),
    [
        ("xxx", Phase.CLOSED),  # fewer than the minimum
        ("xxxx", Phase.OPEN),
        (".x.x", Phase.OPEN),  # half of them
        ("..x.x", Phase.CLOSED),
        ("x...", Phase.CLOSED),
        ("xx..", Phase.CLOSED),  # a success opens nothing
    ],
)
def test_it_opens_at_the_ratio_of_enough_calls(outcomes: str, phase: Phase) -> None:
    assert after(outcomes).phase is phase


def test_it_says_why_and_until_when() -> None:
    circuit = after("xxxx")
    assert circuit.reason == "4 of 4 calls failed within 10 s"
    assert circuit.until == pytest.approx(100.3 + 5)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    assert after("xxxx", apart=4.0).phase is Phase.CLOSED
    assert after("x" * 100, apart=2.4).phase is Phase.OPEN


def test_the_account_of_a_window_does_not_grow() -> None:
    assert len(after("." * 10_000, apart=0.01).parts) <= 10


def test_an_error_that_trips_opens_at_once() -> None:
    circuit = counted(Circuit(), BREAKER, 1.0, failed=True, trip="ConnectionError: refused")
    assert circuit.phase is Phase.OPEN
    assert circuit.reason == "ConnectionError: refused"


def test_a_single_message_is_tried_when_the_time_is_over_and_closes_it() -> None:
    circuit = after("xxxx")
    assert half_opened(circuit, circuit.until - 0.01) is circuit
    half_open = half_opened(circuit, circuit.until)
    assert half_open.phase is Phase.HALF_OPEN
    assert counted(half_open, BREAKER, 200.0, failed=True) is half_open, "others say nothing now"
    assert tried(half_open, BREAKER, 200.0, failed=False) == Circuit()


def test_each_time_in_a_row_it_is_open_for_twice_as_long_up_to_the_longest() -> None:
    circuit, now, times = after("xxxx"), 100.3, []
    for _ in range(4):
        times.append(circuit.until - now)
        now = circuit.until
        circuit = tried(half_opened(circuit, now), BREAKER, now, failed=True)
    assert times == pytest.approx([5, 10, 15, 15])
    assert circuit.opened_at == pytest.approx(100.3), "the first time of them"


def test_without_a_longest_time_it_does_not_double() -> None:
    assert [Breaker(open_for=5).opens_for(each) for each in (1, 2, 50, 5000)] == [5] * 4


def test_a_pause_while_it_is_open_only_prolongs_it() -> None:
    circuit = opened(Circuit(), 0.0, 10, "first")
    assert opened(circuit, 1.0, 5, "second") == circuit
    assert opened(circuit, 1.0, 30, "second").until == 31
    assert opened(circuit, 1.0, 30, "second").reason == "first"


@pytest.mark.parametrize(
    "options",
    [
        {"failure_ratio": 0},
        {"failure_ratio": 1.1},
        {"minimum": 0},
        {"window": 0},
        {"open_for": -1},
        {"open_for": "5s"},
        {"open_for": float("inf")},
        {"open_for": 10, "longest": 5},
        {"errors": (5,)},
        {"trip_on": (int,)},
    ],
)
def test_numbers_that_do_not_fit_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="Breaker"):
        Breaker(**options)


def test_durations_may_be_timedeltas_and_one_error_needs_no_tuple() -> None:
    breaker = Breaker(open_for=timedelta(minutes=1), errors=ConnectionError)  # type: ignore[arg-type]
    assert breaker.opens_for(1) == 60
    assert breaker.errors == (ConnectionError,)
