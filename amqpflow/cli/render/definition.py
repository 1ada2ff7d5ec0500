"""Describe queues, exchanges and policies in a few words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from amqpflow.model.resources import STAMP, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.model.units import format_duration, format_size

_MILLISECONDS = frozenset({"message-ttl", "expires", "consumer-timeout", "delayed-retry-min", "delayed-retry-max"})
_SAID_OTHERWISE = frozenset(
    {
        STAMP,
        "alternate-exchange",
        "x-queue-type",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-overflow",
        "x-delivery-limit",
    }
)


def queue_words(queue: Queue, topology: CompiledTopology) -> str:
    """Describe a queue: quorum, delivery limit 50, dead letters to orders.parking."""
    return ", ".join(_queue_words(queue, topology))


def _queue_words(queue: Queue, topology: CompiledTopology) -> Iterator[str]:
    arguments = queue.arguments
    yield queue.type
    target = arguments.get("x-dead-letter-routing-key")
    if queue.name in topology.parking_queues:
        yield "holds messages that failed for good"
    elif queue.name in topology.routes:
        if "x-delivery-limit" in arguments:
            yield f"delivery limit {arguments['x-delivery-limit']}"
        if target:
            yield f"dead letters to {target}{_at_most_once(arguments)}"
    else:
        if "x-message-ttl" in arguments:
            yield f"ttl {_value('message-ttl', arguments['x-message-ttl'])}"
        if target:
            yield f"then back to {target}{_at_most_once(arguments)}"
    if arguments.get("x-overflow", "reject-publish") != "reject-publish":
        yield f"overflow {arguments['x-overflow']}"
    yield from definition_words({key: value for key, value in arguments.items() if key not in _SAID_OTHERWISE})


def _at_most_once(arguments: Mapping[str, Any]) -> str:
    return "" if arguments.get("x-dead-letter-strategy") == "at-least-once" else " (at most once)"


def exchange_words(exchange: Exchange, topology: CompiledTopology) -> str:
    """Describe an exchange: topic, alternate exchange orders.lost."""
    words = [exchange.type]
    if exchange.name == topology.retry_exchange:
        words.append("consumers and replay publish retries through it")
    if exchange.name == topology.parking_exchange:
        words.append("consumers park through it")
    if exchange.alternate_exchange:
        words.append(f"alternate exchange {exchange.alternate_exchange}")
    words += [word for word, is_so in (("transient", not exchange.durable), ("internal", exchange.internal)) if is_so]
    words += definition_words({key: value for key, value in exchange.arguments.items() if key not in _SAID_OTHERWISE})
    return ", ".join(words)


def policy_words(policy: Policy) -> str:
    """Describe a policy: max-length 100000, consumer-timeout 30m."""
    return ", ".join(definition_words(policy.definition))


def definition_words(definition: Mapping[str, Any]) -> Iterator[str]:
    for key, value in sorted(definition.items()):
        name = key.removeprefix("x-")
        yield f"{name} {_value(name, value)}"


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if name in _MILLISECONDS and isinstance(value, int):
        return format_duration(value)
    if name.endswith("-bytes") and isinstance(value, int):
        return format_size(value)
    return str(value) if value != "" else '""'


def value_words(key: str, value: Any) -> str:
    """Write the value of an attribute: 30m, 1GiB, "7", (not set)."""
    if value is None:
        return "(not set)"
    if isinstance(value, str) and (not value or value.lstrip("-").isdigit()):
        return f'"{value}"'
    return _value(key.removeprefix("x-"), value)
