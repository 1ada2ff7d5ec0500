"""`policy` of queues: keys that amqpflow's own policy carries for a foreign policy, which it would displace.

RabbitMQ refuses what it does not know (400), passes a whole policy over for a queue whose type does not know a key of
it (fact 11.20), and takes keys that lose messages: so the check is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from amqpflow.topology.language.codes import Code
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import QueueSpec, TopologySpec
from amqpflow.topology.reading.validate import At

OWN: Mapping[str, str] = {
    "max-length": "limits: {max_length: ...}",
    "max-length-bytes": "limits: {max_length_bytes: ...}",
    "overflow": "limits: {overflow: ...}",
    "consumer-timeout": "consumer_timeout",
    "dead-letter-exchange": "parking: {queue: NAME}; on an existing queue dead_letters: keep takes it",
    "dead-letter-routing-key": "parking: {queue: NAME}; on an existing queue dead_letters: keep takes it",
    "dead-letter-strategy": "nothing: a quorum queue gets at-least-once",
    "delayed-retry-type": "a retry policy with engine: native",
    "delayed-retry-min": "a retry policy with engine: native",
    "delayed-retry-max": "a retry policy with engine: native",
}
"""Keys that amqpflow writes itself, and what to write instead."""

_BOTH = ("classic", "quorum")
KNOWN: Mapping[str, tuple[str, ...]] = {
    "message-ttl": _BOTH,
    "delivery-limit": ("quorum",),
    "queue-leader-locator": _BOTH,
    "queue-version": _BOTH,
    "max-in-memory-length": ("quorum",),
    "max-in-memory-bytes": ("quorum",),
    "target-group-size": ("quorum",),
    "consumer-disconnected-timeout": ("quorum",),
    "queue-mode": ("classic",),
    "queue-master-locator": ("classic",),
    "ha-mode": ("classic",),
    "ha-params": ("classic",),
    "ha-sync-mode": ("classic",),
    "ha-sync-batch-size": ("classic",),
    "ha-promote-on-shutdown": ("classic",),
    "ha-promote-on-failure": ("classic",),
    "consumer-timeout": ("classic",),
    "dead-letter-exchange": _BOTH,
    "dead-letter-routing-key": _BOTH,
    "dead-letter-strategy": ("quorum",),
    "federation-upstream": _BOTH,
    "federation-upstream-set": _BOTH,
}
"""What else RabbitMQ and the plugins it comes with know, and on which types."""

_NUMBERS = {
    "consumer-timeout": 0,
    "message-ttl": 0,
    "delivery-limit": 1,
    "max-in-memory-length": 0,
    "max-in-memory-bytes": 0,
}


def policy_keys(spec: TopologySpec, problems: Problems) -> None:
    """Check that RabbitMQ knows each key on that type, and that it neither repeats nor breaks what amqpflow sets."""
    for queue, key, value in _carried(spec):
        who = f"queue {queue.name}: policy"
        types = KNOWN.get(key, ())
        if key in OWN and not _theirs(queue, key):
            problems.error(Code.OWN_ARGUMENT, value.place, f"{who}: {key} is amqpflow's own", f"instead: {OWN[key]}")
        elif key == "delivery-limit" and (queue.existing or ((policy := spec.policy_of(queue)) and policy.native)):
            message = f"{who}: {key} is amqpflow's own"
            hint = "instead: delivery_limit" if queue.existing else "engine: native sets it"
            problems.error(Code.OWN_ARGUMENT, value.place, message, hint)
        elif key == "expires":
            message = f"{who}: expires deletes a queue that is not consumed, with its messages"
            problems.error(Code.LOSES_MESSAGES, value.place, message, "remove it")
        elif types and queue.type and queue.type not in types:
            message = f"{who}: because of {key} RabbitMQ would pass over the whole policy on a {queue.type} queue"
            problems.error(Code.ARGUMENT_NOT_FOR_TYPE, value.place, message, f"it is for {' and '.join(types)} queues")
        elif not types:
            near = problems.nearest(key, [*KNOWN, *OWN])
            hint = near if near.startswith("did") else "remove it"
            message = f"{who}: RabbitMQ does not know {key[:80]}, and refuses it unless a plugin does"
            problems.warning(Code.UNKNOWN_ARGUMENT, value.place, message, hint)
        elif key in _NUMBERS and (
            isinstance(value.value, bool) or not isinstance(value.value, int) or value.value < _NUMBERS[key]
        ):
            message = f"{who}: {key} is a whole number from {_NUMBERS[key]}, found {str(value.value)[:60]!r}"
            problems.error(Code.ARGUMENT_VALUE, value.place, message)


def who_writes_policies(spec: TopologySpec, problems: Problems) -> None:
    """Check that keys of policies stand with settings: policies, on queues for which amqpflow writes policies."""
    for queue in spec.queues.values():
        if queue.external and "policy" in queue.places:
            message = f"queue {queue.name} is external: its owner sets policy"
            problems.error(Code.NOT_DECLARED_HERE, queue.at("policy"), message, "remove policy")
    if spec.settings != "arguments":
        return
    if "policy_priority" in spec.places:
        message = "settings: arguments writes no policies, so policy_priority has no effect"
        problems.error(Code.CONFLICTING_KEYS, spec.at("policy_priority"), message, "remove it")
    places = {queue.at("policy"): queue for queue in spec.queues.values() if queue.carried and not queue.external}
    for place, queue in places.items():
        subject = queue.subject("policy")
        message = f"{subject}: settings: arguments writes no policies, so it cannot carry keys of foreign policies"
        problems.error(Code.CONFLICTING_KEYS, place, message, "remove policy: a foreign policy then keeps working")


def _carried(spec: TopologySpec) -> Iterator[tuple[QueueSpec, str, At]]:
    seen: set[tuple[object, str]] = set()
    for queue in spec.queues.values():
        if queue.external:
            continue
        for key, value in queue.carried.items():
            if (value.place, queue.type) not in seen:  # those of the defaults once for each type
                seen.add((value.place, queue.type))
                yield queue, key, value


def _theirs(queue: QueueSpec, key: str) -> bool:
    """Return whether a key of `OWN` is the application's; a classic queue's consumer timeout has no key of ours."""
    if key.startswith("dead-letter-"):
        return queue.existing and queue.dead_letters == "keep"
    return key == "consumer-timeout" and queue.classic


RULES = (policy_keys, who_writes_policies)
