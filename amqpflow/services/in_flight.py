"""Copies on their way to a retry or parking queue, and the deliveries that are acked once those are confirmed.

Nearly every failure is settled by one publish that is confirmed within milliseconds. No task waits for that: the ack
follows in the connection's reader, and the handler's task has gone on to the next message. What takes long, and what
is returned, refused or uncertain, is `Settler`'s, in a task of its own.

If the process dies here, the delivery is unacked: it comes again, and settling it again writes the same hop id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Settlement, ToParking, ToTier
from amqpflow.errors import AmqpflowError

from .session import Session
from .settler import CONFIRM_PATIENCE, GivenBack, Settler, wake

Told = Callable[[Settlement | GivenBack | AmqpflowError], None]
"""Told once what became of a delivery, or how its publish ended while the delivery is still ours."""


class InFlight:
    """The publishes of one settler that no task waits for."""

    def __init__(self, settler: Settler, in_background: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """
        Args:
            settler: whose they are.
            in_background: runs a coroutine as a task that ends with the consumer.
        """
        self.settler = settler
        self._in_background = in_background
        self._loop = asyncio.get_running_loop()
        self._flights: dict[_Flight, float] = {}  # when each was sent, in that order
        self._timer: asyncio.TimerHandle | None = None

    def send(self, session: Session, incoming: Incoming, settlement: ToTier | ToParking, told: Told) -> None:
        """Publish; ack once it is confirmed. `told` may be called at once."""
        flight = _Flight(self, session, incoming, settlement, told)
        self._flights[flight] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(CONFIRM_PATIENCE, self._look)
        self.settler.step("publish.before")
        self.settler.outbox.post(settlement.publish, flight.answered)

    def _look(self) -> None:
        """Is there one that the broker does not confirm? One timer looks after all of them."""
        self._timer = None
        late = self._loop.time() - CONFIRM_PATIENCE
        for flight, sent_at in list(self._flights.items()):
            if sent_at > late:
                self._timer = self._loop.call_at(sent_at + CONFIRM_PATIENCE, self._look)
                return
            del self._flights[flight]
            flight.late = self._loop.create_future()
            self._in_background(self._wait_for(flight, flight.late))

    async def _wait_for(self, flight: _Flight, answered: asyncio.Future[None]) -> None:
        """Its consumer pauses until the broker answers, or has the delivery back."""
        await self.settler.wait_for_confirm(flight.session, flight.incoming, answered)
        flight.late = None
        if answered.done() and flight.error is not None:
            self._failed(flight, flight.error)

    def landed(self, flight: _Flight, error: AmqpflowError | None) -> None:
        """The broker has answered, or the channel ended."""
        self._flights.pop(flight, None)
        late, flight.error = flight.late, error
        if error is None:
            self.settler.step("publish.confirmed")
            flight.told(self.settler.acked(flight.session, flight.incoming, flight.settlement))
        elif late is None:
            self._failed(flight, error)
        if late is not None:
            wake(late)

    def _failed(self, flight: _Flight, error: AmqpflowError) -> None:
        session = flight.session
        flight.told(error if session.holds(flight.incoming.delivery) else self.settler.lost(session))


class _Flight:
    __slots__ = ("_those", "error", "incoming", "late", "session", "settlement", "told")

    def __init__(
        self, those: InFlight, session: Session, incoming: Incoming, settlement: ToTier | ToParking, told: Told
    ) -> None:
        self._those = those
        self.session = session
        self.incoming = incoming
        self.settlement = settlement
        self.told = told
        self.error: AmqpflowError | None = None
        self.late: asyncio.Future[None] | None = None  #: a task waits for the answer by now

    def answered(self, error: AmqpflowError | None) -> None:
        self._those.landed(self, error)
