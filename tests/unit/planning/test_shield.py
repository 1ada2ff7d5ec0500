"""A platform's policies for everything are kept off the queues that the topology declares; no others are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from amqpflow.model.resources import STAMP, BrokerState, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.diff import destruction, diff
from amqpflow.planning.ownership.ownership import is_shield
from amqpflow.planning.policies.matching import applies, working
from amqpflow.planning.values.changes import PutPolicy, RemovePolicy, label
from amqpflow.planning.values.manifest import Manifest
from tests.plans import after, limits, observation, state_of, with_objects
from tests.topologies import topology

SHOP = topology({"orders": [5000]}, vhost="/")
CLASSIC = topology({"orders": [5000]}, vhost="/", queue_type="classic")
WORK, TIER, PARKING = "orders", "orders.retry.5s", "orders.parking"


def catch_all(**attributes: Any) -> Policy:
    return Policy(**{"name": "everything", "pattern": ".*", "definition": {"message-ttl": 1000}, **attributes})


def on(policy: Policy, *more: Policy, **parts: Any) -> BrokerState:
    return BrokerState(policies={each.name: each for each in (policy, *more)}, **parts)


def shields(compiled: CompiledTopology, there: BrokerState) -> dict[str, dict[str, Any]]:
    """By queue: what a shield says."""
    plan = diff(compiled, observation(there))
    made = [each.policy for each in plan.changes if isinstance(each, PutPolicy) and is_shield(each.name, "shop")]
    queues = {**compiled.desired.queues, **there.queues}
    return {
        queue.name: dict(policy.definition)
        for policy in made
        for queue in queues.values()
        if applies(policy, queue, ())
    }


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        ({"expires": 1000}, dict.fromkeys((WORK, TIER, PARKING))),
        ({"message-ttl": 1000}, dict.fromkeys((WORK, TIER, PARKING))),
        ({"message-ttl": 86_400_000}, dict.fromkeys((WORK, PARKING))),
        (
            {"message-ttl": 1000, "queue-leader-locator": "balanced"},
            {each: {"queue-leader-locator": "balanced"} for each in (WORK, TIER, PARKING)},
        ),
        ({"max-length": 9}, {PARKING: None}),
        ({"delivery-limit": 5}, {PARKING: None}),
        ({"dead-letter-exchange": "dlx", "dead-letter-routing-key": "x"}, {PARKING: None}),
        (
            {"overflow": "drop-head", "max-length": 9},
            {WORK: {"max-length": 9}, TIER: {"max-length": 9}, PARKING: {"overflow": "drop-head"}},
        ),
        ({"expires": 1000, "alternate-exchange": "ae"}, dict.fromkeys((WORK, TIER, PARKING))),
        ({"consumer-timeout": 7_200_000}, {}),
        ({"queue-leader-locator": "balanced"}, {}),
    ],
    ids=str,
)
def test_a_shield_says_what_is_harmless_of_the_policy_that_it_keeps_off(
    definition: dict[str, Any], wanted: dict[str, Any]
) -> None:
    there = on(catch_all(definition=definition))
    neutral = {
        WORK: {"delivery-limit": 50},
        TIER: {"delivery-limit": 1_000_000},
        PARKING: {"delivery-limit": 1_000_000},
    }
    expected = {queue: said or neutral[queue] for queue, said in wanted.items()}
    assert shields(SHOP, there) == expected
    plan = diff(SHOP, observation(there))
    assert plan.refusals == ()
    if expected:
        assert {each.code for each in plan.warnings} >= {"policy-displaces"}
        assert "would break a guarantee there, and nothing else is lost" in plan.warnings[0].message
    done = after(there, plan.changes)
    again = diff(SHOP, observation(done))
    assert (again.changes, again.refusals) == ((), ())
    assert "everything" in done.policies


def test_a_shield_is_there_before_the_queues_and_goes_after_them() -> None:
    there = on(catch_all())
    plan = diff(SHOP, observation(there))
    kinds = [(each.kind, each.action) for each in plan.changes]
    assert kinds.index(("policy", "create")) < kinds.index(("queue", "create"))
    assert max(n for n, kind in enumerate(kinds) if kind == ("policy", "create")) < kinds.index(("queue", "create"))
    removed = destruction(SHOP, observation(after(there, plan.changes))).changes
    labels = [label(each) for each in removed]
    last = max(n for n, each in enumerate(labels) if each.startswith("queue "))
    assert all(n > last for n, each in enumerate(removed) if isinstance(each, RemovePolicy))


def test_a_shield_is_no_longer_than_what_it_keeps_off() -> None:
    there = after(on(catch_all()), diff(SHOP, observation(on(catch_all()))).changes)
    without = replace(there, policies={name: each for name, each in there.policies.items() if name != "everything"})
    assert {type(each) for each in diff(SHOP, observation(without)).changes} == {RemovePolicy}


def test_a_queue_that_left_the_file_stays_shielded() -> None:
    old = Queue(name="old.parking", arguments={"x-queue-type": "quorum", "x-delivery-limit": 1_000_000, STAMP: "shop"})
    assert shields(SHOP, on(catch_all(definition={"max-length": 9}), queues={"old.parking": old})) == {
        PARKING: {"delivery-limit": 1_000_000},
        "old.parking": {"delivery-limit": 1_000_000},
    }


def test_an_adopted_queue_that_left_the_file_stays_shielded() -> None:
    """It may hold parked messages, and consumers that run the old file go on parking there."""
    dlq = Queue(name="orders.dlq", arguments={"x-queue-type": "quorum"})
    there = after(BrokerState(), diff(SHOP, observation()).changes)
    there = replace(there, queues={**there.queues, dlq.name: dlq}, policies={"everything": catch_all()})
    manifest = Manifest(topology="shop", vhost="/", adopted=frozenset({("queue", dlq.name)}))
    for adopted, wanted in ((manifest, True), (None, False)):
        plan = diff(SHOP, replace(observation(there), manifest=state_of(adopted)))
        made = [each.policy for each in plan.changes if isinstance(each, PutPolicy) and is_shield(each.name, "shop")]
        assert any(applies(policy, dlq, ()) for policy in made) is wanted


@pytest.mark.parametrize("number", range(24))
def test_no_queue_is_without_its_shield_when_another_policy_takes_it_over(number: int) -> None:
    """A new queue cuts the lists of names elsewhere, and limits take a queue over from its shield."""
    names = {f"orders{each}": [5000] for each in range(4)}
    foreign = catch_all(definition={"expires": 1000})
    state = after(on(foreign), diff(topology(names, vhost="/"), observation(on(foreign))).changes)
    new = {**names, f"new{number}": [5000], f"orders{number}x": [5000]}
    plain, limit = topology(new, vhost="/"), limits("orders1", 10, max_length=9)
    for wanted in (plain, replace(plain, desired=replace(plain.desired, policies={limit.name: limit}))):
        there, plan = state, diff(wanted, observation(state))
        assert not [each for change in plan.changes if isinstance(change, PutPolicy) for each in change.at_stake]
        for change in plan.changes:
            there = after(there, [change])
            for queue in there.queues.values():
                assert [each.name for each in working(there.policies.values(), queue)] != ["everything"], queue.name


def test_a_policy_that_is_meant_for_the_topologys_queues_is_refused_as_ever() -> None:
    meant = catch_all(pattern="^orders\\.parking$")
    plan = diff(SHOP, observation(on(meant)))
    assert [each.code for each in plan.refusals] == ["foreign-policy"]
    assert shields(SHOP, on(meant)) == {}
    both = on(replace(meant, name="meant", priority=5), catch_all(definition={"max-length": 9}))
    assert (shields(SHOP, both), [each.code for each in diff(SHOP, observation(both)).refusals]) == (
        {},
        ["foreign-policy"],
    )


def test_a_policy_of_higher_priority_is_refused_and_the_refusal_says_what_to_write() -> None:
    (refusal,) = diff(SHOP, observation(on(catch_all(priority=20, definition={"max-length": 9})))).refusals
    assert refusal.code == "foreign-policy"
    assert refusal.hint.startswith("write `policy_priority: 21` at the top of the file, so that a policy of amqpflow")
    lifted = replace(SHOP, policy_priority=21)
    assert shields(lifted, on(catch_all(priority=20, definition={"max-length": 9}))) == {
        PARKING: {"delivery-limit": 1_000_000}
    }


def test_nothing_keeps_an_operator_policy_off() -> None:
    there = BrokerState(operator_policies={"op": catch_all(name="op", definition={"max-length": 9})})
    (refusal,) = diff(SHOP, observation(there)).refusals
    assert (refusal.code, "policy_priority" in refusal.hint) == ("foreign-policy", False)


def test_without_policies_of_ours_there_is_no_shield() -> None:
    plan = diff(replace(SHOP, settings="arguments"), observation(on(catch_all())))
    assert {each.code for each in plan.refusals} == {"foreign-policy"}


def test_a_queue_with_a_policy_of_ours_needs_no_shield_and_loses_nothing_by_it() -> None:
    ours = limits(WORK, priority=10)
    wanted = with_objects(SHOP, policies={ours.name: ours})
    plan = diff(wanted, observation(on(catch_all(definition={"message-ttl": 1000}))))
    assert plan.refusals == ()
    assert WORK not in shields(wanted, on(catch_all()))


def test_a_classic_queue_gets_a_shield_of_its_type() -> None:
    assert shields(CLASSIC, on(catch_all(definition={"expires": 5})))[WORK] == {"overflow": "drop-head"}


def test_a_policy_whose_pattern_only_rabbitmq_can_read_is_kept_off_in_doubt() -> None:
    strange = catch_all(pattern="^telemetry[[:digit:]]+$", definition={"max-length": 9})
    plan = diff(SHOP, observation(on(strange)))
    assert plan.refusals == ()
    assert "matches, which only RabbitMQ can tell" in plan.warnings[0].message
