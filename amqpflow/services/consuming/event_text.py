"""Put events into words: the level and the line of each in the log, from the event alone."""

from __future__ import annotations

import logging
from typing import Any

from amqpflow.model import event as e
from amqpflow.model.clip import clip
from amqpflow.model.headers import ParkReason
from amqpflow.model.units import format_duration, roughly

KIND_MAX = 100  #: bytes of a reason by which lines are of one kind
_TEXT_MAX = 500  #: bytes of an error's text in a line

LEVELS: dict[type[e.Event], int] = {
    e.MessageAcked: logging.DEBUG,
    e.MessageRetried: logging.WARNING,
    e.MessageParked: logging.ERROR,
    e.MessageDiscarded: logging.INFO,
    e.MessagePostponed: logging.DEBUG,
    e.MessageRequeued: logging.INFO,
    e.MessageHeld: logging.ERROR,
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


def held_text(queue: str, reason: str, count: int, seconds: float) -> str:
    """Return the line that counts lines about held messages."""
    return f"{queue}: {count} more held within {_seconds(round(seconds, 1))}{f': {reason}' if reason else ''}"


def given_reason(event: e.MessageSettled) -> str | None:
    """Return the beginning of the reason that the handler gave without an exception: lines of a kind share it."""
    if getattr(event, "error_type", None) is not None:
        return None
    reason, detail = getattr(event, "reason", None), getattr(event, "detail", None)
    said = ": ".join(filter(None, (reason, detail)))
    return clip(" ".join(said.split()), KIND_MAX) or None


def left_out_text(
    kind: type[e.MessageSettled], queue: str, error_type: str | None, location: str | None, count: int, seconds: float
) -> str:
    """Return the line that counts lines about one kind of end."""
    what = f"{queue}: {count} more {kind.outcome} within {_seconds(round(seconds, 1))}"
    return _one_line(what, error_type, location=location)


_ENDED = (ParkReason.EXHAUSTED, ParkReason.GAVE_UP)  #: reasons whose text says how many attempts were made


def event_level(event: e.Event) -> int:
    if isinstance(event, e.ConnectionLost) and event.purpose != "consumer":
        return logging.WARNING  # messages are handled meanwhile, and the next retry opens another
    if isinstance(event, e.MessageRetried) and event.error is None:
        return logging.INFO  # the handler asked for it
    if isinstance(event, e.MessageParked) and event.reason == ParkReason.PARKED:
        return logging.WARNING  # the same
    return LEVELS[type(event)]


def event_text(event: e.Event) -> str:
    if isinstance(event, e.MessageSettled):
        detail = _detail(event)
        return f"{event.outcome} {event.message_id or 'a message without id'}{detail and ': '}{detail}"
    match event:
        case e.MessageHeld():
            return f"{event.queue}: held {event.message_id or 'a message without id'}: {event.reason}"
        case e.ConsumerStarted():
            waits = "; a single active consumer: it may wait until another one ends" if event.single_active else ""
            return f"{event.queue}: consuming{waits}"
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
            return f"{event.queue}: breaker closed after {roughly(event.open_for)}"
        case e.ConnectionLost():
            return f"the {event.purpose} connection to {event.address} was lost: {event.reason}"
        case e.ConnectionRecovered():
            return f"connected to {event.address} again ({event.purpose}) after {roughly(event.down_for)}"
        case e.ConnectionBlocked():
            return f"publishes to {event.address} are blocked ({event.purpose}): {event.reason}"
        case e.ConnectionUnblocked():
            return f"publishes to {event.address} are unblocked ({event.purpose})"
        case _:
            return event.name


def _detail(event: e.MessageSettled) -> str:
    match event:
        case e.MessageRetried():
            why = _why(event, event.reason) or "the handler asked for a retry"
            return f"attempt {event.attempt} failed: {why}, again in {_seconds(event.delay)}"
        case e.MessageParked():
            detail = None if event.detail == event.error_message else event.detail
            after = f" after attempt {event.attempt}" if event.reason in _ENDED else ""
            return _why(event, event.reason + after, detail)
        case e.MessageDiscarded() | e.MessageRequeued():
            return event.reason
        case e.MessagePostponed():
            return f"not due yet, again in {_seconds(event.delay)}"
        case _:
            return ""


def _why(event: e.MessageRetried | e.MessageParked, *said: str | None) -> str:
    message = " ".join((event.error_message or "").split())  # one line of the log
    return _one_line(*said, event.error_type, clip(message, _TEXT_MAX), location=event.error_location)


def _one_line(*parts: str | None, location: str | None) -> str:
    """Join the parts as in `NameError: name 'gateway' is not defined (service.py:10)`."""
    text = ": ".join(filter(None, parts))
    return f"{text} ({location})" if location else text


def _seconds(value: Any) -> str:
    return format_duration(max(1, round(value * 1000)))
