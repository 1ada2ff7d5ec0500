"""Explaining a queue: what the file wants and does not get, and what to do."""

from __future__ import annotations

from dataclasses import replace

from amqpflow.model.resources import BrokerState, Policy, Queue
from amqpflow.planning.reports.explain import Explanation, explain, queues_of
from amqpflow.planning.values.observation import Observation
from tests.plans import observation
from tests.topology_files import compiled

SHOP = compiled(
    """
    retry_policies: {fast: {delays: [5s]}}
    defaults: {retry: fast}
    queues:
      orders: {limits: {max_length: 5}, consumer_timeout: 10m}
      legacy: {existing: true, type: classic}
    """
)
LEGACY = Queue(name="legacy", arguments={"x-queue-type": "classic"})
THERE = BrokerState(
    exchanges=SHOP.desired.exchanges,
    queues={**SHOP.desired.queues, "legacy": LEGACY},
    bindings=SHOP.desired.bindings,
    policies=SHOP.desired.policies,
)


def explained(queue: str, state: BrokerState = THERE, **policies: Policy) -> Explanation:
    return explain(SHOP, queue, observation(replace(state, policies={**state.policies, **policies})))


def test_every_queue_that_is_declared_or_used_can_be_explained() -> None:
    assert set(queues_of(SHOP)) == {
        "orders", "orders.retry.5s", "orders.parking", "legacy", "legacy.retry.5s", "legacy.parking",
    }  # fmt: skip
    for name in queues_of(SHOP):
        assert explained(name).unmet == ()
    assert [explained(name).role for name in ("orders", "orders.retry.5s", "orders.parking")] == [
        "work queue",
        "retry queue",
        "parking queue",
    ]


def test_what_a_foreign_policy_hides_is_named_with_it() -> None:
    ops = Policy(name="ops", pattern="^orders", definition={"overflow": "drop-head"}, priority=20)
    unmet = {each.key: each for each in explained("orders", ops=ops).unmet}
    assert unmet.keys() == {"max-length", "consumer-timeout", "overflow", "dead-letter-strategy"}
    assert (unmet["max-length"].wanted, unmet["max-length"].works) == (5, None)
    assert "policy ops has the higher priority (20 over 10)" in unmet["max-length"].why
    assert "take orders out of the pattern ^orders of policy ops" in unmet["max-length"].hint
    assert unmet["dead-letter-strategy"].works == "at-most-once"


def test_a_policy_that_was_not_applied_is_applied() -> None:
    (one, other) = explained("orders", replace(THERE, policies={})).unmet
    assert {one.key, other.key} == {"max-length", "consumer-timeout"}
    assert one.hint == other.hint == "amqpflow apply shop.yaml"


def test_what_leads_nowhere_is_said() -> None:
    queues = {name: queue for name, queue in THERE.queues.items() if name != "orders.parking"}
    (lost,) = explained("orders", replace(THERE, queues=queues)).unmet
    assert "messages that RabbitMQ dead-letters are deleted" in lost.why


def test_a_queue_that_is_not_there_yet_is_explained_as_it_will_be() -> None:
    found = explained("orders", BrokerState())
    assert (found.exists, found.unmet) == (False, ())
    assert found.effective.value("max-length") == 5
    assert "does not exist yet" in found.notes[0]


def test_an_application_that_names_its_own_dead_letter_exchange_keeps_its_dead_letters() -> None:
    """Our routing key would send them another way."""
    own = replace(LEGACY, arguments={"x-queue-type": "classic", "x-dead-letter-exchange": "theirs"})
    state = replace(THERE, queues={**THERE.queues, "legacy": own}, policies={})
    found = explained("legacy", state)
    assert found.effective.value("dead-letter-routing-key") is None
    (failed,) = [each for each in found.guarantees if each.name == "parked by RabbitMQ"]
    assert failed.holds is False
    assert "theirs (argument x-dead-letter-exchange), which routes nowhere" in failed.why


def test_the_file_alone_says_what_it_cannot_know() -> None:
    found = explain(SHOP, "orders", Observation(version=(3, 10), complete=False))
    assert (found.exists, found.effective.value("max-length")) == (None, 5)
    assert found.effective.value("consumer-timeout") == 1_800_000
    assert found.notes[0].startswith("computed from the file only")


def test_over_amqp_alone_it_says_what_cannot_be_seen() -> None:
    seen = replace(observation(replace(THERE, policies={})), complete=False, source="nobody answers")
    found = explain(SHOP, "orders", seen)
    assert found.exists
    assert found.notes[0].startswith("policies and operator policies cannot be seen")


def test_over_amqp_alone_no_policy_is_stated_as_a_fact() -> None:
    """The file asks for a limit by policy, and the policy may have been deleted: here it was."""
    seen = replace(observation(replace(THERE, policies={})), complete=False, source="no answer")
    found = explain(SHOP, "orders", seen)
    limit = found.effective.settings["max-length"]
    assert (limit.known, limit.certain, limit.value) == (False, False, None)
    (asked,) = limit.overruled
    assert (asked.value, str(asked.source.origin)) == (5, "our policy")
    assert "whether the policy is there cannot be seen" in asked.why
    settled = {key for key, each in found.effective.settings.items() if each.known}
    assert {"queue-type", "delivery-limit", "dead-letter-exchange", "max-priority"} <= settled
    assert not {"overflow", "dead-letter-strategy", "consumer-timeout", "message-ttl"} & settled
    assert found.unmet == ()
    legacy = explain(SHOP, "legacy", seen)
    assert not any(each.known for each in legacy.effective.settings.values())
