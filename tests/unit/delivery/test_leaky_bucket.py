"""Even distances between calls."""

from __future__ import annotations

from amqpflow.delivery.leaky_bucket import LeakyBucket


def begins(*asked_at: float) -> list[float]:
    bucket, times = LeakyBucket(interval=0.5), []
    for now in asked_at:
        bucket, at = bucket.begin(now)
        times.append(at)
    return times


def test_calls_are_at_even_distances() -> None:
    assert begins(0, 0, 0, 0) == [0, 0.5, 1, 1.5]


def test_an_idle_time_is_not_saved_up() -> None:
    assert begins(0, 60, 60, 60) == [0, 60, 60.5, 61]


def test_a_late_event_loop_loses_nothing() -> None:
    assert begins(0, 0.55, 1.05) == [0, 0.55, 1.05]
    assert begins(0, 0.55, 0.55) == [0, 0.55, 1.0], "counted from when it was due"
