"""What another framework wrote on a message that it parked, in our words. Pure; nothing here raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from amqpflow.model.clip import MESSAGE_MAX, NAME_MAX, STACK_MAX, bounded
from amqpflow.model.message import Delivery
from amqpflow.model.record import as_int, as_text

_MOST_ATTEMPTS = 1_000_000
_LATEST_MS = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What a dialect could read; None where the message does not say."""

    dialect: str  #: which framework: spring-amqp
    queue: str | None = None  #: the queue in which it failed
    exchange: str | None = None  #: as first published, like the next
    routing_key: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_stack: str | None = None
    attempts: int = 0  #: that were made, 0 when it is not known
    failed_at: int | None = None  #: ms since the epoch
    died_of: str | None = None  #: RabbitMQ itself dead-lettered it: rejected, expired, maxlen or delivery_limit


def within_limits(foreign: Foreign) -> Foreign:
    """Return a copy with texts no longer than those of our own record, without names that no queue or key can have."""
    return replace(
        foreign,
        queue=_name(foreign.queue),
        exchange=_name(foreign.exchange),
        routing_key=_name(foreign.routing_key),
        error_type=bounded(foreign.error_type, NAME_MAX),
        error_message=bounded(foreign.error_message, MESSAGE_MAX),
        error_stack=bounded(foreign.error_stack, STACK_MAX),
        died_of=bounded(foreign.died_of, NAME_MAX),
    )


def _name(text: str | None) -> str | None:
    return text if text is None or len(text) <= NAME_MAX else None


def headers_of(delivery: Delivery) -> Mapping[str, Any]:
    """Return the headers, empty when there are none."""
    return delivery.properties.headers or {}


def text(headers: Mapping[str, Any], *names: str) -> str | None:
    """Return the first of these headers that is text and not empty."""
    for name in names:
        if found := as_text(headers.get(name)):
            return found
    return None


def table(value: Any) -> Mapping[str, Any]:
    """Return a header that is a table; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def count(value: Any) -> int | None:
    """Return a count, also when it was written as text."""
    if isinstance(value, bytes | str):
        digits = as_text(value) or ""
        value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
    whole = as_int(value)
    return whole if whole is not None and 0 <= whole <= _MOST_ATTEMPTS else None


def moment(value: Any) -> int | None:
    """Return ms since the epoch, of a time as ISO 8601, as NServiceBus writes it, as a datetime, or in ms."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if 0 < value < _LATEST_MS else None
    try:
        if isinstance(value, datetime):
            return int(value.timestamp() * 1000)
        written = as_text(value) or ""
        for form in ("%Y-%m-%d %H:%M:%S:%f Z", "%m/%d/%Y %H:%M:%S"):
            try:
                return int(datetime.strptime(written, form).replace(tzinfo=UTC).timestamp() * 1000)
            except ValueError:
                continue
        # .NET writes seven digits of a second, of which Python reads six
        whole, dot, rest = written.strip().partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        read = datetime.fromisoformat(f"{whole}{dot}{digits[:6]}{rest[len(digits) :]}" if dot else whole)
        aware = read if read.tzinfo else read.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None


def queue_in_address(address: str | None) -> str | None:
    """Return the queue in `rabbitmq://host/vhost/queue?durable=true`, in `queue@machine`, or in a plain name."""
    if not address:
        return None
    if "://" not in address:
        return address.partition("@")[0] or None
    try:
        path = urlsplit(address).path
    except ValueError:
        return None
    return unquote(path.rsplit("/", 1)[-1]) or None
