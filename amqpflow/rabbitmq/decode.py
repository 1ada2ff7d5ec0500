"""The management API's JSON -> model.

What others made may hold any JSON value: definitions that are imported are hardly checked (fact 17). Flags and routing
keys are kept as they are, so that nothing is taken for absent or for a value that it does not have. What cannot be kept
is `UnreadableObjectError`, which names object and key. What does not look like RabbitMQ's answer at all is another
ValueError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from amqpflow.model.queue_stats import QueueStats
from amqpflow.model.resources import Binding, Exchange, Policy, Queue
from amqpflow.planning.values.observation import Depth


class UnreadableObjectError(ValueError):
    """An object that cannot be read; `str()` names it, the key and the value."""


def exchange(entry: Mapping[str, Any]) -> Exchange:
    return Exchange(
        name=_name(entry),
        type=_of(entry, "type", str, "exchange"),
        durable=entry.get("durable"),
        auto_delete=entry.get("auto_delete"),
        internal=entry.get("internal"),
        arguments=_of(entry, "arguments", dict, "exchange"),
    )


def queue(entry: Mapping[str, Any]) -> Queue:
    name, arguments = _name(entry), dict(_of(entry, "arguments", dict, "queue"))
    kind = entry.get("type")
    if isinstance(kind, str) and kind != "classic":
        arguments.setdefault("x-queue-type", kind)
    return Queue(
        name=name,
        durable=entry.get("durable"),
        auto_delete=entry.get("auto_delete"),
        exclusive=entry.get("exclusive", False),
        arguments=arguments,
    )


def binding(entry: Mapping[str, Any]) -> Binding:
    key = entry.get("routing_key")
    return Binding(
        source=_name(entry, "source"),
        destination=_of(entry, "destination", str, "binding"),
        destination_type=_of(entry, "destination_type", str, "binding"),
        # a text that is not a routing key of ours, and that distinguishes such bindings
        routing_key=key if isinstance(key, str) else f"{_shown(key)} (not a string)",
        arguments=_of(entry, "arguments", dict, "binding"),
    )


def policy(entry: Mapping[str, Any]) -> Policy:
    """Read a policy strictly: a part of it does not tell what it does."""
    return Policy(
        name=_name(entry),
        pattern=_of(entry, "pattern", str, "policy"),
        definition=_of(entry, "definition", dict, "policy"),
        priority=_number(entry),
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
"""The columns that `queue_stats` reads."""


def queue_stats(entry: Mapping[str, Any]) -> QueueStats:
    """Decode a queue's statistics. A queue that is seconds old has none yet."""
    stats = entry.get("message_stats") or {}
    counts = depth(entry)
    # what a queue has never done is not among its statistics
    never = {"rate": 0.0} if "consumers" in entry else {}  # totals have no consumers, and no rates
    return QueueStats(
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
    "message_bytes_unacknowledged",
    "consumers",
    "leader",
)
"""The columns that `depth` reads."""


def depth(entry: Mapping[str, Any]) -> Depth:
    """Decode a queue's counts, from its statistics or from its totals alone; each count that is missing is None.

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
        unacked=unacked,
        hidden=hidden,
        retained=retained,
        delayed=delayed,
        ready_bytes=_count(entry.get("message_bytes_ready")),
        unacked_bytes=_count(entry.get("message_bytes_unacknowledged")),
        consumers=_count(entry.get("consumers")),
        leader=str(entry.get("leader") or ""),
    )


def tags(entry: Mapping[str, Any]) -> frozenset[str]:
    """Read a user's tags: a list, or before 3.9 one string with commas."""
    found = entry.get("tags", ())
    parts: Iterable[Any] = found.split(",") if isinstance(found, str) else found
    return frozenset(str(part).strip() for part in parts if str(part).strip())


def version(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Read the broker's version: `4.3.6-rc.1` is (4, 3, 6)."""
    return version_numbers(_of(entry, "rabbitmq_version", str).partition("-")[0].partition("+")[0])


def version_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a version: `4.3.6` is (4, 3, 6)."""
    return tuple(map(int, takewhile(str.isdecimal, text.split("."))))


def _number(entry: Mapping[str, Any]) -> Any:
    """Read a priority, which may be 1.5 (fact 11.6b) and stays so."""
    value = entry.get("priority", 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableObjectError(f"policy {entry['name']!r}: priority is {_shown(value)}")
    return value


def _name(entry: Mapping[str, Any], key: str = "name") -> str:
    """Return the name of an object. An answer without one is not RabbitMQ's."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise ValueError(f"{key} is {type(value).__name__}")
    return value


def _of(entry: Mapping[str, Any], key: str, kind: type[Any], thing: str = "") -> Any:
    """Return the value of a key, which must be of a type.

    Raises:
        UnreadableObjectError: it is of another kind, and a `thing` was named to say of what. Without, another
            ValueError.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if kind is dict and value == []:
        return {}  # how Erlang's JSON encoders write an empty table now and then
    if not isinstance(value, kind):
        if thing and isinstance(entry, dict):
            raise UnreadableObjectError(f"{thing} {entry.get('name', entry.get('source'))!r}: {key} is {_shown(value)}")
        raise ValueError(f"{key} is {type(value).__name__}")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
