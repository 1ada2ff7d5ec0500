"""`arguments` of queues and exchanges: only what RabbitMQ and the compiler leave to the user.

RabbitMQ refuses some arguments, checks the values of few, and silently takes and ignores every argument it does not
know (facts 7.2, 8.2): so the check is here. What each type and release takes was tried on 3.10, 4.0 and 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from amqpflow.topology.language.codes import Code
from amqpflow.topology.language.types import MAX_DELAY_MS
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import QueueSpec, TopologySpec
from amqpflow.topology.reading.validate import At

OWN: Mapping[str, str] = {
    "x-queue-type": "type: quorum or classic",
    "x-max-priority": "max_priority",
    "x-max-length": "limits: {max_length: ...}",
    "x-max-length-bytes": "limits: {max_length_bytes: ...}",
    "x-overflow": "limits: {overflow: ...}",
    "x-delivery-limit": "delivery_limit",
    "x-consumer-timeout": "consumer_timeout",
    "x-single-active-consumer": "single_active_consumer",
    "x-dead-letter-exchange": "parking: {queue: NAME}",
    "x-dead-letter-routing-key": "parking: {queue: NAME}",
    "x-dead-letter-strategy": "nothing: a quorum queue gets at-least-once",
    "x-delayed-retry-type": "a retry policy with engine: native",
    "x-delayed-retry-min": "a retry policy with engine: native",
    "x-delayed-retry-max": "a retry policy with engine: native",
}
"""Arguments that amqpflow writes itself, and the key to use instead."""
_OWN_OF_EXCHANGES = {"alternate-exchange": "alternate_exchange"}

LEGACY: Mapping[str, str] = {
    "x-ha-policy": "RabbitMQ 4.0 removed mirrored queues: use type: quorum",
    "x-cancel-on-ha-failover": "RabbitMQ 4.0 removed mirrored queues",
    "x-queue-mode": "RabbitMQ 3.12 removed lazy queues: every queue keeps its messages on disk",
    "x-queue-master-locator": "RabbitMQ 4.3 refuses it: use x-queue-leader-locator",
    "x-max-in-memory-length": "RabbitMQ 4 ignores it: quorum queues keep no message bodies in memory",
    "x-max-in-memory-bytes": "RabbitMQ 4 ignores it: quorum queues keep no message bodies in memory",
}

KNOWN: Mapping[str, tuple[str, ...]] = {
    "x-message-ttl": ("classic", "quorum"),
    "x-queue-leader-locator": ("classic", "quorum"),
    "x-queue-version": ("classic",),
    "x-quorum-initial-group-size": ("quorum",),
    "x-quorum-target-group-size": ("quorum",),
    "x-consumer-disconnected-timeout": ("quorum",),
    "x-member-placement-tag": ("quorum",),
    "x-max-age": ("stream",),
    "x-stream-max-segment-size-bytes": ("stream",),
    "x-stream-filter-size-bytes": ("stream",),
    "x-initial-cluster-size": ("stream",),
}
"""What else RabbitMQ knows, and on which types."""

_LOCATORS = ("client-local", "balanced", "least-leaders", "random", "min-masters")
_LEAST: Mapping[str, int] = {
    "x-message-ttl": 0,
    "x-quorum-initial-group-size": 1,
    "x-quorum-target-group-size": 1,
    "x-consumer-disconnected-timeout": 1,
}


def own_arguments(spec: TopologySpec, problems: Problems) -> None:
    """Refuse arguments of queues and exchanges that amqpflow writes itself."""
    written = [(f"queue {queue.name}", name, argument, OWN) for queue, name, argument in _arguments(spec)]
    for exchange in spec.exchanges.values():
        who = f"exchange {exchange.name[:80]}"
        written += [(who, name, argument, _OWN_OF_EXCHANGES) for name, argument in exchange.arguments.items()]
    for who, name, argument, own in written:
        if name in own:
            message = f"{who}: {name} is written by amqpflow"
            problems.error(Code.OWN_ARGUMENT, argument.place, message, f"instead: {own[name]}")
        elif name.startswith("x-amqpflow-"):
            message = f"{name}: arguments starting with x-amqpflow- are amqpflow's own"
            problems.error(Code.OWN_ARGUMENT, argument.place, message, "remove it")


def loses_messages(spec: TopologySpec, problems: Problems) -> None:
    """Refuse x-expires: a queue that expires takes its messages with it, without dead-lettering (fact 5.6)."""
    for queue, name, argument in _arguments(spec):
        if name == "x-expires":
            message = f"queue {queue.name}: x-expires deletes a queue that is not consumed, with its messages"
            problems.error(Code.LOSES_MESSAGES, argument.place, message, "remove it")


def legacy_arguments(spec: TopologySpec, problems: Problems) -> None:
    """Refuse arguments that RabbitMQ 4 refuses or ignores (fact 12.10)."""
    for queue, name, argument in _arguments(spec):
        if name in LEGACY:
            message = f"queue {queue.name}: {name}: {LEGACY[name]}"
            problems.error(Code.LEGACY_ARGUMENT, argument.place, message, "remove it")
        elif name == "x-queue-version" and argument.value == 1 and queue.classic:
            message = f"queue {queue.name}: RabbitMQ 4.3 refuses x-queue-version 1"
            problems.error(Code.LEGACY_ARGUMENT, argument.place, message, "remove it, or write 2")


def arguments_for_type(spec: TopologySpec, problems: Problems) -> None:
    """Refuse arguments that only another queue type knows, as RabbitMQ does (facts 3.9, 7.12)."""
    for queue, name, argument in _arguments(spec):
        types = KNOWN.get(name)
        if types is not None and queue.type and queue.type not in types:
            message = f"queue {queue.name}: RabbitMQ refuses {name} on a {queue.type} queue"
            hint = f"it is for {' and '.join(types)} queues"
            problems.error(Code.ARGUMENT_NOT_FOR_TYPE, argument.place, message, hint)


def unknown_arguments(spec: TopologySpec, problems: Problems) -> None:
    """Warn about arguments that RabbitMQ does not know: it accepts and ignores them, which hides a typo."""
    for queue, name, argument in _arguments(spec):
        known = name in OWN or name in LEGACY or name in KNOWN or name == "x-expires"
        if name.startswith("x-") and not known and not name.startswith("x-amqpflow-"):
            near = problems.nearest(name, [*OWN, *KNOWN])
            hint = near if near.startswith("did") else "remove it"
            message = f"queue {queue.name}: RabbitMQ does not know {name[:80]}, and ignores it"
            problems.warning(Code.UNKNOWN_ARGUMENT, argument.place, message, hint)


def argument_values(spec: TopologySpec, problems: Problems) -> None:
    """Check values of arguments: RabbitMQ checks some at declare, and others never (facts 3.10, 5.5)."""
    for queue, name, argument in _arguments(spec):
        if queue.type not in KNOWN.get(name, ()):
            continue
        value, wanted = argument.value, ""
        if name in _LEAST:
            if isinstance(value, bool) or not isinstance(value, int) or not _LEAST[name] <= value <= MAX_DELAY_MS:
                unit = " of milliseconds" if "group-size" not in name else ""
                wanted = f"a whole number{unit} from {_LEAST[name]} to {MAX_DELAY_MS}"
        elif name == "x-queue-leader-locator" and value not in _LOCATORS:
            wanted = "client-local or balanced"
        elif name == "x-queue-version" and value not in (1, 2):
            wanted = "2"
        elif name == "x-member-placement-tag" and not isinstance(value, str):
            wanted = "text"
        if wanted:
            message = f"queue {queue.name}: {name} is {wanted}, found {str(value)[:60]!r}"
            problems.error(Code.ARGUMENT_VALUE, argument.place, message)


def _arguments(spec: TopologySpec) -> Iterator[tuple[QueueSpec, str, At]]:
    for queue in spec.queues.values():
        for name, argument in queue.arguments.items():
            yield queue, name, argument


RULES = (own_arguments, loses_messages, legacy_arguments, arguments_for_type, unknown_arguments, argument_values)
