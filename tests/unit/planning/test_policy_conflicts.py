"""One policy works on a queue: ours never pushes a foreign one aside without being asked (fact 11.6b)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amqpflow.model.resources import BrokerState, Policy
from amqpflow.planning.compare.diff import diff
from tests.plans import after, limits, observation, with_objects
from tests.topologies import topology

SHOP = topology({"orders": [5000], "mail": []}, vhost="/")
OURS = limits("orders", priority=10, max_length=100)
WANTED = with_objects(SHOP, policies={OURS.name: OURS})


def theirs(priority: int, **attributes: object) -> Policy:
    given = {"pattern": "^orders$", "definition": {"max-length": 5, "queue-leader-locator": "balanced"}}
    return Policy(name="ops", priority=priority, **{**given, **attributes})  # type: ignore[arg-type]


def test_displacing_a_foreign_policy_is_refused_naming_both_and_what_would_be_lost() -> None:
    (problem,) = diff(WANTED, observation(BrokerState(policies={"ops": theirs(0)}))).refusals
    assert problem.code == "policy-displaces"
    assert str(problem) == (
        "policy amqpflow.shop.quorum-0123abcd: it would displace policy ops (priority 0 under 10) on queue orders; "
        "lost there: max-length, queue-leader-locator; "
        "carry them: under queue orders in the file write "
        "`limits: {max_length: 5}, policy: {queue-leader-locator: balanced}`; or "
        "take queue orders out of its pattern ^orders$, or write `settings: arguments` in the file"
    )


def test_a_tie_is_refused() -> None:
    (problem,) = diff(WANTED, observation(BrokerState(policies={"ops": theirs(10)}))).refusals
    assert problem.code == "policy-tie"
    assert "policy ops has the same priority (10) on queue orders" in problem.message


def test_a_higher_foreign_policy_hides_ours_and_the_plan_warns() -> None:
    plan = diff(WANTED, observation(BrokerState(policies={"ops": theirs(11)})))
    assert not plan.refusals
    (warning,) = plan.warnings
    assert warning.code == "policy-hidden"
    assert "max-length of the file will have no effect there" in warning.message
    assert warning.hint.startswith("write `policy_priority: 12` at the top of the file and carry what would be lost: ")


def test_a_policy_whose_keys_are_carried_may_be_displaced() -> None:
    """The same values, or tighter numbers: nothing of it is lost."""
    carried = replace(OURS, definition={"max-length": 4, "queue-leader-locator": "balanced"})
    wanted = with_objects(SHOP, policies={carried.name: carried})
    plan = diff(wanted, observation(BrokerState(policies={"ops": theirs(0)})))
    assert not plan.refusals
    assert [each.code for each in plan.warnings] == ["policy-displaces"]
    assert "max-length 5 becomes 4, as the file says; nothing else is lost there" in plan.warnings[0].message
    there = after(BrokerState(policies={"ops": theirs(0)}), plan.changes)
    assert diff(wanted, observation(there)).findings == ()


def test_what_has_no_effect_beside_the_arguments_is_not_lost() -> None:
    keys = {"dead-letter-exchange": "x", "dead-letter-routing-key": "x", "delivery-limit": 900, "max-length": 100}
    plan = diff(WANTED, observation(BrokerState(policies={"ops": theirs(0, definition=keys)})))
    assert not plan.refusals


@pytest.mark.parametrize(
    ("definition", "hint"),
    [
        ({"expires": 60_000}, "expires cannot be carried: it deletes an unused queue with its messages; or take"),
        (
            {"consumer-timeout": 60_000, "max-length-bytes": 1000, "message-ttl": 5},
            "write `consumer_timeout: 1m, limits: {max_length_bytes: 1000B}, policy: {message-ttl: 5}`; or take",
        ),
        ({"delivery-limit": 3}, "write `policy: {delivery-limit: 3}`; or take"),
    ],
)
def test_the_offer_names_the_place_of_each_key(definition: dict[str, object], hint: str) -> None:
    (problem,) = [
        each
        for each in diff(WANTED, observation(BrokerState(policies={"ops": theirs(0, definition=definition)}))).refusals
        if each.code == "policy-displaces"
    ]
    assert hint in problem.hint


@pytest.mark.parametrize(
    "attributes",
    [
        {"pattern": "^invoices$"},
        {"apply_to": "exchanges"},
        {"apply_to": "classic_queues"},
        {"definition": {"ha-mode": "all"}},
    ],
    ids=str,
)
def test_a_policy_that_does_not_work_on_the_queue_is_no_matter(attributes: dict[str, object]) -> None:
    plan = diff(WANTED, observation(BrokerState(policies={"ops": theirs(0, **attributes)})))
    assert plan.findings == ()


def test_of_several_foreign_policies_the_working_one_counts() -> None:
    hidden = replace(theirs(1), name="hidden")
    plan = diff(WANTED, observation(BrokerState(policies={"ops": theirs(11), "hidden": hidden})))
    assert [each.code for each in plan.findings] == ["policy-hidden"]


def test_what_is_displaced_already_is_a_warning() -> None:
    """Somebody added a policy below ours: apply makes nothing worse and goes on."""
    there = after(BrokerState(policies={"ops": theirs(0)}), diff(WANTED, observation()).changes)
    plan = diff(WANTED, observation(there))
    assert plan.nothing_to_do
    assert [each.code for each in plan.warnings] == ["policy-displaces"]
    assert not plan.refusals


def test_new_values_for_a_queue_that_is_ours_already_displace_nothing_anew() -> None:
    """New values make a policy of another name."""
    there = after(BrokerState(policies={"ops": theirs(0)}), diff(WANTED, observation()).changes)
    newer = replace(OURS, name="amqpflow.shop.quorum-ffffffff", definition={"max-length": 200})
    plan = diff(with_objects(SHOP, policies={newer.name: newer}), observation(there))
    assert [each.code for each in plan.findings] == ["policy-displaces"]
    assert not plan.refusals
    assert [(each.action, each.kind) for each in plan.changes] == [("create", "policy"), ("delete", "policy")]


def test_queues_are_gathered_in_one_finding() -> None:
    both = replace(OURS, pattern="^(orders|mail|orders\\.retry\\.5s|orders\\.parking)$")
    wanted = with_objects(SHOP, policies={both.name: both})
    (problem,) = diff(
        wanted,
        observation(BrokerState(policies={"ops": theirs(0, pattern="", definition={"queue-leader-locator": "x"})})),
    ).refusals
    assert "on queues orders.parking, orders, orders.retry.5s and 1 more; lost there" in problem.message


def test_a_pattern_that_moves_to_further_queues_displaces_anew() -> None:
    there = after(BrokerState(policies={"ops": theirs(0, pattern="^mail$")}), diff(WANTED, observation()).changes)
    wider = replace(OURS, pattern="^(orders|mail)$")
    plan = diff(with_objects(SHOP, policies={wider.name: wider}), observation(there))
    assert [each.code for each in plan.refusals] == ["policy-displaces"]
