"""An application's queue keeps its dead letters where it decides about them, by argument or by policy, or forgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from amqpflow.model.resources import BrokerState, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.values.plan import Plan
from tests.plans import observation
from tests.topology_files import compiled

PARKED = {
    "dead-letter-exchange": "",
    "dead-letter-routing-key": "q.parking",
    "dead-letter-strategy": "at-least-once",
    "delivery-limit": 50,
    "overflow": "reject-publish",
}


def topology(*keys: str, kind: str = "quorum") -> CompiledTopology:
    written = ", ".join(("existing: true", "retry: none", f"type: {kind}", *keys))
    return compiled(
        f"retry_policies: {{native: {{engine: native, retries: 5, delay: {{min: 1s, max: 9s}}}}}}\n"
        f"queues: {{q: {{{written}}}}}"
    )


def planned(
    file: CompiledTopology,
    policy: dict[str, Any] | None = None,
    operator: dict[str, Any] | None = None,
    *,
    kind: str = "quorum",
    version: tuple[int, ...] = (4, 3, 6),
    **arguments: Any,
) -> Plan:
    given = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    queue = Queue(name="q", arguments={"x-queue-type": kind, **given})
    there = BrokerState(
        queues={"q": queue},
        policies={} if policy is None else {"app": Policy(name="app", pattern="^q$", definition=policy)},
        operator_policies={} if operator is None else {"op": Policy(name="op", pattern="^q$", definition=operator)},
    )
    return diff(file, replace(observation(there), version=version))


def ours(plan: Plan) -> dict[str, Any]:
    """What our policy says about the queue; nothing when there is none."""
    found: dict[str, Any] = {}
    for policy in plan.topology.desired.policies.values():
        found |= policy.definition
    return found


def codes(plan: Plan) -> list[str]:
    return [each.code for each in plan.findings]


def test_dead_letters_are_parked_where_the_application_decides_nothing() -> None:
    assert ours(planned(topology())) == PARKED


@pytest.mark.parametrize(
    ("arguments", "policy", "operator"),
    [
        ({"dead_letter_exchange": "dlx"}, None, None),
        ({}, {"dead-letter-exchange": "dlx"}, None),
        ({}, {"dead-letter-exchange": "", "dead-letter-routing-key": "dead"}, None),
        ({"message_ttl": 2000}, None, None),
        ({}, {"message-ttl": 2000}, None),
        ({}, None, {"message-ttl": 2000}),
        ({"max_length": 10}, None, None),
        ({"max_length_bytes": 10, "overflow": "drop-head"}, None, None),
        ({}, {"max-length": 10}, None),
        ({}, None, {"max-length": 10}),
        ({"max_length": 10, "overflow": "reject-publish"}, {"overflow": "drop-head"}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["", "dead_letters: keep"])
def test_where_it_decides_or_forgets_there_is_no_policy_of_ours(
    key: str, arguments: dict[str, Any], policy: dict[str, Any] | None, operator: dict[str, Any] | None
) -> None:
    plan = planned(topology(*([key] if key else [])), policy, operator, **arguments)
    assert (ours(plan), plan.refusals) == ({}, ())


@pytest.mark.parametrize(
    "arguments", [{"max_length": 10, "overflow": "reject-publish"}, {"single_active_consumer": True}], ids=str
)
def test_a_queue_that_refuses_instead_of_forgetting_is_parked(arguments: dict[str, Any]) -> None:
    assert ours(planned(topology(), **arguments)) == PARKED
    assert codes(planned(topology(), **arguments)) == []


@pytest.mark.parametrize("arguments", [{"message_ttl": 2000}, {"max_length": 10}], ids=str)
def test_what_a_queue_forgets_is_said_until_the_file_says_what_is_meant(arguments: dict[str, Any]) -> None:
    (kept,) = planned(topology(kind="classic"), kind="classic", **arguments).warnings
    assert kept.code == "dead-letters-kept"
    assert "so its dead letters stay as they are and are not parked" in kept.message
    assert planned(topology("dead_letters: keep", kind="classic"), kind="classic", **arguments).warnings == ()
    flooded = planned(topology("dead_letters: park", kind="classic"), kind="classic", **arguments)
    assert ours(flooded) == {"dead-letter-exchange": "", "dead-letter-routing-key": "q.parking"}
    (warning,) = flooded.warnings
    assert warning.code == "parking-floods"
    assert "every dropped message goes to q.parking, which has no limit" in warning.message


def test_what_was_parked_until_now_is_not_forgotten_unasked() -> None:
    """A TTL that a platform adds below our policy works as soon as that is gone."""
    parked = topology(kind="classic").desired.policies
    there = {"q": Queue(name="q", arguments={"x-queue-type": "classic"})}
    below = Policy(name="platform", pattern=".*", definition={"message-ttl": 2000})
    state = BrokerState(queues=there, policies={**parked, below.name: below})
    (refused,) = diff(topology(kind="classic"), observation(state)).refusals
    assert (refused.code, refused.object) == ("dead-letters-kept", "queue q")
    assert "would not be parked any more" in refused.message
    assert not diff(topology("dead_letters: keep", kind="classic"), observation(state)).refusals

    above = {**state.policies, below.name: replace(below, priority=99)}
    (kept, *_) = diff(topology(kind="classic"), observation(replace(state, policies=above))).warnings
    assert "are not parked" in kept.message, "they were not"


def test_parking_is_refused_where_an_argument_goes_before_any_policy() -> None:
    plan = planned(topology("dead_letters: park"), dead_letter_exchange="dlx")
    assert [(each.code, each.object) for each in plan.refusals] == [("dead-letters-argument", "queue q")]


def test_what_the_file_asks_for_stays_beside_dead_letters_that_are_kept() -> None:
    asked = topology("dead_letters: keep", "limits: {max_length: 5}", "delivery_limit: 7", "consumer_timeout: 2h")
    assert ours(planned(asked)) == {
        "max-length": 5,
        "overflow": "reject-publish",
        "delivery-limit": 7,
        "consumer-timeout": 7_200_000,
    }
    native = compiled(
        "retry_policies: {native: {engine: native, retries: 5, delay: {min: 1s, max: 9s}}}\n"
        "queues: {q: {existing: true, retry: native, dead_letters: keep}}"
    )
    assert ours(planned(native)) == {
        "delayed-retry-type": "failed",
        "delayed-retry-min": 1000,
        "delayed-retry-max": 9000,
        "delivery-limit": 50,
    }


@pytest.mark.parametrize(
    ("arguments", "operator"),
    [({"delivery_limit": 1000}, None), ({"delivery_limit": -1}, None), ({}, {"delivery-limit": 1000})],
)
def test_a_delivery_limit_that_is_decided_already_is_not_tightened_unasked(
    arguments: dict[str, Any], operator: dict[str, Any] | None
) -> None:
    parked = {key: value for key, value in PARKED.items() if key != "delivery-limit"}
    assert ours(planned(topology(), None, operator, **arguments)) == parked
    assert ours(planned(topology("delivery_limit: 60"), None, operator, **arguments)) == {
        **parked,
        "delivery-limit": 60,
    }
    inherited = compiled("defaults: {queue: {delivery_limit: 60}}\nqueues: {q: {existing: true, retry: none}}")
    assert ours(planned(inherited, None, operator, **arguments)) == {**parked, "delivery-limit": 60}


@pytest.mark.parametrize(
    ("definition", "offer"),
    [
        ({"consumer-timeout": 7_200_000}, "under queue q in the file write `consumer_timeout: 2h`"),
        ({"delivery-limit": 1000}, "under queue q in the file write `delivery_limit: 1000`"),
        ({"delivery-limit": -1}, "delivery-limit cannot be carried: the file takes delivery limits from 1 to"),
        ({"expires": 86_400_000}, "expires cannot be carried"),
        ({"queue-leader-locator": "balanced"}, "write `policy: {queue-leader-locator: balanced}`"),
    ],
    ids=str,
)
def test_a_value_that_only_a_default_of_ours_or_of_rabbitmqs_would_replace_is_lost(
    definition: dict[str, Any], offer: str
) -> None:
    (refusal,) = planned(topology(), definition).refusals
    assert refusal.code == "policy-displaces"
    assert f"lost there: {next(iter(definition))}" in refusal.message
    assert offer in refusal.hint
    assert "or write `dead_letters: keep` under queue q in the file" in refusal.hint
    kept = planned(topology("dead_letters: keep"), definition)
    assert (ours(kept), kept.findings) == ({}, ())


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize(
    "definition",
    [
        {"consumer-timeout": 7_200_000},
        {"delivery-limit": 1000},
        {"max-length": 9},
        {"max-length-bytes": 900, "overflow": "drop-head"},
        {"max-length": 9, "overflow": "reject-publish"},
        {"message-ttl": 60_000},
        {"dead-letter-exchange": "dlx", "dead-letter-routing-key": "dead"},
        {"dead-letter-exchange": "dlx", "max-length": 9, "queue-leader-locator": "balanced"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "keys", [["dead_letters: keep", "policy: {federation-upstream-set: all}"], ["dead_letters: park"]], ids=str
)
def test_what_a_refusal_says_to_write_is_valid_and_carries_all_that_it_offers(
    keys: list[str], definition: dict[str, Any], kind: str
) -> None:
    refusals = planned(topology(*keys, kind=kind), definition, kind=kind, version=(4, 0, 5)).refusals
    if kind == "classic" and "delivery-limit" in definition:
        assert not refusals, "RabbitMQ passes such a policy over"
        return
    (refusal,) = refusals
    if "in the file write `" not in refusal.hint:
        assert "cannot be carried" in refusal.hint
        return
    written = refusal.hint.split("in the file write `")[1].split("`")[0]
    other = [each for each in keys if each.split(":")[0] not in written]
    if "policy: {" in written and keys[-1].startswith("policy"):
        written = written.replace("policy: {", "policy: {federation-upstream-set: all, ")
    carried = planned(topology(*other, written, kind=kind), definition, kind=kind, version=(4, 0, 5))
    left = [key for key in definition if f"{key} cannot be carried" in refusal.hint]
    assert [each.message.split("lost there: ")[1] for each in carried.refusals] == ([", ".join(left)] if left else [])
    if not left and "becomes reject-publish" not in refusal.hint:
        assert "overflow-changes" not in codes(carried)


def test_carrying_a_length_does_not_turn_drop_head_into_reject_publish() -> None:
    (refusal,) = planned(topology("dead_letters: park", kind="classic"), {"max-length": 9}, kind="classic").refusals
    assert "write `limits: {max_length: 9, overflow: drop-head}`" in refusal.hint
    (refusal,) = planned(topology("dead_letters: park"), {"max-length": 9}).refusals
    assert "write `limits: {max_length: 9}`; overflow becomes reject-publish: at-least-once" in refusal.hint


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_limit_of_the_file_leaves_overflow_as_it_is_on_a_queue_that_forgets(kind: str) -> None:
    """What a full queue does changes for its publishers: only the file can ask for that."""
    asked = topology("limits: {max_length: 9}", kind=kind)
    for plan in (planned(asked, {"max-length": 9}, kind=kind), planned(asked, kind=kind, max_length=9)):
        assert ours(plan) == {"max-length": 9, "overflow": "drop-head"}
        assert "overflow-changes" not in codes(plan)
    refusing = topology("limits: {max_length: 9, overflow: reject-publish}", kind=kind)
    plan = planned(refusing, {"max-length": 9}, kind=kind)
    assert ours(plan) == {"max-length": 9, "overflow": "reject-publish"}
    assert "overflow-changes" in codes(plan)
    unlimited = planned(asked, {"message-ttl": 5}, kind=kind)
    assert ours(unlimited) == {"max-length": 9, "overflow": "reject-publish"}, "no message is dropped unasked"


def test_a_key_that_the_file_carried_and_no_longer_does_is_refused_also_when_ours_works_already() -> None:
    policy = {"consumer-timeout": 7_200_000}
    before = topology("consumer_timeout: 2h")
    there = BrokerState(
        queues={"q": Queue(name="q", arguments={"x-queue-type": "quorum"})},
        policies={"app": Policy(name="app", pattern="^q$", definition=policy), **before.desired.policies},
    )
    assert diff(before, observation(there)).findings == ()
    (refusal,) = diff(topology(), observation(there)).refusals
    assert "lost there: consumer-timeout" in refusal.message


def test_what_an_operator_policy_overrules_is_not_lost() -> None:
    plan = planned(topology("dead_letters: park", "limits: {max_length: 50}"), {"max-length": 20}, {"max-length": 5})
    assert plan.refusals == ()


def test_a_pattern_that_cannot_be_read_is_not_stated_as_fact() -> None:
    strange = Policy(name="app", pattern="^telemetry[[:digit:]]+$", definition={"consumer-timeout": 7_200_000})
    queue = Queue(name="q", arguments={"x-queue-type": "quorum"})
    there = BrokerState(queues={"q": queue}, policies={"app": strange})
    (refusal,) = diff(topology(), observation(there)).refusals
    assert "it may displace policy app" in refusal.message
    assert "(if its pattern ^telemetry[[:digit:]]+$ matches, which only RabbitMQ can tell)" in refusal.message
    forgetful = replace(strange, definition={"message-ttl": 5})
    warnings = diff(topology(), observation(replace(there, policies={"app": forgetful}))).warnings
    (kept,) = [each for each in warnings if each.code == "dead-letters-kept"]
    assert "policy app (if its pattern matches)" in kept.message
