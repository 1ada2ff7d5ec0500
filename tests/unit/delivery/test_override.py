"""Another retry policy of the file for a queue, in the retry queues that the queue has."""

from __future__ import annotations

import pytest

from amqpflow.delivery.override import RetryQueuesMissingError, with_policy
from amqpflow.model.routes import RetryPolicy, RetryRule, RetryStep, RetryTier
from tests.topologies import topology

ROUTES = topology({"orders": [1000, (5000, 6000)]}, vhost="/", give_up_after_ms=60_000).routes["orders"]


def nameless(*delays: int) -> RetryStep:
    """A step of a policy, whose tiers belong to no queue yet."""
    return RetryStep(delay_ms=max(delays), tiers=tuple(RetryTier(delay_ms=each, queue="") for each in delays))


def test_each_delay_takes_the_retry_queue_of_the_work_queue() -> None:
    found = with_policy(ROUTES, RetryPolicy(steps=(nameless(5000, 6000), nameless(1000), nameless(1000))))
    assert [[tier.queue for tier in step.tiers] for step in found.steps] == [
        ["orders.retry.5s", "orders.retry.6s"],
        ["orders.retry.1s"],
        ["orders.retry.1s"],
    ]
    assert set(found.tiers) <= set(ROUTES.tiers)
    assert (found.parking_queue, found.retry_exchange) == (ROUTES.parking_queue, ROUTES.retry_exchange)


def test_a_policy_without_a_limit_takes_away_that_of_the_queue() -> None:
    assert with_policy(ROUTES, RetryPolicy(steps=(nameless(1000),))).give_up_after_ms is None
    assert with_policy(ROUTES, RetryPolicy(give_up_after_ms=5)).give_up_after_ms == 5


def test_a_policy_without_delays_parks_at_the_first_failure() -> None:
    assert with_policy(ROUTES, RetryPolicy()).steps == ()


def test_rules_come_from_the_policy() -> None:
    parks, waits, ends = (
        RetryRule(errors=("ValueError",), park="invalid"),
        RetryRule(errors=("OSError",), steps=(nameless(1000),)),
        RetryRule(errors=("KeyError",), steps=()),
    )
    found = with_policy(ROUTES, RetryPolicy(rules=(parks, waits, ends))).rules
    assert found[0] == parks
    assert [tier.queue for step in found[1].steps or () for tier in step.tiers] == ["orders.retry.1s"]
    assert found[2].steps == (), "no retries, which is not the same as the queue's own schedule"


def test_every_delay_without_a_retry_queue_is_named_once() -> None:
    rule = RetryRule(errors=("OSError",), steps=(nameless(2000, 7000),))
    with pytest.raises(RetryQueuesMissingError) as missing:
        with_policy(ROUTES, RetryPolicy(steps=(nameless(7000), nameless(1000)), rules=(rule,)))
    assert missing.value.delays == (2000, 7000)
