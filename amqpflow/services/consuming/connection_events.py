"""Which connections the broker takes no publishes from: memory and disk alarms, told by connection.blocked."""

from __future__ import annotations

from amqpflow.model.event import ConnectionBlocked, ConnectionUnblocked
from amqpflow.rabbitmq.connection import Connection

from .events import Events
from .health import Cause, ConsumerHealth

_SUBJECT = "publishing"  #: what retries and parking wait for, in all queues


class Alarms:
    """Keeps the problem `publishing`, and emits the events, of all connections of a consumer."""

    def __init__(self, health: ConsumerHealth, events: Events) -> None:
        self._health, self._events = health, events
        self._reasons: dict[Connection, str] = {}  # of those that are blocked now

    def changed(self, connection: Connection, purpose: str, reason: str | None) -> None:
        """
        Note that the broker blocked the connection for a reason, or with None that this, or the connection, is over.

        The end of a blocked connection does not say that the alarm is over: there is no event then. Should it last,
        the next connection is blocked as soon as it publishes.
        """
        address = connection.address.redacted
        if reason is not None:
            why = self._reasons[connection] = f"the broker takes no publishes: {reason}"
            if self._health.problems.get(_SUBJECT) != why:
                self._health.set(_SUBJECT, Cause.ALARM, why)
                self._events.emit(ConnectionBlocked(address=address, purpose=purpose, reason=reason))
        elif self._reasons.pop(connection, None) is not None and not self._reasons:
            self._health.clear(_SUBJECT, Cause.ALARM)
            if not connection.is_closed:
                self._events.emit(ConnectionUnblocked(address=address, purpose=purpose))
