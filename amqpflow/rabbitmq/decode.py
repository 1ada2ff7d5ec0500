"""The management API's JSON -> model. What does not look like RabbitMQ's answer is a ValueError."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amqpflow.model.numbers import QueueNumbers
from amqpflow.model.resources import Binding, Exchange, Policy, Queue
from amqpflow.planning.observation import Depth


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


NUMBERS = (
    "name",
    "messages",
    "messages_ready",
    "messages_unacknowledged",
    "messages_dlx",
    "messages_delayed",
    "next_delayed_at",
    "consumers",
    "messages_details.rate",
    "message_stats.publish_details.rate",
    "message_stats.deliver_get_details.rate",
)
"""The columns that `numbers` reads."""


def numbers(entry: Mapping[str, Any]) -> QueueNumbers:
    """Decode a queue's statistics. A queue that is seconds old has none yet."""
    stats = entry.get("message_stats") or {}
    counts = depth(entry)
    # what a queue has never done is not among its statistics
    never = {"rate": 0.0} if "consumers" in entry else {}  # totals have no consumers, and say nothing of rates
    return QueueNumbers(
        ready=counts.ready,
        unacked=_count(entry.get("messages_unacknowledged")),
        hidden=counts.hidden,
        retained=counts.retained,
        delayed=counts.delayed,
        next_delayed_at=_count(entry.get("next_delayed_at")),
        consumers=counts.consumers,
        publish_rate=_rate(stats.get("publish_details", never)),
        deliver_rate=_rate(stats.get("deliver_get_details", never)),
        growth=_rate(entry.get("messages_details", {})),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rate(details: Any) -> float | None:
    rate = details.get("rate") if isinstance(details, Mapping) else None
    return float(rate) if isinstance(rate, int | float) and not isinstance(rate, bool) else None


DEPTH = (
    "name",
    "messages",
    "messages_ready",
    "messages_unacknowledged",
    "messages_dlx",
    "messages_delayed",
    "message_bytes_ready",
    "consumers",
    "leader",
)
"""The columns that `depth` reads."""


def depth(entry: Mapping[str, Any]) -> Depth:
    """
    Decode a queue's counts, from its statistics or from its totals alone; each count that is missing is None.

    Totals are `messages`, `messages_ready` and `messages_unacknowledged`. They include what is retained and delayed,
    and do not tell these two apart (fact 11.26).
    """
    messages, ready = _count(entry.get("messages")), _count(entry.get("messages_ready"))
    unacked = _count(entry.get("messages_unacknowledged"))
    hidden = None if messages is None or ready is None or unacked is None else max(messages - ready - unacked, 0)
    retained, delayed = _count(entry.get("messages_dlx")), _count(entry.get("messages_delayed"))
    if retained is None and hidden == 0:
        retained = 0
    if delayed is None and hidden is not None and hidden == retained:
        delayed = 0
    return Depth(
        messages=messages,
        ready=ready,
        hidden=hidden,
        retained=retained,
        delayed=delayed,
        ready_bytes=_count(entry.get("message_bytes_ready")),
        consumers=_count(entry.get("consumers")),
        leader=str(entry.get("leader") or ""),
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
    value = entry.get(key) if isinstance(entry, dict) else None
    if kind is dict and value == []:
        return {}  # how Erlang's JSON encoders write an empty table now and then
    if not isinstance(value, kind):
        raise ValueError(f"{key} is {type(value).__name__}")
    return value
