"""Where a queue's failed messages go."""

from __future__ import annotations

from amqpflow.model.routes import QueueRoutes, RetryRule, RetryStep, RetryTier


def tier(delay_ms: int) -> RetryTier:
    return RetryTier(delay_ms=delay_ms, queue=f"q.retry.{delay_ms}")


def step(*delays: int) -> RetryStep:
    return RetryStep(delay_ms=max(delays), tiers=tuple(map(tier, delays)))


def test_tiers_are_every_retry_queue_once_the_shortest_first() -> None:
    routes = QueueRoutes(
        queue="q",
        queue_type="quorum",
        retry_exchange="t.retry",
        parking_exchange="t.parking",
        parking_queue="q.parking",
        steps=(step(5000), step(5000), step(20_000, 18_000)),
        rules=(
            RetryRule(errors=("A",), steps=(step(1000), step(5000))),
            RetryRule(errors=("B",), park="bad"),
        ),
    )
    assert [each.delay_ms for each in routes.tiers] == [1000, 5000, 18_000, 20_000]


def test_a_queue_without_retries_has_no_tiers() -> None:
    routes = QueueRoutes(
        queue="q", queue_type="quorum", retry_exchange="r", parking_exchange="p", parking_queue="q.parking"
    )
    assert routes.tiers == ()
