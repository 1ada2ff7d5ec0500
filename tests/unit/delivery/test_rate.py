"""Rates, and the pace that keeps them."""

from __future__ import annotations

import pytest

from amqpflow.delivery.rate import Pace, parse_rate


@pytest.mark.parametrize(
    ("text", "per_second"), [("100/s", 100), ("5000/m", 5000 / 60), ("36/h", 0.01), ("0.5/s", 0.5)]
)
def test_a_rate_is_read(text: str, per_second: float) -> None:
    assert parse_rate(text) == pytest.approx(per_second)


@pytest.mark.parametrize("text", ["100", "100/d", "0/s", "-1/s", "1e9/s", "9999999/s", "/s", "1/s ", "9" * 100 + "/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


def begins(*asked_at: float) -> list[float]:
    pace, times = Pace(interval=0.5), []
    for now in asked_at:
        pace, at = pace.begin(now)
        times.append(at)
    return times


def test_calls_are_at_even_distances() -> None:
    assert begins(0, 0, 0, 0) == [0, 0.5, 1, 1.5]


def test_an_idle_time_is_not_saved_up() -> None:
    assert begins(0, 60, 60, 60) == [0, 60, 60.5, 61]


def test_a_late_event_loop_loses_nothing() -> None:
    assert begins(0, 0.55, 1.05) == [0, 0.55, 1.05]
    assert begins(0, 0.55, 0.55) == [0, 0.55, 1.0], "counted from when it was due"
