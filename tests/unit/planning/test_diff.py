"""A plan says all that is missing, all that stands in the way, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.diff import NO_MANAGEMENT, diff
from amqpflow.planning.values.changes import Bind, EnsureBinding, PutPolicy, RemovePolicy, label
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.plan import Plan, UsedAsItIs
from tests.plans import after, limits, observation, with_objects
from tests.topologies import topology

PRUNES = "`amqpflow apply --prune` removes what the file no longer has."
SHOP = topology({"orders": [5000]}, vhost="/")
EVENTS = Exchange(name="events", type="topic", arguments={STAMP: "shop"})
WITH_EVENTS = with_objects(
    SHOP,
    exchanges={**SHOP.desired.exchanges, "events": EVENTS},
    bindings=(*SHOP.desired.bindings, Binding(source="events", destination="orders", routing_key="order.placed")),
)


def applied(compiled: CompiledTopology) -> BrokerState:
    return after(BrokerState(), diff(compiled, observation()).changes)


def refusals(plan: Plan) -> list[str]:
    return [str(each) for each in plan.refusals]


def with_queue(state: BrokerState, name: str, **arguments: Any) -> BrokerState:
    """The state with some arguments of one queue changed; None takes one away."""
    keys = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    merged = {k: v for k, v in {**state.queues[name].arguments, **keys}.items() if v is not None}
    return replace(state, queues={**state.queues, name: replace(state.queues[name], arguments=merged)})


def amqp_only(state: BrokerState) -> Observation:
    return Observation(version=(4, 3, 6), state=state, complete=False, source="nobody listens there")


def test_an_empty_virtual_host_gets_everything() -> None:
    plan = diff(WITH_EVENTS, observation())
    assert plan.count == {("create", "exchange"): 3, ("create", "queue"): 3, ("create", "binding"): 4}
    assert plan.findings == ()
    assert plan.notes == ()
    assert plan.unchanged == ()


def test_nothing_differs_after_apply() -> None:
    plan = diff(WITH_EVENTS, observation(applied(WITH_EVENTS)))
    assert plan.nothing_to_do
    assert plan.changes == ()
    assert len(plan.unchanged) == 10


def test_a_differing_argument_is_refused_exactly() -> None:
    there = with_queue(applied(SHOP), "orders", delivery_limit=7)
    plan = diff(SHOP, observation(there))
    assert refusals(plan) == [
        "queue orders: x-delivery-limit is 7 on the broker, the file says 50; it cannot be changed in place"
    ]


def test_every_reason_is_given_at_once() -> None:
    there = with_queue(applied(WITH_EVENTS), "orders", delivery_limit=3, max_length=7)
    there = with_queue(there, "orders.parking", delivery_limit=None)
    events = replace(EVENTS, type="direct", durable=False)
    there = replace(there, exchanges={**there.exchanges, "events": events})
    assert refusals(diff(WITH_EVENTS, observation(there))) == [
        "exchange events: type is direct on the broker, the file says topic; it cannot be changed in place",
        "exchange events: durable is false on the broker, the file says true; it cannot be changed in place",
        "queue orders.parking: x-delivery-limit is not set on the broker, the file says 1000000; "
        "it cannot be changed in place",
        "queue orders: x-delivery-limit is 3 on the broker, the file says 50; it cannot be changed in place",
        "queue orders: x-max-length is 7 on the broker, the file does not set it; it cannot be changed in place",
    ]


def test_another_type_is_refused() -> None:
    there = with_queue(applied(SHOP), "orders", queue_type=None)
    assert any(
        "x-queue-type is classic on the broker, the file says quorum" in each
        for each in refusals(diff(SHOP, observation(there)))
    )


def test_a_queue_of_another_topology_is_refused_naming_it() -> None:
    there = with_queue(applied(SHOP), "orders", amqpflow_topology="billing")
    assert refusals(diff(SHOP, observation(there))) == [
        "queue orders: it is owned by the topology billing; "
        "only one topology can own it: remove it from one of the two files"
    ]


def test_a_queue_of_nobody_is_refused_saying_what_to_do() -> None:
    there = with_queue(applied(SHOP), "orders", amqpflow_topology=None)
    assert refusals(diff(SHOP, observation(there))) == [
        "queue orders: it exists, and amqpflow did not create it; "
        "if an application declares it, write `existing: true` under orders in the file: it stays as it is, and "
        "retries and parking are built around it; "
        "to let this topology own it, and remove it later: `amqpflow adopt shop.yaml queue orders`; "
        "if the two are unrelated, give the one in the file another name"
    ]
    plain = with_queue(there, "orders", dead_letter_exchange=None)
    assert any(
        "`amqpflow adopt shop.yaml queue orders` cannot take it over, because it differs from the file: "
        "x-dead-letter-exchange is not set on the broker" in each
        for each in refusals(diff(SHOP, observation(plain)))
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("orders.parking", "parking: {queue: NAME}` under its work queue, or `naming: {parking: TEMPLATE}"),
        ("orders.retry.5s", "naming: {retry: TEMPLATE}"),
        ("shop.retry", "naming: {retry_exchange: NAME}"),
        ("shop.parking", "naming: {parking_exchange: NAME}"),
    ],
)
def test_what_has_a_derived_name_is_refused_naming_adopt_and_naming(name: str, key: str) -> None:
    there = applied(SHOP)
    if name in there.queues:
        there = with_queue(there, name, amqpflow_topology=None)
    else:
        there = replace(there, exchanges={**there.exchanges, name: replace(there.exchanges[name], arguments={})})
    (refusal,) = [each for each in refusals(diff(SHOP, observation(there))) if "did not create it" in each]
    kind = "queue" if name in there.queues else "exchange"
    assert f"`amqpflow adopt shop.yaml {kind} {name}`" in refusal
    assert f"`{key}` gives the one in the file another name" in refusal
    assert "existing: true" not in refusal


@pytest.mark.parametrize("owner", [None, "billing"])
def test_a_foreign_exchange_of_the_same_definition_is_used_as_it_is(owner: str | None) -> None:
    theirs = replace(EVENTS, arguments={STAMP: owner} if owner else {})
    plan = diff(WITH_EVENTS, observation(BrokerState(exchanges={"events": theirs})))
    assert plan.used == (UsedAsItIs(exchange="events", owner=owner),)
    assert not plan.refusals
    assert "exchange events" not in map(label, plan.changes)


def test_a_foreign_exchange_of_another_definition_is_refused() -> None:
    theirs = replace(EVENTS, type="fanout", arguments={STAMP: "billing"})
    assert refusals(diff(WITH_EVENTS, observation(BrokerState(exchanges={"events": theirs})))) == [
        "exchange events: type is fanout on the broker, the file says topic (it is owned by the topology billing); "
        "it cannot be changed in place; if others declare it, write {external: true} for events in the file"
    ]


@pytest.mark.parametrize("name", ["shop.retry", "shop.parking"])
def test_the_two_exchanges_of_ours_must_be_ours(name: str) -> None:
    theirs = Exchange(name=name, type="direct")
    plan = diff(SHOP, observation(BrokerState(exchanges={name: theirs})))
    assert [(each.code, each.object) for each in plan.refusals] == [("not-ours", f"exchange {name}")]


def test_a_type_of_exchange_that_the_broker_lacks_is_refused() -> None:
    delayed = Exchange(name="delayed", type="x-delayed-message", arguments={"x-delayed-type": "direct"})
    compiled = with_objects(SHOP, exchanges={**SHOP.desired.exchanges, "delayed": delayed})
    (problem,) = diff(compiled, observation()).refusals
    assert str(problem).startswith("exchange delayed: this broker has no exchange type x-delayed-message")


def test_what_must_be_there_and_is_not_is_refused() -> None:
    compiled = replace(SHOP, required_exchanges=("billing.events",), required_queues=("legacy",))
    compiled = with_objects(
        compiled, bindings=(*SHOP.desired.bindings, Binding(source="other", destination="orders", routing_key="a"))
    )
    assert [each.object for each in diff(compiled, observation()).refusals] == [
        "exchange billing.events",
        "exchange other",
        "queue legacy",
    ]
    there = BrokerState(
        exchanges={name: Exchange(name=name, type="topic") for name in ("billing.events", "other")},
        queues={"legacy": Queue(name="legacy")},
    )
    assert not diff(compiled, observation(there)).refusals


def test_predeclared_exchanges_can_be_bound_to() -> None:
    entry = Binding(source="amq.topic", destination="orders", routing_key="#")
    assert not diff(with_objects(SHOP, bindings=(*SHOP.desired.bindings, entry)), observation()).refusals


def test_arguments_that_amqp_cannot_carry_are_refused_before_anything_is_done() -> None:
    bad = {"thing": object(), "big": 1 << 70}
    orders = replace(SHOP.desired.queues["orders"], arguments={**SHOP.desired.queues["orders"].arguments, **bad})
    plan = diff(with_objects(SHOP, queues={**SHOP.desired.queues, "orders": orders}), observation())
    assert [each.code for each in plan.refusals] == ["not-sendable"]


def test_what_left_the_file_is_left_alone_and_said() -> None:
    old = Queue(name="orders.retry.1h", arguments={**SHOP.desired.queues["orders.retry.5s"].arguments})
    there = applied(SHOP)
    stale = Binding(source="shop.retry", destination="orders.retry.1h", routing_key="orders.retry.1h")
    there = replace(there, queues={**there.queues, old.name: old}, bindings=(*there.bindings, stale))
    plan = diff(SHOP, observation(there))
    assert plan.changes == ()
    assert plan.findings == ()
    assert plan.notes == (
        "queue orders.retry.1h is no longer in the file; apply leaves it unchanged.",
        PRUNES,
    )


def test_parked_messages_that_are_not_listed_any_more_are_said() -> None:
    park = Queue(name="old.parking", arguments={**SHOP.desired.queues["orders.parking"].arguments})
    there = applied(SHOP)
    bound = Binding(source="shop.parking", destination=park.name, routing_key=park.name)
    there = replace(there, queues={**there.queues, park.name: park}, bindings=(*there.bindings, bound))
    assert diff(SHOP, observation(there)).notes == (
        "queue old.parking is no longer in the file; apply leaves it unchanged; "
        "`amqpflow parked list` no longer lists the messages parked in it.",
        PRUNES,
    )


@pytest.mark.parametrize(("version", "refused"), [((3, 10, 8), True), ((4, 0, 5), False), ((), False)])
def test_what_a_release_refuses_to_declare_is_refused_before_anything_is_done(
    version: tuple[int, ...], refused: bool
) -> None:
    orders = SHOP.desired.queues["orders"]
    located = replace(orders, arguments={**orders.arguments, "x-queue-leader-locator": "min-masters"})
    plan = diff(with_objects(SHOP, queues={**SHOP.desired.queues, "orders": located}), observation(version=version))
    assert [each.code for each in plan.refusals] == ["not-on-this-release"] * refused


def test_notes_of_the_compiler_are_in_the_plan() -> None:
    assert diff(replace(SHOP, notes=("mind this",)), observation()).notes == ("mind this",)


def test_the_same_binding_twice_is_one() -> None:
    double = with_objects(SHOP, bindings=(*SHOP.desired.bindings, *SHOP.desired.bindings))
    assert diff(double, observation()) == replace(diff(SHOP, observation()), topology=double)


POLICY = limits("orders")
WITH_POLICY = with_objects(SHOP, policies={POLICY.name: POLICY})


def test_a_policy_is_created_updated_and_left() -> None:
    assert [c for c in diff(WITH_POLICY, observation()).changes if c.kind == "policy"] == [PutPolicy(policy=POLICY)]
    there = applied(WITH_POLICY)
    assert diff(WITH_POLICY, observation(there)).nothing_to_do
    old = replace(POLICY, definition={"max-length": 99})
    plan = diff(WITH_POLICY, observation(replace(there, policies={old.name: old})))
    assert plan.changes == (PutPolicy(policy=POLICY, replaces=old),)
    assert [str(each) for each in plan.changes[0].differences] == [  # type: ignore[union-attr]
        "max-length is 99 on the broker, the file says 10"
    ]
    assert not plan.refusals


def test_a_policy_of_ours_that_the_file_has_no_use_for_is_removed() -> None:
    there = applied(WITH_POLICY)
    assert diff(SHOP, observation(there)).changes == (RemovePolicy(policy=POLICY),)


@pytest.mark.parametrize(
    "name",
    [
        "amqpflow.shop.eu.quorum-0123abcd",
        "amqpflow.shopping.quorum-0123abcd",
        "amqpflow.shop.limits",
        "amqpflow.shop.quorum-0123abcd.eu",
        "shop.quorum-0123abcd",
    ],
)
def test_a_policy_of_another_topology_is_not_ours(name: str) -> None:
    theirs = replace(POLICY, name=name, pattern="^other$")
    there = replace(applied(SHOP), policies={name: theirs})
    assert diff(SHOP, observation(there)).changes == ()


@pytest.mark.parametrize("end", ["", ".0123abcd", ".1", ".0123abcd.12"])
@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_policies_of_ours_are_known_by_their_names(kind: str, end: str) -> None:
    stale = limits("orders", name=f"amqpflow.shop.{kind}-89abcdef{end}")
    there = replace(applied(SHOP), policies={stale.name: stale})
    assert diff(SHOP, observation(there)).changes == (RemovePolicy(policy=stale),)


def test_a_user_without_the_tag_for_policies_is_told_before_anything_is_done() -> None:
    seen = replace(observation(), tags=frozenset({"management"}))
    (problem,) = diff(WITH_POLICY, seen).refusals
    assert str(problem) == (
        "user deploy: it lacks the policymaker tag, which writing a policy requires; "
        "rabbitmqctl set_user_tags deploy management policymaker"
    )
    assert not diff(SHOP, seen).refusals
    assert not diff(WITH_POLICY, replace(observation(applied(WITH_POLICY)), tags=frozenset())).refusals


def test_without_management_bindings_of_what_exists_are_ensured() -> None:
    there = applied(WITH_EVENTS)
    seen = amqp_only(replace(there, bindings=()))
    plan = diff(WITH_EVENTS, seen)
    assert all(isinstance(each, EnsureBinding) for each in plan.changes)
    assert plan.nothing_to_do
    assert plan.notes == (f"Without the management API (nobody listens there): {NO_MANAGEMENT}",)
    queues = {name: queue for name, queue in there.queues.items() if name != "orders"}
    plan = diff(WITH_EVENTS, amqp_only(replace(there, bindings=(), queues=queues)))
    new = [each.binding.destination for each in plan.changes if isinstance(each, Bind)]
    assert new == ["orders", "orders"]
    assert not plan.nothing_to_do


def test_without_management_owners_are_not_judged_but_arguments_are() -> None:
    there = with_queue(applied(SHOP), "orders", amqpflow_topology=None, delivery_limit=3)
    assert refusals(diff(SHOP, amqp_only(there))) == [
        "queue orders: x-delivery-limit is 3 on the broker, the file says 50; it cannot be changed in place"
    ]


def test_without_management_a_topology_with_policies_is_refused_with_the_way_out() -> None:
    (problem,) = diff(WITH_POLICY, amqp_only(BrokerState())).refusals
    assert problem.code == "policies-need-management"
    assert "nobody listens there" in problem.message
    assert "`management_url`" in problem.hint
    assert "settings: arguments" in problem.hint


def test_what_differs_in_a_way_that_amqp_does_not_tell_is_refused() -> None:
    seen = replace(amqp_only(BrokerState()), unreadable={("queue", "orders"): "PRECONDITION_FAILED - cut of"})
    assert refusals(diff(SHOP, seen)) == ["queue orders: PRECONDITION_FAILED - cut of; it cannot be changed in place"]


def test_refusals_and_what_could_be_done_are_both_in_the_plan() -> None:
    plan = diff(WITH_EVENTS, observation(BrokerState(exchanges={"events": replace(EVENTS, type="direct")})))
    assert plan.refusals
    assert plan.changes


def test_policies_of_others_do_not_become_changes() -> None:
    theirs = Policy(name="all", pattern=".*", definition={"queue-leader-locator": "balanced"})
    plan = diff(SHOP, observation(replace(applied(SHOP), policies={"all": theirs})))
    assert plan.nothing_to_do
    assert plan.findings == ()
