"""When a breaker opens, for how long, and what closes it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from amqpflow.delivery.breaker import Breaker, BreakerState, Phase, counted, half_opened, opened, tried

BREAKER = Breaker(failure_ratio=0.5, window=10, minimum=4, open_for=5, longest=15)


def after(outcomes: str, *, breaker: Breaker = BREAKER, apart: float = 0.1) -> BreakerState:
    """The state after calls, `x` for one that failed."""
    state, now = BreakerState(), 100.0
    for each in outcomes:
        state = counted(state, breaker, now, failed=each == "x")
        now += apart
    return state


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
    state = after("xxxx")
    assert state.reason == "4 of 4 calls failed within 10 s"
    assert state.until == pytest.approx(100.3 + 5)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    assert after("xxxx", apart=4.0).phase is Phase.CLOSED
    assert after("x" * 100, apart=2.4).phase is Phase.OPEN


def test_the_account_of_a_window_does_not_grow() -> None:
    assert len(after("." * 10_000, apart=0.01).parts) <= 10


def test_an_error_that_trips_opens_at_once() -> None:
    state = counted(BreakerState(), BREAKER, 1.0, failed=True, trip="ConnectionError: refused")
    assert state.phase is Phase.OPEN
    assert state.reason == "ConnectionError: refused"


def test_a_single_message_is_tried_when_the_time_is_over_and_closes_it() -> None:
    state = after("xxxx")
    assert half_opened(state, state.until - 0.01) is state
    half_open = half_opened(state, state.until)
    assert half_open.phase is Phase.HALF_OPEN
    assert counted(half_open, BREAKER, 200.0, failed=True) is half_open, "others say nothing now"
    assert tried(half_open, BREAKER, 200.0, failed=False) == BreakerState()


def test_each_time_in_a_row_it_is_open_for_twice_as_long_up_to_the_longest() -> None:
    state, now, times = after("xxxx"), 100.3, []
    for _ in range(4):
        times.append(state.until - now)
        now = state.until
        state = tried(half_opened(state, now), BREAKER, now, failed=True)
    assert times == pytest.approx([5, 10, 15, 15])
    assert state.opened_at == pytest.approx(100.3), "the first time of them"


def test_without_a_longest_time_it_does_not_double() -> None:
    assert [Breaker(open_for=5).opens_for(each) for each in (1, 2, 50, 5000)] == [5] * 4


def test_a_pause_while_it_is_open_only_prolongs_it() -> None:
    state = opened(BreakerState(), 0.0, 10, "first")
    assert opened(state, 1.0, 5, "second") == state
    assert opened(state, 1.0, 30, "second").until == 31
    assert opened(state, 1.0, 30, "second").reason == "first"


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
