"""The log of a consumer: a listener like any other. Never a body, never a header's value.

What a message or a broker wrote is neutralised in the text of a record, whichever handler prints it. The fields beside
the text are as they came, for handlers that write JSON.

A queue whose messages all fail would write a line for each of them: of one kind of end (an error at a line of code, or
a reason that the handler gives, in a queue) and of held messages with one reason 20 lines in 10 seconds are written,
and then how many more there were. Of a queue 10 reasons are told apart at a time. At DEBUG all lines are written.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from types import TracebackType
from typing import Any

from amqpflow.delivery.log_lines import WINDOW
from amqpflow.model import event as e
from amqpflow.model.clip import clip
from amqpflow.model.headers import ParkReason
from amqpflow.model.safe import safe
from amqpflow.model.units import format_duration, roughly
from amqpflow.services.handling.exception_groups import LEAVES_MAX, leaves
from amqpflow.services.handling.stack import users_part

from .events import Events
from .log_limit import LogLimit

log = logging.getLogger("amqpflow.consumer")

_KIND_MAX = 100  #: bytes of a reason by which lines are of one kind
_REASONS_MAX = 10  #: reasons by which lines of a queue are told apart at a time
_TEXT_MAX = 500  #: bytes of an error's text in a line

#: which fields of an event a log record has as `extra`
FIELDS = (
    "queue",
    "message_id",
    "correlation_id",
    "attempt",
    "outcome",
    "hop",
    "error_type",
    "error_message",
    "error_location",
    "duration",
    "delay",
    "reason",
    "detail",
    "count",
    "open_for",
    "down_for",
    "address",
    "purpose",
)

_LEVELS: dict[type[e.Event], int] = {
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


class EventLog:
    """Writes events to the logger `amqpflow.consumer`."""

    def __init__(self) -> None:
        self._tracebacks = False
        self._limit = LogLimit()
        #: since when, and which, reasons were given, of a kind of event and a queue
        self._reasons: dict[tuple[type[e.Event], str], tuple[float, set[str]]] = {}

    def listen(self, events: Events, *, tracebacks: bool = False) -> None:
        """
        Subscribe to what is logged; what the logger's level leaves out is not even listened to.

        Args:
            events: of the consumer.
            tracebacks: give records of failures their exception (`exc_info`) at any level. At DEBUG they have it.
        """
        self._tracebacks = tracebacks
        kinds = [kind for kind, level in _LEVELS.items() if log.isEnabledFor(level)]
        if kinds:
            events.subscribe(self.write, *kinds)

    def write(self, event: e.Event) -> None:
        """Write one log record for an event, its fields beside the text."""
        level = _level(event)
        if isinstance(event, e.MessageSettled) and level > logging.DEBUG:
            error_type: str | None = getattr(event, "error_type", None)
            location: str | None = getattr(event, "error_location", None)
            kind = type(event), event.queue, error_type, location, level, self._limited(event, _said(event))
            if not self._limit.admits(kind, partial(_tell, *kind)):
                level = logging.DEBUG
                if not log.isEnabledFor(level):
                    return
        elif isinstance(event, e.MessageHeld):
            held = event.queue, self._limited(event, clip(event.reason, _KIND_MAX)) or ""
            if not self._limit.admits((e.MessageHeld, *held), partial(_tell_held, *held)):
                level = logging.DEBUG
                if not log.isEnabledFor(level):
                    return
        extra = {name: value for name in FIELDS if (value := getattr(event, name, None)) is not None}
        extra["event_name"] = event.name
        log.log(level, "%s", safe(_text(event)), extra=extra, exc_info=self._exc_info(event))

    def _limited(self, event: e.MessageEvent, reason: str | None) -> str | None:
        """
        Return the reason by which lines are of one kind; None once too many were given at a time, as when each names
        its message.
        """
        if reason is None:
            return None
        now, of = time.monotonic(), (type(event), event.queue)
        since, reasons = self._reasons.get(of, (now, set()))
        if now - since >= WINDOW:
            since, reasons = now, set()
        if len(reasons) < _REASONS_MAX:
            reasons.add(reason)
        self._reasons[of] = since, reasons
        return reason if reason in reasons else None

    def end(self) -> None:
        """Write how many lines were left out so far."""
        self._limit.end()

    def _exc_info(self, event: e.Event) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
        error = getattr(event, "error", None)
        if error is None or not (self._tracebacks or log.isEnabledFor(logging.DEBUG)):
            return None
        if isinstance(error, BaseExceptionGroup):
            found = leaves(error)
            if len(found) == LEAVES_MAX or isinstance(found[0], BaseExceptionGroup):
                error = found[0]  # who formats a traceback looks at all of the group
            if isinstance(error, BaseExceptionGroup) and error is found[0]:
                return None
        return type(error), error, users_part(error.__traceback__)


def _tell(
    kind: type[e.MessageSettled],
    queue: str,
    error_type: str | None,
    location: str | None,
    level: int,
    said: str | None,
    count: int,
    seconds: float,
) -> None:
    """Write how many lines of this kind were left out."""
    text = _left_out_text(kind, queue, error_type or said, location, count, seconds)
    fields = {"queue": queue, "error_type": error_type, "error_location": location, "count": count}
    extra = {name: value for name, value in fields.items() if value is not None}
    log.log(level, "%s", safe(text), extra={"event_name": kind.name, "outcome": kind.outcome, **extra})


def _tell_held(queue: str, reason: str, count: int, seconds: float) -> None:
    """Write how many lines about held messages were left out."""
    text = _held_text(queue, reason, count, seconds)
    log.error("%s", safe(text), extra={"event_name": e.MessageHeld.name, "queue": queue, "count": count})


def _held_text(queue: str, reason: str, count: int, seconds: float) -> str:
    return f"{queue}: {count} more held within {_seconds(round(seconds, 1))}{f': {reason}' if reason else ''}"


def _said(event: e.MessageSettled) -> str | None:
    """
    Return what the handler itself gave as the reason, with which no exception and no line of code goes: its beginning
    tells apart what it decides for different reasons.
    """
    if getattr(event, "error_type", None) is not None:
        return None
    reason, detail = getattr(event, "reason", None), getattr(event, "detail", None)
    said = ": ".join(filter(None, (reason, detail)))
    return clip(" ".join(said.split()), _KIND_MAX) or None


def _left_out_text(
    kind: type[e.MessageSettled], queue: str, error_type: str | None, location: str | None, count: int, seconds: float
) -> str:
    what = f"{queue}: {count} more {kind.outcome} within {_seconds(round(seconds, 1))}"
    return _one_line(what, error_type, location=location)


_ENDED = (ParkReason.EXHAUSTED, ParkReason.GAVE_UP)  #: reasons that say how often it was tried


def _level(event: e.Event) -> int:
    if isinstance(event, e.ConnectionLost) and event.purpose != "consumer":
        return logging.WARNING  # messages are handled meanwhile, and the next retry opens another
    if isinstance(event, e.MessageRetried) and event.error is None:
        return logging.INFO  # the handler asked for it
    if isinstance(event, e.MessageParked) and event.reason == ParkReason.PARKED:
        return logging.WARNING  # the same
    return _LEVELS[type(event)]


def _text(event: e.Event) -> str:
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
            return f"{event.address} takes no publishes ({event.purpose}): {event.reason}"
        case e.ConnectionUnblocked():
            return f"{event.address} takes publishes again ({event.purpose})"
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
    """NameError: name 'gateway' is not defined (service.py:10)."""
    text = ": ".join(filter(None, parts))
    return f"{text} ({location})" if location else text


def _seconds(value: Any) -> str:
    return format_duration(max(1, round(value * 1000)))
