"""Of an argument and a policy that set the same thing, which one works, and what works where neither does.

Measured on 3.10, 4.0 and 4.3 (facts 11.6 and 11.20 to 11.23); for the releases between, that of the nearest below.
https://www.rabbitmq.com/docs/policies#queue-arguments-vs-policies
"""

from __future__ import annotations

from typing import Any

ROUTING = ("dead-letter-exchange", "dead-letter-routing-key")
DELAYED_RETRY = ("delayed-retry-type", "delayed-retry-min", "delayed-retry-max")

SMALLER = frozenset(
    {
        "message-ttl",
        "expires",
        "max-length",
        "max-length-bytes",
        "delivery-limit",
        "consumer-timeout",
        "max-in-memory-length",
        "max-in-memory-bytes",
    }
)
"""Numbers of which the smaller works, wherever each of them comes from."""

ARGUMENT_FIRST = frozenset({*ROUTING, "dead-letter-strategy", *DELAYED_RETRY})
ARGUMENT_ONLY = frozenset({"queue-type", "max-priority", "single-active-consumer"})

CONSUMER_TIMEOUT_MS = 1_800_000  #: RabbitMQ's default, unless rabbitmq.conf says otherwise
DELIVERY_LIMIT = 20  #: quorum queues, from RabbitMQ 4.0 (fact 3.1)

_CONSUMER_TIMEOUT = (3, 12)
_NATIVE = (4, 3)
_RELEASE_4 = (4, 0)


def at_least(version: tuple[int, ...], release: tuple[int, ...]) -> bool:
    """Return whether a broker is of this release or later; one that does not say its version is taken for a new one."""
    return not version or version >= release


def argument_wins(key: str, queue_type: str) -> bool:
    """Return whether the argument works when a policy sets the key too, where the value is not a number (fact 11.6)."""
    if key == "overflow":
        return queue_type != "quorum"
    return key in ARGUMENT_FIRST


def smaller(key: str, one: Any, other: Any, version: tuple[int, ...]) -> bool:
    """Return whether `one` works instead of `other`. A number wins over any other value.

    A delivery limit below 0 is none from RabbitMQ 4 on, so that any other is smaller; before, it is the smaller one.
    """
    if not is_number(one) or not is_number(other):
        return is_number(one)
    if key == "delivery-limit" and at_least(version, _RELEASE_4) and (one < 0 or other < 0):
        return bool(one > other)
    return bool(one <= other)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def no_effect(key: str, queue_type: str, version: tuple[int, ...], *, argument: bool) -> str:
    """Return why RabbitMQ takes a setting and makes nothing of it; "" when it works."""
    dotted = ".".join(map(str, version))
    match key:
        case "consumer-timeout" if not at_least(version, _CONSUMER_TIMEOUT):
            return f"RabbitMQ {dotted} has it for a whole node only"
        case "consumer-timeout" if queue_type == "classic" and at_least(version, _NATIVE):
            return "from RabbitMQ 4.3 on only quorum queues have it"
        case "delayed-retry-type" | "delayed-retry-min" | "delayed-retry-max":
            if not at_least(version, _NATIVE):
                return f"RabbitMQ {dotted} does not know it, and ignores it"
            if queue_type != "quorum":
                return "only quorum queues have it"
        case "alternate-exchange":
            return "it is for exchanges"
        case "single-active-consumer" | "max-priority" if not argument:
            return "a policy cannot set it"
    return ""


def default(key: str, queue_type: str, version: tuple[int, ...]) -> Any:
    """Return what works when nothing sets a key; None where there is no such limit."""
    quorum = queue_type == "quorum"
    match key:
        case "overflow":
            return "drop-head"
        case "delivery-limit" if quorum and at_least(version, _RELEASE_4):
            return DELIVERY_LIMIT
        case "dead-letter-strategy" if quorum:
            return "at-most-once"
        case "consumer-timeout":
            return CONSUMER_TIMEOUT_MS
        case "max-priority" if quorum:
            # fact 12.4: strict, two classes, none
            return 31 if at_least(version, _NATIVE) else 1 if at_least(version, _RELEASE_4) else None
        case "single-active-consumer":
            return False
        case _:
            return None
