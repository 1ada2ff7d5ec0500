"""Which change of what works on a queue makes RabbitMQ drop messages, how many, and what the plan says against it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from amqpflow.model.diagnostic import Severity
from amqpflow.model.resources import BrokerState, Policy, Queue
from amqpflow.planning.checks.message_loss import leaving, objection, objections, with_risks
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.values.approvals import NOTHING, Approval, Approvals, parse_approvals
from amqpflow.planning.values.changes import Change, DeleteQueue, PutPolicy, RemovePolicy
from amqpflow.planning.values.findings import Ref
from amqpflow.planning.values.observation import Depth, Observation
from amqpflow.planning.values.queue_risk import QueueRisk, Risk
from tests.plans import after, limits, observation, with_objects
from tests.topologies import topology

RETAINING = {"dead_letter_exchange": "", "dead_letter_routing_key": "park", "dead_letter_strategy": "at-least-once"}
SHRINKS = QueueRisk(queue="q", risk=Risk.LENGTH, after=5)


def queue(queue_type: str = "classic", **arguments: object) -> Queue:
    keys = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return Queue(name="orders", arguments={"x-queue-type": queue_type, **keys})


def seen(there: Queue, *policies: Policy, operators: tuple[Policy, ...] = (), **depth: Any) -> Observation:
    state = BrokerState(
        queues={there.name: there, "park": Queue(name="park")},
        policies={each.name: each for each in policies},
        operator_policies={each.name: each for each in operators},
    )
    found = observation(state)
    return replace(found, depths={"orders": Depth(**depth)}) if depth else found


def staked(observed: Observation, *changes: Change, approvals: Approvals = NOTHING) -> list[QueueRisk]:
    planned = with_risks(changes, observed, approvals, "shop")
    return [stake for each in planned if isinstance(each, PutPolicy | RemovePolicy) for stake in each.at_stake]


def put(**definition: object) -> PutPolicy:
    return PutPolicy(policy=limits("orders", **definition))


@pytest.mark.parametrize(("version", "works"), [((3, 10, 25), True), ((4, 0, 5), False)])
def test_a_policy_is_judged_by_the_keys_that_the_broker_knows(version: tuple[int, ...], works: bool) -> None:
    """RabbitMQ 4 passes a policy with max-in-memory-length over on a classic queue, RabbitMQ 3 does not."""
    observed = replace(seen(queue()), version=version)
    found = staked(observed, put(max_length=10, max_in_memory_length=5))
    assert [(each.risk, each.after) for each in found] == [(Risk.LENGTH, 10)] * works


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.parametrize(
    ("old", "new", "dropped"),
    [
        (None, {"max_length": 10}, [(Risk.LENGTH, None, 10)]),
        ({"max_length": 20}, {"max_length": 10}, [(Risk.LENGTH, 20, 10)]),
        ({"max_length": 10}, {"max_length": 10, "message_ttl": 1}, []),
        ({"max_length": 10}, {"max_length": 20}, []),
        (None, {"max_length_bytes": 5}, [(Risk.BYTES, None, 5)]),
        (
            {"max_length": 10, "overflow": "reject-publish"},
            {"max_length": 10, "overflow": "drop-head"},
            [(Risk.LENGTH, None, 10)],
        ),
        ({"max_length": 10, "overflow": "reject-publish"}, {"max_length": 10}, [(Risk.LENGTH, None, 10)]),
        ({"max_length": 10}, {"max_length": 5, "overflow": "reject-publish"}, []),
        (None, {"expires": 1000}, [(Risk.EXPIRES, None, 1000)]),
        ({"expires": 5000}, {"expires": 1000}, [(Risk.EXPIRES, 5000, 1000)]),
        ({"expires": 1000}, {"expires": 5000}, []),
        (None, {"message_ttl": 1}, []),
        (None, {"consumer_timeout": 1000}, []),
        (None, {"dead_letter_routing_key": "other"}, []),
    ],
)
def test_a_policy_puts_at_stake_what_it_makes_rabbitmq_drop(
    queue_type: str, old: dict[str, Any] | None, new: dict[str, Any], dropped: list[tuple[Risk, int | None, int]]
) -> None:
    policies = [limits("orders", **old)] if old else []
    found = staked(seen(queue(queue_type), *policies), put(**new))
    assert [(each.risk, each.before, each.after) for each in found] == dropped


@pytest.mark.parametrize(("queue_type", "drops"), [("classic", False), ("quorum", True)])
def test_reject_publish_dlx_drops_the_head_of_a_quorum_queue_alone(queue_type: str, drops: bool) -> None:
    """Fact 4.12."""
    found = staked(seen(queue(queue_type, overflow="reject-publish-dlx")), put(max_length=5))
    assert bool(found) is drops


@pytest.mark.parametrize(
    ("target", "keys", "drops"),
    [
        (queue("classic", overflow="reject-publish"), {"overflow": "drop-head"}, False),
        (queue("quorum", overflow="reject-publish"), {"overflow": "drop-head"}, True),
        (queue("quorum", overflow="drop-head"), {"overflow": "reject-publish"}, False),
        (queue("classic", overflow="drop-head"), {"overflow": "reject-publish"}, True),
    ],
)
def test_of_overflow_the_argument_works_on_a_classic_queue_and_the_policy_on_a_quorum_queue(
    target: Queue, keys: dict[str, object], drops: bool
) -> None:
    """Fact 11.6."""
    assert bool(staked(seen(target), put(max_length=5, **keys))) is drops


def test_what_is_limited_tighter_already_does_not_change() -> None:
    operator = limits("orders", name="op", max_length=3)
    assert staked(seen(queue(), operators=(operator,)), put(max_length=5)) == []
    assert staked(seen(queue(max_length=3)), put(max_length=5)) == []


@pytest.mark.parametrize("expires", [False, True])
def test_removing_a_policy_can_uncover_a_foreign_one(expires: bool) -> None:
    ours = limits("orders", max_length=50)
    foreign = limits("orders", 1, "foreign", **({"expires": 10} if expires else {"max_length": 5}))
    (found,) = staked(seen(queue(), ours, foreign), RemovePolicy(policy=ours))
    assert (found.risk, found.after) == ((Risk.EXPIRES, 10) if expires else (Risk.LENGTH, 5))


FULL = {**RETAINING, "overflow": "reject-publish"}


@pytest.mark.parametrize(
    ("arguments", "old", "change"),
    [
        ({}, FULL, RemovePolicy(policy=limits("orders", **FULL))),
        ({}, FULL, put(**RETAINING)),
        ({}, FULL, put(**{**FULL, "dead_letter_strategy": "at-most-once"})),
        ({}, FULL, put(max_length=1000)),
        ({}, FULL, PutPolicy(policy=limits("orders", 200, "amqpflow.shop.other", max_length=1000))),
        (FULL, {}, put(overflow="drop-head")),
        ({"dead_letter_strategy": "at-least-once", "overflow": "reject-publish"}, RETAINING, put(max_length=1)),
    ],
    ids=["removed", "overflow", "strategy", "dead-letter", "displaced", "overflow-over-argument", "exchange"],
)
def test_what_ends_at_least_once_puts_what_is_retained_at_stake(
    arguments: dict[str, Any], old: dict[str, Any], change: Change
) -> None:
    """Fact 4.11."""
    policies = [limits("orders", **old)] if old else []
    assert Risk.RETAINED in [each.risk for each in staked(seen(queue("quorum", **arguments), *policies), change)]


@pytest.mark.parametrize(
    "new",
    [
        {**FULL, "dead_letter_routing_key": "other"},
        {**FULL, "max_length": 1},
        {**FULL, "delivery_limit": 3},
        {**FULL, "dead_letter_exchange": "elsewhere"},
    ],
)
def test_what_keeps_at_least_once_keeps_what_is_retained(new: dict[str, Any]) -> None:
    observed = seen(queue("quorum"), limits("orders", **FULL))
    assert [each.risk for each in staked(observed, put(**new)) if each.risk is Risk.RETAINED] == []


def test_a_policy_that_moves_to_another_name_ends_nothing() -> None:
    old = limits("orders", **FULL)
    new = limits("orders", name="amqpflow.shop.quorum-ffffffff", **FULL)
    assert staked(seen(queue("quorum"), old), PutPolicy(policy=new), RemovePolicy(policy=old)) == []


def test_a_limit_that_moves_to_another_name_is_judged_by_what_works_in_between() -> None:
    old, new = limits("orders", max_length=20), limits("orders", name="amqpflow.shop.quorum-ffffffff", max_length=10)
    found = staked(seen(queue(), old), PutPolicy(policy=new), RemovePolicy(policy=old))
    assert {(each.risk, each.before, each.after) for each in found} == {(Risk.LENGTH, 20, 10)}


def test_only_a_deletion_that_may_lose_messages_takes_a_queue_out_of_it() -> None:
    observed = seen(queue("quorum"), limits("orders", **FULL))
    removal = RemovePolicy(policy=limits("orders", **FULL))
    there = observed.state.queues["orders"]
    assert staked(observed, removal, DeleteQueue(queue=there))
    assert not staked(observed, removal, DeleteQueue(queue=there, forced=True))


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        ({}, ""),
        ({"dead_letter_exchange": "", "dead_letter_routing_key": "park"}, "queue park"),
        ({"dead_letter_exchange": "", "dead_letter_routing_key": "gone"}, ""),
        ({"dead_letter_exchange": "nowhere"}, ""),
        ({"dead_letter_exchange": "amq.topic"}, "exchange amq.topic"),
    ],
)
def test_where_dropped_messages_go_is_said(arguments: dict[str, Any], target: str) -> None:
    (stake,) = staked(seen(queue(**arguments)), put(max_length=5))
    assert stake.target == target


@pytest.mark.parametrize(
    ("stake", "depth", "count"),
    [
        (SHRINKS, Depth(messages=100, ready=100), 95),
        (SHRINKS, Depth(messages=100, ready=6), 1),
        (SHRINKS, Depth(messages=5, ready=5, unacked=0), 0),
        (SHRINKS, Depth(messages=None), None),
        (SHRINKS, Depth(messages=5, ready=5), None),
        (SHRINKS, Depth(messages=9, ready=2, unacked=7), 4),
        (SHRINKS, Depth(messages=9, ready=0, unacked=9), 4),
        (QueueRisk(queue="q", risk=Risk.BYTES, after=500), Depth(messages=0, ready=0), None),
        (
            QueueRisk(queue="q", risk=Risk.BYTES, after=500),
            Depth(messages=10, ready=0, unacked=10, ready_bytes=0, unacked_bytes=1000),
            5,
        ),
        (
            QueueRisk(queue="q", risk=Risk.BYTES, after=500),
            Depth(messages=5, ready=4, unacked=1, ready_bytes=400, unacked_bytes=100),
            0,
        ),
        (QueueRisk(queue="q", risk=Risk.LENGTH, after=5, delays=True), Depth(messages=10, ready=6, delayed=4), 5),
        (QueueRisk(queue="q", risk=Risk.LENGTH, after=5, delays=True), Depth(messages=10, ready=6, hidden=4), 5),
        (QueueRisk(queue="q", risk=Risk.LENGTH, after=5, delays=True), Depth(messages=None, ready=1), None),
        (QueueRisk(queue="q", risk=Risk.BYTES, after=500), Depth(messages=10, ready=10, ready_bytes=1000), 5),
        (QueueRisk(queue="q", risk=Risk.BYTES, after=500), Depth(messages=10, ready=10, ready_bytes=500), None),
        (QueueRisk(queue="q", risk=Risk.BYTES, after=500), Depth(messages=10, ready=10), None),
        (QueueRisk(queue="q", risk=Risk.BYTES, after=500), Depth(messages=0, ready=0, unacked=0), 0),
        (QueueRisk(queue="q", risk=Risk.RETAINED), Depth(messages=3, ready=0, hidden=3, retained=2), 2),
        (QueueRisk(queue="q", risk=Risk.RETAINED), Depth(messages=3, ready=0, hidden=3), 3),
        (QueueRisk(queue="q", risk=Risk.RETAINED), Depth(messages=3, ready=3, hidden=0, retained=0), 0),
        (QueueRisk(queue="q", risk=Risk.RETAINED), Depth(messages=None, ready=3), None),
        (QueueRisk(queue="q", risk=Risk.RETAINED), None, None),
    ],
)
def test_counts_say_how_many_leave_and_an_unknown_one_is_not_0(
    stake: QueueRisk, depth: Depth | None, count: int | None
) -> None:
    """Facts 8.8 and 11.27: what is unacked stays, what is delayed counts."""
    assert leaving(stake, depth) == count


@pytest.mark.parametrize(
    ("stake", "depth", "counted", "verdict"),
    [
        (SHRINKS, Depth(messages=9, ready=9), True, Severity.ERROR),
        (
            replace(SHRINKS, allowed=True),
            Depth(messages=9, ready=9),
            True,
            Severity.WARNING,
        ),
        (
            SHRINKS,
            Depth(messages=1, ready=1, unacked=0),
            True,
            Severity.WARNING,
        ),
        (SHRINKS, None, False, Severity.WARNING),
        (SHRINKS, None, True, Severity.ERROR),
        (QueueRisk(queue="q", risk=Risk.EXPIRES, after=5), Depth(messages=0, ready=0), True, Severity.ERROR),
        (QueueRisk(queue="q", risk=Risk.EXPIRES, after=5, allowed=True), None, True, Severity.WARNING),
        (QueueRisk(queue="q", risk=Risk.RETAINED), Depth(messages=1, ready=0, retained=1), False, Severity.ERROR),
        (
            QueueRisk(queue="q", risk=Risk.RETAINED, allowed=True),
            Depth(messages=1, ready=0, retained=1),
            True,
            Severity.ERROR,
        ),
        (QueueRisk(queue="q", risk=Risk.RETAINED), Depth(messages=1, ready=1, retained=0), True, None),
        (QueueRisk(queue="q", risk=Risk.RETAINED), None, False, None),
        (QueueRisk(queue="q", risk=Risk.RETAINED), None, True, Severity.ERROR),
        (QueueRisk(queue="q", risk=Risk.RETAINED, allowed=True), None, True, None),
        (
            QueueRisk(queue="q", risk=Risk.LENGTH, after=2, delays=True, allowed=True),
            Depth(messages=4, ready=0, delayed=4),
            True,
            Severity.ERROR,
        ),
    ],
)
def test_what_is_lost_is_refused_unless_the_queue_is_named(
    stake: QueueRisk, depth: Depth | None, counted: bool, verdict: Severity | None
) -> None:
    found = objection(stake, depth, counted=counted)
    assert (found and found.severity) == verdict


def test_a_name_allows_that_queue_to_lose_messages_and_nothing_else() -> None:
    observed = seen(queue(), messages=100, ready=100)
    named = parse_approvals(["drop:orders"])
    assert Approval("delete", Ref("queue", "orders")) not in named
    for approvals, severity in ((named, Severity.WARNING), (parse_approvals(["drop:other"]), Severity.ERROR)):
        changes = with_risks([put(max_length=5)], observed, approvals, "shop")
        (finding,) = objections(changes, observed)
        assert finding.severity is severity
        assert "the 95 oldest messages are deleted at once" in finding.message
    assert parse_approvals(["delete,drop:a,b"]) == {Approval("delete"), Approval("drop", Ref("queue", "a,b"))}
    for nonsense in ("drop", "drop:"):
        with pytest.raises(ValueError, match="drop:QUEUE"):
            parse_approvals([nonsense])


def test_the_plan_counts_what_leaves_queues_that_exist_only() -> None:
    shop = topology({"orders": [5000]}, vhost="/")
    classic = with_objects(shop, queues={**shop.desired.queues, "orders": queue(amqpflow_topology="shop")})
    limited = with_objects(classic, policies={"amqpflow.shop.quorum-0123abcd": limits("orders")})
    assert not diff(limited, observation()).warnings
    there = observation(after(BrokerState(), diff(classic, observation()).changes))
    plan = diff(limited, replace(there, depths={"orders": Depth(messages=3, ready=3)}))
    assert [(each.code, each.object) for each in plan.warnings] == [("limit-shrinks", "queue orders")]
    assert not plan.refusals
    plan = diff(limited, replace(there, depths={"orders": Depth(messages=30, ready=30)}))
    assert [(each.code, each.object) for each in plan.refusals] == [("limit-shrinks", "queue orders")]
    assert "`allow` drop:orders" in plan.refusals[0].hint
