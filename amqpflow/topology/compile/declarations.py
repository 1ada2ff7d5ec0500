"""The arguments and policy definitions of each kind of queue: docs/reference/topology.md shows them as a table."""

from __future__ import annotations

from typing import Any

from amqpflow.model.own_policies import dead_letters_kept
from amqpflow.topology.reading.spec import PolicySpec, QueueSpec

PARKING_DELIVERY_LIMIT = 1_000_000
"""The one value under which looking at a parked message never removes it, on every release (facts 3.2, 6.3, 6.4)."""

NATIVE_SPARE_DELIVERIES = 20
"""The retries of a native policy count as deliveries; so many crashes may come on top."""


def work_queue_arguments(
    queue: QueueSpec, policy: PolicySpec | None, parking_queue: str, settings: str
) -> dict[str, Any]:
    """Return the arguments of a work queue.

    What RabbitMQ itself gives up on goes to parking and never to a retry queue, which would be a cycle without a
    rejection: the broker drops those (facts 2.1 to 2.4). Overflow is an argument on both types: on a quorum queue
    at-least-once needs reject-publish (fact 4.4), and limits that come later by policy must not drop messages.
    """
    arguments: dict[str, Any] = {"x-queue-type": queue.type}
    arguments |= {name: argument.value for name, argument in queue.arguments.items()}
    arguments |= _prefixed(dead_lettering(queue, policy, parking_queue))
    arguments["x-overflow"] = queue.overflow
    if queue.max_priority is not None and not queue.quorum:
        arguments["x-max-priority"] = queue.max_priority
    if queue.single_active_consumer:
        arguments["x-single-active-consumer"] = True
    if settings == "arguments":
        arguments |= _prefixed(tunables(queue, policy))
    return arguments


def existing_queue_policy(queue: QueueSpec, policy: PolicySpec | None, parking_queue: str) -> dict[str, Any]:
    """Return what an existing queue can only get by policy, since its arguments stay what they are.

    Whether its dead letters are parked may depend on what is on the broker: `dead_letters_kept` takes these keys away.
    """
    definition = tunables(queue, policy) | dead_lettering(queue, policy, parking_queue)
    if queue.quorum or queue.limited:
        definition["overflow"] = queue.overflow
    if queue.keeps_dead_letters:
        definition = dead_letters_kept(definition, parking_queue=parking_queue, limit_said=limit_said(queue, policy))
    return _carried(queue) | definition


def limit_said(queue: QueueSpec, policy: PolicySpec | None) -> bool:
    """Return whether the file asks for a delivery limit, by its key or by native retry, which counts deliveries."""
    return queue.quorum and (queue.says("delivery_limit") or native_limit(policy) > 0)


def dead_lettering(queue: QueueSpec, policy: PolicySpec | None, parking_queue: str) -> dict[str, Any]:
    """Return where messages go that RabbitMQ gives up on, through the default exchange, which cannot be unbound."""
    keys: dict[str, Any] = {"dead-letter-exchange": "", "dead-letter-routing-key": parking_queue}
    if queue.quorum:
        keys["dead-letter-strategy"] = "at-least-once"
        keys["delivery-limit"] = max(queue.delivery_limit, native_limit(policy))
    return keys


def tunables(queue: QueueSpec, policy: PolicySpec | None) -> dict[str, Any]:
    """Return what may change while the queue stands: lengths, the consumer timeout, the delays of native retry."""
    keys: dict[str, Any] = {}
    if queue.max_length is not None:
        keys["max-length"] = queue.max_length
    if queue.max_length_bytes is not None:
        keys["max-length-bytes"] = queue.max_length_bytes
    if queue.consumer_timeout_ms is not None and queue.quorum:
        keys["consumer-timeout"] = queue.consumer_timeout_ms
    if policy is not None and policy.native and policy.native_delay is not None:
        # type failed: a nack comes back at once, a reject counts and waits (facts 8.3 to 8.5); max is always written,
        # since without it there is no growth (fact 8.6)
        keys["delayed-retry-type"] = "failed"
        keys["delayed-retry-min"] = policy.native_delay.min_ms
        keys["delayed-retry-max"] = policy.native_delay.max_ms
    return keys


def native_limit(policy: PolicySpec | None) -> int:
    """Return how many deliveries native retry needs, 0 without it.

    An argument cannot be changed, and of argument and policy the smaller works (fact 11.6): the argument is no smaller
    than this, and the policy has it exactly, so that `retries` can be changed in place.
    """
    return (policy.retries or 0) + NATIVE_SPARE_DELIVERIES if policy is not None and policy.native else 0


def policy_definition(queue: QueueSpec, policy: PolicySpec | None) -> dict[str, Any]:
    """Return what a queue that we declare gets by policy."""
    keys = tunables(queue, policy)
    if limit := native_limit(policy):
        keys["delivery-limit"] = limit
    return _carried(queue) | keys


def _carried(queue: QueueSpec) -> dict[str, Any]:
    return {key: each.value for key, each in queue.carried.items()}


def tier_arguments(queue: QueueSpec, delay_ms: int) -> dict[str, Any]:
    """Return the arguments of a retry queue: it waits, then hands the message back to its work queue and to no other.

    Never x-expires, which deletes messages (fact 5.6); one hop only (fact 2.5). At-least-once, so that a work queue
    that is full or missing costs time and no message (facts 4.5, 4.8).
    """
    arguments: dict[str, Any] = {
        "x-queue-type": queue.tiers_type,
        "x-message-ttl": delay_ms,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue.name,
    }
    if queue.tiers_type == "quorum":
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    return arguments


def parking_arguments(queue_type: str) -> dict[str, Any]:
    """Return the arguments of a parking queue: nothing that could remove a message from it."""
    arguments: dict[str, Any] = {"x-queue-type": queue_type}
    if queue_type == "quorum":
        arguments["x-delivery-limit"] = PARKING_DELIVERY_LIMIT
    return arguments


def _prefixed(keys: dict[str, Any]) -> dict[str, Any]:
    return {f"x-{key}": value for key, value in keys.items()}
