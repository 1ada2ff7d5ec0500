"""Send events to the listeners of a consumer. A kind without listeners costs a look into a dictionary."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.errors import InvalidHandlerError
from amqpflow.model.event import EVENTS, RENAMED, Event
from amqpflow.model.record import hop_id
from amqpflow.model.safe import safe
from amqpflow.services.handling.exits import ends_the_process
from amqpflow.services.handling.stack import location, message_of, type_name

from .log_limit import LogLimit

log = logging.getLogger("amqpflow.consumer")

Listener = Callable[[Any], None]


class Events:
    def __init__(self) -> None:
        self._limit = LogLimit()
        #: only kinds that have listeners: look before an event is made for every message
        self.listeners: dict[type[Event], tuple[Listener, ...]] = {}

    def subscribe(self, listener: Listener, *events: str | type[Event]) -> Callable[[], None]:
        """Call `listener` with each event of these kinds; return a function that ends that.

        Kinds are names, or classes, which stand for all below them; none stands for all.

        Raises:
            InvalidHandlerError: there is no such event, or the listener cannot be called with one, or is async.
        """
        _check(listener)
        kinds = dict.fromkeys(kind for each in events or (Event,) for kind in kinds_of(each))
        for kind in kinds:
            self.listeners[kind] = (*self.listeners.get(kind, ()), listener)

        def unsubscribe() -> None:
            for kind in kinds:
                listeners = list(self.listeners.get(kind, ()))
                if listener in listeners:
                    listeners.remove(listener)
                self.listeners[kind] = tuple(listeners)
                if not listeners:
                    del self.listeners[kind]

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Call the listeners in the order of their subscription. An exception of one is logged, and changes nothing."""
        for listener in self.listeners.get(type(event), ()):
            try:
                listener(event)
            except BaseException as error:  # a delivery would not be settled, or an outage not end
                if isinstance(error, KeyboardInterrupt | SystemExit) and ends_the_process(error):
                    raise
                self._failed(listener, event, error)

    def _failed(self, listener: Listener, event: Event, error: BaseException) -> None:
        what, place = type_name(type(error)), location(error, listener)
        at = f" ({safe(place)})" if place else ""
        if self._limit.admits((id(listener), event.name, what, place), partial(_log_more, event.name, f"{what}{at}")):
            text = ": ".join(filter(None, (what, safe(" ".join(message_of(error).split())))))
            log.error("a listener failed on %s: %s", event.name, text + at, exc_info=error)

    def end(self) -> None:
        self._limit.end()


def _log_more(event: str, what: str, count: int, seconds: float) -> None:
    log.error("a listener failed %d more times on %s within %.0fs: %s", count, event, seconds, what)


def about(incoming: Incoming) -> dict[str, Any]:
    """Return the fields that every event of a delivery has."""
    delivery, record, root = incoming.delivery, incoming.record, incoming.message_id
    return {
        "queue": delivery.queue,
        "message_id": root,
        "correlation_id": incoming.correlation_id,
        "attempt": incoming.attempts_made + 1,
        "hop": (record.hop if record else None) or (hop_id(root, 0, 0) if root else ""),
        "delivery": id(incoming),
    }


def kinds_of(event: str | type[Event]) -> tuple[type[Event], ...]:
    """Return the named kinds that a name or a class stands for. Raises InvalidHandlerError."""
    if isinstance(event, str):
        if event in RENAMED:
            text = f"the event {event} is now {RENAMED[event]}"
            warnings.warn(text, DeprecationWarning, stacklevel=5)  # where the consumer's method was called
            event = RENAMED[event]
        if event not in EVENTS:
            close = get_close_matches(event, EVENTS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(EVENTS)}"
            raise InvalidHandlerError(f"there is no event {event!r}", hint=hint)
        return (EVENTS[event],)
    if not (isinstance(event, type) and issubclass(event, Event)):
        raise InvalidHandlerError(
            f"{event!r} is neither the name of an event nor its class", hint="such as message.parked"
        )
    return tuple(kind for kind in EVENTS.values() if issubclass(kind, event))


def _check(listener: Any) -> None:
    if not callable(listener):
        raise InvalidHandlerError(f"a listener is called with an event; {listener!r} cannot be called")
    if inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(type(listener).__call__):
        raise InvalidHandlerError(
            f"the listener {listener!r} is async; listeners are called between two steps and must be quick",
            hint="let it put the event into a queue or start a task",
        )
    try:
        inspect.signature(listener).bind(object())
    except TypeError as error:
        raise InvalidHandlerError(f"the listener {listener!r} cannot be called with one event: {error}") from None
    except ValueError:
        pass  # a builtin without a signature
