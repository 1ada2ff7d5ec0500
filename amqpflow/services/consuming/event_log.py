"""Write the log of a consumer: a listener like any other. Never a body, never a header's value.

Text from a message or a broker is neutralised in the text of a record, whichever handler prints it. The fields beside
the text are as they came, for handlers that write JSON.

A queue whose messages all fail would write a line for each of them. So 20 lines of a kind are written in 10 seconds,
and then how many more there were. A kind is an error at a line of code, a reason that the handler gave, or the reason
of held messages, in a queue. A queue has 10 reasons at a time. At DEBUG all lines are written.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from types import TracebackType

from amqpflow.delivery.log_lines import WINDOW
from amqpflow.model import event as e
from amqpflow.model.clip import clip
from amqpflow.model.safe import safe
from amqpflow.services.handling.exception_groups import LEAVES_MAX, leaves
from amqpflow.services.handling.stack import users_part

from .event_text import KIND_MAX, LEVELS, event_level, event_text, given_reason, held_text, left_out_text
from .events import Events
from .log_limit import LogLimit

log = logging.getLogger("amqpflow.consumer")

_REASONS_MAX = 10  #: reasons that are kinds of their own in a queue at a time

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


class EventLog:
    def __init__(self) -> None:
        self._tracebacks = False
        self._limit = LogLimit()
        #: since when, and which, reasons were given, of a kind of event and a queue
        self._reasons: dict[tuple[type[e.Event], str], tuple[float, set[str]]] = {}

    def listen(self, events: Events, *, tracebacks: bool = False) -> None:
        """Subscribe to the events that are logged, without those that the logger's level leaves out. `tracebacks`: give
        records of failures their exception (`exc_info`) at any level. At DEBUG they have it.
        """
        self._tracebacks = tracebacks
        kinds = [kind for kind, level in LEVELS.items() if log.isEnabledFor(level)]
        if kinds:
            events.subscribe(self.write, *kinds)

    def write(self, event: e.Event) -> None:
        level = event_level(event)
        if isinstance(event, e.MessageSettled) and level > logging.DEBUG:
            error_type: str | None = getattr(event, "error_type", None)
            location: str | None = getattr(event, "error_location", None)
            kind = type(event), event.queue, error_type, location, level, self._limited(event, given_reason(event))
            if not self._limit.admits(kind, partial(_tell, *kind)):
                level = logging.DEBUG
                if not log.isEnabledFor(level):
                    return
        elif isinstance(event, e.MessageHeld):
            held = event.queue, self._limited(event, clip(event.reason, KIND_MAX)) or ""
            if not self._limit.admits((e.MessageHeld, *held), partial(_tell_held, *held)):
                level = logging.DEBUG
                if not log.isEnabledFor(level):
                    return
        extra = {name: value for name in FIELDS if (value := getattr(event, name, None)) is not None}
        extra["event_name"] = event.name
        log.log(level, "%s", safe(event_text(event)), extra=extra, exc_info=self._exc_info(event))

    def _limited(self, event: e.MessageEvent, reason: str | None) -> str | None:
        """Return the reason that makes lines one kind; None once there are too many, as when each names its message."""
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
        self._limit.end()

    def _exc_info(self, event: e.Event) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
        error = getattr(event, "error", None)
        if error is None or not (self._tracebacks or log.isEnabledFor(logging.DEBUG)):
            return None
        if isinstance(error, BaseExceptionGroup):
            found = leaves(error)
            if len(found) == LEAVES_MAX or isinstance(found[0], BaseExceptionGroup):
                error = found[0]  # a formatted traceback would go through all of the group
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
    text = left_out_text(kind, queue, error_type or said, location, count, seconds)
    fields = {"queue": queue, "error_type": error_type, "error_location": location, "count": count}
    extra = {name: value for name, value in fields.items() if value is not None}
    log.log(level, "%s", safe(text), extra={"event_name": kind.name, "outcome": kind.outcome, **extra})


def _tell_held(queue: str, reason: str, count: int, seconds: float) -> None:
    text = held_text(queue, reason, count, seconds)
    log.error("%s", safe(text), extra={"event_name": e.MessageHeld.name, "queue": queue, "count": count})
