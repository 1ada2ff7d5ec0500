"""Queues that somebody else declared: who may use them, and with what."""

from __future__ import annotations

from dataclasses import replace

from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.diff import diff
from tests.plans import observation
from tests.topology_files import compiled

EXISTING = compiled("queues: {q: {existing: true, retry: none}}")
EXTERNAL = compiled("queues: {q: {external: true, owner: billing, retry: none}}")


def existing(*keys: str) -> CompiledTopology:
    """The same topology with further keys under the queue."""
    return compiled(f"queues: {{q: {{{', '.join(('existing: true', 'retry: none', *keys))}}}}}")


QUEUE = Queue(name="q", arguments={"x-queue-type": "quorum"})


def refusals(topology: object, **state: object) -> list[str]:
    there = BrokerState(**{"queues": {"q": QUEUE}, **state})  # type: ignore[arg-type]
    return [each.message for each in diff(topology, observation(there)).refusals if each.object == "queue q"]  # type: ignore[arg-type]


def retry_exchange(owner: str) -> dict[str, Exchange]:
    return {f"{owner}.retry": Exchange(name=f"{owner}.retry", type="direct", arguments={STAMP: owner})}


def test_an_existing_queue_is_whose_retry_exchange_is_bound_to_it() -> None:
    bound = (Binding(source="first.retry", destination="q", routing_key="q"),)
    assert refusals(EXISTING, exchanges=retry_exchange("first"), bindings=bound) == [
        "the topology first has retry and parking queues for it already"
    ]
    assert refusals(EXISTING, exchanges=retry_exchange("shop"), bindings=bound) == []


def test_an_existing_queue_is_whose_policy_matches_it() -> None:
    name = "amqpflow.first.quorum-0123abcd"
    policy = Policy(name=name, pattern="^(?:q)$", definition={"max-length": 5}, priority=10)
    assert "the topology first has retry and parking queues for it already" in refusals(
        EXISTING, policies={name: policy}
    )


def test_an_exchange_for_an_applications_messages_claims_no_queue() -> None:
    """Another topology's direct exchange, to which the queue is bound by its own name."""
    events = Exchange(name="events", type="direct", arguments={STAMP: "first"})
    bound = (Binding(source="events", destination="q", routing_key="q"),)
    assert refusals(EXISTING, exchanges={"events": events}, bindings=bound) == []


def test_an_external_queue_of_another_owner_than_the_file_says_is_refused() -> None:
    owned = replace(QUEUE, arguments={**QUEUE.arguments, STAMP: "sales"})
    assert refusals(EXTERNAL, queues={"q": owned}) == [
        "it is owned by the topology sales, and the file says owner: billing"
    ]


def test_publishers_of_a_limited_queue_are_thought_of() -> None:
    """At-least-once dead-lettering needs reject-publish, and publishers get to know it."""
    limited = replace(QUEUE, arguments={**QUEUE.arguments, "x-max-length": 5})
    there, parking = BrokerState(queues={"q": limited}), existing("dead_letters: park")
    assert [each.code for each in diff(parking, observation(there)).warnings] == ["overflow-changes"]
    after = replace(there, policies=parking.desired.policies)
    assert "overflow-changes" not in [each.code for each in diff(parking, observation(after)).warnings]
    assert "overflow-changes" not in [each.code for each in diff(EXISTING, observation(there)).warnings]
