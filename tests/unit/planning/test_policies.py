"""Which policy works on which object, as RabbitMQ decides it."""

from __future__ import annotations

import pytest

from amqpflow.model.resources import Exchange, Policy, Queue
from amqpflow.planning.policies import applies, readable, working

QUORUM = Queue(name="orders.confirm", arguments={"x-queue-type": "quorum"})
CLASSIC = Queue(name="orders.confirm", arguments={"x-queue-type": "classic"})
EXCHANGE = Exchange(name="orders.retry", type="direct")


def policy(pattern: str = ".*", apply_to: str = "all", priority: int = 0, name: str = "p", **keys: object) -> Policy:
    definition = {key.replace("_", "-"): value for key, value in keys.items()} or {"max-length": 1}
    return Policy(name=name, pattern=pattern, apply_to=apply_to, priority=priority, definition=definition)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [("confirm", True), ("^orders", True), ("^confirm", False), ("orders.confirm", True), ("", True)],
)
def test_a_pattern_is_searched_unanchored(pattern: str, matches: bool) -> None:
    assert applies(policy(pattern), QUORUM) is matches


@pytest.mark.parametrize(
    ("apply_to", "quorum", "classic", "exchange"),
    [
        ("all", True, True, True),
        ("queues", True, True, False),
        ("exchanges", False, False, True),
        ("quorum_queues", True, False, False),
        ("classic_queues", False, True, False),
        ("streams", False, False, False),
    ],
)
def test_apply_to_limits_what_a_policy_covers(apply_to: str, quorum: bool, classic: bool, exchange: bool) -> None:
    found = tuple(applies(policy(apply_to=apply_to), target) for target in (QUORUM, CLASSIC, EXCHANGE))
    assert found == (quorum, classic, exchange)


def test_a_key_of_another_queue_type_makes_rabbitmq_pass_the_whole_policy_over() -> None:
    """Fact 11.6d."""
    mixed = policy(delivery_limit=5, message_ttl=1000)
    assert applies(mixed, QUORUM)
    assert not applies(mixed, CLASSIC)
    assert not applies(policy(ha_mode="all"), QUORUM)


def test_only_the_highest_priority_works() -> None:
    low, high = policy(name="low", priority=-1), policy(name="high", priority=3)
    assert working([low, high], QUORUM) == (high,)


def test_a_tie_is_all_of_them() -> None:
    one, other = policy(name="one"), policy(name="other")
    assert working([one, other], QUORUM) == (one, other)


def test_a_pattern_that_cannot_be_read_here_counts_as_matching() -> None:
    strange = policy(r"\Qorders\E(*UCP)")
    assert not readable(strange)
    assert applies(strange, QUORUM)
