"""The log of a consumer: a listener like any other. Never a body, never a header's value.

What a message or a broker wrote is neutralised in the text of a record, whichever handler prints it. The fields beside
the text are as they came, for handlers that write JSON.
"""

from __future__ import annotations

import logging
from typing import Any

from amqpflow.model import event as e
from amqpflow.model.duration import format_duration
from amqpflow.model.safe import safe

from .events import Events

log = logging.getLogger("amqpflow.consumer")

#: which fields of an event a log record bears as `extra`
FIELDS = (
    "queue",
    "message_id",
    "correlation_id",
    "attempt",
    "outcome",
    "hop",
    "error_type",
    "duration",
    "delay",
    "reason",
    "open_for",
    "down_for",
    "address",
    "purpose",
)

_LEVELS: dict[type[e.Event], int] = {
    e.MessageAcked: logging.DEBUG,
    e.MessageRetried: logging.INFO,
    e.MessageParked: logging.WARNING,
    e.MessageDiscarded: logging.INFO,
    e.MessagePostponed: logging.DEBUG,
    e.MessageGivenBack: logging.INFO,
    e.ConsumerStarted: logging.INFO,
    e.ConsumerPaused: logging.ERROR,
    e.ConsumerResumed: logging.WARNING,
    e.ConsumerStopped: logging.DEBUG,
    e.BreakerOpened: logging.ERROR,
    e.BreakerHalfOpen: logging.INFO,
    e.BreakerClosed: logging.WARNING,
    e.ConnectionLost: logging.ERROR,
    e.ConnectionRecovered: logging.WARNING,
    e.ConnectionBlocked: logging.ERROR,
    e.ConnectionUnblocked: logging.WARNING,
}


def log_events(events: Events) -> None:
    """Write what happens to the logger `amqpflow.consumer`; what its level leaves out is not even listened to."""
    kinds = [kind for kind, level in _LEVELS.items() if log.isEnabledFor(level)]
    if kinds:
        events.subscribe(write, *kinds)


def write(event: e.Event) -> None:
    """One log record for an event, its fields beside the text."""
    extra = {name: value for name in FIELDS if (value := getattr(event, name, None)) is not None}
    log.log(_level(event), "%s", safe(_text(event)), extra={"event_name": event.name, **extra})


def _level(event: e.Event) -> int:
    if isinstance(event, e.ConnectionLost) and event.purpose != "consumer":
        return logging.WARNING  # messages are handled meanwhile, and the next retry opens another
    return _LEVELS[type(event)]


def _text(event: e.Event) -> str:
    if isinstance(event, e.MessageSettled):
        detail = _detail(event)
        return f"{event.outcome} {event.message_id or 'a message without id'}{detail and ': '}{detail}"
    match event:
        case e.ConsumerStarted():
            return f"{event.queue}: consuming"
        case e.ConsumerPaused():
            return f"{event.queue}: consumer paused: {event.reason}"
        case e.ConsumerResumed():
            return f"{event.queue}: consumer resumed"
        case e.ConsumerStopped():
            return f"{event.queue}: no longer consuming: {event.reason}"
        case e.BreakerOpened():
            return f"{event.queue}: breaker open for {_seconds(event.open_for)}: {event.reason}"
        case e.BreakerHalfOpen():
            return f"{event.queue}: breaker half-open: a single message is tried"
        case e.BreakerClosed():
            return f"{event.queue}: breaker closed after {_seconds(event.open_for)}"
        case e.ConnectionLost():
            return f"the {event.purpose} connection to {event.address} was lost: {event.reason}"
        case e.ConnectionRecovered():
            return f"connected to {event.address} again ({event.purpose}) after {_seconds(event.down_for)}"
        case e.ConnectionBlocked():
            return f"{event.address} takes no publishes ({event.purpose}): {event.reason}"
        case e.ConnectionUnblocked():
            return f"{event.address} takes publishes again ({event.purpose})"
        case _:
            return event.name


def _detail(event: e.MessageSettled) -> str:
    match event:
        case e.MessageRetried():
            return f"attempt {event.attempt} failed, again in {_seconds(event.delay)}"
        case e.MessageParked():
            return f"{event.reason}: {event.detail}" if event.detail else event.reason
        case e.MessageDiscarded() | e.MessageGivenBack():
            return event.reason
        case e.MessagePostponed():
            return f"not due yet, again in {_seconds(event.delay)}"
        case _:
            return ""


def _seconds(value: Any) -> str:
    return format_duration(max(1, round(value * 1000)))
