"""Take one delivery through its stages: receive -> admit -> handle -> decide -> settle -> report.

A delivery comes in that a slot of the handler has taken. It leaves settled, requeued, or put off; what became of it is
reported once, here or by the task or the publish that settles it later. If the process dies in between, the delivery is
unacked and comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from amqpflow.delivery.crashes import Suspicion, losses
from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Acknowledge, Circumstances, Reject, Settlement, ToParking, ToTier, decide
from amqpflow.delivery.verdict import Crashed, Decided, Verdict
from amqpflow.errors import AmqpflowError
from amqpflow.model.decompression import LARGE
from amqpflow.model.message import Delivery
from amqpflow.model.outcome import Ack
from amqpflow.services.handling.invocation import DONE, HandlerInvoker
from amqpflow.services.handling.message import Message, takes_long_to_unpack
from amqpflow.services.handling.turns import NotStarted, require_held
from amqpflow.services.handling.unpacking import Unpacker
from amqpflow.services.publishing.loop_publisher import LoopPublisher

from .circuit import CircuitBreaker
from .isolation import Isolation
from .patience import Requeued
from .pending import PendingPublish, PendingPublishes
from .session import Session
from .settler import Settler, now
from .suspects import Suspects
from .telemetry import ConsumerTelemetry

log = logging.getLogger("amqpflow.consumer")

_STOPPED = Requeued(why="the consumer was stopped")


class _Handled(NamedTuple):
    session: Session
    settler: Settler
    incoming: Incoming
    began: float  #: the loop's time in seconds
    verdict: Verdict
    at: Circumstances
    settlement: Settlement


@dataclass(kw_only=True, slots=True)
class Pipeline:
    """Processes the deliveries of one handler, over all its sessions."""

    invoker: HandlerInvoker
    isolation: Isolation
    suspects: Suspects
    breaker: CircuitBreaker
    telemetry: ConsumerTelemetry
    unpacker: Unpacker
    publisher: LoopPublisher | None  #: of what handlers publish
    max_body_bytes: int
    ordered: bool  #: messages of one key are handled in order
    stopping: asyncio.Event
    halt: Callable[[Session, Delivery, str], Awaitable[None]]  #: stops consuming the queue for good, for a reason
    clock: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)

    async def process(self, session: Session, publishes: PendingPublishes, delivery: Delivery) -> None:
        """Return once the slot is free for another delivery. This one may still wait for its confirm."""
        settler, clock = publishes.settler, self.clock
        if self.stopping.is_set():
            await self.isolation.requeue(session, settler, delivery)
            return
        # receive
        began = clock()
        incoming = Incoming(delivery, native=settler.routes.native is not None)
        if looping := settler.hot_loop(incoming, session.held_since(delivery)):
            await self.halt(session, delivery, looping)
            return
        # admit
        alone = False
        verdict: Verdict | None = None
        if incoming.may_have_been_lost and (lost := losses(incoming, settler.routes)):
            admitted = await self._admit(session, settler, incoming, lost)
            if admitted is None:
                return
            alone, verdict = admitted
        self.telemetry.received(incoming, began - session.held_since(delivery))
        if self.ordered:
            session.handling(delivery)
        settled: Settlement | Requeued | None = _STOPPED  # what to report here; None: another task or a publish does
        try:
            # handle
            if verdict is None:
                if not incoming.is_due(now()) and await self._postpone(session, publishes, incoming, began):
                    settled = None
                    return
                message = Message(
                    incoming, max_body_bytes=self.max_body_bytes, holds=session.holds, publisher=self.publisher
                )
                if len(delivery.body) > LARGE and self._unpacks and takes_long_to_unpack(message):
                    await self.unpacker.unpack(message)
                    require_held(message)
                verdict = await self.invoker.call(message)
                if verdict is not DONE or not self.breaker.over:
                    self.breaker.after(session, delivery, verdict)
                self.telemetry.handled(incoming, verdict, clock() - began)
            # decide, settle
            if isinstance(verdict, Decided) and isinstance(verdict.outcome, Ack):
                settled = settler.acknowledge(session, incoming)  # nearly every message: no circumstance matters to it
            else:
                session.unsettled(delivery)
                at = settler.circumstances(incoming)
                settlement = decide(incoming, verdict, at)
                if isinstance(settlement, Acknowledge | Reject):
                    settled = await settler.settle(session, incoming, verdict, at, first=settlement)
                else:
                    settled = None
                    self._send(publishes, _Handled(session, settler, incoming, began, verdict, at, settlement))
                    if alone or isinstance(verdict, Crashed) or not self.breaker.over or publishes.is_crowded(session):
                        await session.off_hands(delivery)  # one that cannot be settled takes up no slot
        except NotStarted as why:
            settled = Requeued(why=str(why))
            if not session.waits_again(delivery):
                await self.isolation.requeue(session, settler, delivery)
        except Exception as error:
            settled = await self._could_not(session, settler, incoming, error)
        finally:
            # report
            if self.ordered:
                session.handled(delivery)
            if settled is not None:
                self.telemetry.ended(incoming, settled, clock() - began, verdict)
            if not self.breaker.over:
                self.breaker.after(session, delivery, None)
            self.suspects.ended(incoming)
            if alone:
                self.isolation.ended(delivery)
                await session.resume(delivery)

    @property
    def _unpacks(self) -> bool:
        """Return whether to unpack a large body before the handler asks for it. A thread unpacks its own."""
        return self.ordered or self.invoker.handler.is_async

    async def _admit(
        self, session: Session, settler: Settler, incoming: Incoming, lost: int
    ) -> tuple[bool, Crashed | None] | None:
        """Return whether a delivery that was lost is handled alone, and a verdict instead of a call; None: put off."""
        delivery = incoming.delivery
        suspected = self.isolation.suspicion(session, incoming)
        if suspected is Suspicion.CRASHED:
            session.excuse_others(delivery)
            return False, Crashed(deliveries=lost)
        if suspected is Suspicion.UNCERTAIN and await self.isolation.move(session, settler, delivery):
            return None
        alone = suspected in (Suspicion.ALONE, Suspicion.UNCERTAIN)
        if alone and not await self.isolation.may_start(session, settler, delivery):
            return None
        self.suspects.starts(incoming, lost, alone=alone)
        return alone, None

    async def _postpone(self, session: Session, publishes: PendingPublishes, incoming: Incoming, began: float) -> bool:
        """Send a message that is back too early to a retry queue again; False when its handler is to see it."""
        answers: list[Settlement | Requeued | None] = []
        elsewhere = False

        async def send() -> None:
            settled: Settlement | Requeued | None = _STOPPED
            try:
                settled = await publishes.settler.postpone(session, incoming)
            except Exception as error:
                settled = await self._could_not(session, publishes.settler, incoming, error)
            finally:
                answers.append(settled)
                if settled is None and elsewhere:  # it became due while it was held, and its slot is another's
                    session.requeue(incoming.delivery)
                    settled = Requeued(why="it was held until it was due")
                if settled is not None:
                    self.telemetry.ended(incoming, settled, self.clock() - began, None)

        sending = publishes.settle(session, send())
        off_hands = asyncio.ensure_future(session.off_hands(incoming.delivery))
        try:
            await asyncio.wait((sending, off_hands), return_when=asyncio.FIRST_COMPLETED)
        finally:
            off_hands.cancel()
            elsewhere = True
        return answers != [None]

    def _send(self, publishes: PendingPublishes, handled: _Handled) -> None:
        report, otherwise = partial(self._report, handled), partial(self._settle_after, handled)
        if isinstance(handled.settlement, ToTier | ToParking):
            publishes.send(PendingPublish(handled.session, handled.incoming, handled.settlement, report, otherwise))
        else:
            publishes.settle(handled.session, otherwise(None))

    def _report(self, handled: _Handled, settled: Settlement | Requeued) -> None:
        self.telemetry.ended(handled.incoming, settled, self.clock() - handled.began, handled.verdict)

    async def _settle_after(self, handled: _Handled, failure: AmqpflowError | None) -> None:
        """Settle in another way, or later, what was not published: `failure` is why, None if it was not tried."""
        session, settler, incoming, _, verdict, at, settlement = handled
        settled: Settlement | Requeued = _STOPPED
        try:
            settled = await settler.settle(session, incoming, verdict, at, first=settlement, failure=failure)
        except Exception as error:
            settled = await self._could_not(session, settler, incoming, error)
        finally:
            self._report(handled, settled)

    async def _could_not(
        self, session: Session, settler: Settler, incoming: Incoming, error: Exception
    ) -> Settlement | Requeued:
        log.error("%s: settling a delivery failed", session.queue, exc_info=error)
        return await settler.leave_to_broker(session, incoming, f"settling it failed: {error!r}")
