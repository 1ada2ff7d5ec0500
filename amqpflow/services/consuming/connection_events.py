"""Report alarms of the broker (connection.blocked), and lost and new connections for retries.

In: callbacks of connections. Out: events, and the problem `publishing` while the broker blocks publishes.
"""

from __future__ import annotations

import asyncio
from functools import partial

from amqpflow.model.event import ConnectionBlocked, ConnectionLost, ConnectionRecovered, ConnectionUnblocked
from amqpflow.rabbitmq.connection import Connection

from .events import Events
from .health import Cause, ConsumerHealth

RETRIES = "retries"  #: the purpose of the connection that copies are published on
_SUBJECT = "publishing"  #: what retries and parking wait for, in all queues


class ConnectionEvents:
    def __init__(self, health: ConsumerHealth, events: Events) -> None:
        self._health, self._events = health, events
        self._reasons: dict[Connection, str] = {}  # of those that are blocked now
        self._lost_at = 0.0  # the loop's time in seconds; 0.0: the connection for retries was not lost, or is new

    def listen(self, connection: Connection, purpose: str) -> None:
        """Report what happens to a new connection. `Consuming` reports the ends of the one that consumes."""
        connection.on_blocked(partial(self.blocked, connection, purpose))
        if purpose != RETRIES:
            return
        address = connection.address.redacted
        if self._lost_at:
            down_for, self._lost_at = asyncio.get_running_loop().time() - self._lost_at, 0.0
            self._events.emit(ConnectionRecovered(address=address, purpose=purpose, down_for=down_for))
        connection.on_close(partial(self._lost, connection, address))

    def _lost(self, connection: Connection, address: str) -> None:
        reason = connection.close_reason
        if reason is not None and not reason.by_us:
            self._lost_at = asyncio.get_running_loop().time()
            self._events.emit(ConnectionLost(address=address, purpose=RETRIES, reason=str(reason)))

    def blocked(self, connection: Connection, purpose: str, reason: str | None) -> None:
        """Report that the broker blocked the connection for a reason, or with None that this, or the connection, is
        over.

        The end of a blocked connection does not say that the alarm is over: there is no event then. Should it last,
        the next connection is blocked as soon as it publishes.
        """
        address = connection.address.redacted
        if reason is not None:
            why = self._reasons[connection] = f"the broker blocks publishes: {reason}"
            if self._health.problems.get(_SUBJECT) != why:
                self._health.set(_SUBJECT, Cause.ALARM, why)
                self._events.emit(ConnectionBlocked(address=address, purpose=purpose, reason=reason))
        elif self._reasons.pop(connection, None) is not None and not self._reasons:
            self._health.clear(_SUBJECT, Cause.ALARM)
            if not connection.is_closed:
                self._events.emit(ConnectionUnblocked(address=address, purpose=purpose))
