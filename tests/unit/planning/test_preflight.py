"""Foreign policies, operator policies, bindings and alternate exchanges that would switch a guarantee off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from amqpflow.model.diagnostic import Severity
from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange, Policy, Queue
from amqpflow.planning.checks.preflight import preflight
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.values.findings import Finding
from tests.plans import after, limits, observation, with_objects
from tests.topologies import topology

SHOP = topology({"orders": [5000]}, vhost="/")
CLASSIC = topology({"orders": [5000]}, vhost="/", queue_type="classic")
WORK, TIER, PARKING = "orders", "orders.retry.5s", "orders.parking"
THERE = after(BrokerState(), diff(SHOP, observation()).changes)


def found(queue: str, *, operator: bool = False, compiled: Any = SHOP, **definition: Any) -> tuple[Finding, ...]:
    """What preflight says of a policy on exactly one queue."""
    keys = {key.replace("_", "-"): value for key, value in definition.items()}
    policy = Policy(name="ops", pattern=f"^{queue}$", definition=keys)
    where = "operator_policies" if operator else "policies"
    return preflight(compiled, observation(replace(THERE, **{where: {"ops": policy}})))


@pytest.mark.parametrize("operator", [False, True])
@pytest.mark.parametrize(
    ("queue", "definition"),
    [
        (WORK, {"expires": 60000}),
        (TIER, {"expires": 60000}),
        (PARKING, {"expires": 60000}),
        (WORK, {"message_ttl": 60000}),
        (TIER, {"message_ttl": 4999}),
        (PARKING, {"message_ttl": 315360000000}),
        (WORK, {"overflow": "drop-head"}),
        (TIER, {"overflow": "drop-head"}),
        (PARKING, {"max_length": 1000000}),
        (PARKING, {"max_length_bytes": 1 << 40}),
        (PARKING, {"delivery_limit": 999999}),
        (PARKING, {"delivery_limit": 0}),
    ],
    ids=str,
)
def test_what_breaks_a_guarantee_is_refused(queue: str, definition: dict[str, Any], operator: bool) -> None:
    (finding,) = found(queue, operator=operator, **definition)
    assert finding.severity is Severity.ERROR
    assert finding.code == "foreign-policy"
    assert finding.object == f"queue {queue}"
    assert finding.message.startswith("operator policy ops sets " if operator else "policy ops sets ")
    assert queue in finding.hint


@pytest.mark.parametrize(
    ("queue", "definition"),
    [
        (TIER, {"message_ttl": 5000}),
        (TIER, {"message_ttl": 60000}),
        (WORK, {"overflow": "reject-publish"}),
        (PARKING, {"overflow": "reject-publish"}),
        (WORK, {"max_length": 5}),
        (PARKING, {"delivery_limit": 1000000}),
        (PARKING, {"delivery_limit": -1}),
        (WORK, {"delivery_limit": 60}),
        (WORK, {"dead_letter_exchange": "elsewhere", "dead_letter_routing_key": "x"}),
        (TIER, {"dead_letter_exchange": "elsewhere", "dead_letter_strategy": "at-most-once"}),
        (PARKING, {"queue_leader_locator": "balanced"}),
        (PARKING, {"consumer_timeout": 1800000}),
    ],
    ids=str,
)
def test_what_has_no_effect_on_a_guarantee_is_not_mentioned(queue: str, definition: dict[str, Any]) -> None:
    """Of numbers the smaller works, and for dead-lettering the argument (fact 11.6)."""
    assert found(queue, **definition) == ()


def test_a_dead_letter_exchange_on_parking_is_refused() -> None:
    (finding,) = found(PARKING, dead_letter_exchange="elsewhere")
    assert finding.severity is Severity.ERROR


@pytest.mark.parametrize(
    ("queue", "definition"),
    [(WORK, {"delivery_limit": 3}), (TIER, {"max_length": 5}), (PARKING, {"consumer_timeout": 60000})],
    ids=str,
)
def test_what_tightens_a_limit_is_a_warning(queue: str, definition: dict[str, Any]) -> None:
    (finding,) = found(queue, **definition)
    assert finding.severity is Severity.WARNING


def test_the_overflow_of_a_classic_queue_is_its_argument() -> None:
    assert found(WORK, compiled=CLASSIC, overflow="drop-head") == ()


def test_all_queues_that_a_pattern_catches_are_named() -> None:
    catch_all = Policy(name="ops", pattern="", definition={"expires": 1000}, apply_to="all")
    (finding,) = preflight(SHOP, observation(replace(THERE, policies={"ops": catch_all})))
    assert finding.object == f"queues {PARKING}, {WORK}, {TIER}"


def test_what_a_policy_does_to_queues_of_different_roles_is_said_apart() -> None:
    catch_all = Policy(name="ops", pattern="", definition={"message-ttl": 1000})
    findings = preflight(SHOP, observation(replace(THERE, policies={"ops": catch_all})))
    assert {each.object: each.message.rpartition(": ")[2] for each in findings} == {
        f"queue {PARKING}": "parked messages are deleted when it is over",
        f"queue {WORK}": "messages are parked unhandled when it is over",
        f"queue {TIER}": "messages come back before their delay is over",
    }


def test_queues_that_do_not_exist_yet_are_judged_too() -> None:
    meant = Policy(name="ops", pattern="^orders", definition={"expires": 1000})
    (problem,) = diff(SHOP, observation(BrokerState(policies={"ops": meant}))).refusals
    assert problem.object == f"queues {PARKING}, {WORK}, {TIER}"


def test_a_foreign_policy_that_another_one_hides_is_harmless() -> None:
    bad = Policy(name="bad", pattern="", definition={"expires": 1000})
    good = Policy(name="good", pattern="", definition={"queue-leader-locator": "balanced"}, priority=1)
    assert preflight(SHOP, observation(replace(THERE, policies={"bad": bad, "good": good}))) == ()


def test_in_a_tie_either_could_win() -> None:
    bad = Policy(name="bad", pattern=f"^{PARKING}$", definition={"expires": 1000})
    good = Policy(name="good", pattern="", definition={"queue-leader-locator": "balanced"})
    (finding,) = preflight(SHOP, observation(replace(THERE, policies={"bad": bad, "good": good})))
    assert "policy bad" in finding.message


def test_our_own_policy_is_judged_by_what_it_will_be() -> None:
    """A foreign policy below ours is a displacement, not an effect; our own old ones have no say."""
    ours = limits(WORK, priority=10)
    wanted = with_objects(SHOP, policies={ours.name: ours})
    bad = Policy(name="bad", pattern=f"^{WORK}$", definition={"expires": 1000})
    stale = Policy(name="amqpflow.shop.quorum-ffffffff", pattern="", definition={"expires": 1000}, priority=99)
    assert preflight(wanted, observation(replace(THERE, policies={"bad": bad, stale.name: stale}))) == ()


def test_a_pattern_that_cannot_be_judged_is_said_to_be_so() -> None:
    strange = Policy(name="ops", pattern="(*UCP)x", definition={"expires": 1000})
    (finding,) = preflight(SHOP, observation(replace(THERE, policies={"ops": strange})))
    assert "(if its pattern (*UCP)x matches, which only RabbitMQ can tell)" in finding.message


@pytest.mark.parametrize("exchange", ["shop.retry", "shop.parking"])
@pytest.mark.parametrize(
    "binding",
    [
        {"destination": "audit", "routing_key": "orders.retry.5s"},
        {"destination": "fan", "destination_type": "exchange", "routing_key": ""},
        {"destination": "orders", "routing_key": "#"},
    ],
    ids=str,
)
def test_a_foreign_binding_on_our_exchanges_is_refused(exchange: str, binding: dict[str, str]) -> None:
    foreign = Binding(source=exchange, **binding)
    queues = {**THERE.queues, "audit": Queue(name="audit")}
    there = replace(THERE, bindings=(*THERE.bindings, foreign), queues=queues)
    (finding,) = preflight(SHOP, observation(there))
    assert finding.code == "foreign-binding"
    assert finding.object == f"exchange {exchange}"
    assert binding["destination"] in finding.message


def test_an_existing_queue_that_left_the_file_may_stay_bound_until_it_is_pruned() -> None:
    """It bears no stamp; nobody publishes with its name as a key any more."""
    left = Binding(source="shop.retry", destination="audit", routing_key="audit")
    for owner, findings in ((None, 0), ("billing", 1)):
        audit = Queue(name="audit", arguments={} if owner is None else {STAMP: owner})
        there = replace(THERE, bindings=(*THERE.bindings, left), queues={**THERE.queues, "audit": audit})
        assert len(preflight(SHOP, observation(there))) == findings


def test_what_rabbitmq_retains_is_a_warning() -> None:
    seen = replace(observation(THERE), retained={TIER: 3, WORK: 0, "audit": 7})
    (finding,) = preflight(SHOP, seen)
    assert finding.severity is Severity.WARNING
    assert str(finding).startswith(f"queue {TIER}: RabbitMQ retains 3 messages whose dead-lettering did not succeed")


def test_a_tier_that_left_the_file_may_stay_bound() -> None:
    old = Queue(name="orders.retry.1h", arguments={STAMP: "shop"})
    stale = Binding(source="shop.retry", destination=old.name, routing_key=old.name)
    there = replace(THERE, bindings=(*THERE.bindings, stale), queues={**THERE.queues, old.name: old})
    assert preflight(SHOP, observation(there)) == ()


@pytest.mark.parametrize("apply_to", ["exchanges", "all"])
def test_an_alternate_exchange_by_policy_on_our_exchanges_is_refused(apply_to: str) -> None:
    policy = Policy(name="ops", pattern="", definition={"alternate-exchange": "catch"}, apply_to=apply_to)
    findings = preflight(SHOP, observation(replace(THERE, policies={"ops": policy})))
    assert [each.code for each in findings] == ["foreign-alternate-exchange"] * 2


def test_an_alternate_exchange_by_argument_on_our_exchanges_is_refused() -> None:
    bent = replace(THERE.exchanges["shop.retry"], arguments={STAMP: "shop", "alternate-exchange": "catch"})
    plan = diff(SHOP, observation(replace(THERE, exchanges={**THERE.exchanges, "shop.retry": bent})))
    assert [str(each) for each in plan.refusals] == [
        "exchange shop.retry: alternate-exchange is catch on the broker, the file does not set it; "
        "it cannot be changed in place"
    ]


def test_over_amqp_alone_nothing_can_be_seen() -> None:
    assert preflight(SHOP, replace(observation(THERE), complete=False)) == ()


def test_bindings_of_other_exchanges_are_nobodys_business() -> None:
    there = replace(
        THERE,
        bindings=(*THERE.bindings, Binding(source="events", destination="audit", routing_key="#")),
        exchanges={**THERE.exchanges, "events": Exchange(name="events", type="topic")},
    )
    assert preflight(SHOP, observation(there)) == ()
