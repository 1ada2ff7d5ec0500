"""The management API's JSON -> model. What does not look like RabbitMQ's answer is a ValueError."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amqpflow.model.resources import Binding, Exchange, Policy, Queue


def exchange(entry: Mapping[str, Any]) -> Exchange:
    return Exchange(
        name=_of(entry, "name", str),
        type=_of(entry, "type", str),
        durable=_of(entry, "durable", bool),
        auto_delete=_of(entry, "auto_delete", bool),
        internal=_of(entry, "internal", bool),
        arguments=_of(entry, "arguments", dict),
    )


def queue(entry: Mapping[str, Any]) -> Queue:
    arguments = dict(_of(entry, "arguments", dict))
    kind = entry.get("type")
    if isinstance(kind, str) and kind != "classic":
        arguments.setdefault("x-queue-type", kind)
    return Queue(
        name=_of(entry, "name", str),
        durable=_of(entry, "durable", bool),
        auto_delete=_of(entry, "auto_delete", bool),
        exclusive=bool(entry.get("exclusive", False)),
        arguments=arguments,
    )


def binding(entry: Mapping[str, Any]) -> Binding:
    return Binding(
        source=_of(entry, "source", str),
        destination=_of(entry, "destination", str),
        destination_type=_of(entry, "destination_type", str),
        routing_key=_of(entry, "routing_key", str),
        arguments=_of(entry, "arguments", dict),
    )


def policy(entry: Mapping[str, Any]) -> Policy:
    return Policy(
        name=_of(entry, "name", str),
        pattern=_of(entry, "pattern", str),
        definition=_of(entry, "definition", dict),
        priority=_number(entry.get("priority", 0)),
        apply_to=str(entry.get("apply-to", "all")),
    )


def tags(entry: Mapping[str, Any]) -> frozenset[str]:
    """A user's tags: a list, or before 3.9 one string with commas."""
    found = entry.get("tags", ())
    parts: Iterable[Any] = found.split(",") if isinstance(found, str) else found
    return frozenset(str(part).strip() for part in parts if str(part).strip())


def version(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """`4.3.6-rc.1` is (4, 3, 6)."""
    numbers = []
    for part in _of(entry, "rabbitmq_version", str).partition("-")[0].partition("+")[0].split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _number(value: Any) -> Any:
    """RabbitMQ accepts a priority of 1.5 (fact 11.6b): it stays as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"priority is {type(value).__name__}")
    return value


def _of(entry: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if kind is dict and value == []:
        return {}  # how Erlang's JSON encoders write an empty table now and then
    if not isinstance(value, kind):
        raise ValueError(f"{key} is {type(value).__name__}")
    return value
