"""A plan says when a tighter limit takes messages out of a queue that exists."""

from __future__ import annotations

import pytest

from amqpflow.model.resources import BrokerState, Policy, Queue
from amqpflow.planning.diff import diff
from amqpflow.planning.shrinking import shrinking
from tests.plans import after, limits, observation, with_objects
from tests.topologies import topology


def queue(queue_type: str = "classic", **arguments: object) -> Queue:
    keys = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return Queue(name="orders", arguments={"x-queue-type": queue_type, **keys})


def warned(there: Queue, old: Policy | None, new: Policy | None, *operators: Policy) -> list[str]:
    state = BrokerState(
        queues={there.name: there},
        policies={old.name: old} if old else {},
        operator_policies={each.name: each for each in operators},
    )
    return [each.message for each in shrinking([there], state, [new] if new else [])]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (None, 10, "max-length becomes 10 (now limited)"),
        (20, 10, "max-length becomes 10 (20 before)"),
        (10, 10, ""),
        (10, 20, ""),
        (10, None, ""),
    ],
)
def test_a_tighter_limit_is_said(old: int | None, new: int | None, said: str) -> None:
    """Fact 11.6f."""
    was, becomes = (limits("orders", max_length=each) if each else None for each in (old, new))
    found = warned(queue(dead_letter_exchange=""), was, becomes)
    assert len(found) == bool(said)
    assert all(each.startswith(said) and "at most once" in each for each in found)


def test_bytes_and_a_queue_without_dead_letters_are_said() -> None:
    assert warned(queue(), None, limits("orders", max_length_bytes=5)) == [
        "max-length-bytes becomes 5 (now limited): of what it holds the oldest beyond that is deleted at once"
    ]


def test_what_is_limited_tighter_already_does_not_change() -> None:
    operator = limits("orders", name="op", max_length=3)
    assert warned(queue(), None, limits("orders", max_length=5), operator) == []
    assert warned(queue(max_length=3), None, limits("orders", max_length=5)) == []


@pytest.mark.parametrize(
    ("target", "keys", "drops"),
    [
        (queue("classic", overflow="reject-publish"), {}, False),
        (queue("classic", overflow="reject-publish"), {"overflow": "drop-head"}, False),
        (queue("quorum", overflow="reject-publish"), {}, False),
        (queue("quorum", overflow="reject-publish"), {"overflow": "drop-head"}, True),
        (queue("quorum", overflow="drop-head"), {"overflow": "reject-publish"}, False),
        (queue("classic", overflow="drop-head"), {"overflow": "reject-publish"}, True),
    ],
)
def test_only_an_overflow_that_drops_the_head_takes_messages_out(
    target: Queue, keys: dict[str, object], drops: bool
) -> None:
    """Of overflow the argument works on a classic queue, the policy on a quorum queue (fact 11.6)."""
    assert bool(warned(target, None, limits("orders", max_length=5, **keys))) is drops


def test_removing_a_policy_can_uncover_a_tighter_one() -> None:
    there, ours, foreign = queue(), limits("orders", max_length=50), limits("orders", 1, "foreign", max_length=5)
    state = BrokerState(queues={"orders": there}, policies={each.name: each for each in (ours, foreign)})
    assert [each.code for each in shrinking([there], state, [foreign])] == ["limit-shrinks"]


def test_the_plan_warns_of_queues_that_exist_only() -> None:
    shop = topology({"orders": [5000]}, vhost="/")
    classic = with_objects(shop, queues={**shop.desired.queues, "orders": queue(amqpflow_topology="shop")})
    limited = with_objects(classic, policies={"amqpflow.shop.quorum-0123abcd": limits("orders")})
    assert not diff(limited, observation()).warnings
    plan = diff(limited, observation(after(BrokerState(), diff(classic, observation()).changes)))
    assert [(each.code, each.object) for each in plan.warnings] == [("limit-shrinks", "queue orders")]
    assert not plan.refusals
