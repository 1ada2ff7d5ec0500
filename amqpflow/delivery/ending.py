"""Why the consumer of a queue ended, in words for the log, the events and the probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from amqpflow.model.closing import CloseReason
from amqpflow.model.units import roughly

DEFAULT_TIMEOUT_MS = 30 * 60 * 1000  #: RabbitMQ's consumer timeout where nothing else is configured
_TRAVEL_MS = 100  #: the broker counts from the sending of a delivery, amqpflow from its arrival
CANCELLED = "the broker cancelled the consumer"
HeldState = Literal["waiting", "handled", "unsettled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A delivery that was not settled when its consumer ended."""

    message_id: str | None
    seconds: float  #: since it arrived
    state: HeldState  #: for a handler, in it, or its handler has ended


def channel_closed(reason: CloseReason | None, held: Sequence[Held], handler: str) -> str:
    """Say why a consumer ended whose channel was closed, while its connection stays open."""
    limit = reason.consumer_timeout_ms if reason is not None else None
    if limit is not None:
        return f"{_held_too_long(held, handler, limit)}; the broker closed the channel: {_said(reason)}"
    return f"the channel was closed: {reason or 'no reason is known'}"


def cancelled(exists: bool | None, held: Sequence[Held], handler: str, timeout_ms: int | None) -> str:
    """Say why the server cancelled a consumer: it gives no reason (fact 18.2). `exists` None: it is not known."""
    if exists is False:
        return f"{CANCELLED}: the queue was deleted"
    limit = timeout_ms or DEFAULT_TIMEOUT_MS
    if any(_reaches(each, limit) for each in held):
        return f"{CANCELLED}: {_held_too_long(held, handler, limit)}"
    unknown = "the queue is still there" if exists else "it gave no reason"
    longest = _longest(held)
    if longest is None:
        return f"{CANCELLED}: {unknown}; perhaps its leader moved to another node"
    return (
        f"{CANCELLED}: {unknown}; perhaps its leader moved to another node, or the consumer timeout of the broker is "
        f"shorter than {roughly(longest.seconds)}, for which {_whose(longest, handler)}"
    )


def _held_too_long(held: Sequence[Held], handler: str, limit_ms: int) -> str:
    longest = _longest(held)
    limit = f"longer than the consumer timeout{f' of {roughly(limit_ms / 1000)}' if limit_ms else ''}"
    if longest is None:
        return f"a message was held {limit}"
    more = sum(_reaches(each, limit_ms) for each in held) - 1 if limit_ms else 0
    others = f", and {more} more" if more > 0 else ""
    return f"{_whose(longest, handler)} for {roughly(longest.seconds)}{others}, {limit}"


def _reaches(held: Held, limit_ms: int) -> bool:
    return held.seconds * 1000 >= limit_ms - _TRAVEL_MS


def _whose(held: Held, handler: str) -> str:
    message = f"message {held.message_id}" if held.message_id else "a message without id"
    match held.state:
        case "handled":
            return f"handler {handler} held {message}"
        case "waiting":
            return f"{message} waited for handler {handler}"
        case "unsettled":
            return f"{message} could not be settled after handler {handler}"


def _longest(held: Sequence[Held]) -> Held | None:
    return max(held, key=lambda each: each.seconds, default=None)


def _said(reason: CloseReason | None) -> str:
    return f"{reason.code} {reason.reply_text.partition('. This')[0]}" if reason is not None else ""
