"""RabbitMQ's own account of why it dead-lettered a message: the x-death header.

Entries are found by queue and reason and never by position, which on 3.x is no order of time (fact 1.1). On 3.x a
producer can forge the header (fact 1.6), so what it says is a claim there. Nothing here raises.
https://www.rabbitmq.com/docs/dlx#effects
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from amqpflow.model.clip import NAME_MAX
from amqpflow.model.headers import BROKER_OWNED
from amqpflow.model.record import as_int

_FIRST = "x-first-death-"
_LAST_QUEUE = "x-last-death-queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """One entry: the message left `queue` because of `reason`."""

    queue: str
    reason: str  #: rejected, expired, maxlen or delivery_limit
    count: int = 0
    exchange: str | None = None  #: to which the message was published before it got into `queue`
    routing_keys: tuple[str, ...] = ()  #: with which it was; the CC keys after the first
    at: int | None = None  #: ms since the epoch, whole seconds; the first time of this pair of queue and reason
    original_expiration: str | None = None  #: removed from the properties by the hop (fact 5.10)


def read_deaths(headers: Mapping[str, Any] | None, queues: Collection[str] | None = None) -> tuple[Death, ...]:
    """Return every entry that has a queue and a reason; only those of `queues`, when they are given."""
    entries = (headers or {}).get("x-death")
    if not isinstance(entries, list):
        return ()
    return tuple(
        [
            Death(
                queue=entry["queue"],
                reason=entry["reason"],
                count=_count(entry.get("count")),
                exchange=_text(entry.get("exchange")),
                routing_keys=_texts(entry.get("routing-keys")),
                at=_milliseconds(entry.get("time")),
                original_expiration=_text(entry.get("original-expiration")),
            )
            for entry in entries
            if isinstance(entry, Mapping)
            and (queue := _text(entry.get("queue")))
            and (queues is None or queue in queues)
            and _text(entry.get("reason"))
        ]
    )


def death_in(
    headers: Mapping[str, Any] | None, work_queues: Collection[str], *, prefer: tuple[str | None, ...] = ()
) -> Death | None:
    """Return the entry that names a work queue: RabbitMQ itself parked the message from there.

    Args:
        headers: as received.
        work_queues: those of the topology.
        prefer: which queue to take where several are named, the best first; RabbitMQ 4's own word goes before them.
    """
    found = read_deaths(headers, work_queues)
    last = _text((headers or {}).get(_LAST_QUEUE))
    for queue in (last, *prefer):
        for death in found:
            if death.queue == queue:
                return death
    return found[0] if found else None


def deaths_elsewhere(headers: Mapping[str, Any] | None, our_queues: Collection[str]) -> dict[str, Any]:
    """Return the dead-lettering headers that a handler saw before RabbitMQ parked the message: without our queues'
    deaths.

    A message may come to a work queue by way of a foreign dead-letter exchange; that part of the header is the
    producer's side of the story and belongs to the message (guarantee G4).
    """
    headers = headers or {}
    kept: dict[str, Any] = {}
    entries = headers.get("x-death")
    if isinstance(entries, list):
        foreign = [entry for entry in entries if not _is_of(entry, our_queues)]
        if foreign:
            kept["x-death"] = foreign
    elif entries is not None:
        kept["x-death"] = entries
    for start in (_FIRST, "x-last-death-"):
        queue = headers.get(f"{start}queue")
        if not (isinstance(queue, str) and queue in our_queues):
            kept.update({name: headers[name] for name in BROKER_OWNED if name.startswith(start) and name in headers})
    return kept


def _is_of(entry: Any, queues: Collection[str]) -> bool:
    queue = entry.get("queue") if isinstance(entry, Mapping) else None
    return isinstance(queue, str) and queue in queues


def _text(value: Any) -> str | None:
    """Return the value if it is a name; RabbitMQ writes none that is longer."""
    return value if isinstance(value, str) and len(value) <= NAME_MAX else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(each for each in value if _text(each) is not None) if isinstance(value, list) else ()


def _count(value: Any) -> int:
    return max(0, as_int(value) or 0)


def _milliseconds(value: Any) -> int | None:
    if not isinstance(value, datetime):
        return None
    try:
        return int(value.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None
